//! The ledger: the record of what was used and of what Stripe was told.
//!
//! Always: a bucket is the sum of its postings, and `planned` the sum of its
//! intents. Each change is one transaction.

mod book;
mod gaps;
mod intents;
mod logs;
mod requests;
mod summary;

use std::path::Path;

use rusqlite::Connection;
use weir_meter_core::{hour::Hour, intent, journal, meter::Meter};

pub use gaps::Gap;
pub use intents::Intent;
pub use logs::{FileId, Mark};
pub use requests::Wanted;
pub use summary::{IntentCount, Line, Stuck};

use crate::database::open_database;

/// One connection to the ledger. The process that holds the folder's lock has
/// the only ones.
pub struct Ledger {
    connection: Connection,
}

/// Something in the ledger is not what this version writes.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite's.
    #[error("the ledger can't be read or written")]
    Database(#[from] rusqlite::Error),
    /// An event of the stream can't be read back.
    #[error("event {seq} of the stream can't be read")]
    Event {
        /// Its number.
        seq: i64,
        /// Why.
        source: weir_wire::usage::cloudevents::CloudEventError,
    },
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS identity (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  id TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS progress (
  name TEXT PRIMARY KEY,
  number INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS witness (
  tenant TEXT NOT NULL,
  request_id TEXT NOT NULL,
  witness INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  hash BLOB NOT NULL,
  event BLOB NOT NULL,
  PRIMARY KEY (tenant, request_id, witness)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS conflict (
  tenant TEXT NOT NULL,
  request_id TEXT NOT NULL,
  witness INTEGER NOT NULL,
  hash BLOB NOT NULL,
  event BLOB NOT NULL,
  PRIMARY KEY (tenant, request_id, witness, hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS posting (
  tenant TEXT NOT NULL,
  request_id TEXT NOT NULL,
  meter TEXT NOT NULL,
  hour INTEGER NOT NULL,
  quantity INTEGER NOT NULL,
  PRIMARY KEY (tenant, request_id, meter)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bucket (
  tenant TEXT NOT NULL,
  meter TEXT NOT NULL,
  hour INTEGER NOT NULL,
  total INTEGER NOT NULL,
  planned INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  PRIMARY KEY (tenant, meter, hour)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS bucket_unplanned ON bucket (hour) WHERE total <> planned;
CREATE TABLE IF NOT EXISTS journal (
  seq INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  request_id TEXT NOT NULL,
  meter TEXT NOT NULL,
  hour INTEGER NOT NULL,
  delta INTEGER NOT NULL,
  hash BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS intent (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL,
  meter TEXT NOT NULL,
  hour INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  delta INTEGER NOT NULL,
  identifier TEXT NOT NULL UNIQUE,
  timestamp_s INTEGER NOT NULL,
  state TEXT NOT NULL,
  first_attempt_ms INTEGER,
  answers INTEGER NOT NULL DEFAULT 0,
  not_before_ms INTEGER NOT NULL DEFAULT 0,
  reason TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS intent_one_open ON intent (tenant, meter, hour)
  WHERE state <> 'accepted';
CREATE INDEX IF NOT EXISTS intent_due ON intent (not_before_ms)
  WHERE state IN ('planned', 'sending');
";

/// What nothing was heard of for so long is forgotten: a file of a log, a producer's
/// run with what it misses. No event of it would be taken any more. 40 days.
const IDLE_MAX_MS: i64 = 40 * 86_400_000;

impl Ledger {
    /// Opens or creates the ledger in that folder.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let connection = open_database(&folder.join("ledger.db"))?;
        for schema in [SCHEMA, gaps::SCHEMA, logs::SCHEMA, requests::SCHEMA] {
            connection.execute_batch(schema)?;
        }
        connection.execute(
            "INSERT OR IGNORE INTO identity (one, id) VALUES (1, lower(hex(randomblob(16))))",
            [],
        )?;
        Ok(Self { connection })
    }
}

/// Reads an hour.
fn hour(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Hour> {
    row.get(column).map(Hour)
}

/// Reads a name that only this program writes.
fn parsed<T>(
    row: &rusqlite::Row<'_>,
    column: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let name: String = row.get(column)?;
    parse(&name)
        .ok_or_else(|| rusqlite::Error::InvalidColumnType(0, name, rusqlite::types::Type::Text))
}

#[cfg(test)]
mod tests;
