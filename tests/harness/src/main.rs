//! `make run`, `make close-hour` and `make stop`.

mod endpoints;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use endpoints::Endpoints;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use weir_harness::{
    Options, Stack, paths, pids,
    providers::{Real, key_variable},
    shared::{DATABASE_VARIABLE, REDIS_VARIABLE},
    stack::REAL_DATA,
};

/// Held by the run of a folder, so that there is one.
const LOCK: &str = "lock";

/// Runs Weir on this machine.
#[derive(Parser)]
struct Arguments {
    /// Where the run's logs, data and endpoints are; `target/run` by default.
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start everything and stay until Ctrl-C.
    Run,
    /// Send Stripe what was used until now.
    CloseHour,
    /// Show what the ledger holds of the last requests.
    Events,
    /// Stop a run that was left behind.
    Stop,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let folder = arguments
        .folder
        .unwrap_or_else(|| paths::workspace().join("target/run"));
    let outcome = match arguments.verb {
        Verb::Run => run(&folder),
        Verb::CloseHour => ask_aggregator(&folder, "close-hour"),
        Verb::Events => ask_aggregator(&folder, "events"),
        Verb::Stop => stop(&folder),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

fn run(folder: &Path) -> anyhow::Result<ExitCode> {
    let options = options_from_environment()?;
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join(LOCK))?;
    if lock.try_lock().is_err() || !pids::running(folder).is_empty() {
        bail!("a run is up already: make stop");
    }
    prepare(folder)?;
    pids::write(folder, pids::RUN, std::process::id())?;
    // Before anything is started: from now on a signal stops what there is.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    println!("starting; logs are in {}", folder.display());
    let mut stack = Stack::start(&options, folder)?;
    let endpoints = Endpoints::of(&stack);
    endpoints.write(folder)?;
    endpoints.explain();

    let mut failed = false;
    let mut revived = Vec::new();
    while signals.pending().next().is_none() {
        match revive(&mut stack, &mut revived) {
            Ok(false) => {}
            Ok(true) => Endpoints::of(&stack).write(folder)?,
            Err(error) => {
                eprintln!("{error:#}");
                failed = true;
                break;
            }
        }
        if let Some(name) = stack.ended() {
            eprintln!("ended unexpectedly: {name}");
            failed = true;
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    println!("stopping");
    for name in stack.stop() {
        eprintln!("{name} had to be killed");
        failed = true;
    }
    Endpoints::remove(folder)?;
    println!("stopped");
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// How often each aggregator may end in a minute: beyond it, it does not run at all.
const REVIVALS_MAX: usize = 50;

/// Starts aggregators that ended again; says whether there was one.
fn revive(stack: &mut Stack, revived: &mut Vec<Instant>) -> anyhow::Result<bool> {
    let again = stack.aggregators.revive().context("an aggregator")?;
    revived.retain(|at| at.elapsed() < Duration::from_secs(60));
    for one in &again {
        revived.push(Instant::now());
        if revived.len() > REVIVALS_MAX * stack.aggregators.replicas.len() {
            bail!("{} ends again and again:\n{}", one.name, one.log_end);
        }
        println!(
            "{} ended, and was started again: process {}",
            one.name, one.pid
        );
    }
    Ok(!again.is_empty())
}

/// A clean folder. The fake Stripe forgets everything with its process, so the
/// ledger starts anew with it; a real one does not, and neither does its ledger.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.path().is_dir() {
            if !name.starts_with(REAL_DATA) {
                fs::remove_dir_all(entry.path())?;
            }
        } else if name != LOCK {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn options_from_environment() -> anyhow::Result<Options> {
    if variable("KAFKA_BOOTSTRAP").is_some() {
        println!("KAFKA_BOOTSTRAP is not used by a run");
    }
    let gateways = count("WEIR_GATEWAYS")?;
    let aggregators = count("WEIR_AGGREGATORS")?;
    let providers = providers()?;
    let stripe = pair(
        "STRIPE_API_BASE",
        "STRIPE_API_KEY",
        "https://api.stripe.com",
    )?;
    for (name, real) in &providers {
        println!(
            "the provider {name} is the one at {}, by the environment",
            real.base
        );
    }
    if let Some((base, _)) = &stripe {
        println!("Stripe is the one at {base}, by the environment");
    }
    let (database, redis) = (variable(DATABASE_VARIABLE), variable(REDIS_VARIABLE));
    match (&database, &redis) {
        (Some(_), Some(_)) => println!("the ledger is in Postgres, the stream in Redis"),
        (Some(_), None) => println!("the ledger is in Postgres"),
        (None, _) => {}
    }
    if aggregators > 1 && (database.is_none() || redis.is_none()) {
        println!(
            "without {DATABASE_VARIABLE} and {REDIS_VARIABLE} one aggregator works, and the others wait for its folder"
        );
    }
    Ok(Options {
        gateways,
        aggregators,
        database,
        redis,
        tokens: true,
        access_log: true,
        webhooks: true,
        providers,
        stripe,
        ..Options::default()
    })
}

/// How many there are to be.
fn count(name: &str) -> anyhow::Result<usize> {
    match variable(name) {
        None => Ok(1),
        Some(text) => match text.parse() {
            Ok(n @ 1..=16) => Ok(n),
            _ => bail!("{name}: must be 1 to 16, found {text:?}"),
        },
    }
}

/// The providers that the environment names.
fn providers() -> anyhow::Result<BTreeMap<&'static str, Real>> {
    let mut real = BTreeMap::new();
    for (name, base, default) in [
        (
            "anthropic",
            "ANTHROPIC_BASE_URL",
            "https://api.anthropic.com/v1",
        ),
        ("openai", "OPENAI_BASE_URL", "https://api.openai.com/v1"),
    ] {
        if let Some((base, key)) = pair(base, &key_variable(name), default)? {
            let key = Some(key);
            real.insert(name, Real { base, key });
        }
    }
    let name = "self-hosted";
    let (address, key) = ("SELF_HOSTED_BASE_URL", variable(&key_variable(name)));
    match (variable(address), key) {
        (Some(base), key) => {
            check_url(address, &base, "http://127.0.0.1:8000/v1")?;
            real.insert(name, Real { base, key });
        }
        (None, Some(_)) => bail!("{} is set, {address} is not", key_variable(name)),
        (None, None) => {}
    }
    Ok(real)
}

fn check_url(variable: &str, text: &str, example: &str) -> anyhow::Result<()> {
    if !reqwest::Url::parse(text).is_ok_and(|url| url.has_host()) {
        bail!("{variable}: must be a URL such as {example}, found {text:?}");
    }
    Ok(())
}

/// An address and a key; the address has a default, the key has none.
fn pair(base: &str, key: &str, default: &str) -> anyhow::Result<Option<(String, String)>> {
    if let Some(text) = variable(base) {
        check_url(base, &text, default)?;
    }
    match (variable(base), variable(key)) {
        (None, None) => Ok(None),
        (base, Some(key)) => Ok(Some((base.unwrap_or_else(|| default.to_owned()), key))),
        (Some(_), None) => bail!("{base} is set, {key} is not"),
    }
}

/// Runs a command of meter-aggregator's against the running one.
fn ask_aggregator(folder: &Path, command: &str) -> anyhow::Result<ExitCode> {
    let endpoints = Endpoints::read(folder).context("no run is up: make run")?;
    let status = Command::new(paths::binary("meter-aggregator")?)
        .args([command, "--config"])
        .arg(endpoints.living_aggregator(folder))
        .env("WEIR_ADMIN_TOKEN", &endpoints.admin_token)
        .status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn stop(folder: &Path) -> anyhow::Result<ExitCode> {
    if pids::running(folder).is_empty() {
        println!("no run is up");
        return Ok(ExitCode::SUCCESS);
    }
    // The run itself stops its parts in order; the parts are for a run that
    // was killed.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for process in pids::running(folder) {
            if !process.is_running() {
                continue;
            }
            let _ = kill(Pid::from_raw(process.pid as i32), signal);
            if process.name == pids::RUN {
                wait_until_gone(folder);
            }
        }
        wait_until_gone(folder);
    }
    Endpoints::remove(folder)?;
    println!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn wait_until_gone(folder: &Path) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(40) && !pids::running(folder).is_empty() {
        thread::sleep(Duration::from_millis(50));
    }
}
