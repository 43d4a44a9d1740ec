//! What is in quarantine, as an operator reads it.

use prost::Message as _;
use rusqlite::{params, params_from_iter};
use serde::Serialize;
use weir_meter_core::shown::witness;
use weir_wire::proto::usage::{Kind, UsageEvent};

use super::Reader;

/// Which of it.
#[derive(Debug, Clone, Default)]
pub struct QuarantineWanted {
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
    /// How it came: `http`, `grpc`, `log`, `replay` or `backfill`.
    pub way: Option<String>,
    /// Where it stood in which file.
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

impl Claims {
    /// Reads it off an event; `None` where it is none.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        // A part of a log that happens to be one byte of protobuf says nothing.
        let event = UsageEvent::decode(bytes).ok()?;
        let shown = |text: &str| text.chars().take(SHOWN_MAX_CHARS).collect();
        Some(Self {
            kind: kind(event.kind()),
            witness: witness(event.witness()),
            tenant: shown(&event.tenant),
            request_id: shown(&event.request_id),
        })
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

impl Reader {
    /// How many are in quarantine.
    pub fn quarantined(&self) -> rusqlite::Result<i64> {
        self.connection
            .query_row("SELECT COUNT(*) FROM quarantine", [], |row| row.get(0))
    }

    /// What is in quarantine, the newest first.
    pub fn quarantine(&self, wanted: &QuarantineWanted) -> rusqlite::Result<Vec<Quarantined>> {
        self.connection
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
                    Ok(Quarantined {
                        id: row.get("id")?,
                        at_ms: row.get("at_ms")?,
                        reason: row.get("reason")?,
                        producer: row.get("producer")?,
                        way: row.get("way")?,
                        place: row.get("place")?,
                        bytes: bytes.len(),
                        claims: Claims::of(&bytes),
                    })
                },
            )?
            .collect()
    }

    /// What is in quarantine after the number `after`, the oldest first, to be checked
    /// again: these alone, or those with that text in their reason, or all.
    pub fn held(
        &self,
        ids: Option<&[i64]>,
        reason: Option<&str>,
        after: i64,
        limit: usize,
    ) -> rusqlite::Result<Vec<Held>> {
        let list = ids.map(|ids| format!("AND id IN ({})", vec!["?"; ids.len()].join(", ")));
        let sql = format!(
            "SELECT id, producer, way, event FROM quarantine
             WHERE id > ?1 AND (?2 IS NULL OR instr(reason, ?2) > 0) {}
             ORDER BY id LIMIT {limit}",
            list.unwrap_or_default()
        );
        let mut values: Vec<rusqlite::types::Value> =
            vec![after.into(), reason.map(str::to_owned).into()];
        values.extend(ids.into_iter().flatten().map(|id| (*id).into()));
        self.connection
            .prepare(&sql)?
            .query_map(params_from_iter(values), |row| {
                Ok(Held {
                    id: row.get("id")?,
                    producer: row.get("producer")?,
                    way: row.get("way")?,
                    bytes: row.get("event")?,
                })
            })?
            .collect()
    }
}
