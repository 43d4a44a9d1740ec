//! Measures what the filters cost: bare Envoy and Envoy with them, against the
//! same upstream, in pairs.

mod aggregator;
mod budget;
mod fleet;
mod flood;
mod identity;
mod inference;
mod load;
mod machine;
mod nothing;
mod quota;
mod report;
mod series;
mod stats;
mod upstream;
mod usage;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;
use weir_harness::{envoy::FILTERS, secrets};

use crate::{
    load::Load,
    report::Measured,
    series::{Subject, Variant},
    upstream::Upstream,
};

/// Measures what Weir's filters cost an Envoy.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Rounds that count, on each gateway; one more warms up
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Requests in a round
    #[arg(long, default_value_t = 2_500, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Connections, one request at a time on each
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Ask for event streams
    #[arg(long)]
    stream: bool,
    /// Also measure with the first filter, the first two, the first three
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    each: bool,
    /// Also measure all filters with the modules of this folder, such as those
    /// of a change that is to be judged
    #[arg(long, value_name = "FOLDER")]
    other: Option<PathBuf>,
    /// Measure what each way to say who a request is for costs, against Envoy
    /// with a filter that does nothing
    #[arg(long)]
    identity: bool,
    /// With --identity and --usage, how often all gateways are started anew
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    starts: u16,
    /// With --identity, only the ways whose name holds this, such as key
    #[arg(long, value_name = "PART", requires = "identity")]
    only: Vec<String>,
    /// Measure what a flood of forged tokens does to known tenants: so many a
    /// second
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    flood: Option<u32>,
    /// Measure what a lease costs the quota service, in memory and over Redis
    #[arg(long)]
    quota: bool,
    /// With --quota, seconds before the rounds: as long as counts and leases are
    /// remembered
    #[arg(long, value_name = "SECONDS", default_value_t = 95)]
    warm_up: u64,
    /// Measure what a hold and its settle cost the router, in its file and over Redis
    #[arg(long)]
    budget: bool,
    /// Measure how many events a second the aggregator takes, and what each costs it
    #[arg(long)]
    aggregator: bool,
    /// With --aggregator, the events of the largest run; each one before has a tenth
    #[arg(long, value_name = "EVENTS", default_value_t = 1_000_000)]
    events: u64,
    /// Measure how many events a second one, two and three aggregators book together, from
    /// Redis to Postgres: so many events in each run
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1_000..))]
    fleet: Option<u64>,
    /// Measure what classification and usage cost: bodies of 1.2 KB and of 1 MB, streams
    /// of a thousand chunks, and the time to the first byte
    #[arg(long)]
    usage: bool,
    /// Measure what the router adds to a call of a provider, against a process that
    /// only hands bytes on
    #[arg(long)]
    inference: bool,
    /// With --inference, how many streams are held open for the router's memory
    #[arg(long, value_name = "STREAMS", default_value_t = 10_000)]
    held: usize,
    /// What --inference compares with: serve as that process
    #[arg(long, hide = true, value_name = "UPSTREAM")]
    serve_relay: Option<String>,
    /// Write every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let load = Load {
        stream: arguments.stream,
        connections: arguments.connections.into(),
        requests: usize::try_from(arguments.requests)?,
    };
    let machine = machine::describe();
    let rounds = arguments.rounds.into();
    if let Some(upstream) = &arguments.serve_relay {
        return inference::serve_relay(upstream);
    }
    if arguments.inference {
        let extent = inference::Extent {
            rounds,
            calls: load.requests,
            streams: arguments.held,
        };
        println!("{machine}; load average {}", machine::load_average());
        println!("\n{}", inference::measure(extent)?);
        return Ok(());
    }
    if arguments.usage {
        println!("{machine}; load average {}", machine::load_average());
        println!("\n{}", usage::measure(rounds, arguments.starts.into())?);
        return Ok(());
    }
    if arguments.aggregator {
        println!("{machine}; load average {}", machine::load_average());
        println!("\n{}", aggregator::measure(arguments.events)?);
        return Ok(());
    }
    if let Some(events) = arguments.fleet {
        println!("{machine}; load average {}", machine::load_average());
        println!("\n{}", fleet::measure(events, rounds)?);
        return Ok(());
    }
    if arguments.budget {
        println!("{machine}; load average {}", machine::load_average());
        println!("\n{}", budget::measure()?);
        return Ok(());
    }
    if arguments.quota {
        let extent = quota::Extent {
            rounds,
            warm_up: Duration::from_secs(arguments.warm_up),
        };
        println!("{machine}; load average {}", machine::load_average());
        println!("\n{}", quota::measure(extent)?);
        return Ok(());
    }
    println!(
        "{machine}; {} rounds of {} requests over {} connections, {}; load average {}",
        arguments.rounds,
        load.requests,
        load.connections,
        if load.stream { "streams" } else { "JSON" },
        machine::load_average(),
    );
    if arguments.identity {
        let extent = identity::Extent {
            starts: arguments.starts.into(),
            rounds,
        };
        println!("\n{}", identity::measure(extent, &load, &arguments.only)?);
        return Ok(());
    }
    if let Some(rate) = arguments.flood {
        println!("\n{}", flood::measure(rounds, &load, rate)?);
        return Ok(());
    }
    let all = measure(&arguments, &load)?;
    println!(
        "\n{}\nload average {}",
        report::text(&all),
        machine::load_average()
    );
    if let Some(path) = &arguments.json {
        let echo = json!({
            "rounds": arguments.rounds,
            "requests": load.requests,
            "connections": load.connections,
            "stream": load.stream,
        });
        let text = format!("{:#}\n", report::json(&machine, &echo, &all));
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Starts the gateways, which stay up all the time, and measures in turn.
fn measure(arguments: &Arguments, load: &Load) -> anyhow::Result<Vec<Measured>> {
    let upstream = Upstream::start()?;
    let folder = tempfile::tempdir()?;
    let key = secrets::api_key("enterprise");
    let mut subjects = variants(arguments)
        .into_iter()
        .map(|variant| Subject::start(variant, &key, &upstream, folder.path()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    // One thread makes the load and one is the upstream: the other CPU is
    // Envoy's.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let results = series::run(&mut subjects, arguments.rounds.into(), |subject| {
        subject.round(&runtime, load, &upstream)
    })?;
    for subject in &subjects {
        subject.check_counters()?;
    }
    Ok(subjects
        .into_iter()
        .zip(results)
        .map(|(subject, rounds)| Measured {
            variant: subject.variant,
            rounds,
        })
        .collect())
}

/// Bare Envoy first, then with ever more filters.
fn variants(arguments: &Arguments) -> Vec<Variant> {
    let own = (0..=FILTERS.len())
        .filter(|count| arguments.each || [0, FILTERS.len()].contains(count))
        .map(|filters| Variant {
            filters,
            folder: None,
        });
    let other = arguments.other.iter().map(|folder| Variant {
        filters: FILTERS.len(),
        folder: Some(folder.clone()),
    });
    own.chain(other).collect()
}
