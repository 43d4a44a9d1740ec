//! What can't be booked, as an operator reads it: in the file of the embedded stream, or in
//! the ledger where the stream is not this process's own.

use prost::Message as _;
use serde::Serialize;
use weir_meter_core::shown::witness;
use weir_wire::{
    proto::usage::{Kind, UsageEvent},
    usage::cloudevents,
};

use crate::{
    sql::{self, Connection, params},
    stream::Way,
};

/// Which of it.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Whose reason has this text.
    pub reason: Option<String>,
    /// Older than this number.
    pub before: Option<i64>,
    /// How many at the most.
    pub limit: u32,
}

/// One of it. Neither the tenant's context nor the bytes are shown.
#[derive(Debug, Clone, Serialize)]
pub struct Quarantined {
    /// Its number.
    pub id: i64,
    /// When it was set aside, milliseconds of the Unix epoch.
    pub at_ms: i64,
    /// Why.
    pub reason: String,
    /// Whose it is, as the configuration named it; absent where nobody noted that.
    pub producer: Option<String>,
    /// How it came: `http`, `grpc`, `log`, `replay`, `backfill`, or `stream` of what stood in
    /// a stream that others write to.
    pub way: Option<String>,
    /// Where it stood in which file or stream; of what came by a call its hash, or nothing.
    pub place: Option<String>,
    /// How much it is.
    pub bytes: usize,
    /// What it says of itself, where it is an event.
    #[serde(flatten)]
    pub claims: Option<Claims>,
}

/// What an event says of itself, of which nothing is believed.
#[derive(Debug, Clone, Serialize)]
pub struct Claims {
    /// `request`, `storage`, `job` or `unknown`.
    pub kind: &'static str,
    /// `gateway`, `router` or `service`.
    pub witness: &'static str,
    /// Whose.
    pub tenant: String,
    /// Which request.
    pub request_id: String,
}

/// One of it, to be checked again.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub producer: Option<String>,
    /// How it came.
    pub way: Option<String>,
    /// As it came.
    pub bytes: Vec<u8>,
}

/// Names are bounded where they are checked; here nothing is.
const SHOWN_MAX_CHARS: usize = 64;

/// Reads an event as it came by that way; `None` where it is none.
fn event(bytes: &[u8], way: Option<&str>) -> Option<UsageEvent> {
    match way.and_then(Way::parse) {
        Some(Way::Stream) => cloudevents::decode(bytes).ok(),
        // A part of a log that happens to be one byte of protobuf says nothing.
        _ => UsageEvent::decode(bytes).ok(),
    }
}

impl Held {
    /// The event, as it came; `None` where it is none.
    #[must_use]
    pub fn event(&self) -> Option<UsageEvent> {
        event(&self.bytes, self.way.as_deref())
    }
}

impl Claims {
    /// Reads it off an event.
    fn of(event: &UsageEvent) -> Self {
        let shown = |text: &str| text.chars().take(SHOWN_MAX_CHARS).collect();
        Self {
            kind: kind(event.kind()),
            witness: witness(event.witness()),
            tenant: shown(&event.tenant),
            request_id: shown(&event.request_id),
        }
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Request => "request",
        Kind::Storage => "storage",
        Kind::Job => "job",
        Kind::Unspecified => "unknown",
    }
}

/// How many are in quarantine.
pub(crate) fn count(connection: &Connection) -> sql::Result<i64> {
    connection.query_row("SELECT COUNT(*) FROM quarantine", [], |row| row.get(0))
}

/// What is in quarantine, the newest first.
pub(crate) fn newest(connection: &Connection, wanted: &Wanted) -> sql::Result<Vec<Quarantined>> {
    connection
        .prepare_cached(
            "SELECT id, at_ms, reason, producer, way, place, event FROM quarantine
             WHERE id < ?1 AND (?2 IS NULL OR instr(reason, ?2) > 0)
             ORDER BY id DESC LIMIT ?3",
        )?
        .query_map(
            params![
                wanted.before.unwrap_or(i64::MAX),
                wanted.reason,
                wanted.limit
            ],
            |row| {
                let bytes: Vec<u8> = row.get("event")?;
                let way: Option<String> = row.get("way")?;
                let claims = event(&bytes, way.as_deref());
                Ok(Quarantined {
                    id: row.get("id")?,
                    at_ms: row.get("at_ms")?,
                    reason: row.get("reason")?,
                    producer: row.get("producer")?,
                    way,
                    place: row.get("place")?,
                    bytes: bytes.len(),
                    claims: claims.as_ref().map(Claims::of),
                })
            },
        )?
        .collect()
}

/// What is in quarantine after the number `after`, the oldest first, to be checked again:
/// these alone, or those with that text in their reason, or all.
pub(crate) fn held(
    connection: &Connection,
    ids: Option<&[i64]>,
    reason: Option<&str>,
    after: i64,
    limit: usize,
) -> sql::Result<Vec<Held>> {
    let among = match ids {
        Some([]) => return Ok(Vec::new()),
        Some(ids) => format!("AND id IN ({})", list(ids)),
        None => String::new(),
    };
    connection
        .prepare_cached(&format!(
            "SELECT id, producer, way, event FROM quarantine
             WHERE id > ?1 AND (?2 IS NULL OR instr(reason, ?2) > 0) {among}
             ORDER BY id LIMIT ?3"
        ))?
        .query_map(params![after, reason, limit as i64], |row| {
            Ok(Held {
                id: row.get("id")?,
                producer: row.get("producer")?,
                way: row.get("way")?,
                bytes: row.get("event")?,
            })
        })?
        .collect()
}

/// Numbers, as SQL lists them.
pub(crate) fn list(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    ids.join(", ")
}
