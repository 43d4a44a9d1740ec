//! The commands, and what each asks of the directory.

mod allow;

use clap::Subcommand;
use weir_router_core::{
    directory::change::{Change, NewKey, Which},
    quota::Limits,
};
use weir_router_store::directory::new_secret;
use weir_wire::{
    ids::{IdError, KeyName, PlanName, TenantId},
    key_hash::KeyHash,
    timestamp::Timestamp,
};

use self::allow::Amounts;
use crate::{limit::LimitArgument, span::Span};

#[derive(Subcommand)]
pub enum Command {
    /// Make a key; it is printed once, alone on standard output. It never expires
    /// where nothing says when.
    Make {
        #[arg(long, value_parser = tenant)]
        tenant: TenantId,
        /// Of a new tenant, which is added with it.
        #[arg(long, value_parser = plan)]
        plan: Option<PlanName>,
        /// The key's name within the tenant; the next free k1, k2, ... where absent.
        #[arg(long, value_parser = name)]
        name: Option<KeyName>,
        #[command(flatten)]
        expiry: Expiry,
    },
    /// Show tenants and their keys.
    List {
        /// Of one tenant.
        #[arg(long, value_parser = tenant)]
        tenant: Option<TenantId>,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Make a new key, printed as by make, and let the old one end.
    Rotate {
        #[arg(long, value_parser = tenant)]
        tenant: TenantId,
        /// The old key's name.
        #[arg(long, value_parser = name)]
        key: KeyName,
        /// How long the old key goes on, such as 24h; 0s ends it now.
        #[arg(long)]
        grace: Span,
        /// The new key's name; the next free k1, k2, ... where absent.
        #[arg(long, value_parser = name)]
        name: Option<KeyName>,
        #[command(flatten)]
        expiry: Expiry,
        /// Let the new key live on although the old one expires.
        #[arg(long, conflicts_with_all = ["expires_in", "expires_at"])]
        never_expires: bool,
    },
    /// Refuse a key for good. Says so where it was revoked before.
    Revoke(KeyArguments),
    /// Refuse all keys of a tenant, until it is resumed.
    Suspend {
        #[arg(long, value_parser = tenant)]
        tenant: TenantId,
    },
    /// Take a suspended tenant's keys again.
    Resume {
        #[arg(long, value_parser = tenant)]
        tenant: TenantId,
    },
    /// Put a tenant on another plan.
    Plan {
        #[arg(long, value_parser = tenant)]
        tenant: TenantId,
        #[arg(long, value_parser = plan)]
        plan: PlanName,
    },
    /// Give a tenant limits in place of its plan's, or its plan's again.
    Limits {
        #[arg(long, value_parser = tenant)]
        tenant: TenantId,
        #[command(flatten)]
        limits: LimitsArguments,
    },
    /// Allow a tenant other amounts than its plan does, or its plan's again; what is
    /// not named stays.
    Allow {
        #[arg(long, value_parser = tenant)]
        tenant: TenantId,
        #[command(flatten)]
        amounts: Amounts,
    },
    /// Add a tenant without keys; makes the file where there is none.
    AddTenant {
        #[arg(long, value_parser = tenant)]
        tenant: TenantId,
        #[arg(long, value_parser = plan)]
        plan: PlanName,
    },
    /// Say whether the file is valid.
    Check,
}

/// When a new key ends.
#[derive(clap::Args)]
pub struct Expiry {
    /// When it ends from now on, such as 90d, 24h, 30m.
    #[arg(long, conflicts_with = "expires_at")]
    expires_in: Option<Span>,
    /// When it ends, RFC 3339.
    #[arg(long, value_parser = Timestamp::parse)]
    expires_at: Option<Timestamp>,
}

impl Expiry {
    fn after(self, now: Timestamp) -> anyhow::Result<Option<Timestamp>> {
        match self.expires_in {
            Some(span) => span.after(now).map(Some),
            None => Ok(self.expires_at),
        }
    }
}

/// Which key is meant.
#[derive(clap::Args)]
pub struct KeyArguments {
    /// Whose; needed with --key.
    #[arg(long, value_parser = tenant)]
    tenant: Option<TenantId>,
    #[command(flatten)]
    by: By,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct By {
    /// By its name.
    #[arg(long, requires = "tenant", value_parser = name)]
    key: Option<KeyName>,
    /// By its first characters, as list shows them; at least 12.
    #[arg(long)]
    prefix: Option<String>,
    /// By the SHA-256 of the whole key.
    #[arg(long, value_parser = KeyHash::parse)]
    sha256: Option<KeyHash>,
}

impl KeyArguments {
    fn which(self) -> anyhow::Result<Which> {
        let Self { tenant, by } = self;
        match (tenant, by.key, by.prefix, by.sha256) {
            (Some(tenant), Some(key), ..) => Ok(Which::Name(tenant, key)),
            (tenant, _, Some(prefix), _) => Ok(Which::Prefix(tenant, prefix)),
            (tenant, _, _, Some(hash)) => Ok(Which::Hash(tenant, hash)),
            // Cannot be: the arguments were checked.
            _ => anyhow::bail!("key: say which"),
        }
    }
}

/// What a tenant is limited by.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub struct LimitsArguments {
    /// At most so many requests in any stretch of time that long, of a class or of
    /// all: 500/60s, 5/1s/chat. May come several times.
    #[arg(long = "limit")]
    limits: Vec<LimitArgument>,
    /// No limits at all.
    #[arg(long)]
    unlimited: bool,
    /// Those of its plan.
    #[arg(long)]
    of_plan: bool,
}

impl LimitsArguments {
    fn limits(self) -> Option<Limits> {
        let own = self.limits.into_iter().map(|LimitArgument(limit)| limit);
        (!self.of_plan).then(|| Limits::new(own.collect()))
    }
}

fn tenant(text: &str) -> Result<TenantId, IdError> {
    TenantId::new(text)
}

fn plan(text: &str) -> Result<PlanName, IdError> {
    PlanName::new(text)
}

fn name(text: &str) -> Result<KeyName, IdError> {
    KeyName::new(text)
}

impl Command {
    /// What it asks; a new key is made here.
    pub fn change(self, now: Timestamp) -> anyhow::Result<Change> {
        let key = |name, expiry: Expiry| {
            anyhow::Ok(NewKey {
                name,
                expires_at: expiry.after(now)?,
                secret: new_secret()?,
            })
        };
        Ok(match self {
            Self::Make {
                tenant,
                plan,
                name,
                expiry,
            } => Change::Make {
                tenant,
                plan,
                key: key(name, expiry)?,
            },
            Self::Rotate {
                tenant,
                key: old,
                grace,
                name,
                expiry,
                never_expires,
            } => Change::Rotate {
                tenant,
                key: old,
                until: grace.after(now)?,
                successor: key(name, expiry)?,
                never_expires,
            },
            Self::Revoke(which) => Change::Revoke(which.which()?),
            Self::Suspend { tenant } => Change::Suspend(tenant),
            Self::Resume { tenant } => Change::Resume(tenant),
            Self::Plan { tenant, plan } => Change::Update {
                tenant,
                plan: Some(plan),
                limits: None,
            },
            Self::Limits { tenant, limits } => Change::Update {
                tenant,
                plan: None,
                limits: Some(limits.limits()),
            },
            Self::Allow { tenant, amounts } => Change::Allow {
                tenant,
                allow: amounts.allow()?,
            },
            Self::AddTenant { tenant, plan } => Change::AddTenant {
                tenant,
                plan,
                limits: None,
            },
            Self::List { .. } | Self::Check => anyhow::bail!("changes nothing"),
        })
    }
}
