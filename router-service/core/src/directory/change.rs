//! What an operator may do to the directory, each a decision on the file as it is.

mod allow;
mod keys;

use thiserror::Error;
use weir_wire::{
    ids::{KeyName, PlanName, TenantId},
    key_hash::KeyHash,
    timestamp::Timestamp,
};

use super::{
    audit::{Action, Fact},
    file::{File, Tenant, TenantState},
    secret::Secret,
};
use crate::{allowance::Allowance, quota::Limits};

pub use self::allow::Allow;

/// Why a change is refused. No message holds a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// What was asked is no good in any state of the file.
    #[error("{field}: {message}")]
    Invalid {
        /// Which part of what was asked.
        field: String,
        /// What was found and what is allowed.
        message: String,
    },
    /// There is no such tenant.
    #[error("tenant: there is no {0}")]
    NoTenant(TenantId),
    /// There is no such key.
    #[error("{0}")]
    NoKey(String),
    /// What was to be new is there.
    #[error("{0}")]
    Exists(String),
    /// Not in the state that the file is in.
    #[error("{0}")]
    State(String),
    /// A key that ends is to give way to one of which nothing is said.
    #[error("expires_at: {tenant} {key} expires: say when the new key does, or that it never does")]
    EndUnsaid {
        /// Whose.
        tenant: TenantId,
        /// The old key.
        key: KeyName,
    },
}

impl ChangeError {
    fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// Which key is meant.
#[derive(Debug, Clone)]
pub enum Which {
    /// By its name within the tenant.
    Name(TenantId, KeyName),
    /// By its first characters, at least 12; of that tenant, or of any.
    Prefix(Option<TenantId>, String),
    /// By the SHA-256 of the whole key; of that tenant, or of any.
    Hash(Option<TenantId>, KeyHash),
}

/// A key that is to be made.
pub struct NewKey {
    /// Its name; the lowest of k1, k2, ... that is free, where absent.
    pub name: Option<KeyName>,
    /// When it ends; never where absent.
    pub expires_at: Option<Timestamp>,
    /// The key itself.
    pub secret: Secret,
}

/// Something that changes the file.
pub enum Change {
    /// Adds a tenant without keys.
    AddTenant {
        /// Which.
        tenant: TenantId,
        /// Its plan.
        plan: PlanName,
        /// Its limits in place of the plan's.
        limits: Option<Limits>,
    },
    /// Makes a key.
    Make {
        /// Whose.
        tenant: TenantId,
        /// Of a tenant that is added with the key.
        plan: Option<PlanName>,
        /// The key.
        key: NewKey,
    },
    /// Makes a key in the place of another one.
    Rotate {
        /// Whose.
        tenant: TenantId,
        /// The old one.
        key: KeyName,
        /// When the old one ends, if it does not end earlier.
        until: Timestamp,
        /// The key that takes its place.
        successor: NewKey,
        /// It was said to live on, whatever the old one did.
        never_expires: bool,
    },
    /// Refuses a key for good.
    Revoke(Which),
    /// Refuses all keys of a tenant.
    Suspend(TenantId),
    /// Takes them again.
    Resume(TenantId),
    /// Puts a tenant on another plan, under other limits, or both.
    Update {
        /// Which.
        tenant: TenantId,
        /// The new plan; as it is where absent.
        plan: Option<PlanName>,
        /// The new limits, in which `None` is those of the plan; as they are
        /// where absent.
        limits: Option<Option<Limits>>,
    },
    /// Allows a tenant other amounts than its plan does.
    Allow {
        /// Which.
        tenant: TenantId,
        /// What changes.
        allow: Allow,
    },
}

/// What came of it.
pub struct Done {
    /// Whose affair it was.
    pub tenant: TenantId,
    /// The key that was made or revoked.
    pub key: Option<KeyName>,
    /// What changed, for the audit log; nothing where all was so already.
    pub facts: Vec<Fact>,
    /// For people.
    pub notes: Vec<String>,
    /// The new key.
    pub secret: Option<Secret>,
}

impl Done {
    fn new(tenant: &TenantId, facts: Vec<Fact>, note: String) -> Self {
        Self {
            tenant: tenant.clone(),
            key: None,
            facts,
            notes: vec![note],
            secret: None,
        }
    }

    /// Whether the file is another now.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !self.facts.is_empty()
    }
}

impl Change {
    /// Whether it may begin a file that is not there.
    #[must_use]
    pub const fn may_begin(&self) -> bool {
        matches!(
            self,
            Self::AddTenant { .. } | Self::Make { plan: Some(_), .. }
        )
    }

    /// Makes it, at that moment. What comes of a file where it fails is not to
    /// be kept.
    ///
    /// # Errors
    /// [`ChangeError`], where the file or what is asked does not allow it.
    pub fn apply(self, file: &mut File, now: Timestamp) -> Result<Done, ChangeError> {
        match self {
            Self::AddTenant {
                tenant,
                plan,
                limits,
            } => add_tenant(file, &tenant, plan, limits),
            Self::Make { tenant, plan, key } => keys::make(file, &tenant, plan, key, now),
            Self::Rotate {
                tenant,
                key,
                until,
                successor,
                never_expires,
            } => keys::rotate(
                find(file, &tenant)?,
                &key,
                until,
                (successor, never_expires),
                now,
            ),
            Self::Revoke(which) => keys::revoke(file, &which),
            Self::Suspend(id) => set_state(file, &id, TenantState::Suspended),
            Self::Resume(id) => set_state(file, &id, TenantState::Active),
            Self::Update {
                tenant,
                plan,
                limits,
            } => update(file, &tenant, plan, limits),
            Self::Allow { tenant, allow } => allow.apply(find(file, &tenant)?),
        }
    }
}

fn find<'a>(file: &'a mut File, id: &TenantId) -> Result<&'a mut Tenant, ChangeError> {
    file.tenants
        .iter_mut()
        .find(|t| t.id == *id)
        .ok_or_else(|| ChangeError::NoTenant(id.clone()))
}

/// A plan that nobody else has may be a slip of the hand, and a router that does
/// not know it refuses the whole file.
fn note_new_plan(file: &File, plan: &PlanName, notes: &mut Vec<String>) {
    if file.tenants.iter().filter(|t| t.plan == *plan).count() == 1 {
        notes.push(format!(
            "note: no other tenant has the plan {plan}; a router that does not know it keeps serving the version before (--router checks)"
        ));
    }
}

fn check_limits(limits: Option<&Limits>) -> Result<(), ChangeError> {
    let checked = limits.map_or(Ok(()), Limits::validate);
    checked.map_err(|message| {
        let (field, message) = message.split_once(": ").unwrap_or(("limits", &message));
        ChangeError::invalid(field, message)
    })
}

fn add_tenant(
    file: &mut File,
    id: &TenantId,
    plan: PlanName,
    limits: Option<Limits>,
) -> Result<Done, ChangeError> {
    if let Some(tenant) = file.tenants.iter().find(|t| t.id == *id) {
        if tenant.plan == plan {
            let note = format!("{id} is there already, with that plan");
            return Ok(Done::new(id, Vec::new(), note));
        }
        return Err(ChangeError::Exists(format!(
            "tenant: {id} is there already, with the plan {}",
            tenant.plan
        )));
    }
    check_limits(limits.as_ref())?;
    let fact = Fact {
        plan: Some(plan.clone()),
        limits: limits.clone(),
        ..Fact::new(Action::TenantCreate, id)
    };
    file.tenants.push(Tenant {
        id: id.clone(),
        plan: plan.clone(),
        state: TenantState::Active,
        limits,
        allowance: Allowance::default(),
        keys: Vec::new(),
    });
    let note = format!("{id} is added with the plan {plan}");
    let mut done = Done::new(id, vec![fact], note);
    note_new_plan(file, &plan, &mut done.notes);
    Ok(done)
}

fn set_state(file: &mut File, id: &TenantId, state: TenantState) -> Result<Done, ChangeError> {
    let (word, action) = match state {
        TenantState::Active => ("active", Action::TenantResume),
        TenantState::Suspended => ("suspended", Action::TenantSuspend),
    };
    let tenant = find(file, id)?;
    if tenant.state == state {
        return Ok(Done::new(id, Vec::new(), format!("{id} is {word} already")));
    }
    tenant.state = state;
    let facts = vec![Fact::new(action, id)];
    Ok(Done::new(id, facts, format!("{id} is {word}")))
}

fn update(
    file: &mut File,
    id: &TenantId,
    plan: Option<PlanName>,
    limits: Option<Option<Limits>>,
) -> Result<Done, ChangeError> {
    let tenant = find(file, id)?;
    let mut done = Done::new(id, Vec::new(), String::new());
    done.notes.clear();
    if let Some(limits) = limits {
        check_limits(limits.as_ref())?;
        let what = match &limits {
            None => "the limits of its plan".to_owned(),
            Some(own) if own.all().is_empty() => "no limits".to_owned(),
            Some(own) => format!("{} limits of its own", own.all().len()),
        };
        if tenant.limits == limits {
            done.notes.push(format!("{id} has {what} already"));
        } else {
            done.notes.push(format!("{id} has {what}"));
            done.facts.push(Fact {
                limits: limits.clone(),
                ..Fact::new(Action::TenantLimits, id)
            });
            tenant.limits = limits;
        }
    }
    if let Some(plan) = plan {
        if tenant.plan == plan {
            let note = format!("{id} is on the plan {plan} already");
            done.notes.push(note);
        } else {
            done.notes.push(format!("{id} is on the plan {plan}"));
            done.facts.push(Fact {
                plan: Some(plan.clone()),
                ..Fact::new(Action::TenantPlan, id)
            });
            tenant.plan = plan.clone();
            note_new_plan(file, &plan, &mut done.notes);
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
