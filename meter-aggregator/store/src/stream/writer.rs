//! The one thread that writes the stream.

use std::{
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};

use rusqlite::{Connection, Transaction, params, params_from_iter};
use tokio::sync::{oneshot, watch};

use super::{Batch, Event, mark::Spooled, schema};

/// The most jobs in one commit.
const GROUP_MAX: usize = 256;

/// The most events that are trimmed in one commit, so that none takes long.
const TRIM_MAX: i64 = 10_000;

/// Events in one `INSERT`: each statement keeps the last number in a table of its own.
const ROWS: usize = 16;
const INSERT_MANY: &str = "INSERT INTO event (event) VALUES
  (?), (?), (?), (?), (?), (?), (?), (?), (?), (?), (?), (?), (?), (?), (?), (?)";
const INSERT_ONE: &str = "INSERT INTO event (event) VALUES (?)";

/// After a commit that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest name of a run that is noted of what is set aside, in bytes.
const RUN_MAX_BYTES: usize = 64;

/// What the writer is asked for.
pub(super) enum Job {
    /// Events that came.
    Append(Append),
    /// Events that leave quarantine.
    Requeue(Requeue),
    /// There may be something to trim.
    Trim,
    /// Nothing comes after this.
    Stop,
}

pub(super) struct Append {
    pub(super) batch: Batch,
    /// What it counts for among what waits.
    pub(super) bytes: u64,
    pub(super) done: oneshot::Sender<bool>,
}

pub(super) struct Requeue {
    pub(super) events: Vec<(i64, Event)>,
    /// How many were still there; `None` where it failed.
    pub(super) done: oneshot::Sender<Option<u64>>,
}

pub(super) struct Writer {
    connection: Connection,
    tail: watch::Sender<i64>,
    spooled: Arc<Spooled>,
    /// What is gone from `event` and `noted`, up to and with these numbers.
    trimmed: (i64, i64),
    /// The last commit failed, which was said.
    is_failing: bool,
}

/// What a commit came to.
struct Written {
    /// The number of the last new event.
    last: Option<i64>,
    trimmed: (i64, i64),
    /// Of each job that asked for it: how many events it moved.
    moved: Vec<u64>,
}

impl Writer {
    /// Of a stream whose first event has that number.
    pub(super) fn new(
        connection: Connection,
        tail: watch::Sender<i64>,
        spooled: Arc<Spooled>,
        first: i64,
    ) -> Self {
        Self {
            connection,
            tail,
            spooled,
            trimmed: (first.saturating_sub(1), 0),
            is_failing: false,
        }
    }

    /// Writes until it is told to stop.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut group = Vec::new();
        let mut is_stopped = false;
        while !is_stopped {
            group.clear();
            if self.is_trimmed() {
                match jobs.recv() {
                    Ok(job) => group.push(job),
                    Err(_) => return,
                }
            }
            group.extend(jobs.try_iter().take(GROUP_MAX));
            is_stopped = group.iter().any(|job| matches!(job, Job::Stop));
            if !self.commit(&mut group) {
                // A full disk is not to be asked without a pause.
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn is_trimmed(&self) -> bool {
        let (events, noted) = self.spooled.trimmable();
        events <= self.trimmed.0 && noted <= self.trimmed.1
    }

    /// Commits what a group asks for and tells who waits; `false` where it failed.
    fn commit(&mut self, group: &mut Vec<Job>) -> bool {
        let has_work = group
            .iter()
            .any(|job| matches!(job, Job::Append(_) | Job::Requeue(_)));
        if !has_work && self.is_trimmed() {
            return true;
        }
        let written = self.write(group);
        let mut moved = Vec::new();
        match &written {
            Ok(written) => {
                self.trimmed = written.trimmed;
                moved.clone_from(&written.moved);
                if let Err(error) = self.spooled.measure(&self.connection) {
                    tracing::warn!(%error, "the stream's size can't be told");
                }
                if let Some(last) = written.last {
                    self.spooled.appended(last);
                    self.tail.send_replace(last);
                }
            }
            Err(error) => {
                if !self.is_failing {
                    tracing::error!(%error, "the stream can't be written; producers keep their events");
                }
                // Where the disk is full, what the log holds can be written over then.
                let _ = self
                    .connection
                    .execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
            }
        }
        if written.is_ok() && self.is_failing {
            tracing::info!("the stream can be written again");
        }
        self.is_failing = written.is_err();
        let mut moved = moved.into_iter();
        for job in group.drain(..) {
            // Who no longer waits will ask for the same again.
            match job {
                Job::Append(append) => {
                    self.spooled.unqueue(append.bytes);
                    let _ = append.done.send(written.is_ok());
                }
                Job::Requeue(requeue) => drop(requeue.done.send(moved.next())),
                Job::Trim | Job::Stop => {}
            }
        }
        written.is_ok()
    }

    fn write(&mut self, group: &[Job]) -> rusqlite::Result<Written> {
        let trimmable = self.spooled.trimmable();
        let before = self.trimmed;
        let transaction = self.connection.transaction()?;
        let mut moved = Vec::new();
        let (mut last, mut aside) = (None, 0_usize);
        for job in group {
            match job {
                Job::Append(append) => {
                    last = insert(&transaction, &append.batch.events)?.or(last);
                    aside = aside.saturating_add(set_aside(&transaction, &append.batch)?);
                }
                Job::Requeue(requeue) => {
                    let (number, count) = move_back(&transaction, &requeue.events)?;
                    last = number.or(last);
                    moved.push(count);
                }
                Job::Trim | Job::Stop => {}
            }
        }
        let trimmed = trim(&transaction, before, trimmable)?;
        transaction.commit()?;
        self.spooled
            .set_aside(u64::try_from(aside).unwrap_or(u64::MAX));
        Ok(Written {
            last,
            trimmed,
            moved,
        })
    }
}

/// Gives the number of the last one.
fn insert(transaction: &Transaction<'_>, events: &[Event]) -> rusqlite::Result<Option<i64>> {
    if events.is_empty() {
        return Ok(None);
    }
    let mut chunks = events.chunks_exact(ROWS);
    let mut many = transaction.prepare_cached(INSERT_MANY)?;
    for rows in &mut chunks {
        many.execute(params_from_iter(rows.iter().map(|event| &event.text)))?;
    }
    let mut one = transaction.prepare_cached(INSERT_ONE)?;
    for row in chunks.remainder() {
        one.execute([&row.text])?;
    }
    Ok(Some(transaction.last_insert_rowid()))
}

/// Gives about how many bytes that takes.
fn set_aside(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<usize> {
    if batch.aside.is_empty() {
        return Ok(0);
    }
    let mut bytes = 0_usize;
    let at_ms = weir_process::now_ms();
    let mut quarantine = transaction.prepare_cached(
        "INSERT OR IGNORE INTO quarantine (at_ms, reason, event, place, producer, way)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut noted = transaction
        .prepare_cached("INSERT INTO noted (witness, run, number) VALUES (?1, ?2, ?3)")?;
    for aside in &batch.aside {
        let taken = quarantine.execute(params![
            at_ms,
            aside.reason,
            aside.bytes,
            aside.place,
            batch.producer,
            batch.way.as_str()
        ])?;
        if taken > 0 {
            let row = aside.bytes.len().saturating_add(aside.reason.len());
            bytes = bytes
                .saturating_add(row)
                .saturating_add(schema::ASIDE_ROW_BYTES);
        }
        let numbered = aside
            .number
            .as_ref()
            .filter(|(_, run, number)| (1..=RUN_MAX_BYTES).contains(&run.len()) && *number > 0);
        if let Some((witness, run, number)) = numbered {
            let witness = i32::from(*witness);
            noted.execute(params![witness, run, number.cast_signed()])?;
        }
    }
    Ok(bytes)
}

/// From quarantine to the stream; what is no longer there went before.
fn move_back(
    transaction: &Transaction<'_>,
    events: &[(i64, Event)],
) -> rusqlite::Result<(Option<i64>, u64)> {
    let mut delete = transaction.prepare_cached("DELETE FROM quarantine WHERE id = ?1")?;
    let mut insert = transaction.prepare_cached(INSERT_ONE)?;
    let (mut last, mut count) = (None, 0_u64);
    for (id, event) in events {
        if delete.execute([id])? == 1 {
            last = Some(insert.insert([&event.text])?);
            count = count.saturating_add(1);
        }
    }
    Ok((last, count))
}

/// Drops some of what may go; gives up to where it is gone.
fn trim(
    transaction: &Transaction<'_>,
    before: (i64, i64),
    upto: (i64, i64),
) -> rusqlite::Result<(i64, i64)> {
    let next = |before: i64, upto: i64| upto.min(before.saturating_add(TRIM_MAX));
    let mut trimmed = before;
    if upto.0 > before.0 {
        trimmed.0 = next(before.0, upto.0);
        transaction
            .prepare_cached("DELETE FROM event WHERE seq <= ?1")?
            .execute([trimmed.0])?;
    }
    if upto.1 > before.1 {
        // Its first number is not known, and there are few.
        trimmed.1 = upto.1;
        transaction
            .prepare_cached("DELETE FROM noted WHERE id <= ?1")?
            .execute([trimmed.1])?;
    }
    Ok(trimmed)
}
