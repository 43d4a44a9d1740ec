//! Events that are missing: what producers numbered and nobody brought.

use std::collections::{BTreeMap, btree_map::Entry};

use serde::Serialize;
use weir_meter_core::{
    gaps::{Missing, Run},
    ledger::book,
    shown::witness,
};
use weir_wire::proto::usage::Witness;

use super::{IDLE_MAX_MS, Ledger, LedgerError, columns, postgres};
use crate::sql::{self, OptionalExtension as _, Transaction, params};
use crate::stream::Noted;

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS run (
  id INTEGER PRIMARY KEY,
  witness INTEGER NOT NULL,
  run TEXT NOT NULL,
  highest INTEGER NOT NULL,
  unfollowed INTEGER NOT NULL,
  last_ms INTEGER NOT NULL,
  UNIQUE (witness, run)
);
CREATE TABLE IF NOT EXISTS gap (
  run_id INTEGER NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  since_ms INTEGER NOT NULL,
  told INTEGER NOT NULL,
  PRIMARY KEY (run_id, first)
) WITHOUT ROWID;
";

/// How long a number may be late before it counts as missing: batches overtake each
/// other, and a log and a call are two ways.
pub(super) const GAP_GRACE_MS: i64 = 30_000;

/// The most runs that are followed; the longest idle are forgotten first.
const RUNS_MAX: i64 = 10_000;

/// The most gaps that are listed.
const GAPS_MAX: i64 = 100;

/// Events that were never brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Who numbered them: `gateway` or `router`.
    pub witness: &'static str,
    /// The producer's run.
    pub run: String,
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
    /// When they were passed over, milliseconds of the Unix epoch.
    pub since_ms: i64,
}

/// The name of the progress for what an embedded stream set aside: `noted` for `stream`.
fn noted(stream: &str) -> String {
    stream.replacen(book::STREAM, "noted", 1)
}

impl Ledger {
    /// The number of the last event that was taken note of, of those that the embedded stream
    /// of that name set aside.
    pub fn noted_upto(&self, stream: &str) -> Result<i64, LedgerError> {
        Ok(columns::progress(&self.connection, &noted(stream))?)
    }

    /// Takes note of events that came and were set aside: they are not missing.
    pub fn note(&mut self, stream: &str, events: &[Noted], now_ms: i64) -> Result<(), LedgerError> {
        let transaction = self.connection.transaction()?;
        let came = events
            .iter()
            .map(|event| (event.witness, &*event.run, event.number));
        see(&transaction, came, now_ms)?;
        if let Some(last) = events.last() {
            columns::set_progress(&transaction, &noted(stream), last.id)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The oldest gaps that are no longer merely late, a hundred at the most.
    pub fn gaps(&self, now_ms: i64) -> Result<Vec<Gap>, LedgerError> {
        self.fold(now_ms)?;
        let gaps = self
            .connection
            .prepare_cached(
                "SELECT witness, run, first, last, since_ms FROM gap
                 JOIN run ON run.id = gap.run_id
                 WHERE since_ms <= ?1 ORDER BY since_ms LIMIT ?2",
            )?
            .query_map([now_ms.saturating_sub(GAP_GRACE_MS), GAPS_MAX], gap)?
            .collect::<sql::Result<_>>()?;
        Ok(gaps)
    }

    /// How many events are missing.
    pub fn missing(&self, now_ms: i64) -> Result<u64, LedgerError> {
        self.fold(now_ms)?;
        let before_ms = now_ms.saturating_sub(GAP_GRACE_MS);
        let ranges: Vec<(i64, i64)> = self
            .connection
            .prepare_cached("SELECT first, last FROM gap WHERE since_ms <= ?1")?
            .query_map([before_ms], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<sql::Result<_>>()?;
        let unfollowed: i64 = self
            .connection
            .prepare_cached("SELECT CAST(COALESCE(SUM(unfollowed), 0) AS BIGINT) FROM run")?
            .query_row([], |row| row.get(0))?;
        let counts = ranges.into_iter().map(|(first, last)| {
            let (first, last) = (first.cast_unsigned(), last.cast_unsigned());
            last.saturating_sub(first).saturating_add(1)
        });
        Ok(counts.fold(unfollowed.cast_unsigned(), u64::saturating_add))
    }

    /// The gaps that the operator was not told of yet; from now on they count as told.
    /// Forgets runs that are idle for long, too.
    pub fn tell_gaps(&mut self, now_ms: i64) -> Result<Vec<Gap>, LedgerError> {
        self.fold(now_ms)?;
        let transaction = self.connection.transaction()?;
        postgres::lock(&transaction, postgres::Lock::Gaps)?;
        transaction
            .prepare_cached("DELETE FROM run WHERE last_ms < ?1")?
            .execute([now_ms.saturating_sub(IDLE_MAX_MS)])?;
        transaction
            .prepare_cached(
                "DELETE FROM run WHERE id IN
                   (SELECT id FROM run ORDER BY last_ms DESC LIMIT 1000000 OFFSET ?1)",
            )?
            .execute([RUNS_MAX])?;
        transaction
            .prepare_cached("DELETE FROM gap WHERE run_id NOT IN (SELECT id FROM run)")?
            .execute([])?;
        let before_ms = now_ms.saturating_sub(GAP_GRACE_MS);
        let gaps: Vec<Gap> = transaction
            .prepare_cached(
                "SELECT witness, run, first, last, since_ms FROM gap
                 JOIN run ON run.id = gap.run_id
                 WHERE NOT told AND since_ms <= ?1 ORDER BY since_ms LIMIT ?2",
            )?
            .query_map([before_ms, GAPS_MAX], gap)?
            .collect::<sql::Result<_>>()?;
        transaction
            .prepare_cached("UPDATE gap SET told = TRUE WHERE NOT told AND since_ms <= ?1")?
            .execute([before_ms])?;
        transaction.commit()?;
        Ok(gaps)
    }

    /// Takes what the shards saw into the runs: each sees a part of a run's numbers, so
    /// that what one has not brought another may. What was seen last only fills in what is
    /// missing below: the other shards may not have come so far. SQLite has no shards.
    fn fold(&self, now_ms: i64) -> Result<(), LedgerError> {
        let upto_ms = now_ms.saturating_sub(GAP_GRACE_MS);
        while self.connection.is_postgres() {
            let transaction = self.connection.transaction()?;
            postgres::lock(&transaction, postgres::Lock::Gaps)?;
            let Some(seen) = postgres::read_seen(&transaction, upto_ms)? else {
                break;
            };
            for ((witness, run), numbers) in seen.numbers {
                let mut runs = Runs::new(now_ms);
                for (number, at_ms) in numbers {
                    runs.now_ms = at_ms;
                    runs.see(&transaction, witness, &run, number)?;
                }
                runs.save(&transaction)?;
            }
            postgres::forget_seen(&transaction, &seen.ids)?;
            transaction.commit()?;
        }
        Ok(())
    }
}

/// Takes note of events that came: of each the witness, the producer's run, the number.
pub(super) fn see<'e>(
    transaction: &Transaction<'_>,
    came: impl Iterator<Item = (i32, &'e str, u64)>,
    now_ms: i64,
) -> sql::Result<()> {
    if let Some(mut session) = transaction.postgres() {
        return postgres::write_seen(&mut session, came, now_ms);
    }
    let mut runs = Runs::new(now_ms);
    for (witness, run, number) in came {
        runs.see(transaction, witness, run, number)?;
    }
    runs.save(transaction)
}

fn gap(row: &sql::Row<'_>) -> sql::Result<Gap> {
    Ok(Gap {
        witness: witness(Witness::try_from(row.get::<_, i32>(0)?).unwrap_or_default()),
        run: row.get(1)?,
        first: row.get::<_, i64>(2)?.cast_unsigned(),
        last: row.get::<_, i64>(3)?.cast_unsigned(),
        since_ms: row.get(4)?,
    })
}

/// The runs that one transaction sees events of.
pub(super) struct Runs {
    now_ms: i64,
    seen: BTreeMap<(i32, String), Seen>,
}

struct Seen {
    run: Run,
    has_changed: bool,
}

impl Runs {
    pub(super) fn new(now_ms: i64) -> Self {
        Self {
            now_ms,
            seen: BTreeMap::new(),
        }
    }

    /// Takes note of an event; one without a run or a number says nothing.
    pub(super) fn see(
        &mut self,
        transaction: &Transaction<'_>,
        witness: i32,
        run: &str,
        number: u64,
    ) -> sql::Result<()> {
        if run.is_empty() || number == 0 {
            return Ok(());
        }
        let seen = match self.seen.entry((witness, run.to_owned())) {
            Entry::Occupied(seen) => seen.into_mut(),
            Entry::Vacant(place) => {
                let run = load(transaction, witness, run)?;
                place.insert(Seen {
                    run,
                    has_changed: false,
                })
            }
        };
        seen.has_changed |= seen.run.see(number, self.now_ms);
        Ok(())
    }

    /// Writes what has changed.
    pub(super) fn save(self, transaction: &Transaction<'_>) -> sql::Result<()> {
        for ((witness, name), seen) in self.seen {
            let run_id: i64 = transaction
                .prepare_cached(
                    "INSERT INTO run (witness, run, highest, unfollowed, last_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (witness, run) DO UPDATE SET highest = excluded.highest,
                       unfollowed = excluded.unfollowed, last_ms = excluded.last_ms
                     RETURNING id",
                )?
                .query_row(
                    params![
                        witness,
                        name,
                        seen.run.highest.cast_signed(),
                        seen.run.unfollowed.cast_signed(),
                        self.now_ms
                    ],
                    |row| row.get(0),
                )?;
            if !seen.has_changed {
                continue;
            }
            transaction
                .prepare_cached("DELETE FROM gap WHERE run_id = ?1")?
                .execute([run_id])?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO gap (run_id, first, last, since_ms, told) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for range in &seen.run.missing {
                insert.execute(params![
                    run_id,
                    range.first.cast_signed(),
                    range.last.cast_signed(),
                    range.since_ms,
                    range.is_told
                ])?;
            }
        }
        Ok(())
    }
}

fn load(transaction: &Transaction<'_>, witness: i32, name: &str) -> sql::Result<Run> {
    let found: Option<(i64, i64, i64)> = transaction
        .prepare_cached("SELECT id, highest, unfollowed FROM run WHERE witness = ?1 AND run = ?2")?
        .query_row(params![witness, name], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((id, highest, unfollowed)) = found else {
        return Ok(Run::default());
    };
    let mut missing: Vec<Missing> = transaction
        .prepare_cached("SELECT first, last, since_ms, told FROM gap WHERE run_id = ?1")?
        .query_map([id], |row| {
            Ok(Missing {
                first: row.get::<_, i64>(0)?.cast_unsigned(),
                last: row.get::<_, i64>(1)?.cast_unsigned(),
                since_ms: row.get(2)?,
                is_told: row.get(3)?,
            })
        })?
        .collect::<sql::Result<_>>()?;
    // Numbers above 2^63 are negative in SQLite.
    missing.sort_by_key(|range| range.first);
    Ok(Run {
        highest: highest.cast_unsigned(),
        missing,
        unfollowed: unfollowed.cast_unsigned(),
    })
}
