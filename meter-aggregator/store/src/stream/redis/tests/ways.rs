//! Ways to a Redis: sentinels, users with few rights.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use super::server::{Server, free_port};
use crate::stream::{
    AppendError,
    body::{Reading, events, texts},
    redis::{RedisSettings, RedisStream},
    transport::{OpenError, Transport},
};

pub const KEEPS: [&str; 2] = ["--appendonly", "yes"];

pub async fn check_round(stream: &Arc<dyn Transport>) {
    stream.append(events(3, "one", 10)).await.unwrap();
    let mut reading = Reading::begin(stream, 3, 0).await;
    assert_eq!(reading.take(10).await, texts(&events(3, "one", 10)));
    reading.book().await;
    assert!(reading.is_empty().await);
    let waiting = stream.waiting().await.unwrap();
    assert_eq!(waiting.iter().map(|w| w.entries).sum::<u64>(), 0);
}

/// What the documentation of [`RedisSettings`] says.
const RIGHTS: &str = "+xadd +xgroup +xreadgroup +xautoclaim +xack +xtrim +xinfo +xpending \
                      +xrange +xlen +exists +eval +get +set +info";

#[tokio::test]
async fn a_user_with_few_rights_is_enough() {
    for (server, more) in [
        (Server::start(), "+config|get"),
        (Server::start(), ""),
        (Server::start_cluster(), "+cluster|slots"),
    ] {
        let keys = ["~weir:usage:*", "~{weir:usage:*"];
        let mut rules = vec!["ACL", "SETUSER", "meter", "on", ">hush/hush"];
        rules.extend(keys.iter().copied().chain(RIGHTS.split_whitespace()));
        rules.extend(more.split_whitespace());
        server.run::<()>(&rules);
        let mut settings = server.settings("a");
        settings.ledger = "one".to_owned();
        settings.url = format!("redis://meter:hush%2Fhush@127.0.0.1:{}/", server.port);
        assert!(!format!("{settings:?}").contains("hush"));
        let stream = RedisStream::open(settings.clone()).await.unwrap();
        assert!(!format!("{stream:?}").contains("hush"));
        let stream: Arc<dyn Transport> = Arc::new(stream);
        check_round(&stream).await;
        settings.url = settings.url.replace("hush", "guess");
        let error = RedisStream::open(settings).await.err().unwrap();
        assert!(matches!(error, OpenError::Unavailable(_)), "{error}");
        assert!(!error.to_string().contains("guess"), "{error}");
    }
}

#[tokio::test]
async fn settings_that_can_not_be_used_are_refused() {
    let check = |change: fn(&mut RedisSettings), expected: &str| {
        let mut settings = RedisSettings::new("redis://a".to_owned(), "a".to_owned());
        change(&mut settings);
        let error = RedisStream::new(settings).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(|s| s.prefix = String::new(), "prefix");
    check(|s| s.prefix = "a{b}".to_owned(), "prefix");
    check(|s| s.consumer = String::new(), "consumer");
    check(|s| s.consumer = "a b".to_owned(), "consumer");
    check(|s| s.url = "nonsense".to_owned(), "URL");
}

/// Nobody is there, or nobody answers: within the time-out that is said.
#[tokio::test]
async fn a_redis_that_is_away_is_waited_for_as_long_as_set() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    for port in [free_port(), silent_port] {
        let url = format!("redis://127.0.0.1:{port}");
        let mut settings = RedisSettings::new(url, "a".to_owned());
        settings.timeout = Duration::from_millis(200);
        let begun = Instant::now();
        let opened = RedisStream::open(settings.clone()).await;
        assert!(matches!(opened, Err(OpenError::Unavailable(_))));
        let stream = RedisStream::new(settings).unwrap();
        let refused = stream.append(events(3, "refused", 1)).await;
        assert_eq!(refused, Err(AppendError::Failed));
        assert!(stream.waiting().await.is_err());
        assert!(stream.reader(stream.lanes()[0], 0).await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn sentinels_say_where_the_master_is() {
    let master = Server::start_with(&KEEPS);
    let port = master.port.to_string();
    let follows = ["--replicaof", "127.0.0.1", &port];
    let replica = Server::start_with(&[&KEEPS[..], &follows].concat());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sentinel.conf");
    let lines = format!(
        "sentinel monitor primary 127.0.0.1 {port} 1\n\
         sentinel down-after-milliseconds primary 500\n\
         sentinel failover-timeout primary 2000\n"
    );
    fs::write(&file, lines).unwrap();
    let sentinel = Server::start_with(&[file.to_str().unwrap(), "--sentinel"]);
    let settings = |name: &str| {
        let url = format!("redis+sentinel://127.0.0.1:{}/{name}", sentinel.port);
        RedisSettings {
            timeout: Duration::from_secs(2),
            ..RedisSettings::new(url, "a".to_owned())
        }
    };
    let error = RedisStream::open(settings("other")).await.err().unwrap();
    assert!(matches!(error, OpenError::Unavailable(_)), "{error}");
    let stream = RedisStream::open(settings("primary")).await.unwrap();
    let stream: Arc<dyn Transport> = Arc::new(stream);
    check_round(&stream).await;
    // The replica has to have all, and the sentinel to know it, before it can take over.
    stream.append(events(3, "waits", 10)).await.unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    let is_ready = || {
        let info = sentinel.run::<String>(&["INFO", "sentinel"]);
        let state = replica.run::<String>(&["INFO", "replication"]);
        let length = replica.run::<u64>(&["XLEN", "{weir:usage:3}:events"]);
        info.contains("slaves=1") && state.contains("link_status:up") && length == 1
    };
    while !is_ready() {
        assert!(Instant::now() < end, "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A reader that waits at the old master is let go with it.
    let mut reader = stream.reader(stream.lanes()[5], 0).await.unwrap();
    let (read, ()) = tokio::join!(reader.read(10, Duration::from_secs(20)), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        master.kill();
    });
    assert!(read.is_err(), "{read:?}");
    while let Err(error) = stream.append(events(3, "after", 10)).await {
        assert!(Instant::now() < end, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut reading = Reading::begin(&stream, 3, 0).await;
    let expected = ["waits", "after"].map(|name| texts(&events(3, name, 10)));
    assert_eq!(reading.take(20).await, expected.concat());
    reading.book().await;
}

#[tokio::test]
async fn an_event_is_acknowledged_by_as_many_replicas_as_set() {
    let master = Server::start_with(&KEEPS);
    let port = master.port.to_string();
    let follows = ["--replicaof", "127.0.0.1", &port];
    let replica = Server::start_with(&[&KEEPS[..], &follows].concat());
    let end = Instant::now() + Duration::from_secs(120);
    while !replica
        .run::<String>(&["INFO", "replication"])
        .contains("link_status:up")
    {
        assert!(Instant::now() < end, "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (replicas, timeout_s, expected) in [(1, 20, Ok(())), (2, 2, Err(AppendError::Failed))] {
        let settings = RedisSettings {
            timeout: Duration::from_secs(timeout_s),
            replicas,
            ..master.settings("a")
        };
        let stream = RedisStream::open(settings).await.unwrap();
        assert_eq!(stream.append(events(3, "one", 1_200)).await, expected);
        let length = replica.run::<u64>(&["XLEN", "{weir:usage:3}:events"]);
        assert!(length >= 3, "{length}");
    }
    let cluster = Server::start_cluster();
    let settings = RedisSettings {
        timeout: Duration::from_secs(2),
        replicas: 1,
        ..cluster.settings("a")
    };
    let stream = RedisStream::open(settings).await.unwrap();
    let refused = stream.append(events(3, "one", 1_200)).await;
    assert_eq!(refused, Err(AppendError::Failed));
    assert_eq!(cluster.run::<u64>(&["XLEN", "{weir:usage:3}:events"]), 3);
}

/// Two ledgers on the same streams would each bill all.
#[tokio::test]
async fn a_prefix_is_one_ledgers() {
    let server = Server::start();
    let of = |ledger: &str| RedisSettings {
        ledger: ledger.to_owned(),
        ..server.settings("a")
    };
    let stream: Arc<dyn Transport> = Arc::new(RedisStream::open(of("one")).await.unwrap());
    check_round(&stream).await;
    RedisStream::open(of("one")).await.unwrap();
    let other = RedisStream::open(of("two")).await;
    let refused = other.map(|_| ()).unwrap_err();
    assert!(
        matches!(&refused, OpenError::Unfit(why) if why.contains("(one)")),
        "{refused}"
    );
    // One that could not look at its start is kept from reading.
    let late = RedisStream::new(of("two")).unwrap();
    assert!(late.reader(late.lanes()[3], 0).await.is_err());
    let apart = RedisSettings {
        prefix: "other".to_owned(),
        ..of("two")
    };
    RedisStream::open(apart).await.unwrap();
}
