//! What concerns Redis alone: loss of data, users, clusters, several routers.

use std::{sync::Arc, time::Instant};

use weir_router_core::quota::{Ask, Granted};
use weir_router_store::{QuotaStore, RedisQuota, RedisSettings};

use crate::{
    asks::{
        answer_of, ask, ask_in, closing, granted, id, is_fenced, limit, of_class, pass, quota,
        settings,
    },
    cases::check_many_at_once,
    server::Server,
};

/// What the documentation of [`RedisSettings`] says.
const RIGHTS: &str = "+eval +evalsha +get +set +del +hget +hmget +hset +hdel +pexpire \
                      +time +info";

#[tokio::test]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = Server::start();
    let store = quota(&server).await;
    let limits = [limit(10, 60)];
    for n in 0..3 {
        assert_eq!(
            granted(&store.acquire(ask(n, 1, &limits)).await.unwrap()),
            1
        );
        server.run::<()>(&["SCRIPT", "FLUSH"]);
        let back = vec![("acme".to_owned(), closing(n, 0, 0))];
        store.close(back).await.unwrap();
        server.run::<()>(&["SCRIPT", "FLUSH"]);
    }
    let answer = store.acquire(ask(9, 1, &limits)).await.unwrap();
    assert_eq!(answer.limits[0].remaining, 9);
}

#[tokio::test]
async fn a_server_that_comes_back_empty_fences_everybody() {
    let mut server = Server::start();
    let store = quota(&server).await;
    let limits = [limit(10, 1)];
    let before = store.acquire(ask(1, 5, &limits)).await.unwrap();
    assert_eq!(granted(&before), 5);
    server.kill();
    assert!(store.acquire(ask(2, 1, &limits)).await.is_err());
    server.start_again();

    let mine = answer_of(&store, ask_in(&before.epoch, 2, 1, &limits)).await;
    let Granted::Fenced { until_in_ms } = mine.granted else {
        panic!("{mine:?}");
    };
    assert_ne!(mine.epoch, before.epoch);
    // Nor is a tenant granted anything of whom nobody tells: another gateway may have
    // been, before.
    let other = Ask {
        tenant: "other".to_owned(),
        ..ask(3, 1, &limits)
    };
    assert!(is_fenced(&store.acquire(other).await.unwrap()));
    pass(until_in_ms + 20).await;
    let after = store.acquire(ask_in(&before.epoch, 4, 1, &limits)).await;
    assert_eq!(granted(&after.unwrap()), 1);
}

#[tokio::test]
async fn a_flush_fences_whom_it_took_counts_from() {
    let server = Server::start();
    let store = quota(&server).await;
    let limits = [limit(10, 1)];
    let before = store.acquire(ask(1, 5, &limits)).await.unwrap();
    server.run::<()>(&["FLUSHALL"]);
    let mine = store.acquire(ask_in(&before.epoch, 2, 1, &limits)).await;
    assert!(is_fenced(&mine.unwrap()));

    // Where a router that granted nothing is asked by a gateway that is new, that hides
    // the loss until another comes.
    let other = |n, epoch: &str| Ask {
        tenant: "other".to_owned(),
        ..ask_in(epoch, n, 1, &limits)
    };
    let before = store.acquire(other(10, "")).await.unwrap();
    server.run::<()>(&["FLUSHALL"]);
    let second = quota(&server).await;
    let fresh = second.acquire(other(11, "")).await.unwrap();
    assert_eq!(granted(&fresh), 1);
    assert_ne!(fresh.epoch, before.epoch);
    let same = second.acquire(other(12, &fresh.epoch)).await.unwrap();
    assert_eq!((granted(&same), &same.epoch), (1, &fresh.epoch));
    let mine = second.acquire(other(13, &before.epoch)).await.unwrap();
    assert!(is_fenced(&mine) && mine.epoch != fresh.epoch, "{mine:?}");
    let Granted::Fenced { until_in_ms } = mine.granted else {
        panic!("{mine:?}");
    };
    pass(300).await;
    let again = second.acquire(other(14, &before.epoch)).await.unwrap();
    let Granted::Fenced { until_in_ms: left } = again.granted else {
        panic!("{again:?}");
    };
    assert!(left <= until_in_ms - 300, "one fence, not two");

    // The router that granted it knows by itself.
    let third = |n| Ask {
        tenant: "third".to_owned(),
        ..ask(n, 1, &limits)
    };
    assert_eq!(granted(&store.acquire(third(20)).await.unwrap()), 1);
    server.run::<()>(&["FLUSHALL"]);
    assert!(is_fenced(&store.acquire(third(21)).await.unwrap()));
}

#[tokio::test]
async fn older_data_fences_even_whom_no_gateway_tells_of() {
    let mut server = Server::start_with(&["--dbfilename", "dump.rdb"]);
    let store = quota(&server).await;
    let limits = [limit(10, 1), limit(20, 120)];
    let before = store.acquire(ask(1, 1, &limits)).await.unwrap();
    server.run::<()>(&["SAVE"]);
    for n in 2..5 {
        store.acquire(ask(n, 1, &limits)).await.unwrap();
    }
    server.kill();
    server.start_again();
    let after = answer_of(&store, ask(9, 1, &limits)).await;
    assert!(
        is_fenced(&after) && after.epoch != before.epoch,
        "{after:?}"
    );
    assert_eq!(after.limits[1].remaining, 19, "what was saved counts");
    let told = store.acquire(ask_in(&before.epoch, 10, 1, &limits)).await;
    assert_eq!(told.unwrap().epoch, after.epoch, "no further fence");
}

#[tokio::test]
async fn a_connection_that_breaks_alone_fences_nobody() {
    let server = Server::start();
    let store = quota(&server).await;
    let limits = [limit(10, 60)];
    let before = store.acquire(ask(1, 1, &limits)).await.unwrap();
    server.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]);
    let after = answer_of(&store, ask_in(&before.epoch, 2, 1, &limits)).await;
    assert_eq!((granted(&after), after.epoch), (1, before.epoch));
    assert_eq!(after.limits[0].remaining, 8);
}

#[tokio::test]
async fn a_user_with_few_rights_is_enough() {
    let server = Server::start();
    let mut user = vec!["ACL", "SETUSER", "weir", "on", ">p@ss:word/1", "~weir:*"];
    user.extend(RIGHTS.split_whitespace());
    server.run::<()>(&user);
    server.run::<()>(&["ACL", "SETUSER", "default", "resetpass", ">other"]);
    let url = format!("redis://weir:p%40ss%3Aword%2F1@127.0.0.1:{}/0", server.port);
    let store = RedisQuota::connect(&settings(url)).await.unwrap();
    let limits = [limit(10, 60), of_class("chat", 2, 1)];
    for n in 0..2 {
        let one = Ask {
            closing: vec![closing(n.max(1) - 1, 0, 0)],
            ..ask(n + 1, 1, &limits)
        };
        assert_eq!(granted(&store.acquire(one).await.unwrap()), 1);
    }
    let back = vec![("acme".to_owned(), closing(2, 0, 0))];
    store.close(back).await.unwrap();

    let url = format!("redis://weir:s3cr3t@127.0.0.1:{}/0", server.port);
    let store = RedisQuota::connect(&settings(url)).await.unwrap();
    let refused = store.acquire(ask(9, 1, &limits)).await.unwrap_err();
    assert!(refused.why.contains("uth"), "{refused}");
    assert!(!format!("{refused:?} {store:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_without_a_word_of_it() {
    for (url, cluster) in [
        ("http://user:s3cr3t@host", false),
        ("redis://user:s3cr3t@host:port", false),
        ("s3cr3t", true),
        ("redis://user:s3cr3t@host,nonsense://s3cr3t", true),
    ] {
        let settings = RedisSettings {
            cluster,
            ..settings(url.to_owned())
        };
        let error = RedisQuota::connect(&settings).await.unwrap_err();
        let said = format!("{error} {error:?} {settings:?}");
        assert!(!said.contains("s3cr3t"), "{said}");
    }
}

#[tokio::test]
async fn one_database_of_several_is_used() {
    let server = Server::start();
    let url = format!("{}3", server.url());
    let store = RedisQuota::connect(&settings(url)).await.unwrap();
    store.acquire(ask(1, 1, &[limit(10, 60)])).await.unwrap();
    assert_eq!(server.run::<u64>(&["DBSIZE"]), 0);
}

#[tokio::test]
async fn a_cluster_is_asked_slot_by_slot() {
    let mut server = Server::start_with(&["--cluster-enabled", "yes"]);
    server.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    while !server
        .run::<String>(&["CLUSTER", "INFO"])
        .contains("cluster_state:ok")
    {
        pass(20).await;
    }
    let mut user = vec!["ACL", "SETUSER", "weir", "on", ">pass", "~weir:*"];
    user.extend(RIGHTS.split_whitespace());
    user.push("+cluster|slots");
    server.run::<()>(&user);
    let node = server.url().replace("//", "//weir:pass@");
    let settings = RedisSettings {
        cluster: true,
        ..settings(format!("{node}, {node}"))
    };
    let store = RedisQuota::connect(&settings).await.unwrap();
    let limits = [limit(10, 1), of_class("chat", 5, 60)];
    let mut given_back = Vec::new();
    for n in 0..20 {
        let tenant = format!("tenant-{n}");
        let one = Ask {
            tenant: tenant.clone(),
            ..ask(n, 1, &limits)
        };
        assert_eq!(granted(&answer_of(&store, one).await), 1);
        given_back.push((tenant, closing(n, 0, 0)));
    }
    store.close(given_back).await.unwrap();
    let tenant = |n, epoch: &str| Ask {
        tenant: "tenant-7".to_owned(),
        ..ask_in(epoch, n, 1, &limits)
    };
    let before = store.acquire(tenant(90, "")).await.unwrap();
    assert_eq!(before.limits[1].remaining, 4);
    server.run::<()>(&["SCRIPT", "FLUSH"]);
    server.run::<()>(&["FLUSHALL"]);
    let after = store.acquire(tenant(91, &before.epoch)).await.unwrap();
    assert!(is_fenced(&after), "{after:?}");

    // It keeps its slots, and loses users and data.
    server.kill();
    assert!(store.acquire(tenant(92, &before.epoch)).await.is_err());
    server.start_again();
    server.run::<()>(&user);
    let after = answer_of(&store, tenant(93, &before.epoch)).await;
    assert!(is_fenced(&after), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_routers_never_grant_more_than_one_may() {
    let server = Server::start();
    let stores = [
        Arc::new(quota(&server).await),
        Arc::new(quota(&server).await),
    ];
    check_many_at_once(&stores).await;
}

#[tokio::test]
async fn what_is_over_leaves_the_server() {
    let server = Server::start();
    let store = quota(&server).await;
    let start = Instant::now();
    for n in 0..20 {
        store.acquire(ask(n, 1, &[limit(50, 1)])).await.unwrap();
        pass(20).await;
    }
    let key = "weir:q:{acme}:c:1000:";
    let lease = format!("weir:q:{{acme}}:l:{:032x}", u128::from_be_bytes(id(1)));
    let left: i64 = server.run(&["PTTL", &lease]);
    let least = 28_400 - i64::try_from(start.elapsed().as_millis()).unwrap();
    assert!((least..=30_050).contains(&left), "{left}");
    let slots: u64 = server.run(&["HLEN", key]);
    assert!((5..=23).contains(&slots), "{slots}");
    pass(1_000).await;
    store.acquire(ask(90, 1, &[limit(50, 1)])).await.unwrap();
    let fewer: u64 = server.run(&["HLEN", key]);
    assert!(fewer < slots, "{fewer}");
    pass(4_000).await;
    assert_eq!(server.run::<i64>(&["PTTL", key]), -2, "it is gone");
    let marker: i64 = server.run(&["PTTL", "weir:q:{acme}:m"]);
    assert!(marker > 86_400_000, "{marker}");
}
