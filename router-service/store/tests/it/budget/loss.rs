//! Redis loses its data: spend comes back, and nothing is held for money before.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use weir_router_core::budget::{Ask, Held, Progress, Refused, Settle, Settled};
use weir_router_store::{BudgetStore as _, RedisBudget};

use super::{
    PATIENCE, acme, ask, ceiling, money, percents, router, settle, standing, under, wait_until_open,
};
use crate::{asks::pass, server::Server};

/// Settles so much, under a ceiling of 1,000, until Redis is there.
async fn spend(store: &RedisBudget, micros: u64) {
    let one = Settle {
        ceiling: ceiling(1_000),
        ..settle(super::id(), micros)
    };
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if store.settle(one.clone()).await.is_ok() {
            return;
        }
        pass(20).await;
    }
    panic!("it does not recover");
}

async fn two(server: &Server, folder: &Path) -> [RedisBudget; 2] {
    let routers = [
        router(server, folder, "r1").await,
        router(server, folder, "r2").await,
    ];
    wait_until_open(&routers[0]).await;
    wait_until_open(&routers[1]).await;
    routers
}

/// What both have booked is there, alerts are not told again, and holds are held.
async fn check_all_is_back(routers: &[RedisBudget; 2], kept: &Ask) {
    for store in routers {
        let now = standing(store).await;
        assert_eq!((now.spend, now.held), (700, 250), "{now:?}");
        assert!(percents(&store.mail(10).await.unwrap()).is_empty());
    }
    let (held, _) = routers[1].hold(under(1_000, ask(51))).await.unwrap();
    assert_eq!(held, Held::Refused(Refused::Budget));
    let (held, _) = routers[0].hold(kept.clone()).await.unwrap();
    assert_eq!(held, Held::Duplicate);
    let last = Settle {
        ceiling: ceiling(1_000),
        ..settle(kept.id, 100)
    };
    let (settled, after) = routers[1].settle(last).await.unwrap();
    assert_eq!((settled, after.spend, after.held), (Settled::Held, 800, 0));
    assert_eq!(percents(&routers[0].mail(10).await.unwrap()), [80]);
}

/// Both routers spend, one of them downwards, too; one has an open hold.
async fn spend_and_hold(routers: &[RedisBudget; 2]) -> Ask {
    spend(&routers[0], 300).await;
    spend(&routers[1], 350).await;
    let swept = Ask {
        life_ms: 1,
        progress: Progress {
            micros: 90,
            ..Progress::default()
        },
        ..ask(100)
    };
    routers[0].hold(swept.clone()).await.unwrap();
    pass(5).await;
    assert_eq!(routers[1].sweep().await.unwrap(), 1);
    let right = Settle {
        ceiling: ceiling(1_000),
        ..settle(swept.id, 50)
    };
    let (settled, _) = routers[0].settle(right).await.unwrap();
    assert_eq!(settled, Settled::Swept);
    let kept = under(1_000, ask(200));
    routers[0].hold(kept.clone()).await.unwrap();
    let acme = acme();
    let raised = routers[0].raise(&acme, kept.id, 1, 50, ceiling(1_000));
    assert_eq!(raised.await.unwrap().0, Held::Held);
    let mail = routers[0].mail(10).await.unwrap();
    assert_eq!(percents(&mail), [50]);
    routers[0].acknowledge(&mail).await.unwrap();
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_empty_is_told_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start();
    let routers = two(&server, folder.path()).await;
    let kept = spend_and_hold(&routers).await;
    server.kill();
    assert!(routers[0].hold(ask(0)).await.is_err());
    server.start_again();
    let start = Instant::now();
    let end = start + PATIENCE;
    // What costs nothing is held as soon as this router's books are there.
    while routers[0].hold(ask(0)).await.is_err() {
        assert!(Instant::now() < end);
        assert!(routers[0].hold(ask(1)).await.is_err());
        pass(20).await;
    }
    assert!(routers[0].hold(ask(1)).await.is_err(), "fenced");
    wait_until_open(&routers[0]).await;
    assert!(start.elapsed() > Duration::from_millis(1_900));
    wait_until_open(&routers[1]).await;
    check_all_is_back(&routers, &kept).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_is_seen_by_the_next_call() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let routers = two(&server, folder.path()).await;
    let kept = spend_and_hold(&routers).await;
    let flushed = Instant::now();
    server.run::<()>(&["FLUSHALL"]);
    assert!(routers[0].hold(under(10_000, ask(1))).await.is_err());
    let (spend, held) = money(&routers[0]).await;
    assert!(spend >= 260 && held == 250, "{spend} {held}: its own part");
    // The other one looks once a second.
    let start = Instant::now();
    while money(&routers[0]).await != (700, 250) {
        assert!(start.elapsed() < PATIENCE, "the other's never comes");
        pass(20).await;
    }
    let is_refused = routers[0].hold(under(10_000, ask(1))).await.is_err();
    // Two seconds from when the first one saw it.
    assert!(is_refused || flushed.elapsed() > Duration::from_millis(1_800));
    wait_until_open(&routers[0]).await;
    wait_until_open(&routers[1]).await;
    check_all_is_back(&routers, &kept).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_data_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(&["--dbfilename", "dump.rdb"]);
    let routers = two(&server, folder.path()).await;
    spend(&routers[0], 100).await;
    server.run::<()>(&["SAVE"]);
    let kept = {
        spend(&routers[0], 200).await;
        spend(&routers[1], 400).await;
        let mail = routers[0].mail(10).await.unwrap();
        assert_eq!(percents(&mail), [50]);
        routers[0].acknowledge(&mail).await.unwrap();
        let kept = under(1_000, ask(250));
        routers[0].hold(kept.clone()).await.unwrap();
        kept
    };
    server.kill();
    server.start_again();
    wait_until_open(&routers[0]).await;
    wait_until_open(&routers[1]).await;
    check_all_is_back(&routers, &kept).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_keeps_the_data_is_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let aof = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut server = Server::start_with(&aof);
    let routers = two(&server, folder.path()).await;
    let kept = spend_and_hold(&routers).await;
    server.kill();
    server.start_again();
    wait_until_open(&routers[0]).await;
    wait_until_open(&routers[1]).await;
    check_all_is_back(&routers, &kept).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_was_away_tells_its_part_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start();
    let [first, second] = two(&server, folder.path()).await;
    spend(&first, 300).await;
    spend(&second, 400).await;
    drop(second);
    server.kill();
    server.start_again();
    wait_until_open(&first).await;
    assert_eq!(money(&first).await, (300, 0), "what is documented");
    let second = router(&server, folder.path(), "r2").await;
    assert_eq!(money(&first).await, (700, 0));
    assert_eq!(money(&second).await, (700, 0));
    // Both go away, and so does all that Redis knows.
    drop((first, second));
    server.run::<()>(&["FLUSHALL"]);
    let routers = [
        router(&server, folder.path(), "r1").await,
        router(&server, folder.path(), "r2").await,
    ];
    assert!(routers[0].hold(under(1_000, ask(1))).await.is_err());
    wait_until_open(&routers[0]).await;
    assert_eq!(money(&routers[1]).await, (700, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushes_under_load_lose_no_spend() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let routers = two(&server, folder.path()).await.map(Arc::new);
    let is_over = Arc::new(AtomicBool::new(false));
    let (spent, calls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks = (0..16_usize).map(|task| {
        let store = Arc::clone(&routers[task % 2]);
        let is_over = Arc::clone(&is_over);
        let (spent, calls) = (Arc::clone(&spent), Arc::clone(&calls));
        tokio::spawn(async move {
            let mut n = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                n += 1;
                calls.fetch_add(1, Ordering::Relaxed);
                let amount = 3 * (n % 5);
                let one = ask(amount);
                match store.hold(one.clone()).await {
                    Ok((held, _)) => assert_eq!(held, Held::Held),
                    Err(_) => {
                        pass(5).await;
                        continue;
                    }
                }
                while store.settle(settle(one.id, amount / 3)).await.is_err() {
                    pass(5).await;
                }
                spent.fetch_add(amount / 3, Ordering::Relaxed);
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for _ in 0..3 {
        pass(700).await;
        server.run::<()>(&["FLUSHALL"]);
        pass(2_500).await;
    }
    let so_far = || (spent.load(Ordering::Relaxed), calls.load(Ordering::Relaxed));
    let start = Instant::now();
    while so_far().0 <= 1_000 || so_far().1 <= 2_000 {
        assert!(start.elapsed() < PATIENCE, "{:?}", so_far());
        pass(50).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let (spent, _) = so_far();
    // Once a second, what was learnt late is told.
    for store in &routers {
        let start = Instant::now();
        while money(&**store).await.0 != spent && start.elapsed() < PATIENCE {
            pass(50).await;
        }
        assert_eq!(money(&**store).await.0, spent);
    }
}
