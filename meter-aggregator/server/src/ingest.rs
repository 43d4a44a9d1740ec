//! What is checked of an event, however it came: by a call, by a gateway's log, by an
//! operator's hand or out of quarantine.

use std::collections::BTreeMap;

use prost::{Message as _, encoding::decode_varint};
use weir_meter_store::stream::{Aside, Batch, Event, Way};
use weir_process::bears;
use weir_wire::{
    headers as names,
    keys::Keyring,
    proto::usage::{PublishResponse, UsageEvent},
    usage::{self, ContextRule, cloudevents},
};

use crate::config::Producer;

/// The largest batch, in bytes.
pub const BODY_MAX_BYTES: usize = 8 << 20;

/// Where events come from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Who sent them; nobody where an operator brings in whatever he has.
    pub producer: Option<&'a Producer>,
    /// How they came.
    pub way: Way,
}

/// Tells what can be booked from what is set aside, with the reason. `place` says
/// where each stood, by its number among `events`, if it stood in a file.
pub fn sort(
    events: impl IntoIterator<Item = UsageEvent>,
    source: Source<'_>,
    keys: &Keyring,
    place: impl Fn(usize) -> Option<String>,
) -> Batch {
    let now_ms = weir_process::now_ms();
    let mut batch = Batch {
        producer: source.producer.map(|producer| producer.name.clone()),
        way: source.way,
        ..Batch::default()
    };
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (n, mut event) in events.into_iter().enumerate() {
        match line(&mut event, source, keys, now_ms) {
            Ok(event) => batch.events.push(event),
            Err(reason) => {
                if reasons.len() < REASONS_MAX || reasons.contains_key(&reason) {
                    let events = reasons.entry(reason.clone()).or_default();
                    *events = events.saturating_add(1);
                }
                batch.aside.push(Aside {
                    bytes: event.encode_to_vec(),
                    reason,
                    place: place(n),
                    number: Some((event.witness(), event.producer_run, event.sequence)),
                });
            }
        }
    }
    let producer = source.producer.map(|producer| producer.name.as_str());
    // An operator who brings events in is told of each.
    for (reason, events) in reasons.iter().filter(|_| source.way != Way::Backfill) {
        tracing::warn!(producer, reason, events, "events were quarantined");
    }
    batch
}

/// The most events of a batch.
pub const EVENTS_MAX: usize = 20_000;

/// How many reasons of one batch are logged.
const REASONS_MAX: usize = 16;

/// Whether a message holds more events than a batch may, by the lengths of its fields,
/// before anything of it is decoded (protobuf's encoding, "Message Structure"): an empty
/// event takes two bytes there and hundreds in memory.
pub fn is_too_many(mut message: &[u8]) -> bool {
    let mut events = 0_usize;
    while let Ok(tag) = decode_varint(&mut message) {
        // Field 1 with a length. What is anything else is for the decoder to refuse.
        if tag != 0x0a {
            return false;
        }
        let length = decode_varint(&mut message).map(usize::try_from);
        let Ok(Ok(length)) = length else {
            return false;
        };
        let Some(rest) = message.get(length..) else {
            return false;
        };
        message = rest;
        events = events.saturating_add(1);
        if events > EVENTS_MAX {
            return true;
        }
    }
    false
}

/// What a producer is told of its events once they are durable.
pub fn response(batch: &Batch) -> PublishResponse {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    PublishResponse {
        accepted: count(batch.events.len()),
        quarantined: count(batch.aside.len()),
    }
}

/// The event as it stands on the stream: without its context, which did its work when it
/// was checked and is a quarter of its bytes.
///
/// # Errors
/// Why it can't be booked; the reason names the field. The event is as it was then.
pub fn line(
    event: &mut UsageEvent,
    source: Source<'_>,
    keys: &Keyring,
    now_ms: i64,
) -> Result<Event, String> {
    let rule = match source.way {
        // What stands in a stream has lost it on its way there.
        Way::Backfill | Way::Stream => ContextRule::IfPresent,
        Way::Http | Way::Grpc | Way::Log | Way::Replay => ContextRule::Needed,
    };
    let checked = usage::check(event, keys, rule).map_err(|e| e.to_string())?;
    if let Some(producer) = source.producer
        && checked.witness != producer.witness
    {
        return Err(format!("witness is not what {} may send", producer.name));
    }
    let age_ms = now_ms.saturating_sub(checked.request_id.time_ms());
    if age_ms > AGE_MAX_MS {
        return Err("request_id is older than 35 days".to_owned());
    }
    if age_ms < AHEAD_MAX_MS.saturating_neg() {
        return Err("request_id is more than 5 minutes ahead".to_owned());
    }
    let context = std::mem::take(&mut event.tenant_context);
    match cloudevents::encode(&*event) {
        Ok(text) => Ok(Event::of(&checked.tenant, text)),
        Err(error) => {
            event.tenant_context = context;
            Err(error.to_string())
        }
    }
}

/// Who may not send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody whom the configuration knows.
    #[error("authorization: no producer has this token")]
    Unknown,
    /// A tenant's request that was led here by mistake is not a producer's.
    #[error("{}: not for service methods", names::TENANT_CONTEXT)]
    Tenant,
}

/// Whose call that is, by its headers.
///
/// # Errors
/// [`Denied`], before anything of a message is read.
pub fn admit<'a>(
    headers: &http::HeaderMap,
    producers: &'a [Producer],
) -> Result<&'a Producer, Denied> {
    let producer = producers
        .iter()
        .find(|producer| bears(headers, &producer.token))
        .ok_or(Denied::Unknown)?;
    match headers.contains_key(names::TENANT_CONTEXT) {
        true => Err(Denied::Tenant),
        false => Ok(producer),
    }
}

/// What Stripe would no longer take: 35 days.
const AGE_MAX_MS: i64 = 35 * 86_400_000;

/// What Stripe would not yet take: five minutes.
const AHEAD_MAX_MS: i64 = 300_000;
