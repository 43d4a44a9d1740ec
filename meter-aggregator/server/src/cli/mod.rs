//! The command line.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use serde_json::Value;

mod events;
mod status;

use crate::{config, replay, service};

/// Turns usage events into Stripe meter events that add up.
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
    /// Summarise and send what the running aggregator has now, not waiting for
    /// the hour to end.
    CloseHour {
        #[command(flatten)]
        admin: Admin,
        /// Close once nothing has come for so long.
        #[arg(long, default_value_t = 1_000)]
        quiet_ms: u64,
    },
    /// Say what the running aggregator has, and what of it Stripe has.
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
    /// Bring in the events that stand in logs, by the running aggregator or, where none
    /// runs, into its data folder. What is known already is not billed twice.
    Replay {
        /// The aggregator's configuration.
        #[arg(long)]
        config: PathBuf,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Logs of any kind; `-` is the standard input.
        #[arg(required = true)]
        files: Vec<String>,
    },
}

#[derive(clap::Args)]
struct Admin {
    /// The configuration of the running aggregator.
    #[arg(long)]
    config: PathBuf,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run { config, ready_file } => {
            service::run(config::load(&config)?, ready_file.as_deref()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::CloseHour { admin, quiet_ms } => {
            let query = [("quiet_ms", quiet_ms.to_string())];
            let answer = ask(&admin, reqwest::Method::POST, "close-hour", &query).await?;
            status::show(&answer, admin.json)
        }
        Command::Status { admin } => {
            let answer = ask(&admin, reqwest::Method::GET, "status", &[]).await?;
            status::show(&answer, admin.json)
        }
        Command::Events { admin, wanted } => {
            let query = wanted.query(weir_process::now_ms())?;
            let answer = ask(&admin, reqwest::Method::GET, "events", &query).await?;
            events::show(&answer, admin.json)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Replay {
            config,
            json,
            files,
        } => {
            let replayed = replay::run(config::load_for_replay(&config)?, &files).await?;
            let is_whole = replayed.quarantined == 0 && replayed.torn == 0;
            print(&match json {
                true => format!("{:#}\n", serde_json::to_value(replayed)?),
                false => format!(
                    "lines: {}, events: {}, accepted: {}, quarantined: {}, torn: {}\n",
                    replayed.lines,
                    replayed.events,
                    replayed.accepted,
                    replayed.quarantined,
                    replayed.torn
                ),
            })?;
            Ok(if is_whole {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

/// Prints; that nobody reads on is no fault, such as with `| head`.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot print")
        }
        _ => Ok(()),
    }
}

/// Asks the aggregator that runs on the config's data folder.
async fn ask(
    admin: &Admin,
    method: reqwest::Method,
    what: &str,
    query: &[(&str, String)],
) -> anyhow::Result<Value> {
    let file = config::read(&admin.config)?;
    let address = running_address(&file.data_dir)?;
    let token = weir_process::secret(config::ADMIN_ENVIRONMENT)?;
    let mut url = reqwest::Url::parse(&format!("http://{address}/admin/{what}"))?;
    url.query_pairs_mut().extend_pairs(query);
    let response = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(150))
        .build()?
        .request(method, url)
        .bearer_auth(token)
        .send()
        .await
        .with_context(|| format!("no aggregator answers at {address}"))?;
    let status = response.status();
    if !status.is_success() {
        bail!(
            "the aggregator answered {status}: {}",
            response.text().await?.trim()
        );
    }
    Ok(response.json().await?)
}

fn running_address(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join(service::ADDRESS_FILE);
    std::fs::read_to_string(&path)
        .with_context(|| format!("no aggregator has run on {}", data_dir.display()))
}
