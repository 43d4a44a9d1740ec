//! How many leases a second one connection to Redis brings.
//!
//! ```text
//! redis-server --port 7379 --save '' &
//! cargo run --release -p weir-router-store --example acquire -- redis://127.0.0.1:7379 64 100
//! ```
//!
//! The arguments: the URL, how many tasks ask at once, of how many tenants.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use weir_router_core::quota::{Ask, Closing, Granted, Limit};
use weir_router_store::{QuotaStore as _, RedisQuota, RedisSettings};

/// How long each measurement lasts.
const RUN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .ok_or("give the URL of a Redis that may be written to")?;
    let tasks: u64 = arguments.next().map_or(Ok(64), |n| n.parse())?;
    let tenants: u64 = arguments.next().map_or(Ok(100), |n| n.parse())?;
    let settings = RedisSettings {
        url,
        cluster: false,
        timeout: Duration::from_secs(1),
    };
    let store = RedisQuota::connect(&settings).await?;
    let run = getrandom::u64().map_err(|e| e.to_string())?;
    for (name, requests, closes) in [
        ("granted", u32::MAX, false),
        ("granted, the last one closed", u32::MAX, true),
        ("denied", 1, false),
    ] {
        let shape = Shape {
            limits: limits(requests)?,
            closes,
            tenants,
            prefix: format!("bench-{run:x}-{requests}-{closes}"),
        };
        measure(&store, name, tasks, Arc::new(shape)).await?;
    }
    Ok(())
}

struct Shape {
    limits: Vec<Limit>,
    closes: bool,
    tenants: u64,
    prefix: String,
}

/// A minute's and a second's, as most tenants have.
fn limits(requests: u32) -> Result<Vec<Limit>, std::num::TryFromIntError> {
    let limit = |window_s: u32| {
        Ok(Limit {
            requests: NonZeroU32::try_from(requests)?,
            window_s: NonZeroU32::try_from(window_s)?,
            class: String::new(),
        })
    };
    [60, 1].into_iter().map(limit).collect()
}

async fn measure(
    store: &RedisQuota,
    name: &str,
    tasks: u64,
    shape: Arc<Shape>,
) -> Result<(), Box<dyn std::error::Error>> {
    let ids = Arc::new(AtomicU64::new(1));
    let start = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (store, shape, ids) = (store.clone(), Arc::clone(&shape), Arc::clone(&ids));
            tokio::spawn(async move {
                let (mut times, mut last, mut granted) = (Vec::new(), None, 0_u64);
                while start.elapsed() < RUN {
                    let n = ids.fetch_add(1, Ordering::Relaxed);
                    let tenant = n.checked_rem(shape.tenants).unwrap_or(0);
                    let ask = Ask {
                        tenant: format!("{}-{tenant}", shape.prefix),
                        limits: shape.limits.clone(),
                        id: u128::from(n).to_be_bytes(),
                        wanted: 10,
                        life_ms: 2_000,
                        gateways: 2,
                        epoch: String::new(),
                        closing: last.take().into_iter().collect(),
                    };
                    let sent = Instant::now();
                    let answer = store.acquire(ask).await?;
                    times.push(sent.elapsed());
                    if let Granted::Lease { requests, .. } = answer.granted {
                        granted = granted.saturating_add(1);
                        last = shape.closes.then(|| Closing {
                            id: u128::from(n).to_be_bytes(),
                            spent: requests / 2,
                            age_ms: 1,
                        });
                    }
                }
                Ok::<_, weir_router_store::Unavailable>((times, granted))
            })
        })
        .collect();
    let (mut times, mut granted) = (Vec::new(), 0_u64);
    for task in running {
        let (its_times, its_granted) = task.await??;
        times.extend(its_times);
        granted = granted.saturating_add(its_granted);
    }
    let elapsed = start.elapsed();
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = times.len().saturating_mul(percent) / 100;
        times.get(rank).copied().unwrap_or_default()
    };
    println!(
        "{name}: {:.0} acquires a second ({granted} leases), p50 {:?}, p99 {:?}",
        f64::from(u32::try_from(times.len())?) / elapsed.as_secs_f64(),
        at(50),
        at(99),
    );
    Ok(())
}
