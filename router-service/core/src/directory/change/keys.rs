//! Changes of one key.

use weir_wire::{
    ids::{KeyName, PlanName, TenantId},
    timestamp::Timestamp,
};

use super::{ChangeError, Done, NewKey, Which, add_tenant, find};
use crate::directory::{
    audit::{Action, Fact},
    file::{File, Key, KeyState, Tenant, TenantState},
};

/// The least characters of a key that name it: the mark of all keys is eight.
const PREFIX_MIN: usize = 12;

pub fn make(
    file: &mut File,
    id: &TenantId,
    plan: Option<PlanName>,
    key: NewKey,
    now: Timestamp,
) -> Result<Done, ChangeError> {
    let is_there = file.tenants.iter().any(|t| t.id == *id);
    let added = match (is_there, plan) {
        (true, None) => None,
        (true, Some(_)) => {
            return Err(ChangeError::Exists(format!(
                "plan: {id} is there already; the command plan changes its plan"
            )));
        }
        (false, None) => return Err(ChangeError::NoTenant(id.clone())),
        (false, Some(plan)) => Some(add_tenant(file, id, plan, None)?),
    };
    let tenant = find(file, id)?;
    let (mut facts, mut notes) = added.map(|d| (d.facts, d.notes)).unwrap_or_default();
    if tenant.state == TenantState::Suspended {
        notes.push(format!(
            "note: {id} is suspended; its keys are refused until it is resumed"
        ));
    }
    let mut done = add(tenant, key, Action::KeyMake, now)?;
    facts.append(&mut done.facts);
    notes.append(&mut done.notes);
    Ok(Done {
        facts,
        notes,
        ..done
    })
}

fn add(
    tenant: &mut Tenant,
    key: NewKey,
    action: Action,
    now: Timestamp,
) -> Result<Done, ChangeError> {
    let NewKey {
        name,
        expires_at,
        secret,
    } = key;
    if let Some(end) = expires_at.filter(|end| *end <= now) {
        return Err(ChangeError::invalid(
            "expires_at",
            format!("must be after now, {now}, found {end}"),
        ));
    }
    let name = match name {
        Some(name) if tenant.keys.iter().any(|key| key.id == name) => {
            return Err(ChangeError::Exists(format!(
                "name: {} has a key {name} already",
                tenant.id
            )));
        }
        Some(name) => name,
        None => free_name(tenant)?,
    };
    let ends = expires_at.map_or_else(
        || "does not expire".to_owned(),
        |end| format!("expires {end}"),
    );
    let prefix = secret.prefix();
    let note = format!("{} {name} ({prefix}...) is made and {ends}", tenant.id);
    let fact = Fact {
        key: Some(name.clone()),
        prefix: Some(prefix.clone()),
        ..Fact::new(action, &tenant.id)
    };
    tenant.keys.push(Key {
        id: name.clone(),
        prefix: Some(prefix),
        sha256: secret.hash(),
        state: KeyState::Active,
        created_at: Some(now),
        expires_at,
    });
    Ok(Done {
        key: Some(name),
        secret: Some(secret),
        ..Done::new(&tenant.id, vec![fact], note)
    })
}

/// The lowest of k1, k2, ... that no key of the tenant has, or had.
fn free_name(tenant: &Tenant) -> Result<KeyName, ChangeError> {
    (1_u64..)
        .map(|n| format!("k{n}"))
        .find(|name| !tenant.keys.iter().any(|key| key.id.as_str() == name))
        .and_then(|name| KeyName::new(name).ok())
        .ok_or_else(|| ChangeError::State("name: none is free".to_owned()))
}

pub fn rotate(
    tenant: &mut Tenant,
    name: &KeyName,
    until: Timestamp,
    (successor, never_expires): (NewKey, bool),
    now: Timestamp,
) -> Result<Done, ChangeError> {
    let id = tenant.id.clone();
    let old = tenant
        .keys
        .iter_mut()
        .find(|key| key.id == *name)
        .ok_or_else(|| ChangeError::NoKey(format!("key: {id} has no {name}")))?;
    let over = match (old.state, old.expires_at) {
        (KeyState::Revoked, _) => Some("is revoked"),
        (KeyState::Active, Some(end)) if end <= now => Some("has expired"),
        (KeyState::Active, _) => None,
    };
    if let Some(over) = over {
        return Err(ChangeError::State(format!(
            "key: {id} {name} {over}; make makes a new one"
        )));
    }
    // A key that was to end gives way to an endless one only where that is said.
    if old.expires_at.is_some() && successor.expires_at.is_none() && !never_expires {
        return Err(ChangeError::EndUnsaid {
            tenant: id,
            key: name.clone(),
        });
    }
    // A key never gets longer to live by being replaced.
    let end = old.expires_at.map_or(until, |end| end.min(until));
    old.expires_at = Some(end);
    let mut done = add(tenant, successor, Action::KeyRotate, now)?;
    for fact in &mut done.facts {
        fact.replaces = Some(name.clone());
    }
    done.notes.push(format!("{id} {name} expires {end}"));
    Ok(done)
}

impl Which {
    fn check(&self) -> Result<(), ChangeError> {
        match self {
            Self::Prefix(_, prefix) if prefix.len() < PREFIX_MIN => Err(ChangeError::invalid(
                "prefix",
                format!(
                    "must be at least {PREFIX_MIN} characters, found {}",
                    prefix.len()
                ),
            )),
            _ => Ok(()),
        }
    }

    const fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Name(id, _) => Some(id),
            Self::Prefix(id, _) | Self::Hash(id, _) => id.as_ref(),
        }
    }

    fn means(&self, key: &Key) -> bool {
        match self {
            Self::Name(_, name) => key.id == *name,
            Self::Prefix(_, prefix) => {
                let kept = key.prefix.as_ref();
                kept.is_some_and(|kept| kept.starts_with(prefix))
            }
            Self::Hash(_, hash) => key.sha256 == *hash,
        }
    }
}

pub fn revoke(file: &mut File, which: &Which) -> Result<Done, ChangeError> {
    which.check()?;
    if let Some(id) = which.tenant() {
        find(file, id)?;
    }
    let mut meant: Vec<(&TenantId, &mut Key)> = file
        .tenants
        .iter_mut()
        .filter(|t| which.tenant().is_none_or(|id| t.id == *id))
        .flat_map(|t| {
            let id = &t.id;
            t.keys.iter_mut().map(move |key| (id, key))
        })
        .filter(|(_, key)| which.means(key))
        .collect();
    let names: Vec<String> = meant
        .iter()
        .map(|(id, key)| format!("{id} {}", key.id))
        .collect();
    let names = names.join(", ");
    match meant.as_mut_slice() {
        [] => Err(ChangeError::NoKey("there is no such key".to_owned())),
        [(id, key)] => {
            let (facts, note) = if key.state == KeyState::Revoked {
                (Vec::new(), format!("{names} is revoked already"))
            } else {
                key.state = KeyState::Revoked;
                let fact = Fact {
                    key: Some(key.id.clone()),
                    prefix: key.prefix.clone(),
                    ..Fact::new(Action::KeyRevoke, id)
                };
                (vec![fact], format!("{names} is revoked"))
            };
            Ok(Done {
                key: Some(key.id.clone()),
                ..Done::new(id, facts, note)
            })
        }
        _ => Err(ChangeError::invalid(
            "prefix",
            format!("must be of one key, found that of {names}"),
        )),
    }
}
