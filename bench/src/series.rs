//! Rounds of load on several gateways in turn.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weir_harness::envoy::{self, FILTERS, Gateway, GatewayOptions, Tenant};

use crate::{
    load::{self, Load},
    machine,
    stats::percentile,
    upstream::Upstream,
};

/// One flush of usage-events and some: what a gateway does after the last
/// answer belongs to the requests too.
pub const SETTLE: Duration = Duration::from_millis(250);

/// How long the last usage event may take.
const EVENTS_MAX: Duration = Duration::from_secs(10);

/// A requests-a-minute limit that no run comes near.
pub const NO_LIMIT: u32 = 4_000_000_000;

/// What a gateway is to be measured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// How many of [`FILTERS`] it has, from the first on.
    pub filters: usize,
    /// The folder of their modules, where they are not this checkout's.
    pub folder: Option<PathBuf>,
}

/// A gateway that is measured.
#[derive(Debug)]
pub struct Subject {
    /// What it has.
    pub variant: Variant,
    gateway: Gateway,
    key: String,
    /// Requests it has seen.
    requests: u64,
}

/// One round on one gateway.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Round {
    /// Requests a second.
    pub per_second: f64,
    /// Median latency in µs.
    pub p50_us: f64,
    /// 99th percentile of latency in µs.
    pub p99_us: f64,
    /// CPU time of the gateway's process for each request, in µs.
    pub cpu_us: f64,
}

impl Subject {
    /// Starts an Envoy of one worker.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(
        variant: Variant,
        key: &str,
        upstream: &Upstream,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let options = GatewayOptions {
            filters: FILTERS
                .iter()
                .take(variant.filters)
                .map(ToString::to_string)
                .collect(),
            ..options(key, upstream)
        };
        let mut config = envoy::configuration(&options)?;
        let mut name = format!("envoy-{}", variant.filters);
        if let Some(modules) = &variant.folder {
            name.push_str("-other");
            take_modules_from(modules, &mut config)?;
        }
        let path = folder.join(format!("{name}.json"));
        fs::write(&path, config.to_string())?;
        let gateway = Gateway::start_with(&name, &options, folder, &path)?;
        Ok(Self {
            variant,
            gateway,
            key: key.to_owned(),
            requests: 0,
        })
    }

    fn sends_events(&self) -> bool {
        self.variant.filters == FILTERS.len()
    }

    /// Runs `load` on it, and waits until its usage events have left.
    ///
    /// # Errors
    /// Where one request or one event does not arrive.
    pub fn round(
        &mut self,
        runtime: &Runtime,
        load: &Load,
        upstream: &Upstream,
    ) -> anyhow::Result<Round> {
        let requests = u64::try_from(load.requests)?;
        let events = match self.sends_events() {
            true => upstream.events().saturating_add(requests),
            false => upstream.events(),
        };
        let key = std::slice::from_ref(&self.key);
        let round = one_round(
            &self.gateway,
            runtime,
            load,
            upstream,
            (key, events, SETTLE),
        )
        .with_context(|| format!("with {} filters", self.variant.filters))?;
        self.requests = self.requests.saturating_add(requests);
        Ok(round)
    }

    /// Checks that the gateway's own counters know of every request.
    ///
    /// # Errors
    /// Where they do not.
    pub fn check_counters(&self) -> anyhow::Result<()> {
        let counters = [
            (1, "weir_tenant_identified_api_key"),
            (2, "weir_rate_limit_admitted"),
            (4, "weir_usage_events_taken"),
            (4, "weir_usage_events_acknowledged"),
        ];
        for (filters, name) in counters {
            let found = self.gateway.counter(name);
            if self.variant.filters >= filters && found != self.requests {
                bail!(
                    "{name} is {found} after {} requests with {} filters",
                    self.requests,
                    self.variant.filters
                );
            }
        }
        Ok(())
    }
}

/// A gateway with one tenant, whose key this is, and no limit that counts.
pub fn options(key: &str, upstream: &Upstream) -> GatewayOptions {
    let address = upstream.address.to_string();
    GatewayOptions {
        tenants: vec![Tenant {
            id: "acme".to_owned(),
            plan: "enterprise".to_owned(),
            key: key.to_owned(),
        }],
        limits: vec![("enterprise".to_owned(), NO_LIMIT)],
        // One, so that CPU for each request does not depend on how the kernel
        // spreads connections.
        concurrency: 1,
        ..GatewayOptions::new(&address, &address)
    }
}

/// Runs `load` on a gateway with these credentials in turn, waits that long, and
/// then until the upstream has so many events.
///
/// # Errors
/// Where one request or one event does not arrive.
pub fn one_round(
    gateway: &Gateway,
    runtime: &Runtime,
    load: &Load,
    upstream: &Upstream,
    (credentials, events, settle): (&[String], u64, Duration),
) -> anyhow::Result<Round> {
    let authority = gateway.url.trim_start_matches("http://");
    let connections = runtime.block_on(load::connect(authority, load.connections))?;
    let pid = gateway.process.id();
    let requests = u64::try_from(load.requests)?;
    let answered = upstream.requests().saturating_add(requests);
    let before_ns = machine::cpu_ns(pid)?;
    let outcome = runtime.block_on(load.run(authority, connections, credentials))?;
    wait_for_events(upstream, events, settle)?;
    let cpu_ns = machine::cpu_ns(pid)?.saturating_sub(before_ns);
    if upstream.requests() != answered {
        bail!("the upstream saw other requests than those of this round");
    }
    let microseconds = |ns: u64| ns as f64 / 1_000.0;
    Ok(Round {
        per_second: requests as f64 / outcome.elapsed.as_secs_f64(),
        p50_us: microseconds(percentile(&outcome.latencies_ns, 50)),
        p99_us: microseconds(percentile(&outcome.latencies_ns, 99)),
        cpu_us: microseconds(cpu_ns) / requests as f64,
    })
}

/// Lets the configuration name the modules in `folder`.
fn take_modules_from(folder: &Path, config: &mut Value) -> anyhow::Result<()> {
    let folder = folder
        .canonicalize()
        .with_context(|| folder.display().to_string())?;
    let filters = envoy::http_filters(config)?;
    for filter in filters {
        let file = filter.pointer_mut("/typed_config/config/vm_config/code/local/filename");
        if let Some(file) = file
            && let Some(name) = file.as_str().and_then(|f| Path::new(f).file_name())
        {
            *file = json!(folder.join(name));
        }
    }
    Ok(())
}

fn wait_for_events(upstream: &Upstream, expected: u64, settle: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    // The same pause for a gateway that sends none.
    thread::sleep(settle);
    while upstream.events() < expected {
        if start.elapsed() > EVENTS_MAX {
            bail!(
                "{} usage events did not arrive",
                expected.saturating_sub(upstream.events())
            );
        }
        thread::sleep(settle);
    }
    Ok(())
}

/// One warm-up round on each subject, then `rounds` that count; gives those of
/// each subject. Every other round goes backwards, so that a drift of the
/// machine favours none.
///
/// # Errors
/// Where a request fails.
pub fn run<S>(
    subjects: &mut [S],
    rounds: usize,
    mut one: impl FnMut(&mut S) -> anyhow::Result<Round>,
) -> anyhow::Result<Vec<Vec<Round>>> {
    for subject in subjects.iter_mut() {
        one(subject)?;
    }
    let mut results = vec![Vec::with_capacity(rounds); subjects.len()];
    for round in 0..rounds {
        let mut order: Vec<_> = subjects.iter_mut().zip(&mut results).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (subject, result) in order {
            result.push(one(subject)?);
        }
    }
    Ok(results)
}
