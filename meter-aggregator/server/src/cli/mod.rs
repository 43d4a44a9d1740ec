//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

mod backfill;
mod copy;
mod differences;
mod events;
mod intents;
mod progress;
mod quarantine;
mod replay;
mod status;
mod table;

use crate::{
    config::{self, For},
    operations::{CloseHour, Operation, Refused, Status},
    reach::Reach,
    service,
};

/// Turns usage events into Stripe meter events that add up.
///
/// Every command but `run` asks the aggregator that runs on the configuration's data
/// folder or, where none runs, works on the folder itself. It ends with 0 where all is
/// well, with 1 where it is not, and with 2 where the command is wrong.
#[derive(Parser)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take usage, book it, and send every hour's summary to Stripe.
    Run {
        /// The configuration, YAML.
        #[arg(long)]
        config: PathBuf,
        /// Where to write the address that is listened on, once it is.
        #[arg(long)]
        ready_file: Option<PathBuf>,
    },
    /// Summarise and send what there is now, not waiting for the hour to end.
    CloseHour {
        #[command(flatten)]
        admin: Admin,
        /// Close once nothing has come for so long.
        #[arg(long, default_value_t = 1_000)]
        quiet_ms: u64,
    },
    /// Say what was used, and what of it Stripe has.
    Status {
        #[command(flatten)]
        admin: Admin,
    },
    /// Show single requests as the ledger has them, the newest first.
    Events {
        #[command(flatten)]
        admin: Admin,
        #[command(flatten)]
        wanted: events::Wanted,
    },
    /// What could not be booked.
    #[command(subcommand)]
    Quarantine(quarantine::Quarantine),
    /// What Stripe is to have: one meter event for each revision of an hour.
    #[command(subcommand)]
    Intents(intents::Intents),
    /// Changes of hours that are final, which wait for your word.
    #[command(subcommand)]
    Adjustments(intents::Adjustments),
    /// Ask Stripe's sums now what it counted.
    Reconcile(differences::ReconcileArguments),
    /// List what does not fit, the newest first.
    Discrepancies(differences::DiscrepanciesArguments),
    /// Walk a line of an invoice back to its requests, and check the journal's chain.
    Prove(differences::ProveArguments),
    /// Bring in the events that stand in logs, as their producers signed them. What is
    /// known already is not billed twice.
    Replay(replay::Arguments),
    /// Copy the ledger of the data folder to Postgres, and check the copy. Broken off, it
    /// goes on where it was.
    CopyLedger(copy::Arguments),
    /// Bring in events by your own authority: CloudEvents, a line each. What is known
    /// already is not billed twice.
    Backfill(backfill::Arguments),
}

#[derive(Debug, clap::Args)]
struct Admin {
    /// The aggregator's configuration.
    #[arg(long)]
    config: PathBuf,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// A command that can't be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

/// What a failed command exits with: 2 for a wrong command, as clap does.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_usage =
        error.is::<Usage>() || matches!(error.downcast_ref::<Refused>(), Some(Refused::Wrong(_)));
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// Performs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run { config, ready_file } => {
            let settings = config::load(&config, For::Service)?;
            service::run(settings, ready_file.as_deref()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::CloseHour { admin, quiet_ms } => {
            let reach = Reach::open(&admin.config).await?;
            reach.needs_stripe()?;
            // Nothing comes where nobody listens.
            let quiet_ms = match &reach {
                Reach::Running(_) => quiet_ms,
                Reach::Offline { .. } => 0,
            };
            let bar = progress::waiting("waiting for quiet, and for Stripe");
            let close = Operation::CloseHour(CloseHour { quiet_ms });
            let answer = reach.perform(close).await?;
            bar.finish_and_clear();
            status::show(&answer, admin.json)
        }
        Command::Status { admin } => {
            let reach = Reach::open(&admin.config).await?;
            let answer = reach.perform(Operation::Status(Status::default())).await?;
            status::show(&answer, admin.json)
        }
        Command::Events { admin, wanted } => {
            let events = wanted.events(weir_process::now_ms())?;
            let reach = Reach::open(&admin.config).await?;
            let answer = reach.perform(Operation::Events(events)).await?;
            table::show(&answer, admin.json, events::table)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Quarantine(command) => quarantine::run(command).await,
        Command::Intents(command) => intents::intents(command).await,
        Command::Adjustments(command) => intents::adjustments(command).await,
        Command::Reconcile(arguments) => differences::reconcile(arguments).await,
        Command::Discrepancies(arguments) => differences::discrepancies(arguments).await,
        Command::Prove(arguments) => differences::prove(arguments).await,
        Command::Replay(arguments) => replay::run(arguments).await,
        Command::Backfill(arguments) => backfill::run(arguments).await,
        Command::CopyLedger(arguments) => copy::run(arguments).await,
    }
}
