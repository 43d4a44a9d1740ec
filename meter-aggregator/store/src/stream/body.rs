//! One body of tests for every stream.

#![allow(clippy::arithmetic_side_effects)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use weir_meter_core::lease::Shard;

use super::transport::{Chunk, Event, Lane, LaneReader, Transport};

/// Where a stream is, for the length of a test.
#[async_trait]
pub(super) trait Place: Send + Sync {
    /// The stream as a replica of that name has it.
    async fn transport(&self, replica: &str) -> Arc<dyn Transport>;
}

/// The tests, each on a place of its own; none where there is no such place.
macro_rules! body_of_tests {
    ($place:expr) => {
        $crate::stream::body::body_of_tests!($place;
            comes_in_order,
            comes_again_until_booked,
            goes_to_the_next_reader,
            comes_from_many_at_once,
            keeps_to_limits,
            takes_large_events,
            waits_and_wakes,
            is_booked_twice,
            a_zombie_loses_nothing,
            a_read_that_is_given_up_loses_nothing,
            tells_what_waits
        );
    };
    ($place:expr; $($case:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(place) = $place {
                    $crate::stream::body::$case(&place).await;
                }
            }
        )*
    };
}
pub(super) use body_of_tests;

/// Nothing takes longer.
const LONG: Duration = Duration::from_secs(60);

pub(super) fn shard(number: u16) -> Shard {
    Shard::new(number).unwrap()
}

pub(super) fn event(number: u16, text: impl Into<String>) -> Event {
    Event {
        shard: shard(number),
        tenant: format!("tenant-{number}"),
        text: text.into(),
    }
}

/// `n` events of a shard, which are all different.
pub(super) fn events(number: u16, name: &str, n: usize) -> Vec<Event> {
    let texts = (0..n).map(|n| format!("{name} {n}"));
    texts.map(|text| event(number, text)).collect()
}

pub(super) fn texts(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.text.clone()).collect()
}

/// A shard's lane, and what a ledger knows of it.
pub(super) struct Reading {
    stream: Arc<dyn Transport>,
    lane: Lane,
    /// The number that was booked last.
    pub(super) after: i64,
    /// The last number that was read.
    read: i64,
    reader: Box<dyn LaneReader>,
}

impl Reading {
    pub(super) async fn begin(stream: &Arc<dyn Transport>, number: u16, after: i64) -> Self {
        let lane = match stream.lanes().as_slice() {
            [Lane::Whole] => Lane::Whole,
            lanes => {
                assert_eq!(lanes.len(), 16);
                Lane::Of(shard(number))
            }
        };
        Self {
            stream: Arc::clone(stream),
            lane,
            after,
            read: after,
            reader: stream.reader(lane, after).await.unwrap(),
        }
    }

    pub(super) async fn read(&mut self, limit: usize, patience: Duration) -> Chunk {
        let chunk = self.reader.read(limit, patience).await.unwrap();
        assert!(chunk.events.is_sorted_by_key(|(number, _)| *number));
        let last = chunk.events.last().map(|(number, _)| *number);
        self.read = last.unwrap_or(self.read).max(self.read);
        chunk
    }

    /// Reads so many, without booking; `lost` has to stay empty.
    pub(super) async fn take(&mut self, n: usize) -> Vec<String> {
        let begun = Instant::now();
        let mut taken = Vec::new();
        while taken.len() < n {
            assert!(begun.elapsed() < LONG, "{} of {n}", taken.len());
            let chunk = self.read(n - taken.len(), Duration::from_millis(100)).await;
            assert!(chunk.lost.is_empty(), "{:?}", chunk.lost);
            taken.extend(chunk.events.into_iter().map(|(_, text)| text));
        }
        taken
    }

    pub(super) async fn is_empty(&mut self) -> bool {
        self.read(10, Duration::from_millis(20)).await == Chunk::default()
    }

    pub(super) async fn book(&mut self) {
        self.after = self.read;
        self.reader.booked().await.unwrap();
    }

    /// Another reader, of that replica's or of the same.
    pub(super) async fn again(self, stream: Option<&Arc<dyn Transport>>) -> Self {
        let number = match self.lane {
            Lane::Of(shard) => shard.number(),
            Lane::Whole => 0,
        };
        let (stream, after) = (stream.unwrap_or(&self.stream).clone(), self.after);
        drop(self.reader);
        Self::begin(&stream, number, after).await
    }
}

pub(super) async fn comes_in_order(place: &dyn Place) {
    let stream = place.transport("a").await;
    let (one, two) = (events(1, "one", 700), events(2, "two", 3));
    for part in one.chunks(70) {
        let mixed = [part, &two[..1]].concat();
        stream.append(mixed).await.unwrap();
    }
    stream.append(two[1..].to_vec()).await.unwrap();
    stream.append(Vec::new()).await.unwrap();
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for number in [1, 2] {
        let mut reading = Reading::begin(&stream, number, 0).await;
        let all = reading.lane == Lane::Whole;
        let expected = match (all, number) {
            (true, _) => 712,
            (false, 1) => 700,
            (false, _) => 12,
        };
        for text in reading.take(expected).await {
            let name = text.split(' ').next().unwrap().to_owned();
            found.entry(name).or_default().push(text);
        }
        assert!(reading.is_empty().await);
        reading.book().await;
        if all {
            break;
        }
    }
    assert_eq!(found["one"], texts(&one));
    let mut expected = vec!["two 0".to_owned(); 10];
    expected.extend(["two 1".to_owned(), "two 2".to_owned()]);
    assert_eq!(found["two"], expected);
}

pub(super) async fn comes_again_until_booked(place: &dyn Place) {
    let stream = place.transport("a").await;
    let (first, second) = (events(3, "first", 40), events(3, "second", 20));
    stream.append(first.clone()).await.unwrap();
    let mut reading = Reading::begin(&stream, 3, 0).await;
    for _ in 0..2 {
        assert_eq!(reading.take(40).await, texts(&first));
        reading = reading.again(None).await;
    }
    assert_eq!(reading.take(40).await, texts(&first));
    reading.book().await;
    stream.append(second.clone()).await.unwrap();
    assert_eq!(reading.take(20).await, texts(&second));
    let mut reading = reading.again(None).await;
    assert_eq!(reading.take(20).await, texts(&second));
    reading.book().await;
    assert!(reading.again(None).await.is_empty().await);
}

pub(super) async fn goes_to_the_next_reader(place: &dyn Place) {
    let (a, b) = (place.transport("a").await, place.transport("b").await);
    let parts: Vec<_> = (0..9)
        .map(|n| events(4, &format!("part {n}"), 10))
        .collect();
    for part in &parts {
        a.append(part.clone()).await.unwrap();
    }
    let mut reading = Reading::begin(&a, 4, 0).await;
    let booked = reading.take(30).await;
    reading.book().await;
    reading.take(30).await;
    let mut reading = reading.again(Some(&b)).await;
    let left = reading.take(90 - booked.len()).await;
    assert_eq!([booked, left].concat(), texts(&parts.concat()));
    reading.book().await;
    assert!(reading.again(Some(&a)).await.is_empty().await);
}

pub(super) async fn comes_from_many_at_once(place: &dyn Place) {
    let stream = place.transport("a").await;
    let mut tasks = tokio::task::JoinSet::new();
    let mut expected = BTreeSet::new();
    for n in 0..8 {
        let parts: Vec<_> = (0..10)
            .map(|m| events(5, &format!("{n} {m}"), 25))
            .collect();
        expected.extend(parts.iter().flat_map(|part| texts(part)));
        let stream = Arc::clone(&stream);
        tasks.spawn(async move {
            for part in parts {
                stream.append(part).await.unwrap();
            }
        });
    }
    let mut reading = Reading::begin(&stream, 5, 0).await;
    let mut found = Vec::new();
    while found.len() < expected.len() {
        found.extend(reading.take(25).await);
        reading.book().await;
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(found.len(), expected.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    assert!(reading.is_empty().await);
}

pub(super) async fn keeps_to_limits(place: &dyn Place) {
    let stream = place.transport("a").await;
    let many = events(6, "many", 1_300);
    stream.append(many.clone()).await.unwrap();
    for one in many.iter().take(100) {
        stream.append(vec![one.clone()]).await.unwrap();
    }
    let mut reading = Reading::begin(&stream, 6, 0).await;
    let (mut found, mut reads) = (Vec::new(), 0);
    while found.len() < 1_400 {
        let chunk = reading.read(50, LONG).await;
        // Events of one entry come together.
        assert!((1..50 + 500).contains(&chunk.events.len()));
        found.extend(chunk.events.into_iter().map(|(_, text)| text));
        reads += 1;
        reading.book().await;
    }
    assert!(reads >= 4, "{reads}");
    assert_eq!(found[..1_300], texts(&many));
    assert_eq!(found[1_300..], texts(&many[..100]));
}

pub(super) async fn takes_large_events(place: &dyn Place) {
    let stream = place.transport("a").await;
    let large: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
        .iter()
        .map(|letter| event(7, letter.repeat(256 << 10)))
        .collect();
    stream.append(large.clone()).await.unwrap();
    let mut reading = Reading::begin(&stream, 7, 0).await;
    assert!(reading.take(9).await == texts(&large));
    reading.book().await;
    assert!(reading.is_empty().await);
}

pub(super) async fn waits_and_wakes(place: &dyn Place) {
    let stream = place.transport("a").await;
    let mut reading = Reading::begin(&stream, 8, 0).await;
    for patience_ms in [0, 1, 120] {
        let patience = Duration::from_millis(patience_ms);
        let begun = Instant::now();
        assert_eq!(reading.read(10, patience).await, Chunk::default());
        assert!(begun.elapsed() >= patience.saturating_sub(Duration::from_millis(2)));
        assert!(begun.elapsed() < patience + Duration::from_secs(20));
    }
    let begun = Instant::now();
    let (chunk, appended) = tokio::join!(reading.read(10, LONG), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.append(events(8, "late", 1)).await
    });
    appended.unwrap();
    assert_eq!(chunk.events.len(), 1);
    assert!(begun.elapsed() < LONG / 2);
}

pub(super) async fn is_booked_twice(place: &dyn Place) {
    let stream = place.transport("a").await;
    let mut reading = Reading::begin(&stream, 9, 0).await;
    reading.book().await;
    stream.append(events(9, "once", 10)).await.unwrap();
    assert_eq!(reading.take(10).await.len(), 10);
    reading.book().await;
    reading.book().await;
    stream.append(events(9, "more", 10)).await.unwrap();
    reading.book().await;
    assert_eq!(reading.take(10).await, texts(&events(9, "more", 10)));
    reading.book().await;
    assert!(reading.again(None).await.is_empty().await);
}

/// One that lost its shard and does not know yet.
pub(super) async fn a_zombie_loses_nothing(place: &dyn Place) {
    let (a, b) = (place.transport("a").await, place.transport("b").await);
    a.append(events(10, "before", 30)).await.unwrap();
    let mut zombie = Reading::begin(&a, 10, 0).await;
    zombie.take(30).await;
    let mut reading = Reading::begin(&b, 10, 0).await;
    let mut found: BTreeSet<_> = reading.take(30).await.into_iter().collect();
    b.append(events(10, "after", 30)).await.unwrap();
    zombie.take(10).await;
    reading.book().await;
    let mut expected: BTreeSet<_> = texts(&events(10, "before", 30)).into_iter().collect();
    expected.extend(texts(&events(10, "after", 30)));
    let begun = Instant::now();
    while found != expected {
        assert!(begun.elapsed() < LONG, "{}", found.len());
        let chunk = reading.read(100, Duration::from_millis(50)).await;
        found.extend(chunk.events.into_iter().map(|(_, text)| text));
        reading.book().await;
    }
    drop(zombie);
    let mut reading = reading.again(Some(&a)).await;
    assert!(reading.is_empty().await);
}

pub(super) async fn a_read_that_is_given_up_loses_nothing(place: &dyn Place) {
    let stream = place.transport("a").await;
    let mut reading = Reading::begin(&stream, 11, 0).await;
    let appended = tokio::spawn({
        let stream = Arc::clone(&stream);
        async move {
            for n in 0..200 {
                stream.append(events(11, &format!("{n}"), 5)).await.unwrap();
            }
        }
    });
    let mut found = BTreeSet::new();
    let mut wait_us = 0;
    let begun = Instant::now();
    while found.len() < 1_000 {
        assert!(begun.elapsed() < LONG, "{}", found.len());
        wait_us = (wait_us + 97) % 3_000;
        // Now and then for as long as a slow one needs.
        let wait = match wait_us % 10 {
            0 => Duration::from_millis(100),
            _ => Duration::from_micros(wait_us),
        };
        let read = reading.read(60, Duration::from_millis(20));
        if let Ok(chunk) = tokio::time::timeout(wait, read).await {
            found.extend(chunk.events.into_iter().map(|(_, text)| text));
            reading.book().await;
        }
    }
    appended.await.unwrap();
    assert!(reading.again(None).await.is_empty().await);
}

pub(super) async fn tells_what_waits(place: &dyn Place) {
    let stream = place.transport("a").await;
    for lane in stream.lanes() {
        stream.note_booked(lane, 0);
    }
    let waits = || async {
        let waiting = stream.waiting().await.unwrap();
        let lanes: Vec<_> = waiting.iter().map(|w| w.lane).collect();
        assert_eq!(lanes, stream.lanes());
        waiting.iter().map(|waiting| waiting.entries).sum::<u64>()
    };
    assert_eq!(waits().await, 0);
    for n in 0..3 {
        stream.append(events(12, &format!("{n}"), 1)).await.unwrap();
    }
    assert_eq!(waits().await, 3);
    let mut reading = Reading::begin(&stream, 12, 0).await;
    reading.take(1).await;
    reading.book().await;
    assert_eq!(waits().await, 2);
    reading.take(2).await;
    assert_eq!(waits().await, 2);
    reading.book().await;
    assert_eq!(waits().await, 0);
}
