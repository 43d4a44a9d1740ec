//! The tables of requests, one for each UTC day of their ids. One batch's requests lie
//! together at a table's end; a day that is too old goes as a whole.

use std::{collections::BTreeSet, fmt::Write as _};

use weir_meter_core::lease::Scope;

use super::{IDLE_MAX_MS, Ledger, LedgerError, postgres};
use crate::sql::{self, Connection, OptionalExtension as _, params};

const DAY_MS: i64 = 86_400_000;

const DAY_HOURS: i64 = 24;

/// The most rows that are deleted in one transaction.
const STEP: i64 = 5_000;

/// What stands where a discrepancy is of no request.
const NO_REQUEST: &[u8] = &[];

/// The day of a time in milliseconds, since the Unix epoch.
pub(super) fn day_of_ms(ms: i64) -> i64 {
    ms.div_euclid(DAY_MS)
}

/// The name of a day's table. Days are not negative: an id's time isn't.
pub(super) fn table(day: i64) -> String {
    let mut name = String::from("request_");
    let _ = write!(name, "{day}");
    name
}

/// Makes a day's table. `events` is a `PublishRequest`, `posted` as in `packed`; a request
/// that waits for its second witness has a `due_ms`.
pub(super) fn create(connection: &Connection, day: i64) -> sql::Result<()> {
    let table = table(day);
    if connection.is_postgres() {
        return postgres::create_day(connection, &table);
    }
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (
           request_id BLOB NOT NULL,
           tenant TEXT NOT NULL,
           events BLOB NOT NULL,
           posted BLOB NOT NULL,
           due_ms INTEGER,
           PRIMARY KEY (request_id, tenant)
         ) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS {table}_due ON {table} (due_ms) WHERE due_ms IS NOT NULL;"
    ))
}

/// The days that have a table.
pub(super) fn days(connection: &Connection) -> sql::Result<BTreeSet<i64>> {
    let mut statement = connection.prepare_cached(match connection.is_postgres() {
        true => {
            "SELECT relname::text FROM pg_class WHERE relkind = 'r'
               AND relnamespace = current_schema()::regnamespace AND relname LIKE 'request\\_%'"
        }
        false => "SELECT name FROM sqlite_schema WHERE type = 'table'",
    })?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let days = names.filter_map(|name| {
        name.map(|name| name.strip_prefix("request_")?.parse().ok())
            .transpose()
    });
    days.collect()
}

impl Ledger {
    /// Lets a part of what is older than 40 days go: the witnesses of requests, and what did
    /// not fit about them. Says whether there is more to let go. The file keeps its size,
    /// and uses it again. The last 40 days in which there was something stay, too: a clock
    /// that is wrong lets nothing go.
    ///
    /// All that the stream held at `now_ms` must be booked: what comes later is younger,
    /// so that no event finds its request gone and is billed anew.
    ///
    /// It lets the days of all shards go, whichever one the scope has: one replica's work.
    pub fn drop_old(&mut self, scope: Scope, now_ms: i64) -> Result<bool, LedgerError> {
        self.transaction(scope, |change| {
            if !change.has_looked {
                change.look_for_days()?;
            }
            let Some(newest) = change.partitions.last() else {
                return Ok(false);
            };
            let before = day_of_ms(now_ms)
                .min(*newest)
                .saturating_sub(day_of_ms(IDLE_MAX_MS));
            let connection = &change.transaction;
            let old: Vec<i64> = change.partitions.range(..before).copied().collect();
            for day in old {
                if is_waiting(connection, day)? {
                    continue;
                }
                if connection.is_postgres() {
                    // Whoever reads it now holds this up, and nobody is to wait for both.
                    connection.execute_batch("SET LOCAL lock_timeout = '1s'")?;
                } else if delete_some(connection, day)? {
                    return Ok(true);
                }
                connection.execute_batch(&format!("DROP TABLE {}", table(day)))?;
                change.partitions.remove(&day);
                return Ok(true);
            }
            let deleted = connection
                .prepare_cached(
                    "DELETE FROM discrepancy WHERE id IN (SELECT id FROM discrepancy
                       WHERE hour < ?1 AND request_id <> ?3 LIMIT ?2)",
                )?
                .execute(params![before.saturating_mul(DAY_HOURS), STEP, NO_REQUEST])?;
            Ok(deleted > 0)
        })
    }
}

/// Whether a request of that day still has to be booked.
fn is_waiting(connection: &Connection, day: i64) -> sql::Result<bool> {
    let table = table(day);
    connection
        .prepare_cached(&format!(
            "SELECT 1 FROM {table} WHERE due_ms IS NOT NULL LIMIT 1"
        ))?
        .exists([])
}

/// Deletes a day's first rows; says whether there were any.
fn delete_some(connection: &Connection, day: i64) -> sql::Result<bool> {
    let table = table(day);
    let end: Option<[u8; 16]> = connection
        .prepare_cached(&format!(
            "SELECT request_id FROM {table} ORDER BY request_id LIMIT 1 OFFSET ?1"
        ))?
        .query_row([STEP], |row| row.get(0))
        .optional()?;
    let deleted = match end {
        Some(end) => connection
            .prepare_cached(&format!("DELETE FROM {table} WHERE request_id <= ?1"))?
            .execute([end])?,
        None => connection
            .prepare_cached(&format!("DELETE FROM {table}"))?
            .execute([])?,
    };
    Ok(deleted > 0)
}
