//! What can't be booked, where the stream is not this process' own: then quarantine is the
//! ledger's.

use super::{Ledger, LedgerError, gaps, postgres};
use crate::{
    quarantine::{self, Held, Quarantined, Wanted},
    sql::params,
    stream::{Aside, Way},
};

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS quarantine (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  event BLOB NOT NULL,
  place TEXT,
  producer TEXT,
  way TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS quarantine_place ON quarantine (place)
  WHERE place IS NOT NULL;
";

/// The longest name of a run that is taken note of, in bytes: ingest takes none that is
/// longer.
const RUN_MAX_BYTES: usize = 64;

impl Ledger {
    /// Sets aside what can't be booked, of that producer, where one of the configuration
    /// brought it; durable when it returns. What was read twice in the same place is set
    /// aside once. The numbers of its events are not missing.
    pub fn set_aside(
        &mut self,
        aside: &[Aside],
        producer: Option<&str>,
        way: Way,
        now_ms: i64,
    ) -> Result<(), LedgerError> {
        if aside.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        let numbers = aside.iter().filter_map(|one| one.number.as_ref());
        let came = numbers
            .filter(|(_, run, _)| run.len() <= RUN_MAX_BYTES)
            .map(|(witness, run, number)| (i32::from(*witness), run.as_str(), *number));
        gaps::see(&transaction, came, now_ms)?;
        if let Some(mut session) = transaction.postgres() {
            postgres::set_aside(&mut session, aside, (producer, way), now_ms)?;
        } else {
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO quarantine (at_ms, reason, event, place, producer, way)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for one in aside {
                insert.execute(params![
                    now_ms,
                    one.reason,
                    one.bytes,
                    one.place,
                    producer,
                    way.as_str()
                ])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Takes these out of quarantine, because they are in the stream now; gives how many
    /// of them were still there.
    pub fn unquarantine(&mut self, ids: &[i64]) -> Result<u64, LedgerError> {
        let transaction = self.connection.transaction()?;
        let mut gone = 0_u64;
        for page in ids.chunks(IDS_MAX) {
            let delete = format!(
                "DELETE FROM quarantine WHERE id IN ({})",
                quarantine::list(page)
            );
            let deleted = transaction.execute(&delete, [])?;
            gone = gone.saturating_add(u64::try_from(deleted).unwrap_or(0));
        }
        transaction.commit()?;
        Ok(gone)
    }

    /// How many are in quarantine.
    pub fn quarantined(&self) -> Result<i64, LedgerError> {
        Ok(quarantine::count(&self.connection)?)
    }

    /// What is in quarantine, the newest first.
    pub fn quarantine(&self, wanted: &Wanted) -> Result<Vec<Quarantined>, LedgerError> {
        Ok(quarantine::newest(&self.connection, wanted)?)
    }

    /// What is in quarantine after the number `after`, the oldest first, to be checked
    /// again: these alone, or those with that text in their reason, or all.
    pub fn held(
        &self,
        ids: Option<&[i64]>,
        reason: Option<&str>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Held>, LedgerError> {
        let connection = &self.connection;
        Ok(quarantine::held(connection, ids, reason, after, limit)?)
    }
}

/// The most ids in one statement.
const IDS_MAX: usize = 500;
