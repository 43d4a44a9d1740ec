//! The thread that appends, many records in one commit.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

/// The most records in one commit.
const GROUP_MAX: usize = 1_024;

/// How long after another a commit is made at the soonest: one for each record would
/// cost more than what it tells of. The first after a while is made at once.
const LINGER: Duration = Duration::from_millis(2);

/// Between two tries to commit what could not be.
const PAUSE: Duration = Duration::from_millis(200);

/// So often a commit is tried once nobody can append any more.
const TRIES_AT_END: usize = 5;

/// What the thread is asked for.
pub(super) enum Command {
    /// A record, and whom to tell when it is durable.
    Append(Vec<u8>, oneshot::Sender<()>),
    /// To tell when all before it is durable.
    Flush(oneshot::Sender<()>),
}

/// Runs until nobody can ask any more.
pub(super) fn run(
    mut connection: Connection,
    commands: &Receiver<Command>,
    tail: &watch::Sender<i64>,
) {
    let mut group = Group::default();
    let mut is_open = true;
    let mut not_before = Instant::now();
    while is_open {
        is_open = group.gather(commands, not_before);
        if commit(&mut connection, &group.records, tail, is_open) {
            for waiting in group.waiting.drain(..) {
                let _ = waiting.send(());
            }
        }
        group.records.clear();
        group.waiting.clear();
        let now = Instant::now();
        not_before = now.checked_add(LINGER).unwrap_or(now);
    }
}

/// What is committed together.
#[derive(Default)]
struct Group {
    records: Vec<Vec<u8>>,
    /// Who waits for that.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Group {
    /// Waits for a record and, until then, for others. `false` when no more will come.
    fn gather(&mut self, commands: &Receiver<Command>, not_before: Instant) -> bool {
        let mut until = None;
        while self.records.len() < GROUP_MAX {
            let received = match until {
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => {
                    let left = Instant::saturating_duration_since(&until, Instant::now());
                    commands.recv_timeout(left)
                }
            };
            match received {
                Ok(Command::Append(bytes, waiting)) => {
                    self.records.push(bytes);
                    self.waiting.push(waiting);
                }
                Ok(Command::Flush(waiting)) => {
                    self.waiting.push(waiting);
                    return true;
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            until = Some(not_before);
        }
        true
    }
}

/// Commits a group, for as long as that takes: what can't be written may be in a
/// moment, when there is room on the disk.
fn commit(
    connection: &mut Connection,
    group: &[Vec<u8>],
    tail: &watch::Sender<i64>,
    is_open: bool,
) -> bool {
    if group.is_empty() {
        return true;
    }
    let mut tries = 0_usize;
    loop {
        match write(connection, group) {
            Ok(last) => {
                tail.send_replace(last);
                return true;
            }
            Err(error) => {
                tracing::error!(%error, "the spool can't be written; its records wait");
                tries = tries.saturating_add(1);
                if !is_open && tries >= TRIES_AT_END {
                    tracing::error!(records = group.len(), "records of the spool are lost");
                    return false;
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn write(connection: &mut Connection, group: &[Vec<u8>]) -> rusqlite::Result<i64> {
    let transaction = connection.transaction()?;
    let mut last = 0;
    {
        let mut insert = transaction.prepare_cached("INSERT INTO record (bytes) VALUES (?1)")?;
        for bytes in group {
            last = insert.insert([bytes])?;
        }
    }
    transaction.commit()?;
    Ok(last)
}
