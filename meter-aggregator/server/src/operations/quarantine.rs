//! Quarantine: what is in it, and what of it can be booked by now.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use weir_meter_store::{
    quarantine::{Held, Quarantined, Wanted},
    stream::{Event, Way},
};
use weir_wire::keys::Keyring;

use super::{Refused, blocking, limit};
use crate::{
    api::Parts,
    config::Producer,
    ingest::{Source, line},
    intake::QuarantineError,
};

/// How many events one call checks again.
const REPLAY_MAX: usize = 1_000;

/// Which of quarantine is listed, the newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineList {
    /// Whose reason has this text.
    pub reason: Option<String>,
    /// Older than this number: the next page.
    pub before: Option<i64>,
    /// How many at the most.
    pub limit: Option<u32>,
}

/// A page of quarantine.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// How many there are in all.
    pub total: i64,
    /// The page.
    pub quarantine: Vec<Quarantined>,
}

impl QuarantineList {
    pub(super) async fn perform(self, parts: &Parts) -> Result<Listed, Refused> {
        let wanted = Wanted {
            reason: self.reason,
            before: self.before,
            limit: limit(self.limit)?,
        };
        let (total, quarantine) = parts
            .books
            .intake()
            .quarantine(wanted)
            .await
            .map_err(failed)?;
        Ok(Listed { total, quarantine })
    }
}

/// Which of quarantine is checked again; a thousand in a call, the oldest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineReplay {
    /// These numbers alone.
    #[serde(default)]
    pub ids: Option<Vec<i64>>,
    /// Those whose reason has this text.
    #[serde(default)]
    pub reason: Option<String>,
    /// All there is.
    #[serde(default)]
    pub all: bool,
    /// After this number: where the last call ended.
    #[serde(default)]
    pub after: i64,
}

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Replayed {
    /// How many were checked.
    pub checked: u64,
    /// How many went to the stream.
    pub replayed: u64,
    /// Why the rest stay, and how many for each reason.
    pub stay: BTreeMap<String, u64>,
    /// The last number that was checked.
    pub last: i64,
    /// There are more after it.
    pub more: bool,
}

impl QuarantineReplay {
    pub(super) async fn perform(self, parts: &Parts) -> Result<Replayed, Refused> {
        let ways = [self.ids.is_some(), self.reason.is_some(), self.all];
        if ways.into_iter().filter(|given| *given).count() != 1 {
            return Err(Refused::Wrong(
                "ids, reason, all: must be one of the three".to_owned(),
            ));
        }
        if self.ids.as_ref().is_some_and(|ids| ids.len() > REPLAY_MAX) {
            return Err(Refused::Wrong(format!(
                "ids: must be {REPLAY_MAX} at the most"
            )));
        }
        let keys = Arc::clone(&parts.keys);
        let producers = parts.producers.clone();
        let (intake, after) = (parts.books.intake(), self.after);
        let held = intake
            .held(self.ids, self.reason, after, REPLAY_MAX)
            .await
            .map_err(failed)?;
        let (mut replayed, events) = blocking(move || {
            let mut replayed = Replayed {
                checked: u64::try_from(held.len()).unwrap_or(u64::MAX),
                last: held.last().map_or(after, |held| held.id),
                more: held.len() == REPLAY_MAX,
                ..Replayed::default()
            };
            let mut events = Vec::new();
            let now_ms = weir_process::now_ms();
            for held in held {
                match check(&held, &producers, &keys, now_ms) {
                    Ok(event) => events.push((held.id, event)),
                    Err(reason) => {
                        let count = replayed.stay.entry(reason).or_default();
                        *count = count.saturating_add(1);
                    }
                }
            }
            Ok((replayed, events))
        })
        .await?;
        if !events.is_empty() {
            replayed.replayed = intake.requeue(events).await?;
        }
        Ok(replayed)
    }
}

/// The event as it goes to the stream, where it is good by now; else why not.
fn check(
    held: &Held,
    producers: &[Producer],
    keys: &Keyring,
    now_ms: i64,
) -> Result<Event, String> {
    let source = source(held, producers)?;
    let mut event = held.event().ok_or("not a whole event")?;
    line(&mut event, source, keys, now_ms)
}

/// As whose it is checked: its producer's, as the configuration has it now.
fn source<'a>(held: &Held, producers: &'a [Producer]) -> Result<Source<'a>, String> {
    let way = held.way.as_deref().and_then(Way::parse);
    if let Some(name) = &held.producer {
        let producer = producers.iter().find(|producer| producer.name == *name);
        return match producer {
            Some(_) => Ok(Source {
                producer,
                way: way.unwrap_or(Way::Http),
            }),
            None => Err(format!("producer {name} is not in the configuration")),
        };
    }
    match way {
        // An operator's word is nobody else's; what stood in the stream was somebody's who
        // may write there.
        Some(way @ (Way::Backfill | Way::Stream)) => Ok(Source {
            producer: None,
            way,
        }),
        _ => only_producer(held, producers),
    }
}

/// What was set aside before it was noted whose it is: the one it can be of.
fn only_producer<'a>(held: &Held, producers: &'a [Producer]) -> Result<Source<'a>, String> {
    let event = held.event().ok_or("not a whole event")?;
    let mut could_be = producers
        .iter()
        .filter(|producer| producer.witness == event.witness());
    match (could_be.next(), could_be.next()) {
        (Some(producer), None) => Ok(Source {
            producer: Some(producer),
            way: Way::Http,
        }),
        _ => Err("nobody noted which producer it is of".to_owned()),
    }
}

/// Why quarantine can't be read, for the operator.
pub(super) fn failed(error: QuarantineError) -> Refused {
    Refused::Failed(format!("{:#}", anyhow::Error::new(error)))
}

#[cfg(test)]
mod tests {
    use weir_wire::{
        ids::RequestId,
        proto::usage::{Kind, ModelUsage, Outcome, UsageEvent, UsageSource, Witness},
        usage::cloudevents,
    };

    use super::*;

    const NOW_MS: u64 = 1_770_000_000_000;

    /// As ingest puts it on the stream: without its context.
    fn on_stream() -> String {
        let event = UsageEvent {
            kind: Kind::Request.into(),
            event_id: "e1".to_owned(),
            request_id: RequestId::mint(NOW_MS, [7; 10]).to_string(),
            witness: Witness::Gateway.into(),
            tenant: "acme".to_owned(),
            request_class: "chat".to_owned(),
            outcome: Outcome::Completed.into(),
            usage: vec![ModelUsage {
                input_tokens: 5,
                source: UsageSource::Reported.into(),
                ..ModelUsage::default()
            }],
            ..UsageEvent::default()
        };
        cloudevents::encode(&event).unwrap()
    }

    #[track_caller]
    fn check_held(way: Way, bytes: &[u8], expected: Result<&str, &str>) {
        let keys = Keyring::parse("k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        let held = Held {
            id: 1,
            producer: None,
            way: Some(way.as_str().to_owned()),
            bytes: bytes.to_vec(),
        };
        let found = check(&held, &[], &keys, NOW_MS.cast_signed());
        let found = found.as_ref().map(|event| event.text.as_str());
        assert_eq!(found.map_err(String::as_str), expected);
    }

    /// A version that did not know it set it aside, or it stood in the wrong partition.
    #[test]
    fn what_stood_in_a_shared_stream_goes_back_there() {
        let text = on_stream();
        check_held(Way::Stream, text.as_bytes(), Ok(&text));
        check_held(Way::Stream, b"garbage", Err("not a whole event"));
        check_held(Way::Http, text.as_bytes(), Err("not a whole event"));
    }
}
