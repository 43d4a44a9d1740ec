//! Between what is said on the wire and the directory's own terms.

use std::{collections::BTreeSet, error::Error, num::NonZeroU32};

use tonic::Status;
use weir_router_core::{
    directory::{
        change::{Change, ChangeError, Which},
        file::{self, File, KeyState, TenantState},
    },
    quota,
};
use weir_router_store::directory::DirectoryError;
use weir_wire::{
    ids::{IdError, KeyName, PlanName, TenantId},
    key_hash::KeyHash,
    timestamp::Timestamp,
};

use super::proto::{self, revoke_key_request, update_tenant_request::LimitsChange};

fn invalid(field: &str, message: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {message}"))
}

pub fn tenant(text: &str) -> Result<TenantId, Status> {
    TenantId::new(text).map_err(|e| invalid("tenant", e))
}

pub fn key(text: &str) -> Result<KeyName, Status> {
    KeyName::new(text).map_err(|e| invalid("key", e))
}

/// A plan that the router has; it would refuse the file with another one.
pub fn plan(text: &str, known: &BTreeSet<PlanName>) -> Result<PlanName, Status> {
    let plan = PlanName::new(text).map_err(|e| invalid("plan", e))?;
    if known.is_empty() || known.contains(&plan) {
        return Ok(plan);
    }
    let known: Vec<&str> = known.iter().map(PlanName::as_str).collect();
    let message = format!("must be one of {}, found {plan}", known.join(", "));
    Err(invalid("plan", message))
}

/// A name that may be left out.
pub fn optional<'a, T>(
    text: &'a str,
    field: &str,
    read: impl FnOnce(&'a str) -> Result<T, IdError>,
) -> Result<Option<T>, Status> {
    let given = (!text.is_empty()).then_some(text);
    given
        .map(|text| read(text).map_err(|e| invalid(field, e)))
        .transpose()
}

pub fn limits(limits: proto::Limits) -> Result<quota::Limits, Status> {
    let limits = limits.limits.into_iter().enumerate().map(|(i, limit)| {
        let number = |field: &str, number: u32| {
            NonZeroU32::new(number).ok_or_else(|| {
                let field = format!("limits[{i}].{field}");
                invalid(&field, "must be at least 1, found 0")
            })
        };
        Ok(quota::Limit {
            requests: number("requests", limit.requests)?,
            window_s: number("window_s", limit.window_s)?,
            class: limit.class,
        })
    });
    limits
        .collect::<Result<Vec<_>, Status>>()
        .map(quota::Limits::new)
}

pub fn update(
    request: proto::UpdateTenantRequest,
    plans: &BTreeSet<PlanName>,
) -> Result<Change, Status> {
    let limits = match request.limits_change {
        None => None,
        Some(LimitsChange::Limits(own)) => Some(Some(limits(own)?)),
        Some(LimitsChange::LimitsOfPlan(true)) => Some(None),
        Some(LimitsChange::LimitsOfPlan(false)) => {
            return Err(invalid("limits_of_plan", "must be true, found false"));
        }
    };
    if request.plan.is_none() && limits.is_none() {
        return Err(invalid("plan", "or limits must be there, found neither"));
    }
    Ok(Change::Update {
        tenant: tenant(&request.tenant)?,
        plan: request.plan.map(|p| plan(&p, plans)).transpose()?,
        limits,
    })
}

pub fn which(request: proto::RevokeKeyRequest) -> Result<Which, Status> {
    use revoke_key_request::Which::{Key, Prefix, Sha256};
    let whose = optional(&request.tenant, "tenant", TenantId::new)?;
    match request.which {
        None => Err(invalid("key", "or prefix or sha256 must be there")),
        Some(Key(name)) => Ok(Which::Name(tenant(&request.tenant)?, key(&name)?)),
        Some(Prefix(prefix)) => Ok(Which::Prefix(whose, prefix)),
        // The parser's own message does not repeat what may be a key.
        Some(Sha256(hash)) => KeyHash::parse(&hash)
            .map(|hash| Which::Hash(whose, hash))
            .map_err(|e| invalid("sha256", e)),
    }
}

pub fn time(
    time: Option<prost_types::Timestamp>,
    field: &str,
) -> Result<Option<Timestamp>, Status> {
    let read = |time: prost_types::Timestamp| {
        let ms = u64::try_from(time.seconds).ok()?.checked_mul(1_000)?;
        let more = u64::try_from(time.nanos).ok()?.checked_div(1_000_000)?;
        Timestamp::from_ms(ms.checked_add(more)?)
    };
    let checked = |time| read(time).ok_or_else(|| invalid(field, "must be from 1970 to 9999"));
    time.map(checked).transpose()
}

/// So long after now.
pub fn after(grace: Option<prost_types::Duration>, now: Timestamp) -> Result<Timestamp, Status> {
    let grace = grace.ok_or_else(|| invalid("grace", "must be there; 0 s ends the key now"))?;
    let until = || {
        let ms = u64::try_from(grace.seconds).ok()?.checked_mul(1_000)?;
        let more = u64::try_from(grace.nanos).ok()?.checked_div(1_000_000)?;
        Timestamp::from_ms(now.ms().checked_add(ms)?.checked_add(more)?)
    };
    until().ok_or_else(|| {
        invalid(
            "grace",
            "must be 0 s or more, and end before the year 10000",
        )
    })
}

fn shown_time(time: Timestamp) -> Option<prost_types::Timestamp> {
    let nanos = time.ms().checked_rem(1_000)?.checked_mul(1_000_000)?;
    Some(prost_types::Timestamp {
        seconds: i64::try_from(time.ms().checked_div(1_000)?).ok()?,
        nanos: i32::try_from(nanos).ok()?,
    })
}

fn key_shown(key: &file::Key, now: Timestamp) -> proto::Key {
    let state = match (key.state, key.expires_at) {
        (KeyState::Revoked, _) => proto::KeyState::Revoked,
        (KeyState::Active, Some(end)) if end <= now => proto::KeyState::Expired,
        (KeyState::Active, _) => proto::KeyState::Active,
    };
    proto::Key {
        key: key.id.to_string(),
        prefix: key.prefix.clone().unwrap_or_default(),
        state: state.into(),
        created_at: key.created_at.and_then(shown_time),
        expires_at: key.expires_at.and_then(shown_time),
    }
}

pub fn tenant_shown(tenant: &file::Tenant, version: u64, now: Timestamp) -> proto::Tenant {
    let state = match tenant.state {
        TenantState::Active => proto::TenantState::Active,
        TenantState::Suspended => proto::TenantState::Suspended,
    };
    let limit = |limit: &quota::Limit| proto::Limit {
        requests: limit.requests.get(),
        window_s: limit.window_s.get(),
        class: limit.class.clone(),
    };
    proto::Tenant {
        tenant: tenant.id.to_string(),
        plan: tenant.plan.to_string(),
        state: state.into(),
        limits: tenant.limits.as_ref().map(|limits| proto::Limits {
            limits: limits.all().iter().map(limit).collect(),
        }),
        keys: tenant.keys.iter().map(|key| key_shown(key, now)).collect(),
        directory_version: version,
    }
}

fn find<'a>(file: &'a File, id: &TenantId) -> Result<&'a file::Tenant, Status> {
    let found = file.tenants.iter().find(|tenant| tenant.id == *id);
    found.ok_or_else(|| Status::not_found(format!("tenant: there is no {id}")))
}

pub fn tenant_of(file: &File, id: &TenantId, now: Timestamp) -> Result<proto::Tenant, Status> {
    Ok(tenant_shown(find(file, id)?, file.version, now))
}

pub fn key_of(
    file: &File,
    id: &TenantId,
    name: &KeyName,
    now: Timestamp,
) -> Result<proto::Key, Status> {
    let key = find(file, id)?.keys.iter().find(|key| key.id == *name);
    key.map(|key| key_shown(key, now))
        .ok_or_else(|| Status::not_found(format!("key: {id} has no {name}")))
}

/// The code of an error; what only an operator of the router can mend is logged.
pub fn status(error: DirectoryError) -> Status {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(why) = source {
        message = format!("{message}: {why}");
        source = why.source();
    }
    match error {
        DirectoryError::Change(change) => match change {
            ChangeError::Invalid { .. } => Status::invalid_argument(message),
            ChangeError::NoTenant(_) | ChangeError::NoKey(_) => Status::not_found(message),
            ChangeError::Exists(_) => Status::already_exists(message),
            ChangeError::State(_) | ChangeError::EndUnsaid { .. } => {
                Status::failed_precondition(message)
            }
        },
        DirectoryError::Invalid { .. } | DirectoryError::Full(_) => {
            Status::failed_precondition(message)
        }
        DirectoryError::Io { .. } | DirectoryError::Random => {
            tracing::error!("the directory was not changed or read: {message}");
            Status::internal(message)
        }
    }
}
