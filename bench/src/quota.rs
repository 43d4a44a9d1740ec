//! What a lease costs the quota service, and Redis where it counts there.
//!
//! Acquires come as gateways make them, by HTTP/2 with a protobuf body, as fast as
//! they are answered; every other one gives the lease before it back.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::{net::TcpStream, runtime::Runtime, task::JoinSet};
use weir_harness::{
    parts::{self, QuotaOptions, RouterOptions, Service},
    providers::Providers,
    redis::Redis,
    secrets,
};
use weir_wire::{
    proto::quota::{AcquireRequest, AcquireResponse, ClosedLease, Outcome},
    quota::{ACQUIRE_PATH, LIFE_MAX_MS},
    usage::PROTO_CONTENT_TYPE,
};

use crate::{
    identity::QUIET_PERCENT,
    machine,
    report::{show, table},
    series::NO_LIMIT,
    stats::{percentile, quantile, spread},
};

/// So many tenants ask in turn.
const TENANTS: u64 = 1_000;

const CONNECTIONS: usize = 4;

/// Acquires under way on each connection.
const IN_FLIGHT: usize = 32;

/// How long a round is.
const ROUND: Duration = Duration::from_secs(4);

/// After a round, until the kernel has counted its CPU time.
const SETTLE: Duration = Duration::from_millis(50);

/// Requests of a lease: so many are wanted, and so many spent.
const WANTED: u32 = 10;
const SPENT: u32 = 3;

const PLAN: &str = "enterprise";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Rounds that count, on each store.
    pub rounds: usize,
    /// Before them. After a window and half a minute, counters and remembered
    /// leases are as many as they become.
    pub warm_up: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    router_us: f64,
    redis_us: Option<f64>,
}

/// Measures the service over its memory, and over Redis.
///
/// # Errors
/// Where a lease is not granted.
pub fn measure(extent: Extent) -> anyhow::Result<String> {
    let mut rows = vec![
        [
            "median (min–max)",
            "acquires/s",
            "p50 µs",
            "p99 µs",
            "router: CPU µs/acquire",
            "quiet rounds: /s and core",
            "Redis: CPU µs/acquire",
            "quiet rounds: /s and core",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for is_redis in [false, true] {
        let name = if is_redis { "Redis" } else { "memory" };
        let folder = tempfile::tempdir()?;
        let redis = is_redis
            .then(|| Redis::start(folder.path()))
            .transpose()
            .context("redis")?;
        let rounds = measure_one(extent, redis.as_ref(), folder.path());
        rows.push(row(name, &rounds.with_context(|| format!("over {name}"))?));
    }
    Ok(table(&rows))
}

fn measure_one(extent: Extent, redis: Option<&Redis>, folder: &Path) -> anyhow::Result<Vec<Round>> {
    let token = secrets::random();
    let router = start(&token, redis, folder)?;
    let address = router.quota.as_deref().context("no quota service")?;
    // One thread makes the load.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let gateway = Arc::new(Gateway {
        address: address.to_owned(),
        token,
        pairs: AtomicU64::new(0),
    });
    let connections = runtime.block_on(gateway.connect())?;
    runtime.block_on(gateway.load(&connections, extent.warm_up))?;
    let one = |_| one_round(&runtime, &gateway, &connections, &router, redis);
    (0..extent.rounds).map(one).collect()
}

/// A router with no limit that counts. Its other services are there and unused.
fn start(token: &str, redis: Option<&Redis>, folder: &Path) -> anyhow::Result<Service> {
    let redis = redis.map(Redis::url);
    let options = RouterOptions {
        members: &serde_json::Value::Null,
        providers: &Providers::none(),
        aggregator: "http://127.0.0.1:9",
        context_keys: &format!("k1:{}", secrets::random()),
        router_token: &secrets::random(),
        service_token: &secrets::random(),
        services_listen: "127.0.0.1:0",
        directory: None,
        quota: Some(QuotaOptions {
            token,
            redis: redis.as_deref(),
            listen: "127.0.0.1:0",
        }),
        limits: &[(PLAN.to_owned(), NO_LIMIT)],
        listen: "127.0.0.1:0",
    };
    // The binary beside this one: of the same profile.
    parts::router(&options, folder).context("cargo build --release -p router-service makes it")
}

fn one_round(
    runtime: &Runtime,
    gateway: &Arc<Gateway>,
    connections: &[SendRequest<Full<Bytes>>],
    router: &Service,
    redis: Option<&Redis>,
) -> anyhow::Result<Round> {
    let cpu_ns = || -> anyhow::Result<(u64, Option<u64>)> {
        thread::sleep(SETTLE);
        let redis = redis.map(|redis| machine::cpu_ns(redis.process.id()));
        Ok((machine::cpu_ns(router.process.id())?, redis.transpose()?))
    };
    let (router_before, redis_before) = cpu_ns()?;
    let start = Instant::now();
    let mut latencies_ns = runtime.block_on(gateway.load(connections, ROUND))?;
    let elapsed = start.elapsed();
    let (router_after, redis_after) = cpu_ns()?;
    latencies_ns.sort_unstable();
    let acquires = latencies_ns.len() as f64;
    let microseconds = |ns: u64| ns as f64 / 1_000.0;
    let each = |before: u64, after: u64| microseconds(after.saturating_sub(before)) / acquires;
    Ok(Round {
        per_second: acquires / elapsed.as_secs_f64(),
        p50_us: microseconds(percentile(&latencies_ns, 50)),
        p99_us: microseconds(percentile(&latencies_ns, 99)),
        router_us: each(router_before, router_after),
        redis_us: redis_before.zip(redis_after).map(|(b, a)| each(b, a)),
    })
}

/// Gateways, as the service sees them.
struct Gateway {
    address: String,
    token: String,
    /// Pairs of leases asked for so far, by which they and their tenants are named.
    pairs: AtomicU64,
}

impl Gateway {
    async fn connect(&self) -> anyhow::Result<Vec<SendRequest<Full<Bytes>>>> {
        let mut senders = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let tcp = TcpStream::connect(&self.address).await?;
            tcp.set_nodelay(true)?;
            let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await;
            let (sender, connection) = shaken?;
            // It ends once its senders are dropped; what fails, fails at them.
            tokio::spawn(connection);
            senders.push(sender);
        }
        Ok(senders)
    }

    /// Asks for that long, and gives how long each answer took, in nanoseconds.
    async fn load(
        self: &Arc<Self>,
        connections: &[SendRequest<Full<Bytes>>],
        time: Duration,
    ) -> anyhow::Result<Vec<u64>> {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for sender in connections.iter().cycle().take(CONNECTIONS * IN_FLIGHT) {
            let (gateway, mut sender) = (Arc::clone(self), sender.clone());
            tasks.spawn(async move {
                let mut latencies_ns = Vec::new();
                while start.elapsed() < time {
                    gateway.pair(&mut sender, &mut latencies_ns).await?;
                }
                anyhow::Ok(latencies_ns)
            });
        }
        let mut latencies_ns = Vec::new();
        while let Some(done) = tasks.join_next().await {
            latencies_ns.extend(done??);
        }
        Ok(latencies_ns)
    }

    /// Two leases for one tenant, the first of which comes back with the second.
    async fn pair(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        latencies_ns: &mut Vec<u64>,
    ) -> anyhow::Result<()> {
        let turn = self.pairs.fetch_add(1, Relaxed);
        let tenant = format!("tenant-{}", turn % TENANTS);
        let (mut epoch, mut closed) = (String::new(), Vec::new());
        for half in 0..2 {
            let id = lease_id(turn, half);
            let request = AcquireRequest {
                tenant: tenant.clone(),
                plan: PLAN.to_owned(),
                acquire_id: id.clone(),
                wanted: WANTED,
                life_ms: LIFE_MAX_MS,
                gateway: 1,
                epoch,
                closed,
                ..AcquireRequest::default()
            };
            let start = Instant::now();
            let answer = self.acquire(sender, &request).await?;
            let elapsed = start.elapsed();
            latencies_ns.push(u64::try_from(elapsed.as_nanos())?);
            closed = vec![ClosedLease {
                lease_id: id,
                spent: SPENT,
                age_ms: u64::try_from(elapsed.as_millis())?,
                ..ClosedLease::default()
            }];
            epoch = answer.epoch;
        }
        Ok(())
    }

    async fn acquire(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        request: &AcquireRequest,
    ) -> anyhow::Result<AcquireResponse> {
        let request = Request::post(format!("http://{}{ACQUIRE_PATH}", self.address))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, PROTO_CONTENT_TYPE)
            .body(Full::new(request.encode_to_vec().into()))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        let answer = AcquireResponse::decode(body)?;
        ensure!(
            answer.outcome() == Outcome::Granted && answer.granted == WANTED,
            "{answer:?}"
        );
        Ok(answer)
    }
}

/// As even over its bits as a random one.
fn lease_id(pair: u64, half: u64) -> Vec<u8> {
    let n = u128::from(pair) << 1 | u128::from(half);
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    mixed.to_be_bytes().to_vec()
}

fn row(name: &str, rounds: &[Round]) -> Vec<String> {
    let of = |value: fn(&Round) -> f64| -> Vec<f64> { rounds.iter().map(value).collect() };
    let shown = |values: &[f64], digits| show(spread(values), digits);
    let per_core = |cpu: &[f64]| format!("{:.0}", 1e6 / quantile(cpu, QUIET_PERCENT));
    let router = of(|round| round.router_us);
    let redis: Vec<f64> = rounds.iter().filter_map(|round| round.redis_us).collect();
    let mut row = vec![
        name.to_owned(),
        shown(&of(|round| round.per_second), 0),
        shown(&of(|round| round.p50_us), 0),
        shown(&of(|round| round.p99_us), 0),
        shown(&router, 1),
        per_core(&router),
    ];
    if !redis.is_empty() {
        row.extend([shown(&redis, 1), per_core(&redis)]);
    }
    row
}
