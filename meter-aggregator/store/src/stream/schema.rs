//! The tables of `stream.db`, and how older files come to have them.

use std::path::Path;

use rusqlite::Connection;

use crate::database::open_database;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  event TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS quarantine (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  event BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS noted (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  witness INTEGER NOT NULL,
  run TEXT NOT NULL,
  number INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS identity (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  id TEXT NOT NULL
);
INSERT OR IGNORE INTO identity (one, id) VALUES (1, lower(hex(randomblob(16))));";

/// Columns that quarantine did not have from the beginning.
const ADDED: [&str; 3] = ["place", "producer", "way"];

/// Opens or creates the file.
pub(super) fn open(path: &Path) -> anyhow::Result<Connection> {
    let connection = open_database(path)?;
    connection.execute_batch(SCHEMA)?;
    for column in ADDED {
        let is_there = connection
            .prepare("SELECT 1 FROM pragma_table_info('quarantine') WHERE name = ?1")?
            .exists([column])?;
        if !is_there {
            connection
                .execute_batch(&format!("ALTER TABLE quarantine ADD COLUMN {column} TEXT"))?;
        }
    }
    connection.execute_batch(
        "CREATE UNIQUE INDEX IF NOT EXISTS quarantine_place ON quarantine (place)
         WHERE place IS NOT NULL",
    )?;
    Ok(connection)
}

/// What a row of quarantine takes beside its event and its reason, about.
pub(super) const ASIDE_ROW_BYTES: usize = 64;

/// About how many bytes quarantine takes.
pub(super) fn aside_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let bytes: i64 = connection.query_row(
        "SELECT COALESCE(SUM(LENGTH(event) + LENGTH(reason) + ?1), 0) FROM quarantine",
        [i64::try_from(ASIDE_ROW_BYTES).unwrap_or(0)],
        |row| row.get(0),
    )?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Lets no number come again that the ledger has: a stream that was lost, or is older than
/// its ledger, would else have its events passed over as booked. `booked` are the last
/// numbers of `event` and of `noted` that the ledger has. Gives how many events there were
/// between the ledger and the first that is left: those were booked in another ledger.
pub(super) fn go_on_after(connection: &Connection, booked: (i64, i64)) -> rusqlite::Result<i64> {
    for (table, upto) in [("event", booked.0), ("noted", booked.1)] {
        let last: i64 = connection.query_row(
            "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = ?1",
            [table],
            |row| row.get(0),
        )?;
        if last < upto {
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?1", [table])?;
            connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
                rusqlite::params![table, upto],
            )?;
        }
    }
    let (first, _) = range(connection)?;
    Ok(first.saturating_sub(1).saturating_sub(booked.0).max(0))
}

/// The numbers of the first event that is there and of the last that ever was.
pub(super) fn range(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let last = connection
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'event'",
            [],
            |row| row.get(0),
        )
        .unwrap_or(0);
    let first: Option<i64> =
        connection.query_row("SELECT MIN(seq) FROM event", [], |row| row.get(0))?;
    Ok((first.unwrap_or(i64::saturating_add(last, 1)), last))
}
