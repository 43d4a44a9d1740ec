//! How far each file of the gateways' logs was read.

use super::{IDLE_MAX_MS, Ledger, LedgerError};
use crate::sql::{self, params};

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS log (
  path TEXT PRIMARY KEY,
  since_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log_file (
  path TEXT NOT NULL,
  host TEXT NOT NULL,
  device INTEGER NOT NULL,
  inode INTEGER NOT NULL,
  head_bytes INTEGER NOT NULL,
  fingerprint BLOB NOT NULL,
  offset INTEGER NOT NULL,
  modified_ns INTEGER NOT NULL,
  read_ms INTEGER NOT NULL,
  PRIMARY KEY (path, host, device, inode, fingerprint)
) WITHOUT ROWID;
";

/// What tells one file from any other, on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    /// The device that it is on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// How many bytes of its beginning the fingerprint is of.
    pub head_bytes: u64,
    /// SHA-256 of its beginning.
    pub fingerprint: [u8; 32],
}

/// How far a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Bytes; after the last line end.
    pub offset: u64,
    /// When it had been written to by then, nanoseconds of the Unix epoch.
    pub modified_ns: i64,
}

impl Ledger {
    /// The files of that log that were read on this host, and when it was first looked
    /// for (nanoseconds of the Unix epoch): now, if never before.
    pub fn log_files(
        &mut self,
        path: &str,
        host: &str,
        now_ms: i64,
    ) -> Result<(Vec<(FileId, Mark)>, i64), LedgerError> {
        let transaction = self.connection.transaction()?;
        let now_ns = now_ms.saturating_mul(1_000_000);
        transaction.execute(
            "INSERT INTO log (path, since_ns) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![path, now_ns],
        )?;
        // The newest says from where on files are new.
        transaction.execute(
            "DELETE FROM log_file WHERE path = ?1 AND host = ?2 AND read_ms < ?3
               AND modified_ns < (SELECT MAX(modified_ns) FROM log_file
                 WHERE path = ?1 AND host = ?2)",
            params![path, host, now_ms.saturating_sub(IDLE_MAX_MS)],
        )?;
        let since_ns = transaction.query_row(
            "SELECT since_ns FROM log WHERE path = ?1",
            params![path],
            |row| row.get(0),
        )?;
        let files = transaction
            .prepare_cached(
                "SELECT device, inode, head_bytes, fingerprint, \"offset\", modified_ns
                 FROM log_file WHERE path = ?1 AND host = ?2",
            )?
            .query_map(params![path, host], |row| {
                let id = FileId {
                    device: row.get::<_, i64>(0)?.cast_unsigned(),
                    inode: row.get::<_, i64>(1)?.cast_unsigned(),
                    head_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                    fingerprint: row.get(3)?,
                };
                let mark = Mark {
                    offset: row.get::<_, i64>(4)?.cast_unsigned(),
                    modified_ns: row.get(5)?,
                };
                Ok((id, mark))
            })?
            .collect::<sql::Result<_>>()?;
        transaction.commit()?;
        Ok((files, since_ns))
    }

    /// Says how far a file was read. What stands before that is durable in the stream.
    pub fn mark(
        &mut self,
        (path, host): (&str, &str),
        id: &FileId,
        mark: Mark,
        now_ms: i64,
    ) -> Result<(), LedgerError> {
        self.connection
            .prepare_cached(
                "INSERT INTO log_file (path, host, device, inode, head_bytes, fingerprint,
                   \"offset\", modified_ns, read_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (path, host, device, inode, fingerprint) DO UPDATE SET
                   \"offset\" = excluded.\"offset\",
                   modified_ns = excluded.modified_ns, read_ms = excluded.read_ms",
            )?
            .execute(params![
                path,
                host,
                id.device.cast_signed(),
                id.inode.cast_signed(),
                id.head_bytes.cast_signed(),
                id.fingerprint,
                mark.offset.cast_signed(),
                mark.modified_ns,
                now_ms
            ])?;
        Ok(())
    }
}
