//! What each command does to the directory.

use anyhow::{Context as _, bail, ensure};
use weir_router_core::directory::file::{File, Key, KeyState, Tenant, TenantState};
use weir_wire::{
    ids::{KeyName, PlanName, TenantId},
    key_hash::KeyHash,
    timestamp::Timestamp,
};

use crate::secret::Secret;

/// The least characters of a key that name it: the mark of all keys is eight.
const PREFIX_MIN: usize = 12;

/// Which key is meant.
#[derive(clap::Args)]
pub struct Which {
    /// Whose; needed with --key.
    #[arg(long, value_parser = crate::tenant)]
    tenant: Option<TenantId>,
    #[command(flatten)]
    by: By,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct By {
    /// By its name.
    #[arg(long, requires = "tenant", value_parser = crate::name)]
    key: Option<KeyName>,
    /// By its first characters, as list shows them; at least 12.
    #[arg(long)]
    prefix: Option<String>,
    /// By the SHA-256 of the whole key.
    #[arg(long, value_parser = KeyHash::parse)]
    sha256: Option<KeyHash>,
}

/// A command that changes the file.
pub enum Change {
    Make {
        tenant: TenantId,
        plan: Option<PlanName>,
        name: Option<KeyName>,
        expires_at: Option<Timestamp>,
    },
    Rotate {
        tenant: TenantId,
        key: KeyName,
        until: Timestamp,
        successor: Successor,
    },
    Revoke(Which),
    Suspend(TenantId),
    Resume(TenantId),
    Plan {
        tenant: TenantId,
        plan: PlanName,
    },
    AddTenant {
        tenant: TenantId,
        plan: PlanName,
    },
}

/// The key that takes another's place.
pub struct Successor {
    pub name: Option<KeyName>,
    pub expires_at: Option<Timestamp>,
    /// It was said to live on, whatever the old one did.
    pub never_expires: bool,
}

/// What came of it.
#[derive(Default)]
pub struct Done {
    /// Whether the file is another now.
    pub changed: bool,
    /// For people.
    pub notes: Vec<String>,
    /// The new key.
    pub key: Option<Secret>,
}

impl Done {
    fn changed(note: String) -> Self {
        Self {
            changed: true,
            notes: vec![note],
            key: None,
        }
    }

    fn same(note: String) -> Self {
        Self {
            changed: false,
            notes: vec![note],
            key: None,
        }
    }
}

impl Change {
    /// Whether it may begin a file that is not there.
    pub const fn may_begin(&self) -> bool {
        matches!(
            self,
            Self::AddTenant { .. } | Self::Make { plan: Some(_), .. }
        )
    }

    /// Makes it.
    pub fn apply(self, file: &mut File, now: Timestamp) -> anyhow::Result<Done> {
        match self {
            Self::Make {
                tenant,
                plan,
                name,
                expires_at,
            } => make(file, &tenant, plan, name, expires_at, now),
            Self::Rotate {
                tenant,
                key,
                until,
                successor,
            } => rotate(file, (&tenant, &key), until, successor, now),
            Self::Revoke(which) => revoke(file, &which),
            Self::Suspend(id) => set_state(file, &id, TenantState::Suspended, "suspended"),
            Self::Resume(id) => set_state(file, &id, TenantState::Active, "active"),
            Self::Plan { tenant, plan } => set_plan(file, &tenant, plan),
            Self::AddTenant { tenant, plan } => add_tenant(file, &tenant, plan),
        }
    }
}

fn find<'a>(file: &'a mut File, id: &TenantId) -> anyhow::Result<&'a mut Tenant> {
    file.tenants
        .iter_mut()
        .find(|t| t.id == *id)
        .with_context(|| format!("tenant: there is no {id}"))
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

fn add_tenant(file: &mut File, id: &TenantId, plan: PlanName) -> anyhow::Result<Done> {
    if let Some(tenant) = file.tenants.iter().find(|t| t.id == *id) {
        ensure!(
            tenant.plan == plan,
            "tenant: {id} is there already, with the plan {}",
            tenant.plan
        );
        return Ok(Done::same(format!("{id} is there already, with that plan")));
    }
    file.tenants.push(Tenant {
        id: id.clone(),
        plan: plan.clone(),
        state: TenantState::Active,
        limits: None,
        keys: Vec::new(),
    });
    let mut done = Done::changed(format!("{id} is added with the plan {plan}"));
    note_new_plan(file, &plan, &mut done.notes);
    Ok(done)
}

fn make(
    file: &mut File,
    id: &TenantId,
    plan: Option<PlanName>,
    name: Option<KeyName>,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> anyhow::Result<Done> {
    let is_there = file.tenants.iter().any(|t| t.id == *id);
    let mut notes = match (is_there, plan) {
        (true, None) => Vec::new(),
        (true, Some(_)) => bail!("plan: {id} is there already; the command plan changes its plan"),
        (false, None) => bail!("tenant: there is no {id}; --plan adds it"),
        (false, Some(plan)) => add_tenant(file, id, plan)?.notes,
    };
    let tenant = find(file, id)?;
    if tenant.state == TenantState::Suspended {
        notes.push(format!(
            "note: {id} is suspended; its keys are refused until it is resumed"
        ));
    }
    let (note, key) = add_key(tenant, name, expires_at, now)?;
    notes.push(note);
    Ok(Done {
        changed: true,
        notes,
        key: Some(key),
    })
}

fn add_key(
    tenant: &mut Tenant,
    name: Option<KeyName>,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> anyhow::Result<(String, Secret)> {
    if let Some(end) = expires_at {
        ensure!(
            end > now,
            "expires-at: must be after now, {now}, found {end}"
        );
    }
    let name = match name {
        Some(name) => {
            ensure!(
                !tenant.keys.iter().any(|key| key.id == name),
                "name: {} has a key {name} already",
                tenant.id
            );
            name
        }
        None => free_name(tenant)?,
    };
    let key = Secret::make()?;
    let ends = expires_at.map_or_else(
        || "does not expire".to_owned(),
        |end| format!("expires {end}"),
    );
    let note = format!(
        "{} {name} ({}...) is made and {ends}",
        tenant.id,
        key.prefix()
    );
    tenant.keys.push(Key {
        id: name,
        prefix: Some(key.prefix()),
        sha256: key.hash(),
        state: KeyState::Active,
        created_at: Some(now),
        expires_at,
    });
    Ok((note, key))
}

/// The lowest of k1, k2, ... that no key of the tenant has, or had.
fn free_name(tenant: &Tenant) -> anyhow::Result<KeyName> {
    (1_u64..)
        .map(|n| format!("k{n}"))
        .find(|name| !tenant.keys.iter().any(|key| key.id.as_str() == name))
        .context("name: none is free")
        .and_then(|name| Ok(KeyName::new(name)?))
}

fn rotate(
    file: &mut File,
    (id, name): (&TenantId, &KeyName),
    until: Timestamp,
    successor: Successor,
    now: Timestamp,
) -> anyhow::Result<Done> {
    let Successor {
        name: new,
        expires_at,
        never_expires,
    } = successor;
    let tenant = find(file, id)?;
    let old = tenant
        .keys
        .iter_mut()
        .find(|key| key.id == *name)
        .with_context(|| format!("key: {id} has no {name}"))?;
    ensure!(
        old.state == KeyState::Active,
        "key: {id} {name} is revoked; make makes a new one"
    );
    ensure!(
        old.expires_at.is_none_or(|end| end > now),
        "key: {id} {name} has expired; make makes a new one"
    );
    // A key that was to end gives way to an endless one only where that is said.
    ensure!(
        old.expires_at.is_none() || expires_at.is_some() || never_expires,
        "expires-in: {id} {name} expires: say when the new key does, or --never-expires"
    );
    // A key never gets longer to live by being replaced.
    let end = old.expires_at.map_or(until, |end| end.min(until));
    old.expires_at = Some(end);
    let (note, key) = add_key(tenant, new, expires_at, now)?;
    Ok(Done {
        changed: true,
        notes: vec![note, format!("{id} {name} expires {end}")],
        key: Some(key),
    })
}

fn revoke(file: &mut File, which: &Which) -> anyhow::Result<Done> {
    if let Some(prefix) = &which.by.prefix {
        ensure!(
            prefix.len() >= PREFIX_MIN,
            "prefix: must be at least {PREFIX_MIN} characters, found {}",
            prefix.len()
        );
    }
    if let Some(id) = &which.tenant {
        find(file, id)?;
    }
    let is_meant = |key: &Key| {
        let by = &which.by;
        by.key.as_ref().is_some_and(|name| key.id == *name)
            || by.sha256.is_some_and(|hash| key.sha256 == hash)
            || by.prefix.as_ref().is_some_and(|prefix| {
                key.prefix
                    .as_ref()
                    .is_some_and(|kept| kept.starts_with(prefix))
            })
    };
    let mut meant: Vec<(&TenantId, &mut Key)> = file
        .tenants
        .iter_mut()
        .filter(|t| which.tenant.as_ref().is_none_or(|id| t.id == *id))
        .flat_map(|t| {
            let id = &t.id;
            t.keys.iter_mut().map(move |key| (id, key))
        })
        .filter(|(_, key)| is_meant(key))
        .collect();
    let names: Vec<String> = meant
        .iter()
        .map(|(id, key)| format!("{id} {}", key.id))
        .collect();
    match meant.as_mut_slice() {
        [] => bail!("there is no such key"),
        [(_, key)] if key.state == KeyState::Revoked => Ok(Done::same(format!(
            "{} is revoked already",
            names.join(", ")
        ))),
        [(_, key)] => {
            key.state = KeyState::Revoked;
            Ok(Done::changed(format!("{} is revoked", names.join(", "))))
        }
        _ => bail!(
            "prefix: must be of one key, found that of {}",
            names.join(", ")
        ),
    }
}

fn set_state(
    file: &mut File,
    id: &TenantId,
    state: TenantState,
    word: &str,
) -> anyhow::Result<Done> {
    let tenant = find(file, id)?;
    if tenant.state == state {
        return Ok(Done::same(format!("{id} is {word} already")));
    }
    tenant.state = state;
    Ok(Done::changed(format!("{id} is {word}")))
}

fn set_plan(file: &mut File, id: &TenantId, plan: PlanName) -> anyhow::Result<Done> {
    let tenant = find(file, id)?;
    if tenant.plan == plan {
        return Ok(Done::same(format!("{id} is on the plan {plan} already")));
    }
    tenant.plan = plan.clone();
    let mut done = Done::changed(format!("{id} is on the plan {plan}"));
    note_new_plan(file, &plan, &mut done.notes);
    Ok(done)
}
