//! The command line.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use serde_json::Value;

use crate::{config, service};

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
            let what = format!("close-hour?quiet_ms={quiet_ms}");
            show(
                &ask(&admin, reqwest::Method::POST, &what).await?,
                admin.json,
            )
        }
        Command::Status { admin } => show(
            &ask(&admin, reqwest::Method::GET, "status").await?,
            admin.json,
        ),
    }
}

/// Asks the aggregator that runs on the config's data folder.
async fn ask(admin: &Admin, method: reqwest::Method, what: &str) -> anyhow::Result<Value> {
    let file = config::read(&admin.config)?;
    let address = running_address(&file.data_dir)?;
    let token = weir_process::secret(config::ADMIN_ENVIRONMENT)?;
    let response = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(150))
        .build()?
        .request(method, format!("http://{address}/admin/{what}"))
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

/// Prints the status; fails where Stripe does not have everything.
fn show(status: &Value, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        println!("{status:#}");
    } else {
        print_table(status);
    }
    let lines = status["lines"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let whole = lines.iter().all(|l| l["total"] == l["accepted"]);
    if let Some(problem) = status["problem"].as_str() {
        eprintln!("{problem}");
    }
    Ok(if whole && status["problem"].is_null() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print_table(status: &Value) {
    println!(
        "{:<20} {:<15} {:<20} {:>14} {:>14}",
        "TENANT", "METER", "HOUR (UTC)", "USED", "AT STRIPE"
    );
    for line in status["lines"].as_array().into_iter().flatten() {
        println!(
            "{:<20} {:<15} {:<20} {:>14} {:>14}",
            line["tenant"].as_str().unwrap_or_default(),
            line["meter"].as_str().unwrap_or_default(),
            hour_text(line["hour_start_s"].as_i64().unwrap_or(0)),
            line["total"].to_string(),
            line["accepted"].to_string()
        );
    }
    println!(
        "open intents: {}, quarantined events: {}, conflicts: {}",
        status["open"], status["quarantined"], status["conflicts"]
    );
    for intent in status["stuck"].as_array().into_iter().flatten() {
        println!(
            "{} {} {}: {}; what comes after it waits: {}",
            intent["tenant"].as_str().unwrap_or_default(),
            intent["meter"].as_str().unwrap_or_default(),
            hour_text(intent["hour_start_s"].as_i64().unwrap_or(0)),
            intent["state"].as_str().unwrap_or_default(),
            intent["reason"]
                .as_str()
                .unwrap_or("Stripe did not answer for 20 hours")
        );
    }
    for tenant in status["without_customer"].as_array().into_iter().flatten() {
        println!(
            "tenants.{}.stripe_customer is not configured; its use waits",
            tenant.as_str().unwrap_or_default()
        );
    }
}

/// Such as `2026-11-23 14:00`.
fn hour_text(start_s: i64) -> String {
    let days = start_s.div_euclid(86_400);
    let hour = start_s.rem_euclid(86_400).div_euclid(3_600);
    let date = time::OffsetDateTime::from_unix_timestamp(days.saturating_mul(86_400))
        .map(|t| t.date().to_string())
        .unwrap_or_default();
    format!("{date} {hour:02}:00")
}
