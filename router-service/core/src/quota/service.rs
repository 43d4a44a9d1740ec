//! What the quota service does with a request: whether it is one, which limits
//! apply to it, and how a store's answer is told.

use std::collections::{BTreeMap, HashMap};

use thiserror::Error;
use weir_wire::{
    ids::{PlanName, TenantId},
    proto::quota as proto,
    quota::{LEASE_ID_BYTES, LIMITS_MAX},
};

use super::{
    lease::{Answer, Ask, Closing, Granted, LeaseId, LimitState},
    limits::{CLASS_MAX_BYTES, Limit, Limits, is_class},
};
use crate::{allowance::Allowance, directory::file::File, plan::Plan};

/// The most leases that are given back with an acquire.
pub const CLOSED_MAX: usize = 64;

/// The most leases that are given back by one close.
pub const CLOSED_ALONE_MAX: usize = 512;

/// The longest epoch, in bytes.
const EPOCH_MAX_BYTES: usize = 200;

/// How long a gateway need not ask again for who is not limited, in milliseconds.
const UNLIMITED_LIFE_MS: u32 = 2_000;

/// The same where the plan is not known.
const UNKNOWN_PLAN_LIFE_MS: u32 = 1_000;

/// The same while what counted is lost.
const FENCED_LIFE_MS: u32 = 500;

/// The longest that the same holds for a limit that is reached: others may give
/// back at any moment what they did not need.
const DENIED_LIFE_MAX_MS: u64 = 1_000;

/// A field of a request is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// Its path, such as `closed[3].lease_id`.
    pub field: String,
    /// What is allowed.
    pub message: String,
}

impl Invalid {
    /// Of that field.
    #[must_use]
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// A request for a lease, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whose requests.
    pub tenant: TenantId,
    /// The plan as far as the gateway knows it.
    pub plan: Option<PlanName>,
    /// The class of the requests; empty where it is not known.
    pub class: String,
    /// The lease's name.
    pub id: LeaseId,
    /// At most so many requests, at least 1.
    pub wanted: u32,
    /// For at most so many milliseconds.
    pub life_ms: u32,
    /// The epoch that the gateway was last granted something in, if lately.
    pub epoch: String,
    /// Of the same tenant, to be closed first.
    pub closing: Vec<Closing>,
}

impl TryFrom<proto::AcquireRequest> for Wish {
    type Error = Invalid;

    /// # Errors
    /// [`Invalid`], which names the first field that is wrong.
    fn try_from(request: proto::AcquireRequest) -> Result<Self, Invalid> {
        let tenant = tenant("tenant", &request.tenant)?;
        if request.wanted == 0 {
            return Err(Invalid::new("wanted", "must be at least 1, found 0"));
        }
        let epoch_bytes = request.epoch.len();
        if epoch_bytes > EPOCH_MAX_BYTES {
            let message = format!("must be at most {EPOCH_MAX_BYTES} bytes, found {epoch_bytes}");
            return Err(Invalid::new("epoch", message));
        }
        let mut closing = Vec::with_capacity(request.closed.len());
        check_count(&request.closed, CLOSED_MAX)?;
        for (i, closed) in request.closed.iter().enumerate() {
            if !closed.tenant.is_empty() && closed.tenant != request.tenant {
                let message = "must be that of the request, or empty";
                return Err(Invalid::new(format!("closed[{i}].tenant"), message));
            }
            closing.push(checked(i, closed)?);
        }
        Ok(Self {
            tenant,
            plan: plan("plan", &request.plan)?,
            class: class("class", request.class)?,
            id: lease_id("acquire_id", &request.acquire_id)?,
            wanted: request.wanted,
            life_ms: request.life_ms,
            epoch: request.epoch,
            closing,
        })
    }
}

/// Leases that are given back, checked: each with its tenant.
///
/// # Errors
/// [`Invalid`], which names the first field that is wrong.
pub fn closing(request: &proto::CloseRequest) -> Result<Vec<(String, Closing)>, Invalid> {
    check_count(&request.closed, CLOSED_ALONE_MAX)?;
    let closed = request.closed.iter().enumerate();
    closed
        .map(|(i, closed)| {
            let tenant = tenant(&format!("closed[{i}].tenant"), &closed.tenant)?;
            Ok((tenant.into(), checked(i, closed)?))
        })
        .collect()
}

/// A tenant's name.
///
/// # Errors
/// [`Invalid`] for anything else.
pub fn tenant(field: &str, name: &str) -> Result<TenantId, Invalid> {
    TenantId::new(name).map_err(|e| Invalid::new(field, e.to_string()))
}

/// A plan's name; empty is none.
///
/// # Errors
/// [`Invalid`] for anything else.
pub fn plan(field: &str, name: &str) -> Result<Option<PlanName>, Invalid> {
    let plan = (!name.is_empty()).then(|| PlanName::new(name));
    plan.transpose()
        .map_err(|e| Invalid::new(field, e.to_string()))
}

/// A class of requests; empty is none.
///
/// # Errors
/// [`Invalid`] for anything else.
pub fn class(field: &str, name: String) -> Result<String, Invalid> {
    if is_class(&name) {
        return Ok(name);
    }
    let message = format!("must be up to {CLASS_MAX_BYTES} of a-z and _");
    Err(Invalid::new(field, message))
}

fn check_count(closed: &[proto::ClosedLease], most: usize) -> Result<(), Invalid> {
    let count = closed.len();
    if count <= most {
        return Ok(());
    }
    let message = format!("must be at most {most}, found {count}");
    Err(Invalid::new("closed", message))
}

fn checked(i: usize, closed: &proto::ClosedLease) -> Result<Closing, Invalid> {
    Ok(Closing {
        id: lease_id(&format!("closed[{i}].lease_id"), &closed.lease_id)?,
        spent: closed.spent,
        age_ms: closed.age_ms,
    })
}

fn lease_id(field: &str, bytes: &[u8]) -> Result<LeaseId, Invalid> {
    bytes.try_into().map_err(|_| {
        let found = bytes.len();
        Invalid::new(
            field,
            format!("must be {LEASE_ID_BYTES} bytes, found {found}"),
        )
    })
}

/// What the directory says of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    plan: PlanName,
    limits: Option<Limits>,
    allowance: Allowance,
}

/// The tenants that the directory lists, and the limits of its plans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tenants {
    listed: HashMap<TenantId, Listed>,
    plans: BTreeMap<PlanName, Limits>,
}

impl Tenants {
    /// Those of a file that was validated.
    #[must_use]
    pub fn of(file: &File) -> Self {
        let tenants = file.tenants.iter().map(|tenant| {
            let listed = Listed {
                plan: tenant.plan.clone(),
                limits: tenant.limits.clone(),
                allowance: tenant.allowance,
            };
            (tenant.id.clone(), listed)
        });
        Self {
            listed: tenants.collect(),
            plans: Plans::new(&file.plans).0,
        }
    }

    /// What a tenant is allowed in place of what its plan allows; `None` for one
    /// that is not listed.
    #[must_use]
    pub fn allowance(&self, tenant: &TenantId) -> Option<&Allowance> {
        self.listed.get(tenant).map(|listed| &listed.allowance)
    }
}

/// What comes of a wish before a store is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    /// A store decides.
    Ask(Ask),
    /// It is decided; what is given back is to be closed all the same.
    Settled {
        /// Why: not limited, or of no plan.
        response: proto::AcquireResponse,
        /// What is given back.
        closing: Vec<(String, Closing)>,
    },
}

/// The limits of each plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plans(BTreeMap<PlanName, Limits>);

impl Plans {
    /// Those of plans that were validated.
    #[must_use]
    pub fn new(plans: &BTreeMap<PlanName, Plan>) -> Self {
        let limits = plans
            .iter()
            .map(|(name, p)| (name.clone(), p.limits.clone()));
        Self(limits.collect())
    }

    /// Finds the limits that apply: the tenant's own where the directory has any,
    /// else those of the plan that the directory puts it on, else those of the
    /// plan that the gateway knows. `gateways` share what is free.
    #[must_use]
    pub fn resolve(&self, wish: Wish, tenants: &Tenants, gateways: u32) -> Resolved {
        let listed = tenants.listed.get(&wish.tenant);
        let own = listed.and_then(|listed| listed.limits.as_ref());
        let plan = listed.map(|listed| &listed.plan).or(wish.plan.as_ref());
        let tenant = String::from(wish.tenant);
        let settled = |outcome, life_ms, closing: Vec<Closing>| Resolved::Settled {
            response: proto::AcquireResponse {
                outcome: proto::Outcome::into(outcome),
                life_ms,
                ..Default::default()
            },
            closing: closing.into_iter().map(|c| (tenant.clone(), c)).collect(),
        };
        let Some(limits) = own.or_else(|| {
            let plan = plan?;
            self.0.get(plan).or_else(|| tenants.plans.get(plan))
        }) else {
            let outcome = proto::Outcome::UnknownPlan;
            return settled(outcome, UNKNOWN_PLAN_LIFE_MS, wish.closing);
        };
        let limits = limits.of_class(&wish.class);
        if limits.is_empty() {
            return settled(proto::Outcome::Unlimited, UNLIMITED_LIFE_MS, wish.closing);
        }
        Resolved::Ask(Ask {
            tenant,
            limits,
            id: wish.id,
            wanted: wish.wanted,
            life_ms: wish.life_ms.into(),
            gateways,
            epoch: wish.epoch,
            closing: wish.closing,
        })
    }
}

/// Tells a store's answer; `limits` are those of the [`Ask`].
#[must_use]
pub fn told(limits: &[Limit], answer: Answer) -> proto::AcquireResponse {
    let (outcome, granted, life_ms, retry_after_ms) = match answer.granted {
        Granted::Lease { requests, life_ms } => {
            (proto::Outcome::Granted, requests, saturated(life_ms), 0)
        }
        Granted::Denied { free_in_ms } => {
            let life_ms = free_in_ms.clamp(1, DENIED_LIFE_MAX_MS);
            (proto::Outcome::Denied, 0, saturated(life_ms), free_in_ms)
        }
        Granted::Fenced { until_in_ms } => (proto::Outcome::Fenced, 0, FENCED_LIFE_MS, until_in_ms),
    };
    let states = limits.iter().zip(&answer.limits);
    proto::AcquireResponse {
        outcome: outcome.into(),
        granted,
        life_ms,
        retry_after_ms,
        limits: states.take(LIMITS_MAX).map(state).collect(),
        epoch: answer.epoch,
    }
}

fn state((limit, state): (&Limit, &LimitState)) -> proto::LimitState {
    proto::LimitState {
        requests: limit.requests.get(),
        window_s: limit.window_s.get(),
        class: limit.class.clone(),
        remaining: saturated(state.remaining),
        reset_ms: state.reset_ms,
    }
}

fn saturated(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
