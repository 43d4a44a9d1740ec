//! The ledger's tables in SQLite, and which version's they are.

use std::path::Path;

use anyhow::bail;

use super::{gaps, logs, migration, quarantine, webhooks};
use crate::sql::Connection;

/// This version's `user_version`.
const VERSION: i64 = 1;

/// `intent.state` of those whose end is open (`State::is_open`).
macro_rules! open_states {
    () => {
        "state IN ('planned', 'sending', 'held', 'reconcile', 'quarantined')"
    };
}
pub(super) use open_states;

/// Tables that are not a day's. `bucket.accepted` and `bucket.waived` are sums of the
/// bucket's intents, and `bucket.is_open` says where something may be left to do, so that
/// nobody has to look through the rest; a change of `total` leaves that index alone.
/// `meter` is as `Meter` writes it, `request_id` 16 bytes, `deltas` as in `packed`.
/// Where a discrepancy is of no request or meter, that is empty.
const SCHEMA: &str = concat!(
    "
CREATE TABLE IF NOT EXISTS identity (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  id TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS progress (
  name TEXT PRIMARY KEY,
  number INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bucket (
  hour INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  meter TEXT NOT NULL,
  total INTEGER NOT NULL,
  planned INTEGER NOT NULL DEFAULT 0,
  revision INTEGER NOT NULL DEFAULT 0,
  accepted INTEGER NOT NULL DEFAULT 0,
  waived INTEGER NOT NULL DEFAULT 0,
  is_open INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (hour, tenant, meter)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS bucket_open ON bucket (hour, tenant, meter) WHERE is_open;
CREATE TABLE IF NOT EXISTS journal (
  seq INTEGER PRIMARY KEY,
  request_id BLOB NOT NULL,
  tenant TEXT NOT NULL,
  event BLOB NOT NULL,
  deltas BLOB NOT NULL,
  hash BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS intent (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  hour INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  meter TEXT NOT NULL,
  revision INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  delta INTEGER NOT NULL,
  identifier TEXT NOT NULL UNIQUE,
  timestamp_s INTEGER NOT NULL,
  state TEXT NOT NULL,
  first_attempt_ms INTEGER,
  last_attempt_ms INTEGER,
  answers INTEGER NOT NULL,
  unknown INTEGER NOT NULL,
  not_before_ms INTEGER NOT NULL,
  reading_sum INTEGER,
  reading_ms INTEGER,
  reason TEXT,
  carried_from INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS intent_open ON intent (hour, tenant, meter) WHERE ",
    open_states!(),
    ";
CREATE INDEX IF NOT EXISTS intent_sendable ON intent (id, not_before_ms)
  WHERE state IN ('planned', 'sending');
CREATE INDEX IF NOT EXISTS intent_unsettled ON intent (id, last_attempt_ms, not_before_ms)
  WHERE state IN ('accepted', 'reconcile');
CREATE INDEX IF NOT EXISTS intent_aging ON intent (timestamp_s)
  WHERE state IN ('planned', 'sending', 'held');
CREATE INDEX IF NOT EXISTS intent_stamp ON intent (timestamp_s / 3600, tenant, meter);
CREATE INDEX IF NOT EXISTS intent_carried ON intent (hour, tenant, meter)
  WHERE timestamp_s / 3600 <> hour;
CREATE TABLE IF NOT EXISTS intent_count (
  state TEXT PRIMARY KEY,
  count INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS adjustment (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  hour INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  meter TEXT NOT NULL,
  delta INTEGER NOT NULL,
  kind TEXT NOT NULL,
  source INTEGER,
  state TEXT NOT NULL,
  intent INTEGER,
  proposed_ms INTEGER NOT NULL,
  decided_ms INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS adjustment_proposed ON adjustment (hour, tenant, meter)
  WHERE state = 'proposed';
CREATE TABLE IF NOT EXISTS discrepancy (
  id INTEGER PRIMARY KEY,
  hour INTEGER NOT NULL,
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  meter TEXT NOT NULL,
  request_id BLOB NOT NULL,
  detail TEXT NOT NULL,
  event BLOB,
  noted_ms INTEGER NOT NULL,
  resolved_ms INTEGER,
  UNIQUE (hour, kind, tenant, meter, request_id)
);
CREATE INDEX IF NOT EXISTS discrepancy_open ON discrepancy (kind) WHERE resolved_ms IS NULL;
"
);

/// Brings the file to this version's form, whatever it is now.
pub(super) fn prepare(connection: &Connection, path: &Path) -> anyhow::Result<()> {
    let transaction = connection.transaction()?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        bail!(
            "{}: is of version {version}, this meter-aggregator knows up to {VERSION}; run one \
             that is not older than the one that wrote it",
            path.display()
        );
    }
    let is_old = version == 0 && migration::is_old(&transaction)?;
    if is_old {
        tracing::info!("the ledger is moved to this version's form");
        migration::set_aside(&transaction)?;
    }
    for schema in [
        SCHEMA,
        gaps::SCHEMA,
        logs::SCHEMA,
        quarantine::SCHEMA,
        webhooks::SCHEMA,
    ] {
        transaction.execute_batch(schema)?;
    }
    transaction.execute(
        "INSERT OR IGNORE INTO identity (one, id) VALUES (1, lower(hex(randomblob(16))))",
        [],
    )?;
    let transaction = match is_old {
        true => migration::take_over(transaction)?,
        false => transaction,
    };
    transaction.execute_batch(&format!("PRAGMA user_version = {VERSION}"))?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_meter_core::intent::State;

    #[test]
    fn the_open_states_are_the_cores() {
        for state in State::ALL {
            let is_named = open_states!().contains(&format!("'{state}'"));
            assert_eq!(is_named, state.is_open(), "{state}");
        }
    }
}
