//! A durable queue of records that leave this machine later: what was appended
//! outlives the process that is killed, and is there until it is removed.
//!
//! One thread appends. What arrives while it commits, and in the two milliseconds
//! before that, shares the next commit: those are what a kill -9 may lose. A machine
//! that loses its power may lose the last commits, too (WAL, synchronous NORMAL).

mod lock;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::{Connection, params};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use self::{lock::Lock, writer::Command};

/// Records that wait for the writer; what comes beyond them is refused.
const WAITING_MAX: usize = 16_384;

/// The spool can't be used.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error("{0} is in use by another process; each router needs a data_dir of its own")]
    InUse(PathBuf),
    /// The file can't be opened, or is none of a spool.
    #[error("{0} cannot be opened")]
    Open(PathBuf, #[source] std::io::Error),
    /// The database can't be read or written.
    #[error("the spool's database fails")]
    Database(#[from] rusqlite::Error),
    /// Its thread is gone.
    #[error("the spool is closed")]
    Closed,
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// It holds as many bytes as it may.
    #[error("the spool is full")]
    Full,
    /// Too many wait to be written.
    #[error("the spool is not written fast enough")]
    Busy,
    /// It is closed.
    #[error("the spool is closed")]
    Closed,
}

/// A record that waits, by its number. Numbers grow and are never used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub number: i64,
    /// What was appended.
    pub bytes: Vec<u8>,
}

/// A record that was taken, and is durable in a moment.
#[derive(Debug)]
pub struct Appended(oneshot::Receiver<()>);

impl Appended {
    /// Returns once it is durable; `false` where it will never be.
    pub async fn durable(self) -> bool {
        self.0.await.is_ok()
    }
}

/// What the spool holds just now.
#[derive(Debug, Default)]
struct Held {
    records: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
}

/// A spool; clones share it. The last one that is dropped waits for the writer.
#[derive(Clone)]
pub struct Spool(Arc<Inner>);

struct Inner {
    commands: Option<SyncSender<Command>>,
    writer: Option<JoinHandle<()>>,
    reader: Mutex<Connection>,
    held: Arc<Held>,
    bytes_max: u64,
    tail: watch::Receiver<i64>,
    // Dropped last: until here the file is ours.
    _lock: Lock,
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool")
            .field("records", &self.len())
            .finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens or creates the spool in that file, for records of up to `bytes_max`
    /// bytes together. (The file itself is somewhat larger.)
    ///
    /// # Errors
    /// [`SpoolError::InUse`] where another process has it open; where the file is no
    /// database or can't be written.
    pub fn open(path: &Path, bytes_max: u64) -> Result<Self, SpoolError> {
        let lock = Lock::take(path)?;
        let connection = open_database(path)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS record (
               number INTEGER PRIMARY KEY AUTOINCREMENT,
               bytes BLOB NOT NULL
             );",
        )?;
        let (records, bytes, last): (i64, i64, i64) = connection.query_row(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(bytes)), 0), COALESCE(MAX(number), 0)
             FROM record",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let count = |n: i64| AtomicU64::new(u64::try_from(n).unwrap_or(0));
        let held = Arc::new(Held {
            records: count(records),
            bytes: count(bytes),
            refused: count(0),
        });
        let reader = open_database(path)?;
        let (tail, tail_seen) = watch::channel(last);
        let (commands, received) = sync_channel(WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer::run(connection, &received, &tail))
            .map_err(|e| SpoolError::Open(path.to_owned(), e))?;
        Ok(Self(Arc::new(Inner {
            commands: Some(commands),
            writer: Some(writer),
            reader: Mutex::new(reader),
            held,
            bytes_max,
            tail: tail_seen,
            _lock: lock,
        })))
    }

    /// Appends a record. Never waits: it is durable a few milliseconds later.
    ///
    /// # Errors
    /// [`Refused`]; what is in the spool stays there.
    pub fn append(&self, bytes: Vec<u8>) -> Result<Appended, Refused> {
        let held = &self.0.held;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let taken = held
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                now.checked_add(length)
                    .filter(|sum| *sum <= self.0.bytes_max)
            });
        let (done, durable) = oneshot::channel();
        // Before it is there, so that whoever removes it finds it counted.
        held.records.fetch_add(1, Ordering::Relaxed);
        let result = match taken {
            Ok(_) => self.send(Command::Append(bytes, done)),
            Err(_) => Err(Refused::Full),
        };
        match result {
            Ok(()) => Ok(Appended(durable)),
            Err(why) => {
                held.refused.fetch_add(1, Ordering::Relaxed);
                held.records.fetch_sub(1, Ordering::Relaxed);
                if taken.is_ok() {
                    held.bytes.fetch_sub(length, Ordering::Relaxed);
                }
                Err(why)
            }
        }
    }

    /// Returns when all that was appended before is durable.
    ///
    /// # Errors
    /// [`SpoolError::Closed`] where it will never be.
    pub async fn flush(&self) -> Result<(), SpoolError> {
        let (done, flushed) = oneshot::channel();
        let mut command = Command::Flush(done);
        // The writer makes room in a moment.
        loop {
            let commands = self.0.commands.as_ref().ok_or(SpoolError::Closed)?;
            command = match commands.try_send(command) {
                Ok(()) => break,
                Err(TrySendError::Full(command)) => command,
                Err(TrySendError::Disconnected(_)) => return Err(SpoolError::Closed),
            };
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        flushed.await.map_err(|_| SpoolError::Closed)
    }

    /// The oldest records after that number (0 for all), up to `most`, and as long as
    /// they are under `bytes` together; the first whatever its size.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn read(
        &self,
        after: i64,
        most: usize,
        bytes: usize,
    ) -> Result<Vec<Record>, SpoolError> {
        self.with_reader(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT number, bytes FROM record WHERE number > ?1 ORDER BY number LIMIT ?2",
            )?;
            let limit = i64::try_from(most).unwrap_or(i64::MAX);
            let mut rows = statement.query([after, limit])?;
            let mut found = Vec::new();
            let mut sum = 0_usize;
            while let Some(row) = rows.next()? {
                let record = Record {
                    number: row.get(0)?,
                    bytes: row.get(1)?,
                };
                sum = sum.saturating_add(record.bytes.len());
                if sum > bytes && !found.is_empty() {
                    break;
                }
                found.push(record);
            }
            Ok(found)
        })
        .await
    }

    /// Removes records that [`Spool::read`] gave.
    ///
    /// # Errors
    /// Where the database can't be written; they are all there then.
    pub async fn remove(&self, records: &[Record]) -> Result<(), SpoolError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(());
        };
        let (first, last) = (first.number, last.number);
        let lengths = records.iter().map(|r| r.bytes.len());
        let bytes = lengths.fold(0_usize, usize::saturating_add);
        self.with_reader(move |connection| {
            connection
                .prepare_cached("DELETE FROM record WHERE number BETWEEN ?1 AND ?2")?
                .execute(params![first, last])
        })
        .await?;
        let held = &self.0.held;
        let gone = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        held.bytes.fetch_sub(gone(bytes), Ordering::Relaxed);
        held.records
            .fetch_sub(gone(records.len()), Ordering::Relaxed);
        Ok(())
    }

    /// Changes when there are more records to read.
    #[must_use]
    pub fn tail(&self) -> watch::Receiver<i64> {
        self.0.tail.clone()
    }

    /// How many records it holds, those that wait to be written among them.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.held.records.load(Ordering::Relaxed)
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many records were refused since it was opened.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.held.refused.load(Ordering::Relaxed)
    }

    fn send(&self, command: Command) -> Result<(), Refused> {
        let commands = self.0.commands.as_ref().ok_or(Refused::Closed)?;
        commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Busy,
            TrySendError::Disconnected(_) => Refused::Closed,
        })
    }

    /// Runs `work` off the async threads.
    async fn with_reader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let spool = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let reader = spool.0.reader.lock();
            work(&reader.unwrap_or_else(PoisonError::into_inner))
        });
        task.await
            .map_err(|_| SpoolError::Closed)?
            .map_err(SpoolError::Database)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// WAL, and durable against the end of this process when a commit returns.
fn open_database(path: &Path) -> Result<Connection, SpoolError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    Ok(connection)
}
