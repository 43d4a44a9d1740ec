//! What aggregators make of a second together: from the stream in Redis to the ledger in
//! Postgres, by one, two and three of them.
//!
//! The stream is filled while a lock keeps all of them from booking; what is measured is
//! the last two thirds, after it is let go. Redis and Postgres have on disk what
//! they acknowledge, and share the machine with the aggregators; producers are done by
//! then, and Stripe is away.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use weir_harness::{client, parts::Service, postgres::Postgres, redis::Redis};

use crate::{
    aggregator::{self, Part, Tokens},
    machine,
    report::table,
    stats::spread,
};

/// The most aggregators.
const REPLICAS: usize = 3;

/// The longest that a run may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Measures so many rounds of that many events.
///
/// # Errors
/// Where a part does not start, or not everything is booked.
pub fn measure(events: u64, rounds: usize) -> anyhow::Result<String> {
    let mut runs: Vec<Vec<Run>> = (0..REPLICAS).map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (n, runs) in runs.iter_mut().enumerate() {
            let replicas = n.saturating_add(1);
            let run = one(events, replicas)
                .with_context(|| format!("round {round}, {replicas} replicas"))?;
            runs.push(run);
        }
    }
    let head = [
        "replicas",
        "booked: events/s, median (least to most)",
        "over one",
        "CPU µs/event: aggregators",
        "Postgres",
        "Redis",
        "before, to durable: events/s",
        "aggregators",
        "Redis",
        "producers",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let all = |runs: &[Run], of: fn(&Run) -> f64| spread(&runs.iter().map(of).collect::<Vec<_>>());
    let alone = all(runs.first().context("no run")?, |run| run.per_second).median;
    for (n, runs) in runs.iter().enumerate() {
        let rate = all(runs, |run| run.per_second);
        let cpu = |of| format!("{:.1}", all(runs, of).median);
        rows.push(vec![
            n.saturating_add(1).to_string(),
            format!("{:.0} ({:.0} to {:.0})", rate.median, rate.min, rate.max),
            format!("{:.2}", rate.median / alone),
            cpu(|run| run.booking.aggregators),
            cpu(|run| run.booking.postgres),
            cpu(|run| run.booking.redis),
            format!("{:.0}", all(runs, |run| run.durable_per_second).median),
            cpu(|run| run.taking.aggregators),
            cpu(|run| run.taking.redis),
            cpu(|run| run.taking.producers),
        ]);
    }
    Ok(table(&rows))
}

/// CPU, microseconds an event.
#[derive(Debug, Clone, Copy)]
struct Cost {
    aggregators: f64,
    postgres: f64,
    redis: f64,
    producers: f64,
}

#[derive(Debug)]
struct Run {
    durable_per_second: f64,
    taking: Cost,
    per_second: f64,
    booking: Cost,
}

/// The parts of a run.
struct Parts {
    postgres: Postgres,
    redis: Redis,
    replicas: Vec<Service>,
}

impl Parts {
    /// What each has spent until now, nanoseconds.
    fn spent(&self) -> Cost {
        let sum = |pids: &mut dyn Iterator<Item = u32>| {
            pids.filter_map(|pid| machine::cpu_ever_ns(pid).ok())
                .fold(0.0, |sum, ns| sum + ns as f64)
        };
        Cost {
            aggregators: sum(&mut self.replicas.iter().map(|r| r.process.id())),
            postgres: sum(&mut self.postgres.pids().into_iter()),
            redis: sum(&mut [self.redis.process.id()].into_iter()),
            producers: sum(&mut [std::process::id()].into_iter()),
        }
    }
}

/// From one reading to another, for each event.
fn cost(before: Cost, after: Cost, events: u64) -> Cost {
    let each = |before: f64, after: f64| (after - before) / 1e3 / events as f64;
    Cost {
        aggregators: each(before.aggregators, after.aggregators),
        postgres: each(before.postgres, after.postgres),
        redis: each(before.redis, after.redis),
        producers: each(before.producers, after.producers),
    }
}

fn one(events: u64, count: usize) -> anyhow::Result<Run> {
    let folder = tempfile::tempdir()?;
    let tokens = Tokens::new();
    let mut parts = Parts {
        postgres: Postgres::start(folder.path())?,
        redis: Redis::durable(folder.path())?,
        replicas: Vec::new(),
    };
    for n in 1..=count {
        let replica = start(n, &parts, &tokens, folder.path())?;
        parts.replicas.push(replica);
    }
    wait_for_shares(&parts.postgres, count)?;
    let (http, first) = (client::client(), parts.replicas.first());
    let first = first.context("no replica")?;

    let lock = Lock::take(&parts.postgres)?;
    let urls: Vec<String> = parts.replicas.iter().map(Service::url).collect();
    let (begun, before) = (Instant::now(), parts.spent());
    aggregator::send(&urls, &tokens, events)?;
    let durable = begun.elapsed();
    let taking = cost(before, parts.spent(), events);

    lock.release()?;
    let begun = Instant::now();
    // A request is a line of the journal, once both of its witnesses are booked.
    let reach = |requests: u64| loop {
        let found = booked(&parts.postgres)?;
        if found >= requests {
            return anyhow::Ok(found);
        }
        ensure!(begun.elapsed() < PATIENCE, "they book no more");
        thread::sleep(Duration::from_millis(50));
    };
    let all = events.div_euclid(2);
    // What was read, and half booked, while the lock was held does not count.
    let first_booked = reach(all.div_euclid(3))?;
    let (counted, before) = (Instant::now(), parts.spent());
    reach(all)?;
    let took = counted.elapsed();
    let booked = all.saturating_sub(first_booked).saturating_mul(2);
    let booking = cost(before, parts.spent(), booked);
    while aggregator::unbooked(&http, first, &tokens)? > 0 {
        ensure!(begun.elapsed() < PATIENCE, "something waits");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(Run {
        durable_per_second: events as f64 / durable.as_secs_f64(),
        taking,
        per_second: booked as f64 / took.as_secs_f64(),
        booking,
    })
}

fn start(n: usize, parts: &Parts, tokens: &Tokens, folder: &Path) -> anyhow::Result<Service> {
    let data = folder.join(format!("data-{n}"));
    fs::create_dir(&data)?;
    let members = json!({
        "ledger": {"postgres": {"url_env": "WEIR_DATABASE_URL"}},
        "stream": {"redis": {"url_env": "WEIR_REDIS_URL"}},
    });
    let part = Part {
        name: &format!("aggregator-{n}"),
        members: &members,
        variables: &[
            ("WEIR_DATABASE_URL", &parts.postgres.url()),
            ("WEIR_REDIS_URL", &parts.redis.url()),
        ],
    };
    aggregator::start(&part, tokens, &data, folder)
}

/// Until each has its part.
fn wait_for_shares(postgres: &Postgres, count: usize) -> anyhow::Result<()> {
    let least = 16_usize.div_euclid(count.max(1));
    let sql = "SELECT count(*), min(n), sum(n) FROM \
               (SELECT count(*) AS n FROM lease WHERE holder IS NOT NULL GROUP BY holder) AS h";
    let wanted = format!("{count}|{least}|16");
    let begun = Instant::now();
    while postgres.ask(sql)? != wanted {
        ensure!(
            begun.elapsed() < Duration::from_secs(60),
            "the shards do not settle"
        );
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// How many lines the journal has.
fn booked(postgres: &Postgres) -> anyhow::Result<u64> {
    // By its index: counting would cost more than what is measured.
    let sql = "SELECT coalesce(sum(n), 0) FROM generate_series(0, 15) AS s, \
               LATERAL (SELECT max(seq) AS n FROM journal WHERE shard = s) AS last";
    Ok(postgres.ask(sql)?.parse()?)
}

/// Keeps everybody from booking.
struct Lock(Child);

impl Lock {
    fn take(postgres: &Postgres) -> anyhow::Result<Self> {
        let mut child = postgres
            .psql()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("psql")?;
        let stdin = child.stdin.as_mut().context("psql takes nothing")?;
        stdin.write_all(b"BEGIN; LOCK TABLE journal IN ACCESS EXCLUSIVE MODE;\n")?;
        let lock = Self(child);
        let sql = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
        let begun = Instant::now();
        while postgres.ask(sql)? == "0" {
            ensure!(begun.elapsed() < Duration::from_secs(30), "no lock");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(lock)
    }

    fn release(mut self) -> anyhow::Result<()> {
        // Its input ends, and with it the transaction.
        drop(self.0.stdin.take());
        self.0.wait()?;
        Ok(())
    }
}
