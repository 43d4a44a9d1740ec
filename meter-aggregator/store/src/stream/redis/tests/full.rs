//! Redis that refuses to write: it is full, or no master.

use std::sync::Arc;

use super::server::{Server, free_port};
use crate::stream::{
    AppendError,
    body::{Reading, events, texts},
    redis::{RedisSettings, RedisStream},
    transport::{OpenError, Transport},
};

const KEY: &str = "{weir:usage:3}:events";

/// As an aggregator with that ledger opens it.
async fn open(server: &Server, ledger: &str) -> Result<Arc<dyn Transport>, OpenError> {
    let settings = RedisSettings {
        ledger: ledger.to_owned(),
        ..server.settings("a")
    };
    Ok(Arc::new(RedisStream::open(settings).await?))
}

fn fill(server: &Server) {
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
}

#[tokio::test]
async fn a_full_redis_takes_nothing_and_keeps_all() {
    let server = Server::start();
    let stream = open(&server, "one").await.unwrap();
    let mut reading = Reading::begin(&stream, 3, 0).await;
    assert!(reading.is_empty().await);
    stream.append(events(3, "before", 10)).await.unwrap();
    fill(&server);
    let refused = stream.append(events(3, "refused", 10)).await;
    assert_eq!(refused, Err(AppendError::Busy));
    // What is there can be read, booked and trimmed, which makes room.
    let mut reading = reading.again(None).await;
    assert_eq!(reading.take(10).await, texts(&events(3, "before", 10)));
    reading.book().await;
    assert_eq!(server.run::<u64>(&["XLEN", KEY]), 0);
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    stream.append(events(3, "after", 10)).await.unwrap();
    assert_eq!(reading.take(10).await, texts(&events(3, "after", 10)));
}

/// Aggregators that start, and a shard that nobody read before.
#[tokio::test]
async fn a_full_redis_is_begun_with() {
    for server in [Server::start(), Server::start_cluster()] {
        let stream = open(&server, "one").await.unwrap();
        stream.append(events(3, "before", 10)).await.unwrap();
        fill(&server);
        let other = open(&server, "two").await.err().unwrap();
        assert!(matches!(other, OpenError::Unfit(_)), "{other}");
        let stream = open(&server, "one").await.unwrap();
        let mut reading = Reading::begin(&stream, 3, 0).await;
        assert_eq!(reading.take(10).await, texts(&events(3, "before", 10)));
        reading.book().await;
        assert_eq!(server.run::<u64>(&["XLEN", KEY]), 0);
        assert_eq!(
            server.run::<String>(&["GET", "{weir:usage:3}:ledger"]),
            "one"
        );
    }
}

/// What it refuses now it may not refuse later: that is no reason to give up.
#[tokio::test]
async fn a_redis_that_refuses_to_write_is_waited_for() {
    let server = Server::start();
    let port = free_port().to_string();
    server.run::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    let refused = open(&server, "one").await.err().unwrap();
    let is_away = matches!(&refused, OpenError::Unavailable(why) if why.contains("read only"));
    assert!(is_away, "{refused}");
    server.run::<()>(&["REPLICAOF", "NO", "ONE"]);
    open(&server, "one").await.unwrap();
    // One that is known needs no writing.
    server.run::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    open(&server, "one").await.unwrap();
    let other = open(&server, "two").await.err().unwrap();
    assert!(matches!(other, OpenError::Unfit(_)), "{other}");
}
