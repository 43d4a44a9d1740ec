//! How many events go through a stream in a second: appended in batches of all shards,
//! read and booked by a reader for each lane. Run with
//! `cargo test -p weir-meter-store --lib speed -- --ignored --nocapture`.

#![allow(clippy::arithmetic_side_effects)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    body::{Place, event},
    transport::{Event, Lane},
};

const BATCH: usize = 500;
const BATCHES: usize = 400;
const APPENDERS: usize = 8;

fn number(name: usize, n: usize) -> u16 {
    u16::try_from((n * 7 + name) % 16).unwrap()
}

/// About as long as an event of a router.
fn batch(name: usize) -> Vec<Event> {
    let text = |n: usize| format!("{name:08} {n:08} {}", "usage of a request ".repeat(30));
    (0..BATCH)
        .map(|n| event(number(name, n), text(n)))
        .collect()
}

pub(super) async fn measure(name: &str, place: &dyn Place) {
    let stream = place.transport("a").await;
    let begun = Instant::now();
    let mut appenders = tokio::task::JoinSet::new();
    for part in 0..APPENDERS {
        let stream = Arc::clone(&stream);
        appenders.spawn(async move {
            for n in (part..BATCHES).step_by(APPENDERS) {
                while stream.append(batch(n)).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
    }
    let mut readers = tokio::task::JoinSet::new();
    let lanes = stream.lanes();
    for lane in &lanes {
        let (stream, lane) = (Arc::clone(&stream), *lane);
        readers.spawn(async move {
            let mut reader = stream.reader(lane, 0).await.unwrap();
            let expected = match lane {
                Lane::Whole => BATCH * BATCHES,
                Lane::Of(shard) => {
                    let all = (0..BATCHES).flat_map(|name| (0..BATCH).map(move |n| (name, n)));
                    all.filter(|(name, n)| number(*name, *n) == shard.number())
                        .count()
                }
            };
            let mut found = 0;
            while found < expected {
                let chunk = reader.read(2_000, Duration::from_secs(1)).await.unwrap();
                assert!(chunk.lost.is_empty(), "{:?}", chunk.lost);
                found += chunk.events.len();
                reader.booked().await.unwrap();
            }
        });
    }
    while let Some(done) = appenders.join_next().await {
        done.unwrap();
    }
    let appended = begun.elapsed();
    while let Some(done) = readers.join_next().await {
        done.unwrap();
    }
    let rate = |took: Duration| {
        let events = u32::try_from(BATCH * BATCHES).unwrap();
        (f64::from(events) / took.as_secs_f64()).round()
    };
    println!(
        "{name}: {} events/s appended, {} events/s through append, read and booked",
        rate(appended),
        rate(begun.elapsed())
    );
}
