//! What the aggregator makes of a second, and what an event costs it: to durable, and
//! until it is booked, from ten thousand events up.
//!
//! Producers send batches of a hundred as fast as they are acknowledged; each request has
//! two witnesses, the gateway's in one batch and the router's in another. Stripe is away.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use prost::Message as _;
use reqwest::blocking::Client;
use serde_json::{Value, json};
use weir_harness::{
    client,
    parts::{self, AggregatorOptions, Service},
    secrets,
};
use weir_wire::{
    context,
    ids::RequestId,
    keys::Keyring,
    proto::{
        context::TenantContext,
        usage::{Kind, ModelUsage, Outcome, PublishRequest, UsageEvent, UsageSource, Witness},
    },
    usage::{PROTO_CONTENT_TYPE, PUBLISH_PATH},
};

use crate::{machine, report::table};

/// The smallest run; each further one is ten times as large.
const EVENTS_MIN: u64 = 10_000;

/// So many tenants use something in turn.
const TENANTS: u64 = 1_000;

/// Events of a batch.
const BATCH: u64 = 100;

/// Producers that send at the same time: half are gateways, half routers.
const PRODUCERS: usize = 8;

/// The longest that a run may take.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Measures runs of up to `events` events.
///
/// # Errors
/// Where the aggregator does not start, or does not take everything.
pub fn measure(events: u64) -> anyhow::Result<String> {
    let head = [
        "events",
        "to durable: events/s",
        "to booked: events/s",
        "CPU µs/event",
        "resident MiB, most",
        "ledger: MiB a million",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut size = EVENTS_MIN;
    while size <= events {
        let run = one(size).with_context(|| format!("{size} events"))?;
        let per_second = |took: Duration| format!("{:.0}", size as f64 / took.as_secs_f64());
        rows.push(vec![
            size.to_string(),
            per_second(run.durable),
            per_second(run.booked),
            format!("{:.1}", run.cpu_us / size as f64),
            format!("{:.0}", run.resident as f64 / f64::from(1 << 20)),
            format!(
                "{:.0}",
                run.ledger as f64 / f64::from(1 << 20) / (size as f64 / 1e6)
            ),
        ]);
        size = size.saturating_mul(10);
    }
    Ok(table(&rows))
}

struct Run {
    durable: Duration,
    booked: Duration,
    cpu_us: f64,
    resident: u64,
    ledger: u64,
}

/// The tokens of a run.
pub struct Tokens {
    context_keys: String,
    gateway: String,
    router: String,
    admin: String,
}

impl Tokens {
    /// New ones.
    pub fn new() -> Self {
        Self {
            context_keys: format!("k:{}", secrets::random()),
            gateway: secrets::random(),
            router: secrets::random(),
            admin: secrets::random(),
        }
    }
}

/// Who tells of each request once.
struct Producer {
    witness: Witness,
    source: UsageSource,
    run: &'static str,
    token: String,
    /// The number of the batch that is sent next.
    next: AtomicU64,
}

fn one(events: u64) -> anyhow::Result<Run> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let tokens = Tokens::new();
    let alone = Part {
        name: "aggregator",
        members: &Value::Null,
        variables: &[],
    };
    let aggregator = start(&alone, &tokens, &data, folder.path())?;
    let pid = aggregator.process.id();
    let http = client::client();
    let before = machine::cpu_ns(pid)?;
    let (most, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let (durable, booked) = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                most.fetch_max(machine::resident_bytes(pid).unwrap_or(0), Relaxed);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let took = send(&[aggregator.url()], &tokens, events).and_then(|()| {
            let durable = begun.elapsed();
            wait_until_booked(&http, &aggregator, &tokens)?;
            Ok((durable, begun.elapsed()))
        });
        is_over.store(true, Relaxed);
        took
    })?;
    let after = machine::cpu_ns(pid)?;
    let size = |name: &str| std::fs::metadata(data.join(name)).map_or(0, |file| file.len());
    let ledger = size("ledger.db").saturating_add(size("ledger.db-wal"));
    drop(aggregator);
    Ok(Run {
        durable,
        booked,
        cpu_us: after.saturating_sub(before) as f64 / 1e3,
        resident: most.into_inner(),
        ledger,
    })
}

/// What is an aggregator's own.
pub struct Part<'a> {
    /// Its name among the processes.
    pub name: &'a str,
    /// Members of its configuration in the place of the example's.
    pub members: &'a Value,
    /// Variables that those name.
    pub variables: &'a [(&'a str, &'a str)],
}

/// Starts an aggregator whose Stripe is away.
///
/// # Errors
/// Where it does not start.
pub fn start(
    part: &Part<'_>,
    tokens: &Tokens,
    data: &Path,
    folder: &Path,
) -> anyhow::Result<Service> {
    let customers: BTreeMap<String, String> = (0..TENANTS)
        .map(|n| (tenant(n), format!("cus_{n}")))
        .collect();
    let options = AggregatorOptions {
        name: part.name,
        data,
        // Nobody listens there.
        stripe_base: "http://127.0.0.1:9",
        stripe_key: "sk_test_bench",
        customers: &customers,
        context_keys: &tokens.context_keys,
        gateway_token: &tokens.gateway,
        router_token: &tokens.router,
        admin_token: &tokens.admin,
        access_logs: &[],
        members: part.members,
        variables: part.variables,
        listen: "127.0.0.1:0",
    };
    parts::aggregator(&options, folder)
}

fn tenant(n: u64) -> String {
    format!("tenant-{:03}", n.rem_euclid(TENANTS))
}

/// Sends all events, from several producers at once, to those aggregators in turn.
///
/// # Errors
/// Where one refuses.
pub fn send(aggregators: &[String], tokens: &Tokens, events: u64) -> anyhow::Result<()> {
    let keys = Keyring::parse(&tokens.context_keys)?;
    let now_ms = u64::try_from(weir_process::now_ms())?;
    let batches = events.div_euclid(2 * BATCH);
    let both = [
        (Witness::Gateway, UsageSource::Estimated, &tokens.gateway),
        (Witness::Router, UsageSource::Reported, &tokens.router),
    ]
    .map(|(witness, source, token)| Producer {
        witness,
        source,
        run: witness.as_str_name(),
        token: token.clone(),
        next: AtomicU64::new(0),
    });
    thread::scope(|scope| {
        let producers: Vec<_> = both
            .iter()
            .cycle()
            .take(PRODUCERS)
            .zip(aggregators.iter().cycle())
            .map(|(producer, aggregator)| {
                let (url, keys) = (format!("{aggregator}{PUBLISH_PATH}"), &keys);
                scope.spawn(move || {
                    let http = client::client();
                    loop {
                        let batch = producer.next.fetch_add(1, Relaxed);
                        if batch >= batches {
                            return anyhow::Ok(());
                        }
                        let body = encode(batch, producer, keys, now_ms);
                        publish(&http, &url, &producer.token, &body)?;
                    }
                })
            })
            .collect();
        for producer in producers {
            match producer.join() {
                Ok(sent) => sent?,
                Err(_) => anyhow::bail!("a producer panicked"),
            }
        }
        Ok(())
    })
}

fn encode(batch: u64, producer: &Producer, keys: &Keyring, now_ms: u64) -> Vec<u8> {
    let first = batch.saturating_mul(BATCH);
    let events = (first..first.saturating_add(BATCH)).map(|n| event(n, producer, keys, now_ms));
    PublishRequest {
        events: events.collect(),
    }
    .encode_to_vec()
}

/// A request's number, as two small ones that vary.
fn digits(n: u64) -> (u64, u64) {
    (n.rem_euclid(100), n.rem_euclid(7))
}

fn event(n: u64, producer: &Producer, keys: &Keyring, now_ms: u64) -> UsageEvent {
    // A thousand requests in a millisecond of their own.
    let at_ms = now_ms
        .saturating_sub(60_000)
        .saturating_add(n.div_euclid(1_000));
    let mut random = [0; 10];
    let place = n.to_be_bytes();
    random
        .iter_mut()
        .zip(place)
        .for_each(|(to, from)| *to = from);
    let request_id = RequestId::mint(at_ms, random).to_string();
    let at_ms = i64::try_from(at_ms).unwrap_or(0);
    let signed = TenantContext {
        tenant: tenant(n),
        plan: "enterprise".into(),
        request_id: request_id.clone(),
        issued_at_ms: at_ms,
    };
    let (hundredth, seventh) = digits(n);
    UsageEvent {
        kind: Kind::Request.into(),
        event_id: format!("{n}-{}", producer.run),
        request_id,
        witness: producer.witness.into(),
        tenant: tenant(n),
        request_class: "chat".into(),
        model_asked: "gpt-4o-mini".into(),
        usage: vec![ModelUsage {
            model_served: "gpt-4o-mini-2024-07-18".into(),
            provider: "openai".into(),
            attempt: 1,
            input_tokens: hundredth.saturating_add(200),
            output_tokens: seventh.saturating_add(50),
            source: producer.source.into(),
            cost_micros: Some(120),
            price_micros: Some(150),
            ..ModelUsage::default()
        }],
        outcome: Outcome::Completed.into(),
        status: 200,
        started_at_ms: at_ms,
        duration_ms: 900,
        time_to_first_token_ms: Some(200),
        tenant_context: context::sign(&signed, keys),
        producer_run: producer.run.into(),
        sequence: n.saturating_add(1),
        ..UsageEvent::default()
    }
}

/// Sends a batch until it is acknowledged: above the spool's mark producers wait.
fn publish(http: &Client, url: &str, token: &str, body: &[u8]) -> anyhow::Result<()> {
    loop {
        let answer = http
            .post(url)
            .bearer_auth(token)
            .header("content-type", PROTO_CONTENT_TYPE)
            .body(body.to_vec())
            .send()?;
        match answer.status().as_u16() {
            202 => return Ok(()),
            429 => thread::sleep(Duration::from_millis(200)),
            status => anyhow::bail!("{status}: {}", answer.text()?),
        }
    }
}

fn wait_until_booked(http: &Client, aggregator: &Service, tokens: &Tokens) -> anyhow::Result<()> {
    let begun = Instant::now();
    while unbooked(http, aggregator, tokens)? > 0 {
        ensure!(begun.elapsed() < PATIENCE, "it books no more");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// How much an aggregator says that waits to be booked.
///
/// # Errors
/// Where it does not answer, or something was set aside.
pub fn unbooked(http: &Client, aggregator: &Service, tokens: &Tokens) -> anyhow::Result<u64> {
    let url = format!("{}/admin/status?lines=false", aggregator.url());
    let answer = http.get(&url).bearer_auth(&tokens.admin).send()?;
    let status: Value = answer.error_for_status()?.json()?;
    let is_whole = status.get("quarantined") == Some(&json!(0));
    ensure!(is_whole, "{status:#}");
    let unbooked = status.get("unbooked").and_then(Value::as_u64);
    unbooked.context("no count")
}
