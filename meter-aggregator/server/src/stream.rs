//! The embedded stream: events in the order of their arrival, durable before
//! they are acknowledged.
//!
//! One thread writes. What arrives while it commits waits and shares the next
//! commit (group commit), so that the cost of a sync is shared by all.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
};

use rusqlite::{Connection, params};
use tokio::sync::{oneshot, watch};

use crate::database::open_database;

/// Appends that wait for the writer; beyond it producers are told to wait.
const WAITING_MAX: usize = 256;

/// The most appends in one commit.
const GROUP_MAX: usize = 256;

/// What one request brought.
#[derive(Debug, Default)]
pub struct Batch {
    /// CloudEvents, one JSON text each.
    pub events: Vec<String>,
    /// What can't be booked, as it came, and why.
    pub quarantined: Vec<(Vec<u8>, String)>,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Too many wait; come back later.
    #[error("the stream is busy")]
    Busy,
    /// It could not be made durable.
    #[error("the stream can't be written")]
    Failed,
}

struct Append {
    batch: Batch,
    done: oneshot::Sender<bool>,
}

/// Where events are appended.
pub struct Stream {
    appends: Option<SyncSender<Append>>,
    writer: Option<JoinHandle<()>>,
    path: PathBuf,
    /// The number of the last event; changes when there are more.
    pub tail: watch::Receiver<i64>,
}

impl Stream {
    /// Opens or creates the stream in that folder.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("stream.db");
        let connection = open_database(&path)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS event (
               seq INTEGER PRIMARY KEY AUTOINCREMENT,
               event TEXT NOT NULL
             );
             CREATE TABLE IF NOT EXISTS quarantine (
               id INTEGER PRIMARY KEY AUTOINCREMENT,
               at_ms INTEGER NOT NULL,
               reason TEXT NOT NULL,
               event BLOB NOT NULL
             );",
        )?;
        let last = connection
            .query_row(
                "SELECT seq FROM sqlite_sequence WHERE name = 'event'",
                [],
                |r| r.get(0),
            )
            .unwrap_or(0);
        let (tail, tail_seen) = watch::channel(last);
        let (appends, received) = sync_channel(WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("stream".to_owned())
            .spawn(move || write(connection, &received, &tail))?;
        Ok(Self {
            appends: Some(appends),
            writer: Some(writer),
            path,
            tail: tail_seen,
        })
    }

    /// Appends a batch; returns once it is durable.
    pub async fn append(&self, batch: Batch) -> Result<(), AppendError> {
        let (done, durable) = oneshot::channel();
        let appends = self.appends.as_ref().ok_or(AppendError::Failed)?;
        appends
            .try_send(Append { batch, done })
            .map_err(|e| match e {
                TrySendError::Full(_) => AppendError::Busy,
                TrySendError::Disconnected(_) => AppendError::Failed,
            })?;
        match durable.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(AppendError::Failed),
        }
    }

    /// A reader of its own connection.
    pub fn reader(&self) -> anyhow::Result<Reader> {
        Ok(Reader {
            connection: open_database(&self.path)?,
        })
    }
}

impl Drop for Stream {
    /// Waits for the writer, which commits what it took.
    fn drop(&mut self) {
        self.appends = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Reads and trims.
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// Up to `limit` events after the number `after`.
    pub fn read(&self, after: i64, limit: usize) -> rusqlite::Result<Vec<(i64, String)>> {
        self.connection
            .prepare_cached("SELECT seq, event FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
            .query_map(params![after, limit as i64], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect()
    }

    /// Drops what was booked, up to and with the number `upto`.
    pub fn trim(&self, upto: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM event WHERE seq <= ?1")?
            .execute([upto])?;
        Ok(())
    }

    /// How many events are in quarantine.
    pub fn quarantined(&self) -> rusqlite::Result<i64> {
        self.connection
            .query_row("SELECT COUNT(*) FROM quarantine", [], |row| row.get(0))
    }
}

fn write(mut connection: Connection, appends: &Receiver<Append>, tail: &watch::Sender<i64>) {
    while let Ok(first) = appends.recv() {
        let mut group = vec![first];
        group.extend(appends.try_iter().take(GROUP_MAX));
        let written = write_group(&mut connection, &group);
        if let Err(error) = &written {
            tracing::error!(%error, "the stream can't be written");
        }
        if let Ok(Some(last)) = written {
            tail.send_replace(last);
        }
        for append in group {
            // Who no longer waits will send the same events again.
            let _ = append.done.send(written.is_ok());
        }
    }
}

fn write_group(connection: &mut Connection, group: &[Append]) -> rusqlite::Result<Option<i64>> {
    let transaction = connection.transaction()?;
    let mut last = None;
    {
        let mut event = transaction.prepare_cached("INSERT INTO event (event) VALUES (?1)")?;
        let mut quarantine = transaction
            .prepare_cached("INSERT INTO quarantine (at_ms, reason, event) VALUES (?1, ?2, ?3)")?;
        for append in group {
            for text in &append.batch.events {
                last = Some(event.insert([text])?);
            }
            for (bytes, reason) in &append.batch.quarantined {
                quarantine.execute(params![weir_process::now_ms(), reason, bytes])?;
            }
        }
    }
    transaction.commit()?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let stream = Stream::open(folder.path()).unwrap();
        let batch = |n: usize| Batch {
            events: vec![format!("e{n}"), format!("f{n}")],
            quarantined: vec![(vec![0xff], "reason".into())],
        };
        let (a, b) = tokio::join!(stream.append(batch(1)), stream.append(batch(2)));
        a.unwrap();
        b.unwrap();
        drop(stream);

        let stream = Stream::open(folder.path()).unwrap();
        assert_eq!(*stream.tail.borrow(), 4);
        let reader = stream.reader().unwrap();
        let events = reader.read(0, 10).unwrap();
        assert_eq!(events.len(), 4);
        assert_eq!(events[0], (1, "e1".to_owned()));
        assert_eq!(reader.quarantined().unwrap(), 2);

        reader.trim(4).unwrap();
        stream.append(batch(3)).await.unwrap();
        // Numbers are never used again, or an offset would skip events.
        assert_eq!(reader.read(4, 1).unwrap()[0].0, 5);
    }
}
