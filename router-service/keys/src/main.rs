//! weir-keys: makes, rotates and revokes tenants' API keys in the directory's
//! file, which the router serves to gateways.

mod command;
mod limit;
mod list;
mod span;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::Parser;
use nix::unistd::{User, getuid};
use serde::{Deserialize, de::IgnoredAny};
use weir_router_core::directory::{
    audit::Actor,
    change::{Change, ChangeError},
};
use weir_router_store::directory::{DirectoryError, DirectoryFile};
use weir_wire::{ids::PlanName, timestamp::Timestamp};

use crate::command::Command;

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
    /// Where changes are logged, JSON lines; `<file>.audit.jsonl` where absent. A
    /// change that cannot be logged is refused.
    #[arg(long)]
    audit: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

/// What weir-keys reads of the router's configuration.
#[derive(Deserialize)]
struct Router {
    plans: BTreeMap<PlanName, IgnoredAny>,
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
    let plans = plans(arguments.router.as_deref())?;
    let directory = DirectoryFile::new(&arguments.file, arguments.audit.as_deref(), plans);
    let change = match arguments.command {
        Command::List { tenant, json } => {
            let text = list::show(&directory.read()?, tenant.as_ref(), json, now)?;
            return Ok(io::stdout().write_all(text.as_bytes())?);
        }
        Command::Check => {
            let summary = list::summary(&directory.read()?, now);
            return Ok(writeln!(io::stdout(), "{summary}")?);
        }
        other => other.change(now)?,
    };
    let is_make = matches!(change, Change::Make { .. });
    let done = directory
        .change(change, &actor()?, now)
        .map_err(|error| told(error, is_make))?
        .done;
    for line in &done.notes {
        eprintln!("{line}");
    }
    if let Some(key) = done.secret {
        // The file knows its hash only: where this fails, nobody has the key.
        writeln!(io::stdout(), "{}", key.reveal())
            .and_then(|()| io::stdout().flush())
            .context("the key was made but could not be shown: revoke it")?;
    }
    Ok(())
}

/// An error in terms of this command line.
fn told(error: DirectoryError, is_make: bool) -> anyhow::Error {
    match error {
        DirectoryError::Change(ChangeError::Invalid { field, message }) => {
            anyhow::anyhow!("{}: {message}", field.replace('_', "-"))
        }
        DirectoryError::Change(ChangeError::EndUnsaid { tenant, key }) => anyhow::anyhow!(
            "expires-in: {tenant} {key} expires: say when the new key does, or --never-expires"
        ),
        DirectoryError::Change(error @ ChangeError::NoTenant(_)) if is_make => {
            anyhow::anyhow!("{error}; --plan adds it")
        }
        error => error.into(),
    }
}

fn plans(router: Option<&Path>) -> anyhow::Result<BTreeSet<PlanName>> {
    let Some(router) = router else {
        return Ok(BTreeSet::new());
    };
    let text = fs::read_to_string(router)
        .with_context(|| format!("{}: cannot be read", router.display()))?;
    let router: Router =
        serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", router.display()))?;
    Ok(router.plans.into_keys().collect())
}

/// The user that runs this, by name where the machine knows one. Not by the
/// environment, which says what the user wants it to.
fn actor() -> anyhow::Result<Actor> {
    let id = getuid();
    let user = User::from_uid(id).ok().flatten();
    let name = user.map_or_else(|| id.to_string(), |user| user.name);
    Ok(Actor::cli(&name)?)
}

fn now() -> anyhow::Result<Timestamp> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .and_then(Timestamp::from_ms)
        .context("the machine's clock is before 1970 or after 9999")
}
