//! Reads a partition from where the ledger is.
//!
//! An event's number is its offset and 1: 0 is before the first, and the number that was
//! booked last is the offset to go on with.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    error::KafkaError,
};
use weir_meter_core::lease::Shard;

use super::{
    client::{KafkaSettings, Log},
    owner,
    seen::Seen,
};
use crate::stream::transport::{Chunk, LaneReader, StreamError};

/// From so many bytes on a chunk takes no more.
const CHUNK_BYTES: usize = 4 << 20;

/// Of another topic of that name, what came to it no longer ago is read: the ledger knows
/// it where it was booked, and books it once. It knows a request for 40 days by its id's day,
/// and an id may be 35 days old when its event comes; a day is for clocks. What came before
/// could be billed twice, and is not read: where it was not booked, it is lost. Four days.
const AGAIN_MS: i64 = 4 * 24 * 3_600 * 1_000;

pub(super) struct Reader {
    /// `None` when it is dropped.
    consumer: Option<StreamConsumer<Log>>,
    settings: Arc<KafkaSettings>,
    partition: i32,
    /// The number that the ledger has.
    after: i64,
    /// The offset of the next event.
    next: i64,
    seen: Arc<Seen>,
    /// What is missing before the first event, and was not told yet.
    hole: Option<Range<i64>>,
    /// It reads no further.
    failed: Option<StreamError>,
}

impl Reader {
    pub(super) async fn begin(
        settings: Arc<KafkaSettings>,
        shard: Shard,
        after: i64,
        seen: Arc<Seen>,
    ) -> Result<Self, StreamError> {
        // It asks, and waits for the answer.
        let begun = tokio::task::spawn_blocking(move || {
            Self::assigned(Arc::clone(&settings), shard, after, seen)
                .map_err(|error| StreamError::Unavailable(settings.said(&error)))
        });
        let dead = |error: tokio::task::JoinError| StreamError::Unavailable(error.to_string());
        begun.await.map_err(dead)?
    }

    fn assigned(
        settings: Arc<KafkaSettings>,
        shard: Shard,
        after: i64,
        seen: Arc<Seen>,
    ) -> Result<Self, KafkaError> {
        let config = settings.consumer();
        let consumer: StreamConsumer<Log> = config.create_with_context(Log)?;
        let (topic, partition) = (&settings.topic, i32::from(shard.number()));
        let (low, high) = consumer.fetch_watermarks(topic, partition, settings.timeout)?;
        let (next, hole) = match place(after, low..high) {
            Some(place) => place,
            None => {
                let next = lately(&consumer, &settings, partition)?.unwrap_or(high);
                tracing::error!(
                    topic,
                    partition,
                    after,
                    high,
                    next,
                    low,
                    "the ledger has more of a partition than Kafka: the topic is another one, \
                     or lost its end; what came to it in the last four days is read from the \
                     offset next on, and what came before is not: it may have been billed"
                );
                (next, None)
            }
        };
        let hole = hole.and_then(|hole| seen.untold(after, hole));
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition_offset(topic, partition, Offset::Offset(next))?;
        consumer.assign(&assigned)?;
        seen.position.store(next, Relaxed);
        Ok(Self {
            consumer: Some(consumer),
            partition,
            after,
            next,
            seen,
            hole,
            failed: None,
            settings,
        })
    }

    fn consumer(&self) -> Result<&StreamConsumer<Log>, StreamError> {
        let gone = || StreamError::Unavailable("the reader is gone".to_owned());
        self.consumer.as_ref().ok_or_else(gone)
    }
}

/// From which offset on to read, where there are those of `there`, and what is missing;
/// `None` where the ledger is beyond the end.
fn place(after: i64, there: Range<i64>) -> Option<(i64, Option<Range<i64>>)> {
    match after {
        after if after < there.start => Some((there.start, Some(after..there.start))),
        after if after > there.end => None,
        after => Some((after, None)),
    }
}

/// The offset of the first event that came within [`AGAIN_MS`], if there is one.
fn lately(
    consumer: &StreamConsumer<Log>,
    settings: &KafkaSettings,
    partition: i32,
) -> Result<Option<i64>, KafkaError> {
    let since_ms = weir_process::now_ms().saturating_sub(AGAIN_MS);
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(&settings.topic, partition, Offset::Offset(since_ms))?;
    let found = consumer.offsets_for_times(asked, settings.timeout)?;
    let found = found.find_partition(&settings.topic, partition);
    Ok(match found.map(|found| found.offset()) {
        Some(Offset::Offset(offset)) => Some(offset),
        _ => None,
    })
}

fn told(topic: &str, partition: i32, hole: &Range<i64>) -> String {
    let last = hole.end.saturating_sub(1);
    format!("{topic}/{partition} offsets {} to {last}", hole.start)
}

/// What a message says. What somebody else wrote and is no text is handed on with marks in
/// the place of what is wrong, and set aside by who reads: it must not keep what is behind
/// it from being booked.
fn text_of(message: &impl Message) -> String {
    let payload = message.payload().unwrap_or_default();
    String::from_utf8_lossy(payload).into_owned()
}

#[async_trait]
impl LaneReader for Reader {
    async fn read(&mut self, limit: usize, patience: Duration) -> Result<Chunk, StreamError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let mut chunk = Chunk::default();
        let (mut bytes, mut next, mut holes) = (0_usize, self.next, Vec::new());
        let mut failed = None;
        let consumer = self.consumer()?;
        // Only the first is waited for: who gives a read up takes no event with it.
        let mut message = match self.hole.is_none() {
            true => tokio::time::timeout(patience, consumer.recv()).await.ok(),
            false => consumer.recv().now_or_never(),
        };
        while let Some(received) = message.take() {
            let received = match received {
                Ok(received) => received,
                Err(error) => {
                    failed = Some(StreamError::Unavailable(self.settings.said(&error)));
                    break;
                }
            };
            if let Some(why) = owner::objection(&received, &self.settings) {
                failed = Some(StreamError::Unavailable(why));
                break;
            }
            let (offset, text) = (received.offset(), text_of(&received));
            if offset > next {
                holes.extend(self.seen.untold(self.after, next..offset));
            }
            next = offset.saturating_add(1);
            bytes = bytes.saturating_add(text.len());
            chunk.events.push((next, text));
            if chunk.events.len() >= limit.max(1) || bytes >= CHUNK_BYTES {
                break;
            }
            message = consumer.recv().now_or_never();
        }
        self.next = next;
        self.failed = failed;
        let holes: Vec<_> = self.hole.take().into_iter().chain(holes).collect();
        for hole in &holes {
            let size = hole.end.saturating_sub(hole.start);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            chunk.lose(told(&self.settings.topic, self.partition, hole), size);
        }
        if let Some(last) = holes.last() {
            self.seen.tell(self.after, last.end);
        }
        match &self.failed {
            Some(failed) if chunk == Chunk::default() => Err(failed.clone()),
            _ => Ok(chunk),
        }
    }

    async fn booked(&mut self) -> Result<(), StreamError> {
        self.after = self.next;
        self.seen.position.store(self.next, Relaxed);
        Ok(())
    }
}

impl Drop for Reader {
    /// A consumer waits for its threads when it goes.
    fn drop(&mut self) {
        let consumer = self.consumer.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(consumer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_begins_where_the_ledger_is_or_says_what_is_missing() {
        let check = |after, there, next, hole| {
            assert_eq!(place(after, there), Some((next, hole)), "{after}");
        };
        check(0, 0..0, 0, None);
        check(0, 0..9, 0, None);
        check(5, 0..9, 5, None);
        check(9, 0..9, 9, None);
        check(9, 4..9, 9, None);
        check(2, 4..9, 4, Some(2..4));
        check(0, 9..9, 9, Some(0..9));
        check(5, 5..5, 5, None);
        assert_eq!(place(10, 0..9), None);
        assert_eq!(place(1, 0..0), None);
    }
}
