//! Whose a topic is: each message says which ledger is to book it. A second ledger that
//! books what is there would bill all again.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{Header, Headers as _, OwnedHeaders},
};
use weir_meter_core::lease::Shard;

use super::client::{KafkaSettings, Log};
use crate::stream::transport::OpenError;

/// What a message is.
/// <https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md>
pub(super) const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The header with the id of the ledger that is to book a message. Written by who appends,
/// read by who reads a partition.
pub(super) const LEDGER: &str = "weir-ledger";

/// An id is shorter; what a stranger wrote may be longer.
const SHOWN_MAX: usize = 64;

/// What each message of ours says of itself.
pub(super) fn headers(settings: &KafkaSettings) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(2).insert(Header {
        key: "content-type",
        value: Some(CONTENT_TYPE),
    });
    match settings.ledger.as_str() {
        "" => headers,
        ledger => headers.insert(Header {
            key: LEDGER,
            value: Some(ledger),
        }),
    }
}

/// Why nothing of a message may be booked: it is another ledger's. What says nothing of a
/// ledger is a stranger's or an older version's, and is read.
pub(super) fn objection<M: Message>(message: &M, settings: &KafkaSettings) -> Option<String> {
    let ours = settings.ledger.as_str();
    if ours.is_empty() {
        return None;
    }
    // The binding panics where a header's name is no UTF-8, which a stranger may write.
    let found = catch_unwind(AssertUnwindSafe(|| {
        let headers = message.headers()?;
        let ids = headers.iter().filter(|header| header.key == LEDGER);
        let mut ids = ids.map(|header| header.value.unwrap_or_default());
        let other = ids.find(|id| *id != ours.as_bytes())?;
        let other = other.get(..SHOWN_MAX).unwrap_or(other);
        Some(String::from_utf8_lossy(other).into_owned())
    }));
    let other = found.ok().flatten()?;
    Some(format!(
        "{}/{} offset {} is of another ledger ({other}), and this one ({ours}) books nothing \
         from there on; give each ledger a topic of its own",
        settings.topic,
        message.partition(),
        message.offset(),
    ))
}

/// Looks whose the oldest message of each partition is, for half a time-out at the most:
/// what it does not come to see, the first read does. Blocks.
pub(super) fn look(settings: &KafkaSettings) -> Result<(), OpenError> {
    if settings.ledger.is_empty() {
        return Ok(());
    }
    let failed = |error: KafkaError| OpenError::Unavailable(settings.said(&error));
    let consumer = oldest(settings).map_err(failed)?;
    let most = settings.timeout.checked_div(2).unwrap_or_default();
    let begun = Instant::now();
    let mut unseen: BTreeSet<i32> = partitions().collect();
    while !unseen.is_empty() && begun.elapsed() < most {
        match consumer.poll(most.saturating_sub(begun.elapsed())) {
            Some(Ok(message)) => {
                let is_oldest = unseen.remove(&message.partition());
                if let Some(why) = is_oldest.then(|| objection(&message, settings)).flatten() {
                    return Err(OpenError::Unfit(why));
                }
            }
            // There is none.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unseen.remove(&partition);
            }
            Some(Err(error)) => {
                let error = settings.said(&error);
                tracing::warn!(error, "Kafka does not tell whose the topic's events are");
                break;
            }
            None => break,
        }
    }
    Ok(())
}

fn partitions() -> impl Iterator<Item = i32> {
    Shard::all().map(|shard| i32::from(shard.number()))
}

/// Reads each partition from its beginning.
fn oldest(settings: &KafkaSettings) -> Result<BaseConsumer<Log>, KafkaError> {
    let mut config = settings.consumer();
    config.set("enable.partition.eof", "true");
    // One message of each is wanted.
    config.set("fetch.message.max.bytes", "65536");
    config.set("queued.max.messages.kbytes", "1024");
    let consumer: BaseConsumer<Log> = config.create_with_context(Log)?;
    let mut assigned = TopicPartitionList::new();
    for partition in partitions() {
        assigned.add_partition_offset(&settings.topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assigned)?;
    Ok(consumer)
}
