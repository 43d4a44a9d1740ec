//! What is checked of an event, however it came: by HTTP, by a gateway's log or by a
//! replay.

use prost::Message as _;
use weir_wire::{
    keys::Keyring,
    proto::usage::{PublishResponse, UsageEvent},
    usage::{self, cloudevents},
};

use crate::{
    config::Producer,
    stream::{Aside, Batch},
};

/// Tells what can be booked from what is set aside, with the reason. `place` says
/// where each stood, by its number among `events`, if it stood in a file.
pub fn sort(
    events: impl IntoIterator<Item = UsageEvent>,
    producer: &Producer,
    keys: &Keyring,
    place: impl Fn(usize) -> Option<String>,
) -> Batch {
    let now_ms = weir_process::now_ms();
    let mut batch = Batch::default();
    for (n, event) in events.into_iter().enumerate() {
        let bytes = event.encode_to_vec();
        let number = (event.producer_run.clone(), event.sequence);
        match line(event, producer, keys, now_ms) {
            Ok(line) => batch.events.push(line),
            Err(reason) => {
                tracing::warn!(producer = %producer.name, reason, "an event was quarantined");
                batch.aside.push(Aside {
                    bytes,
                    reason,
                    place: place(n),
                    number: Some((producer.witness, number.0, number.1)),
                });
            }
        }
    }
    batch
}

/// What a producer is told of its events once they are durable.
pub fn response(batch: &Batch) -> PublishResponse {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    PublishResponse {
        accepted: count(batch.events.len()),
        quarantined: count(batch.aside.len()),
    }
}

fn line(
    event: UsageEvent,
    producer: &Producer,
    keys: &Keyring,
    now_ms: i64,
) -> Result<String, String> {
    let checked = usage::check(event, keys).map_err(|e| e.to_string())?;
    if checked.witness != producer.witness {
        return Err(format!("witness is not what {} may send", producer.name));
    }
    let age_ms = now_ms.saturating_sub(checked.request_id.time_ms());
    if age_ms > AGE_MAX_MS {
        return Err("request_id is older than 35 days".to_owned());
    }
    if age_ms < AHEAD_MAX_MS.saturating_neg() {
        return Err("request_id is more than 5 minutes ahead".to_owned());
    }
    cloudevents::encode(checked.event).map_err(|e| e.to_string())
}

/// What Stripe would no longer take: 35 days.
const AGE_MAX_MS: i64 = 35 * 86_400_000;

/// What Stripe would not yet take: five minutes.
const AHEAD_MAX_MS: i64 = 300_000;
