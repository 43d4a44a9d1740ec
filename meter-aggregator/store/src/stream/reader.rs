//! Who reads the stream and says how far it is booked.

use std::sync::{Arc, mpsc::SyncSender};

use super::{mark::Spooled, writer::Job};
use crate::{
    quarantine::{self, Held, Quarantined, Wanted},
    sql::{self, Connection, params},
};

/// An event that did not come to the stream, but came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Its number in the table.
    pub id: i64,
    /// The witness, as its number.
    pub witness: i32,
    /// The producer's run.
    pub run: String,
    /// The event's number in it.
    pub number: u64,
}

/// Reads, and says what may be trimmed.
pub struct Reader {
    connection: Connection,
    jobs: SyncSender<Job>,
    spooled: Arc<Spooled>,
}

impl Reader {
    pub(super) fn new(
        connection: Connection,
        jobs: SyncSender<Job>,
        spooled: Arc<Spooled>,
    ) -> Self {
        Self {
            connection,
            jobs,
            spooled,
        }
    }

    /// The stream's own id, made with its file.
    pub fn identity(&self) -> sql::Result<String> {
        let query = "SELECT id FROM identity";
        self.connection.query_row(query, [], |row| row.get(0))
    }

    /// The number of the last event; 0 where there is none.
    pub fn last(&self) -> sql::Result<i64> {
        self.connection
            .prepare_cached("SELECT COALESCE(MAX(seq), 0) FROM event")?
            .query_row([], |row| row.get(0))
    }

    /// Up to `limit` events after the number `after`.
    pub fn read(&self, after: i64, limit: usize) -> sql::Result<Vec<(i64, String)>> {
        self.connection
            .prepare_cached("SELECT seq, event FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
            .query_map(params![after, limit as i64], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect()
    }

    /// Drops what was booked, up to and with the number `upto`. The writer does so with
    /// what it commits next: two that write would wait for each other, and one more
    /// sync would make nothing safer.
    pub fn trim(&self, upto: i64) -> sql::Result<()> {
        self.spooled.book(upto);
        self.wake();
        Ok(())
    }

    /// Events that were set aside, `limit` of them at the most, after `after`.
    pub fn noted(&self, after: i64, limit: usize) -> sql::Result<Vec<Noted>> {
        self.connection
            .prepare_cached(
                "SELECT id, witness, run, number FROM noted WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?
            .query_map(params![after, limit as i64], |row| {
                Ok(Noted {
                    id: row.get(0)?,
                    witness: row.get(1)?,
                    run: row.get(2)?,
                    number: row.get::<_, i64>(3)?.cast_unsigned(),
                })
            })?
            .collect()
    }

    /// Drops what was noted up to and with `upto`, as [`Self::trim`] does.
    pub fn trim_noted(&self, upto: i64) -> sql::Result<()> {
        self.spooled.note(upto);
        self.wake();
        Ok(())
    }

    /// How many are in quarantine.
    pub fn quarantined(&self) -> sql::Result<i64> {
        quarantine::count(&self.connection)
    }

    /// What is in quarantine, the newest first.
    pub fn quarantine(&self, wanted: &Wanted) -> sql::Result<Vec<Quarantined>> {
        quarantine::newest(&self.connection, wanted)
    }

    /// What is in quarantine after the number `after`, the oldest first, to be checked
    /// again: these alone, or those with that text in their reason, or all.
    pub fn held(
        &self,
        ids: Option<&[i64]>,
        reason: Option<&str>,
        after: i64,
        limit: usize,
    ) -> sql::Result<Vec<Held>> {
        quarantine::held(&self.connection, ids, reason, after, limit)
    }

    /// A writer that is busy, or gone, trims without being told.
    fn wake(&self) {
        let _ = self.jobs.try_send(Job::Trim);
    }
}
