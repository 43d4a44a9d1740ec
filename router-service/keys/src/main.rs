//! weir-keys: makes, rotates and revokes tenants' API keys in the directory's
//! file, which the router serves to gateways.

mod change;
mod list;
mod secret;
mod span;
mod store;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use weir_wire::ids::{KeyName, PlanName, TenantId};
use weir_wire::timestamp::Timestamp;

use crate::{
    change::{Change, Successor},
    span::Span,
    store::Store,
};

/// Makes, rotates and revokes tenants' API keys in the directory's file. Several
/// at once wait for each other.
#[derive(Parser)]
struct Arguments {
    /// The directory's file, YAML.
    #[arg(long)]
    file: PathBuf,
    /// The router's configuration: refuses a plan that it does not have.
    #[arg(long)]
    router: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
    Revoke(change::Which),
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
struct Expiry {
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

fn tenant(text: &str) -> Result<TenantId, weir_wire::ids::IdError> {
    TenantId::new(text)
}

fn plan(text: &str) -> Result<PlanName, weir_wire::ids::IdError> {
    PlanName::new(text)
}

fn name(text: &str) -> Result<KeyName, weir_wire::ids::IdError> {
    KeyName::new(text)
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let now = now()?;
    let store = Store::new(&arguments.file, arguments.router.as_deref())?;
    let change = match arguments.command {
        Command::List { tenant, json } => {
            let text = list::show(&store.read()?, tenant.as_ref(), json, now)?;
            return Ok(io::stdout().write_all(text.as_bytes())?);
        }
        Command::Check => {
            return Ok(writeln!(
                io::stdout(),
                "{}",
                list::summary(&store.read()?, now)
            )?);
        }
        Command::Make {
            tenant,
            plan,
            name,
            expiry,
        } => Change::Make {
            tenant,
            plan,
            name,
            expires_at: expiry.after(now)?,
        },
        Command::Rotate {
            tenant,
            key,
            grace,
            name,
            expiry,
            never_expires,
        } => Change::Rotate {
            tenant,
            key,
            until: grace.after(now)?,
            successor: Successor {
                name,
                expires_at: expiry.after(now)?,
                never_expires,
            },
        },
        Command::Revoke(which) => Change::Revoke(which),
        Command::Suspend { tenant } => Change::Suspend(tenant),
        Command::Resume { tenant } => Change::Resume(tenant),
        Command::Plan { tenant, plan } => Change::Plan { tenant, plan },
        Command::AddTenant { tenant, plan } => Change::AddTenant { tenant, plan },
    };
    let done = store.change(change.may_begin(), |file| change.apply(file, now))?;
    for line in &done.notes {
        eprintln!("{line}");
    }
    if let Some(key) = done.key {
        // The file knows its hash only: where this fails, nobody has the key.
        writeln!(io::stdout(), "{}", key.reveal())
            .and_then(|()| io::stdout().flush())
            .context("the key was made but could not be shown: revoke it")?;
    }
    Ok(())
}

fn now() -> anyhow::Result<Timestamp> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .and_then(Timestamp::from_ms)
        .context("the machine's clock is before 1970 or after 9999")
}
