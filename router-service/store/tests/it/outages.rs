//! Redis away, slow, and back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weir_router_core::quota::Ask;
use weir_router_store::{QuotaStore, RedisQuota, RedisSettings};

use crate::{
    asks::{answer_of, ask, granted, limit, pass, quota, settings},
    server::Server,
};

const SHORT: Duration = Duration::from_millis(250);

/// How long a server that is back may take to be found.
const PATIENCE: Duration = Duration::from_secs(20);

async fn impatient(server: &Server) -> RedisQuota {
    let settings = RedisSettings {
        timeout: SHORT,
        ..settings(server.url())
    };
    RedisQuota::connect(&settings).await.unwrap()
}

fn one(n: u64) -> Ask {
    ask(n, 1, &[limit(1_000, 60)])
}

/// Asks once; says how long it took to be refused.
async fn refused(store: &RedisQuota, n: u64) -> Duration {
    let start = Instant::now();
    store.acquire(one(n)).await.unwrap_err();
    start.elapsed()
}

#[tokio::test]
async fn a_server_that_hangs_costs_three_time_outs_and_then_nothing() {
    // A machine that stood still meanwhile proves nothing.
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (slowest, fast) = check_hang().await;
        if slowest < SHORT * 3 && fast >= 20 {
            return;
        }
        seen.push((slowest, fast));
    }
    panic!("{seen:?}");
}

/// The slowest of the first three refusals of a server that hangs, and how many come at
/// once in the second after them. When it is back, it serves.
async fn check_hang() -> (Duration, u32) {
    let server = Server::start();
    let store = impatient(&server).await;
    answer_of(&store, one(1)).await;
    server.freeze();
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    for n in 2..5 {
        slowest = slowest.max(refused(&store, n).await);
    }
    let mut fast = 0;
    while start.elapsed() < Duration::from_millis(1_600) {
        fast += u32::from(refused(&store, 5).await < Duration::from_millis(20));
        pass(10).await;
    }
    server.thaw();
    let thawed = Instant::now();
    let after = answer_of(&store, one(6)).await;
    assert_eq!(granted(&after), 1);
    assert!(thawed.elapsed() < PATIENCE, "{:?}", thawed.elapsed());
    // What was sent while it hung may have been done then, once each.
    let counted = 1_000 - after.limits[0].remaining;
    assert!((2..=6).contains(&counted), "{counted}");
    (slowest, fast)
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_found_later() {
    let mut server = Server::start();
    server.kill();
    let store = impatient(&server).await;
    refused(&store, 1).await;
    server.start_again();
    let start = Instant::now();
    assert_eq!(granted(&answer_of(&store, one(2)).await), 1);
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_make_one_connection() {
    let mut server = Server::start();
    // One that gives a connection up makes another.
    let store = Arc::new(quota(&server).await);
    answer_of(&*store, one(0)).await;
    for round in 0..3 {
        server.kill();
        // Clients of before don't count.
        refused(&store, 1).await;
        server.start_again();
        let connections = || -> u64 {
            let stats: String = server.run(&["INFO", "stats"]);
            let line = stats
                .lines()
                .find_map(|l| l.strip_prefix("total_connections_received:"));
            line.unwrap().trim().parse().unwrap()
        };
        let before = connections();
        let tasks: Vec<_> = (0..200)
            .map(|n| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let n = round * 1_000 + n + 10;
                    answer_of(&*store, one(n)).await;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let made = connections() - before;
        // One is that of the question itself.
        assert!(made <= 3, "{made}");
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_the_store_usable() {
    let mut server = Server::start();
    server.kill();
    let store = impatient(&server).await;
    server.start_again();
    for n in 0..20 {
        drop(tokio::time::timeout(Duration::from_millis(n % 4), store.acquire(one(n))).await);
    }
    assert_eq!(granted(&answer_of(&store, one(90)).await), 1);
}
