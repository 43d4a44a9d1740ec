//! What a hold and its settle cost this process, in either store.
//!
//! ```text
//! redis-server --port 7379 --save '' &
//! cargo run --release -p weir-router-store --example budget -- redis://127.0.0.1:7379 64 100
//! cargo run --release -p weir-router-store --example budget -- /tmp/budget.sqlite 64 100
//! ```
//!
//! The arguments: the URL of a Redis that may be written to, or a file; how many tasks
//! ask at once, of how many tenants. A file of the router's own totals is made in the
//! temporary folder for Redis.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use weir_router_core::budget::{Ask, Bounds, Ceiling, Held, Progress, Settle};
use weir_router_store::{BudgetStore, RedisBudget, RedisSettings, SqliteBudget};
use weir_wire::ids::{RequestId, TenantId};

/// How long the measurement lasts.
const RUN: Duration = Duration::from_secs(5);

/// A router that starts on an empty Redis holds no money before.
const FENCE: Duration = Duration::from_millis(2_200);

/// Of a second, in /proc.
const TICKS: u64 = 100;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let place = arguments
        .next()
        .ok_or("give the URL of a Redis that may be written to, or a file")?;
    let tasks: u64 = arguments.next().map_or(Ok(64), |n| n.parse())?;
    let tenants: u64 = arguments.next().map_or(Ok(100), |n| n.parse())?;
    if !place.contains("://") {
        let store = Arc::new(SqliteBudget::open(Path::new(&place))?);
        return measure(store, tasks, tenants).await.map(drop);
    }
    let folder = std::env::temp_dir().join(format!("weir-budget-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let settings = RedisSettings {
        url: place.clone(),
        cluster: false,
        timeout: Duration::from_secs(1),
    };
    let store = RedisBudget::connect(&settings, &folder.join("own.sqlite")).await?;
    tokio::time::sleep(FENCE).await;
    let before = scripts_run(&place).await?;
    let pairs = measure(Arc::new(store), tasks, tenants).await?;
    let run = scripts_run(&place).await?.saturating_sub(before);
    println!("{run} scripts for {pairs} pairs");
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn ask(tenant: u64, run: u64, n: u64) -> Result<Ask, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut random = [0; 10];
    for (to, from) in random
        .iter_mut()
        .zip(n.to_be_bytes().into_iter().chain(run.to_be_bytes()))
    {
        *to = from;
    }
    Ok(Ask {
        tenant: TenantId::new(format!("bench-{run:x}-{tenant}"))?,
        id: RequestId::mint(u64::try_from(now.as_millis())?, random),
        amount: 5_000,
        not_from: None,
        bounds: Bounds {
            ceiling: Some(Ceiling {
                micros: 1 << 50,
                overage: false,
            }),
            tokens_per_minute: Some(1 << 40),
            in_flight: Some(1_000_000),
        },
        tokens: 2_000,
        life_ms: 60_000,
        progress: Progress {
            micros: 5_000,
            tokens: 2_000,
            note: vec![7; 100],
        },
    })
}

async fn measure<S: BudgetStore>(store: Arc<S>, tasks: u64, tenants: u64) -> Result<u64, Failure> {
    let ids = Arc::new(AtomicU64::new(1));
    let run = getrandom::u64().map_err(|e| e.to_string())? >> 32;
    let cpu = cpu_ticks()?;
    let start = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (store, ids) = (Arc::clone(&store), Arc::clone(&ids));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while start.elapsed() < RUN {
                    let n = ids.fetch_add(1, Ordering::Relaxed);
                    let tenant = n.checked_rem(tenants).unwrap_or(0);
                    let ask = ask(tenant, run, n).map_err(|e| e.to_string())?;
                    let settle = Settle {
                        tenant: ask.tenant.clone(),
                        id: ask.id,
                        micros: 3_000,
                        tokens: 1_200,
                        ceiling: ask.bounds.ceiling,
                    };
                    let sent = Instant::now();
                    let (held, _) = store.hold(ask).await.map_err(|e| e.to_string())?;
                    if held != Held::Held {
                        return Err(format!("{held:?}"));
                    }
                    store.settle(settle).await.map_err(|e| e.to_string())?;
                    times.push(sent.elapsed());
                }
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in running {
        times.extend(task.await??);
    }
    let elapsed = start.elapsed();
    let cpu_s = f64::from(u32::try_from(cpu_ticks()?.saturating_sub(cpu))?)
        / f64::from(u32::try_from(TICKS)?);
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = times.len().saturating_mul(percent) / 100;
        times.get(rank).copied().unwrap_or_default()
    };
    let pairs = f64::from(u32::try_from(times.len())?);
    println!(
        "{:.0} pairs a second, {:.1} µs of this process's CPU for one, p50 {:?}, p99 {:?}",
        pairs / elapsed.as_secs_f64(),
        cpu_s * 1e6 / pairs,
        at(50),
        at(99),
    );
    Ok(u64::try_from(times.len())?)
}

/// User and system time of this process: fields 14 and 15 of its line in /proc.
fn cpu_ticks() -> Result<u64, Failure> {
    let line = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = line.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum())
}

/// How many scripts the server has run.
async fn scripts_run(url: &str) -> Result<u64, Failure> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut connection)
        .await?;
    let calls = stats.lines().find_map(|line| {
        line.strip_prefix("cmdstat_evalsha:calls=")?
            .split(',')
            .next()
    });
    Ok(calls.map_or(Ok(0), str::parse)?)
}
