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
use weir_wire::proto::usage::Witness;

use crate::database::open_database;

/// Appends that wait for the writer; beyond it producers are told to wait.
const WAITING_MAX: usize = 256;

/// The most appends in one commit.
const GROUP_MAX: usize = 256;

/// The longest name of a run that is noted of what is set aside, in bytes.
const RUN_MAX_BYTES: usize = 64;

/// What one request, or one block of a log, brought.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// CloudEvents, one JSON text each.
    pub events: Vec<String>,
    /// What can't be booked.
    pub aside: Vec<Aside>,
}

/// What can't be booked, and goes to quarantine.
#[derive(Debug, Clone)]
pub struct Aside {
    /// As it came.
    pub bytes: Vec<u8>,
    /// Why.
    pub reason: String,
    /// Where it stood in which file: what is read twice is set aside once.
    pub place: Option<String>,
    /// Of an event the witness, run and number, by which it is not missing.
    pub number: Option<(Witness, String, u64)>,
}

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
             );
             CREATE TABLE IF NOT EXISTS noted (
               id INTEGER PRIMARY KEY AUTOINCREMENT,
               witness INTEGER NOT NULL,
               run TEXT NOT NULL,
               number INTEGER NOT NULL
             );",
        )?;
        add_places(&connection)?;
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

    /// Events that were set aside, `limit` of them at the most, after `after`.
    pub fn noted(&self, after: i64, limit: usize) -> rusqlite::Result<Vec<Noted>> {
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

    /// Drops what was noted up to and with `upto`.
    pub fn trim_noted(&self, upto: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM noted WHERE id <= ?1")?
            .execute([upto])?;
        Ok(())
    }

    /// How many events are in quarantine.
    pub fn quarantined(&self) -> rusqlite::Result<i64> {
        self.connection
            .query_row("SELECT COUNT(*) FROM quarantine", [], |row| row.get(0))
    }
}

/// A stream that was made before there were places gets them.
fn add_places(connection: &Connection) -> rusqlite::Result<()> {
    let has_places = connection
        .prepare("SELECT 1 FROM pragma_table_info('quarantine') WHERE name = 'place'")?
        .exists([])?;
    if !has_places {
        connection.execute_batch("ALTER TABLE quarantine ADD COLUMN place TEXT")?;
    }
    connection.execute_batch(
        "CREATE UNIQUE INDEX IF NOT EXISTS quarantine_place ON quarantine (place)
         WHERE place IS NOT NULL",
    )
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
        let mut quarantine = transaction.prepare_cached(
            "INSERT OR IGNORE INTO quarantine (at_ms, reason, event, place)
             VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut noted = transaction
            .prepare_cached("INSERT INTO noted (witness, run, number) VALUES (?1, ?2, ?3)")?;
        for append in group {
            for text in &append.batch.events {
                last = Some(event.insert([text])?);
            }
            for aside in &append.batch.aside {
                let at_ms = weir_process::now_ms();
                quarantine.execute(params![at_ms, aside.reason, aside.bytes, aside.place])?;
                let numbered = aside.number.as_ref().filter(|(_, run, number)| {
                    (1..=RUN_MAX_BYTES).contains(&run.len()) && *number > 0
                });
                if let Some((witness, run, number)) = numbered {
                    let witness = i32::from(*witness);
                    noted.execute(params![witness, run, number.cast_signed()])?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aside(place: Option<&str>) -> Aside {
        Aside {
            bytes: vec![0xff],
            reason: "reason".into(),
            place: place.map(str::to_owned),
            number: Some((Witness::Gateway, "run".into(), u64::MAX)),
        }
    }

    #[tokio::test]
    async fn what_stands_in_one_place_is_set_aside_once() {
        let folder = tempfile::tempdir().unwrap();
        // A stream of a version before this one.
        Connection::open(folder.path().join("stream.db"))
            .unwrap()
            .execute_batch(
                "CREATE TABLE quarantine (id INTEGER PRIMARY KEY AUTOINCREMENT,
                   at_ms INTEGER NOT NULL, reason TEXT NOT NULL, event BLOB NOT NULL);
                 INSERT INTO quarantine (at_ms, reason, event) VALUES (1, 'old', x'00')",
            )
            .unwrap();
        for _ in 0..2 {
            let stream = Stream::open(folder.path()).unwrap();
            let batch = Batch {
                events: vec![],
                aside: vec![aside(Some("a")), aside(Some("b")), aside(Some("a"))],
            };
            stream.append(batch).await.unwrap();
            let reader = stream.reader().unwrap();
            assert_eq!(reader.quarantined().unwrap(), 3);
            let noted = reader.noted(0, 100).unwrap();
            assert!(noted.iter().all(|n| n.number == u64::MAX && n.run == "run"));
            reader.trim_noted(noted[1].id).unwrap();
            assert_eq!(reader.noted(0, 100).unwrap().len(), noted.len() - 2);
        }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let stream = Stream::open(folder.path()).unwrap();
        let batch = |n: usize| Batch {
            events: vec![format!("e{n}"), format!("f{n}")],
            aside: vec![aside(None)],
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
