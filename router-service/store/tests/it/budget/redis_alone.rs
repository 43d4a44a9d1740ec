//! What concerns Redis alone: several routers, users, clusters, forgotten scripts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weir_router_core::budget::{Ask, Happened, Held, Progress, Refused};
use weir_router_store::{BudgetStore as _, OpenError, RedisBudget, RedisSettings};

use super::{
    PATIENCE, ask, check_ceiling, money, router, settle, standing, tenant, under, wait_until_open,
};
use crate::{
    asks::{pass, settings},
    server::Server,
};

/// What the documentation of [`RedisSettings`] and [`RedisBudget`] says.
const RIGHTS: &str = "+eval +evalsha +get +set +del +hget +hmget +hset +hdel +pexpire +time \
                      +info +hgetall +exists +zadd +zrem +zrange +zrangebyscore +zcount +zscore";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_routers_never_pass_one_ceiling() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let stores = [
        Arc::new(router(&server, folder.path(), "r1").await),
        Arc::new(router(&server, folder.path(), "r2").await),
    ];
    wait_until_open(&*stores[0]).await;
    wait_until_open(&*stores[1]).await;
    check_ceiling(&stores, 1_500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_redis_holds_no_money_for_two_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let start = Instant::now();
    let store = router(&server, folder.path(), "r1").await;
    let refused = store.hold(ask(1)).await.unwrap_err();
    assert!(refused.why.contains("brought together"), "{refused}");
    assert_eq!(store.hold(ask(0)).await.unwrap().0, Held::Held);
    wait_until_open(&store).await;
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1_900), "{took:?}");
    assert_eq!(store.hold(ask(1)).await.unwrap().0, Held::Held);
    // Another router finds it as it is.
    let second = router(&server, folder.path(), "r2").await;
    assert_eq!(second.hold(ask(1)).await.unwrap().0, Held::Held);
    let new = Ask {
        tenant: tenant("new"),
        ..ask(1)
    };
    assert_eq!(second.hold(new).await.unwrap().0, Held::Held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_of_a_dead_router_are_swept_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let dead = router(&server, folder.path(), "r1").await;
    wait_until_open(&dead).await;
    let mut ids = Vec::new();
    for n in 0..10 {
        let one = Ask {
            tenant: tenant(&format!("t{n}")),
            life_ms: 100,
            progress: Progress {
                micros: 7,
                tokens: 0,
                note: vec![n],
            },
            ..ask(10)
        };
        ids.push(one.id);
        assert_eq!(dead.hold(one).await.unwrap().0, Held::Held);
    }
    drop(dead);
    let others = [
        router(&server, folder.path(), "r2").await,
        router(&server, folder.path(), "r3").await,
    ];
    pass(120).await;
    let (a, b) = tokio::join!(others[0].sweep(), others[1].sweep());
    assert_eq!(a.unwrap() + b.unwrap(), 10);
    let mail = others[0].mail(4).await.unwrap();
    assert_eq!(mail.len(), 4);
    let mail = others[1].mail(100).await.unwrap();
    let swept: Vec<_> = mail
        .iter()
        .map(|mail| match &mail.what {
            Happened::Swept { id, progress } => (*id, progress.micros),
            other @ Happened::Reached { .. } => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(swept.len(), 10);
    assert!(ids.iter().all(|id| swept.contains(&(*id, 7))));
    let (a, b) = tokio::join!(others[0].acknowledge(&mail), others[1].acknowledge(&mail));
    for (a, b) in a.unwrap().into_iter().zip(b.unwrap()) {
        assert!(a ^ b, "one of two is told so");
    }
    assert!(others[0].mail(100).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let store = router(&server, folder.path(), "r1").await;
    for _ in 0..3 {
        server.run::<()>(&["SCRIPT", "FLUSH"]);
        let one = ask(0);
        store.hold(one.clone()).await.unwrap();
        server.run::<()>(&["SCRIPT", "FLUSH"]);
        store.settle(settle(one.id, 5)).await.unwrap();
    }
    assert_eq!(money(&store).await, (15, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_alone_is_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let store = router(&server, folder.path(), "r1").await;
    wait_until_open(&store).await;
    store.settle(settle(super::id(), 5)).await.unwrap();
    server.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]);
    let start = Instant::now();
    while store.hold(ask(1)).await.is_err() {
        assert!(start.elapsed() < PATIENCE);
        pass(20).await;
    }
    assert_eq!(money(&store).await, (5, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_few_rights_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let mut user = vec!["ACL", "SETUSER", "weir", "on", ">pass", "~weir:*"];
    user.extend(RIGHTS.split_whitespace());
    server.run::<()>(&user);
    server.run::<()>(&["ACL", "SETUSER", "default", "resetpass", ">other"]);
    let url = server.url().replace("//", "//weir:pass@");
    let store = RedisBudget::connect(&settings(url), &folder.path().join("r1")).await;
    let store = store.unwrap();
    wait_until_open(&store).await;
    let one = Ask {
        life_ms: 1,
        tokens: 3,
        ..under(100, ask(60))
    };
    store.hold(one.clone()).await.unwrap();
    pass(5).await;
    assert_eq!(store.sweep().await.unwrap(), 1);
    store.settle(settle(one.id, 10)).await.unwrap();
    let mail = store.mail(10).await.unwrap();
    assert!(!mail.is_empty());
    assert!(store.acknowledge(&mail).await.unwrap().iter().all(|is| *is));
    assert_eq!(standing(&store).await.tokens, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_is_one_routers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let _first = router(&server, folder.path(), "r1").await;
    let path = folder.path().join("r1");
    let second = RedisBudget::connect(&settings(server.url()), &path).await;
    assert!(matches!(second.unwrap_err(), OpenError::InUse { .. }));
    let nowhere = settings("http://user:s3cr3t@host".to_owned());
    let wrong = RedisBudget::connect(&nowhere, &folder.path().join("r2")).await;
    let wrong = wrong.unwrap_err();
    assert!(!format!("{wrong} {wrong:?}").contains("s3cr3t"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_asked_slot_by_slot() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(&["--cluster-enabled", "yes"]);
    server.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    while !server
        .run::<String>(&["CLUSTER", "INFO"])
        .contains("cluster_state:ok")
    {
        pass(20).await;
    }
    let settings = RedisSettings {
        cluster: true,
        ..settings(server.url())
    };
    let store = RedisBudget::connect(&settings, &folder.path().join("r1")).await;
    let store = store.unwrap();
    wait_until_open(&store).await;
    for n in 0..20 {
        let one = Ask {
            tenant: tenant(&format!("t{n}")),
            life_ms: 1,
            ..under(100, ask(60))
        };
        assert_eq!(store.hold(one).await.unwrap().0, Held::Held);
    }
    store.settle(settle(super::id(), 9)).await.unwrap();
    pass(5).await;
    assert_eq!(store.sweep().await.unwrap(), 20);
    let mail = store.mail(100).await.unwrap();
    assert_eq!(mail.len(), 20);
    assert_eq!(store.acknowledge(&mail).await.unwrap(), [true; 20]);
    server.run::<()>(&["FLUSHALL"]);
    assert!(store.hold(under(100, ask(1))).await.is_err());
    wait_until_open(&store).await;
    assert_eq!(money(&store).await, (9, 0));
    assert_eq!(
        store.hold(under(10, ask(2))).await.unwrap().0,
        Held::Refused(Refused::Budget)
    );
}
