//! Redis that stops, forgets, or is tampered with.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::server::{Server, free_port};
use crate::stream::{
    AppendError,
    body::{Reading, events, shard, texts},
    redis::RedisStream,
    transport::{OpenError, StreamError, Transport},
};

const KEY: &str = "{weir:usage:3}:events";
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

/// Appends until it is taken, as a producer does.
async fn append_until_taken(stream: &Arc<dyn Transport>, name: &str) {
    let end = Instant::now() + LONG;
    while let Err(error) = stream.append(events(3, name, 10)).await {
        assert!(Instant::now() < end, "{error}");
        tokio::time::sleep(SHORT).await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash() {
    let server = Server::start();
    let stream = server.stream("a").await;
    stream.append(events(3, "booked", 10)).await.unwrap();
    let mut reading = Reading::begin(&stream, 3, 0).await;
    reading.take(10).await;
    reading.book().await;
    stream.append(events(3, "read", 10)).await.unwrap();
    reading.take(10).await;
    stream.append(events(3, "waits", 10)).await.unwrap();
    server.kill();
    assert_eq!(
        stream.append(events(3, "refused", 10)).await,
        Err(AppendError::Failed)
    );
    server.start_again();
    append_until_taken(&stream, "after").await;
    let mut reading = reading.again(None).await;
    let expected = ["read", "waits", "after"].map(|name| texts(&events(3, name, 10)));
    assert_eq!(reading.take(30).await, expected.concat());
    reading.book().await;
    assert!(reading.is_empty().await);
}

#[tokio::test]
async fn a_blocked_read_ends_with_its_server() {
    let server = Server::start();
    let stream = server.stream("a").await;
    let lane = stream.lanes()[3];
    let mut reader = stream.reader(lane, 0).await.unwrap();
    let begun = Instant::now();
    let (read, ()) = tokio::join!(reader.read(10, LONG), async {
        tokio::time::sleep(SHORT).await;
        server.kill();
    });
    assert!(matches!(read, Err(StreamError::Unavailable(_))), "{read:?}");
    assert!(begun.elapsed() < LONG / 2);
    assert!(stream.reader(lane, 0).await.is_err());
    assert!(stream.waiting().await.is_err());
}

#[tokio::test]
async fn a_reader_that_is_dropped_leaves_nothing_blocked() {
    for server in [Server::start(), Server::start_cluster()] {
        let stream = server.stream("a").await;
        let blocked = |n: &str| {
            let expected = format!("blocked_clients:{n}\r");
            server
                .run::<String>(&["INFO", "clients"])
                .contains(&expected)
        };
        let mut reader = stream.reader(stream.lanes()[3], 0).await.unwrap();
        let read = tokio::spawn(async move { reader.read(10, LONG).await });
        wait_until(|| blocked("1")).await;
        // Nobody waits for it.
        stream.append(events(4, "other", 1)).await.unwrap();
        read.abort();
        wait_until(|| blocked("0")).await;
        // What came meanwhile is not lost with it.
        stream.append(events(3, "after", 1)).await.unwrap();
        let mut reading = Reading::begin(&stream, 3, 0).await;
        assert_eq!(reading.take(1).await, ["after 0"]);
    }
}

#[tokio::test]
async fn a_server_that_is_no_master_any_more_is_left() {
    let server = Server::start();
    let stream = server.stream("a").await;
    stream.append(events(3, "before", 10)).await.unwrap();
    let lane = stream.lanes()[4];
    let mut reader = stream.reader(lane, 0).await.unwrap();
    let port = free_port().to_string();
    let (read, ()) = tokio::join!(reader.read(10, LONG), async {
        tokio::time::sleep(SHORT).await;
        server.run::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    });
    assert!(matches!(read, Err(StreamError::Unavailable(_))), "{read:?}");
    let mut reader = stream.reader(lane, 0).await.unwrap();
    let read = reader.read(10, SHORT).await;
    assert!(matches!(read, Err(StreamError::Unavailable(_))), "{read:?}");
    let refused = stream.append(events(3, "refused", 10)).await;
    assert_eq!(refused, Err(AppendError::Failed));
    server.run::<()>(&["REPLICAOF", "NO", "ONE"]);
    append_until_taken(&stream, "after").await;
    let mut reading = Reading::begin(&stream, 3, 0).await;
    let expected = ["before", "after"].map(|name| texts(&events(3, name, 10)));
    assert_eq!(reading.take(20).await, expected.concat());
}

async fn wait_until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end);
        tokio::time::sleep(SHORT).await;
    }
}

/// Killed and started at any moment, with `appendfsync always`: all that was acknowledged
/// is read, in spite of readers that come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_lose_nothing() {
    let server = Arc::new(Server::start());
    let stream = server.stream("a").await;
    let is_killed = Arc::new(AtomicBool::new(false));
    let appending = tokio::spawn({
        let (stream, is_killed) = (Arc::clone(&stream), Arc::clone(&is_killed));
        async move {
            let mut acknowledged = BTreeSet::new();
            let mut n = 0;
            // As long as it is killed, and for a while.
            while n < 400 || !is_killed.load(Ordering::Acquire) {
                n += 1;
                let part = events(3, &format!("part {n}"), 5);
                if stream.append(part.clone()).await.is_ok() {
                    acknowledged.extend(texts(&part));
                } else {
                    tokio::time::sleep(SHORT).await;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            acknowledged
        }
    });
    let killing = tokio::task::spawn_blocking({
        let (server, is_killed) = (Arc::clone(&server), Arc::clone(&is_killed));
        move || {
            for wait_ms in [150, 90, 210, 60, 120] {
                std::thread::sleep(Duration::from_millis(wait_ms));
                server.kill();
                server.start_again();
            }
            is_killed.store(true, Ordering::Release);
        }
    });
    // The ledger: what it has is kept, whatever becomes of the stream.
    let mut booked = BTreeSet::new();
    let (mut reads, begun) = (0, Instant::now());
    let lane = stream.lanes()[3];
    let mut reader = None;
    loop {
        assert!(begun.elapsed() < LONG * 6);
        let is_over = appending.is_finished() && killing.is_finished();
        if reader.is_none() {
            reader = stream.reader(lane, 0).await.ok();
        }
        let Some(mut reading) = reader.take() else {
            continue;
        };
        let Ok(chunk) = reading.read(30, SHORT).await else {
            continue;
        };
        assert!(chunk.lost.is_empty(), "{:?}", chunk.lost);
        if is_over && chunk.events.is_empty() {
            break;
        }
        reads += 1;
        // Some die between reading and booking, some between booking and telling so.
        if reads % 7 == 3 {
            continue;
        }
        booked.extend(chunk.events.into_iter().map(|(_, text)| text));
        if reads % 5 != 2 && reading.booked().await.is_ok() {
            reader = Some(reading);
        }
    }
    killing.await.unwrap();
    let acknowledged = appending.await.unwrap();
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());
    let lost: Vec<_> = acknowledged.difference(&booked).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(server.run::<u64>(&["XLEN", KEY]), 0);
}

#[tokio::test]
async fn a_stream_that_is_gone_begins_anew() {
    for command in [
        &["FLUSHALL"][..],
        &["XGROUP", "DESTROY", KEY, "weir"],
        &["DEL", KEY],
    ] {
        let server = Server::start();
        let stream = server.stream("a").await;
        stream.append(events(3, "before", 10)).await.unwrap();
        let mut reading = Reading::begin(&stream, 3, 0).await;
        reading.take(10).await;
        server.run::<redis::Value>(command);
        stream.append(events(3, "after", 10)).await.unwrap();
        assert_eq!(reading.take(10).await, texts(&events(3, "after", 10)));
        reading.book().await;
        assert!(reading.is_empty().await, "{command:?}");
        assert!(reading.again(None).await.is_empty().await, "{command:?}");
    }
}

/// A read that waits sees a stream that went and came again.
#[tokio::test]
async fn a_stream_that_goes_under_a_read_begins_anew() {
    let server = Server::start();
    let stream = server.stream("a").await;
    let mut reading = Reading::begin(&stream, 3, 0).await;
    let (found, ()) = tokio::join!(reading.take(10), async {
        tokio::time::sleep(SHORT).await;
        server.run::<()>(&["FLUSHALL"]);
        stream.append(events(3, "after", 10)).await.unwrap();
    });
    assert_eq!(found, texts(&events(3, "after", 10)));
}

#[tokio::test]
async fn what_a_stranger_deletes_is_told_as_lost() {
    let check = async |is_read: bool, command: &[&str], expected: &str| {
        let server = Server::start();
        let stream = server.stream("a").await;
        let mut reading = Reading::begin(&stream, 3, 0).await;
        stream.append(events(3, "first", 2)).await.unwrap();
        reading.take(2).await;
        reading.book().await;
        stream.append(events(3, "second", 2)).await.unwrap();
        if is_read {
            reading.take(2).await;
        }
        server.run::<redis::Value>(command);
        stream.append(events(3, "third", 2)).await.unwrap();
        let mut reading = reading.again(None).await;
        let (mut lost, mut found) = (Vec::new(), Vec::new());
        while found.len() < 2 {
            let chunk = reading.read(10, LONG).await;
            lost.extend(chunk.lost);
            found.extend(chunk.events.into_iter().map(|(_, text)| text));
        }
        assert_eq!(found, texts(&events(3, "third", 2)));
        assert!(lost.len() == 1 && lost[0].contains(expected), "{lost:?}");
        reading.book().await;
        // It is told once.
        assert!(reading.again(None).await.is_empty().await);
    };
    let trim = ["XTRIM", KEY, "MAXLEN", "0"];
    check(true, &trim, "{weir:usage:3}:events 1").await;
    check(false, &trim, "1 entries that were never read").await;
    let delete = [
        "EVAL",
        "return redis.call('XDEL', KEYS[1], redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1])",
        "1",
        KEY,
    ];
    check(true, &delete, "{weir:usage:3}:events 1").await;
    check(false, &delete, "1 entries that were never read").await;
}

#[tokio::test]
async fn entries_that_were_never_read_are_counted() {
    let server = Server::start();
    let stream = server.stream("a").await;
    stream.append(events(3, "booked", 1)).await.unwrap();
    let mut reading = Reading::begin(&stream, 3, 0).await;
    reading.take(1).await;
    reading.book().await;
    for n in 0..3 {
        let gone = events(3, &format!("gone {n}"), 2);
        stream.append(gone).await.unwrap();
    }
    server.run::<redis::Value>(&["XTRIM", KEY, "MAXLEN", "0"]);
    let mut reading = reading.again(None).await;
    let chunk = reading.read(10, LONG).await;
    assert_eq!((chunk.lost.len(), chunk.lost_entries), (1, 3));
}

#[tokio::test]
async fn what_is_not_ours_is_handed_on_and_stops_nothing() {
    let server = Server::start();
    let check = async |fields: &[&str], id: &str, expected: &[&str]| {
        server.run::<()>(&["FLUSHALL"]);
        server.run::<redis::Value>(&[&["XADD", KEY, id], fields].concat());
        let stream = server.stream("a").await;
        let mut reader = stream.reader(stream.lanes()[3], 0).await.unwrap();
        let read = reader.read(10, SHORT).await;
        let events = read.unwrap().events;
        let texts: Vec<&str> = events.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, expected);
    };
    check(&["f", "x"], "*", &["f=x"]).await;
    let mixed = ["e", "x", "other", "y"];
    check(&mixed, "*", &["x", "other=y"]).await;
    // Such as a clock of the year 584,554,051 gives.
    let late = "18446744073709551615-0";
    check(&["e", "x"], late, &["x"]).await;
}

#[tokio::test]
async fn a_redis_that_loses_events_is_refused() {
    let check = async |arguments: &[&str], forbidden: &str, expected: Option<&str>| {
        let server = Server::start_with(arguments);
        let rules = ["ACL", "SETUSER", "default", forbidden];
        if !forbidden.is_empty() {
            server.run::<()>(&rules);
        }
        let error = RedisStream::open(server.settings("a")).await.err();
        match (&error, expected) {
            (None, None) => {}
            (Some(OpenError::Unfit(why)), Some(part)) => {
                assert!(why.contains(part), "{why}");
                let mut settings = server.settings("a");
                settings.allow_volatile = true;
                RedisStream::open(settings).await.unwrap();
            }
            _ => panic!("{arguments:?} {forbidden}: {error:?}"),
        }
    };
    check(&["--appendonly", "no"], "", Some("appendonly yes")).await;
    check(&["--appendonly", "no"], "-config", Some("appendonly yes")).await;
    check(&["--appendonly", "yes"], "", None).await;
    check(&["--appendonly", "yes"], "-config", None).await;
    let evicts = ["--appendonly", "yes", "--maxmemory", "100mb"];
    check(&evicts, "", None).await;
    let evicts = [&evicts[..], &["--maxmemory-policy", "allkeys-lru"]].concat();
    check(&evicts, "", Some("noeviction")).await;
    check(&evicts, "-config", Some("noeviction")).await;
}

/// A server that comes back with other settings is looked at again.
#[tokio::test]
async fn a_redis_that_comes_back_without_its_file_is_refused() {
    let server = Server::start();
    let stream = server.stream("a").await;
    stream.append(events(3, "before", 10)).await.unwrap();
    server.kill();
    let other = Server::start_at(server.port, &["--appendonly", "no"]);
    for _ in 0..3 {
        let refused = stream.append(events(3, "refused", 10)).await;
        assert_eq!(refused, Err(AppendError::Failed));
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    assert_eq!(other.run::<u64>(&["XLEN", KEY]), 0);
}

#[tokio::test]
async fn an_acknowledgement_that_is_lost_has_it_read_again() {
    let server = Server::start();
    let stream = server.stream("a").await;
    stream.append(events(3, "once", 10)).await.unwrap();
    let mut reading = Reading::begin(&stream, 3, 0).await;
    reading.take(10).await;
    // The ledger has them, Redis was not told.
    let mut reading = reading.again(None).await;
    assert_eq!(reading.take(10).await, texts(&events(3, "once", 10)));
    reading.book().await;
    assert_eq!(server.run::<u64>(&["XLEN", KEY]), 0);
    assert!(reading.again(None).await.is_empty().await);
}

#[tokio::test]
async fn what_anybody_needs_is_not_trimmed() {
    let server = Server::start();
    let stream = server.stream("a").await;
    for n in 0..6 {
        stream.append(events(3, &n.to_string(), 1)).await.unwrap();
    }
    let mut reading = Reading::begin(&stream, 3, 0).await;
    reading.take(2).await;
    reading.book().await;
    assert_eq!(
        server.run::<u64>(&["XLEN", KEY]),
        4,
        "at once the first time"
    );
    // Another has one of them pending.
    let read = [
        "XREADGROUP",
        "GROUP",
        "weir",
        "other",
        "COUNT",
        "1",
        "STREAMS",
        KEY,
        ">",
    ];
    server.run::<redis::Value>(&read);
    let mut reader = stream.reader(stream.lanes()[3], 0).await.unwrap();
    let chunk = reader.read(1, LONG).await.unwrap();
    assert_eq!(chunk.events[0].1, "2 0");
    // So does another group, which has read nothing.
    server.run::<()>(&["XGROUP", "CREATE", KEY, "strangers", "0"]);
    reader.booked().await.unwrap();
    assert_eq!(server.run::<u64>(&["XLEN", KEY]), 4);
    server.run::<()>(&["XGROUP", "DESTROY", KEY, "strangers"]);
    while !reader.read(9, SHORT).await.unwrap().events.is_empty() {}
    reader.booked().await.unwrap();
    tokio::time::sleep(SHORT * 2).await;
    reader.booked().await.unwrap();
    reader.read(1, SHORT).await.unwrap();
    assert_eq!(server.run::<u64>(&["XLEN", KEY]), 0);
}

/// Another group may be there before ours is, or where ours is no more.
#[tokio::test]
async fn what_strangers_read_is_not_trimmed_before_we_did() {
    for was_there in [false, true] {
        let server = Server::start();
        let stream = server.stream("a").await;
        if was_there {
            stream.append(events(3, "before", 1)).await.unwrap();
            let mut reading = Reading::begin(&stream, 3, 0).await;
            reading.take(1).await;
            reading.book().await;
            server.run::<()>(&["XGROUP", "DESTROY", KEY, "weir"]);
        }
        let group = ["XGROUP", "CREATE", KEY, "strangers", "0", "MKSTREAM"];
        server.run::<()>(&group);
        stream.append(events(3, "first", 10)).await.unwrap();
        let group = ["XREADGROUP", "GROUP", "strangers", "s", "NOACK"];
        let read = [&group[..], &["STREAMS", KEY, ">"]].concat();
        server.run::<redis::Value>(&read);
        let mut reading = Reading::begin(&stream, 3, 0).await;
        assert_eq!(reading.take(10).await, texts(&events(3, "first", 10)));
        assert_eq!(server.run::<u64>(&["XLEN", KEY]), 1, "{was_there}");
        reading.book().await;
        assert_eq!(server.run::<u64>(&["XLEN", KEY]), 0, "both have read it");
    }
}

#[tokio::test]
async fn consumers_that_left_are_forgotten() {
    let server = Server::start();
    let (a, b) = (server.stream("a").await, server.stream("b").await);
    a.append(events(3, "one", 1)).await.unwrap();
    let mut left = Reading::begin(&a, 3, 0).await;
    left.take(1).await;
    server.run::<()>(&["XGROUP", "CREATECONSUMER", KEY, "weir", "gone"]);
    let settings = server.settings("b");
    let stream = RedisStream::new(settings.clone()).unwrap();
    let endpoint = &stream.link.endpoint;
    let mut reader = super::super::Reader::begin(endpoint, &settings, settings.key(shard(3)))
        .await
        .unwrap();
    let names = || server.run::<String>(&["EVAL", NAMES, "1", KEY]);
    tokio::time::sleep(SHORT).await;
    reader.forget(Duration::from_millis(5)).await.unwrap();
    assert_eq!(names(), "a", "what it has pending would go with it");
    let mut reading = Reading::begin(&b, 3, 0).await;
    reading.take(1).await;
    reading.book().await;
    tokio::time::sleep(SHORT).await;
    reader.forget(Duration::from_millis(5)).await.unwrap();
    assert_eq!(names(), "b", "it stays itself");
}

const NAMES: &str = "local names = {}
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], 'weir')) do
    names[#names + 1] = consumer[2]
  end
  return table.concat(names, ' ')";
