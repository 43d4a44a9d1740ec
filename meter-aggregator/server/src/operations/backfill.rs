//! Events that an operator brings in by his own authority, as CloudEvents.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use weir_meter_store::stream::{Batch, Way};
use weir_wire::{keys::Keyring, usage::cloudevents};

use super::{Refused, blocking};
use crate::{
    api::Parts,
    config::Producer,
    ingest::{Source, sort},
};

/// The most lines in one call.
pub const LINES_MAX: usize = 1_000;

/// How many reasons for quarantine are told.
const REASONS_MAX: usize = 20;

/// Some lines, each one CloudEvent of JSON as they stand on the stream. What the ledger
/// knows already changes nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backfill {
    /// The lines.
    pub lines: Vec<String>,
    /// Whose they are, where all are one producer's; nobody's in particular else.
    #[serde(default)]
    pub producer: Option<String>,
    /// Only says what would come of it.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of the lines.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfilled {
    /// Lines that are events.
    pub events: u64,
    /// Events that were taken, whether they were known or not.
    pub accepted: u64,
    /// Events that can't be booked, and are in quarantine now.
    pub quarantined: u64,
    /// Why, for the first twenty of them.
    pub reasons: Vec<Named>,
    /// Lines that are no event, which are in no quarantine: they are nowhere but in
    /// the file.
    pub invalid: Vec<Named>,
}

/// A line, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its place among the lines, from 0.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

impl Backfill {
    pub(super) async fn perform(self, parts: &Parts) -> Result<Backfilled, Refused> {
        if self.lines.len() > LINES_MAX {
            return Err(Refused::Wrong(format!(
                "lines: must be {LINES_MAX} at the most"
            )));
        }
        let producer = match &self.producer {
            None => None,
            Some(name) => {
                let found = parts.producers.iter().find(|p| p.name == *name);
                Some(found.cloned().ok_or_else(|| {
                    let names: Vec<&str> =
                        parts.producers.iter().map(|p| p.name.as_str()).collect();
                    Refused::Wrong(format!(
                        "producer: must be one of {}, found {name:?}",
                        names.join(", ")
                    ))
                })?)
            }
        };
        let keys = Arc::clone(&parts.keys);
        let (dry_run, lines) = (self.dry_run, self.lines);
        let (backfilled, batch) =
            blocking(move || Ok(read(&lines, producer.as_ref(), &keys))).await?;
        if !dry_run {
            parts.books.intake().append(batch).await?;
        }
        Ok(backfilled)
    }
}

/// What the lines come to, and what of it is to be appended.
fn read(lines: &[String], producer: Option<&Producer>, keys: &Keyring) -> (Backfilled, Batch) {
    let mut backfilled = Backfilled::default();
    let mut events = Vec::with_capacity(lines.len());
    let mut places = Vec::with_capacity(lines.len());
    for (line, text) in lines.iter().enumerate() {
        match cloudevents::decode(text.as_bytes()) {
            Ok(event) => {
                events.push(event);
                places.push(line);
            }
            Err(error) => backfilled.invalid.push(Named {
                line,
                reason: format!("{:#}", anyhow::Error::new(error)),
            }),
        }
    }
    let source = Source {
        producer,
        way: Way::Backfill,
    };
    let text = |n: usize| lines.get(*places.get(n)?);
    // The same line is set aside once, from whichever file and however often it comes.
    let batch = sort(events, source, keys, |n| {
        text(n).map(|text| fingerprint(text))
    });
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    backfilled.events = count(places.len());
    backfilled.accepted = count(batch.events.len());
    backfilled.quarantined = count(batch.aside.len());
    let lines_of: BTreeMap<String, usize> = match batch.aside.is_empty() {
        true => BTreeMap::new(),
        false => (0..)
            .zip(lines)
            .map(|(n, text)| (fingerprint(text), n))
            .collect(),
    };
    backfilled.reasons = batch
        .aside
        .iter()
        .take(REASONS_MAX)
        .map(|aside| Named {
            line: aside
                .place
                .as_ref()
                .and_then(|place| lines_of.get(place).copied())
                .unwrap_or(0),
            reason: aside.reason.clone(),
        })
        .collect();
    (backfilled, batch)
}

fn fingerprint(line: &str) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(line.as_bytes()) {
        // A string takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
