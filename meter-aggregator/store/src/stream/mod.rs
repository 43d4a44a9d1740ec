//! The embedded stream: events in the order of their arrival, durable before
//! they are acknowledged, and what can't be booked beside them.
//!
//! One thread writes. What arrives while it commits waits and shares the next
//! commit (group commit), so that the cost of a sync is shared by all.

mod embedded;
pub mod kafka;
mod mark;
mod reader;
pub mod redis;
mod schema;
mod seldom;
pub mod transport;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use weir_wire::proto::usage::Witness;

use crate::{database::open_database, sql};
pub use mark::{Mark, Spooled};
pub use reader::{Noted, Reader};
pub use transport::{Chunk, Event, Lane, LaneReader, OpenError, StreamError, Transport, Waiting};
use writer::{Append, Job, Requeue};

/// Jobs that wait for the writer; beyond it producers are told to wait.
const WAITING_MAX: usize = 256;

/// The most bytes of events that wait for the writer, so that memory is bounded
/// whatever the batches hold.
const WAITING_MAX_BYTES: u64 = 48 << 20;

/// By which way something came, as quarantine tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// A call over HTTP.
    #[default]
    Http,
    /// A call over gRPC.
    Grpc,
    /// A gateway's access log that is followed.
    Log,
    /// A log that an operator brings in.
    Replay,
    /// Events that an operator brings in.
    Backfill,
    /// A shared stream, in which somebody else wrote.
    Stream,
}

impl Way {
    const ALL: [Self; 6] = [
        Self::Http,
        Self::Grpc,
        Self::Log,
        Self::Replay,
        Self::Backfill,
        Self::Stream,
    ];

    /// Reads a name of the table.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.as_str() == name)
    }

    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Log => "log",
            Self::Replay => "replay",
            Self::Backfill => "backfill",
            Self::Stream => "stream",
        }
    }
}

/// What one request, or one block of a log, brought.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// What is to be booked.
    pub events: Vec<Event>,
    /// What can't be booked.
    pub aside: Vec<Aside>,
    /// Whose it is, where a producer of the configuration sent it.
    pub producer: Option<String>,
    /// How it came.
    pub way: Way,
}

impl Batch {
    /// Bytes of all its events.
    fn bytes(&self) -> u64 {
        let events = self.events.iter().map(|event| event.text.len());
        let aside = self.aside.iter().map(|aside| aside.bytes.len());
        let sum = events.chain(aside).fold(0, usize::saturating_add);
        u64::try_from(sum).unwrap_or(u64::MAX)
    }
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

/// Why a batch was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too many wait; come back later.
    #[error("the stream is busy")]
    Busy,
    /// More is spooled than the configuration allows.
    #[error("the spool is above its mark; what is in it has to be booked first")]
    Full {
        /// When to come back, in seconds.
        retry_after_s: u64,
    },
    /// It could not be made durable.
    #[error("the stream can't be written")]
    Failed,
}

/// Where events are appended.
pub struct Stream {
    jobs: SyncSender<Job>,
    writer: Option<JoinHandle<()>>,
    path: PathBuf,
    mark: Mark,
    spooled: Arc<Spooled>,
    /// The number of the last event; changes when there are more.
    pub tail: watch::Receiver<i64>,
}

impl Stream {
    /// Opens or creates the stream in that folder, without a mark, as it is.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("stream.db");
        let connection = schema::open(&path)?;
        Self::of(connection, path, Mark::NONE)
    }

    /// Opens or creates the stream in that folder; above the mark it takes nothing. Its
    /// numbers go on after those that the ledger has of events and of what was noted.
    pub fn open_marked(folder: &Path, mark: Mark, booked: (i64, i64)) -> anyhow::Result<Self> {
        let path = folder.join("stream.db");
        let connection = schema::open(&path)?;
        let lost = schema::go_on_after(&connection, booked)?;
        if lost > 0 {
            tracing::error!(
                events = lost,
                "the ledger is older than the stream: events were booked in another one, and \
                 are not in this"
            );
        }
        Self::of(connection, path, mark)
    }

    /// One whose disk is full after so many pages.
    #[cfg(test)]
    fn open_limited(folder: &Path, pages_max: u32) -> anyhow::Result<Self> {
        let path = folder.join("stream.db");
        let connection = schema::open(&path)?;
        connection.execute_batch(&format!("PRAGMA max_page_count = {pages_max}"))?;
        Self::of(connection, path, Mark::NONE)
    }

    fn of(connection: Connection, path: PathBuf, mark: Mark) -> anyhow::Result<Self> {
        let (first, last) = schema::range(&connection)?;
        let spooled = Arc::new(Spooled::new(first, last));
        spooled.measure(&connection)?;
        spooled.set_aside(schema::aside_bytes(&connection)?);
        let (tail, tail_seen) = watch::channel(last);
        let (jobs, received) = sync_channel(WAITING_MAX);
        let writer = writer::Writer::new(connection, tail, Arc::clone(&spooled), first);
        let writer = std::thread::Builder::new()
            .name("stream".to_owned())
            .spawn(move || writer.run(&received))?;
        Ok(Self {
            jobs,
            writer: Some(writer),
            path,
            mark,
            spooled,
            tail: tail_seen,
        })
    }

    /// How much is in it.
    pub fn spooled(&self) -> &Spooled {
        &self.spooled
    }

    /// Whether a batch would be refused for what is spooled already.
    ///
    /// # Errors
    /// [`AppendError::Full`], which says when to come back.
    pub fn has_room(&self) -> Result<(), AppendError> {
        match self.mark.above(&self.spooled) {
            None => Ok(()),
            Some(retry_after_s) => Err(AppendError::Full { retry_after_s }),
        }
    }

    /// Appends a batch; returns once it is durable. It is taken whole, or not at all.
    ///
    /// # Errors
    /// [`AppendError`]: nothing of it was taken, or nobody knows.
    pub async fn append(&self, batch: Batch) -> Result<(), AppendError> {
        self.has_room()?;
        let bytes = batch.bytes();
        let queued = self.spooled.queue(bytes);
        // One batch may be larger than all that may wait.
        if queued > WAITING_MAX_BYTES && queued > bytes {
            self.spooled.unqueue(bytes);
            return Err(AppendError::Busy);
        }
        let (done, durable) = oneshot::channel();
        // The writer takes the bytes off again: who asks may leave before it is done.
        let append = Append { batch, bytes, done };
        let refused = match self.jobs.try_send(Job::Append(append)) {
            Ok(()) => {
                let is_durable = durable.await.unwrap_or(false);
                return is_durable.then_some(()).ok_or(AppendError::Failed);
            }
            Err(TrySendError::Full(_)) => AppendError::Busy,
            Err(TrySendError::Disconnected(_)) => AppendError::Failed,
        };
        self.spooled.unqueue(bytes);
        Err(refused)
    }

    /// Moves events from quarantine to the stream, each by its number there and as
    /// the CloudEvent it is now; gives how many were still in quarantine. One
    /// transaction, so that none is in both or in neither.
    ///
    /// # Errors
    /// [`AppendError::Failed`] where that can't be made durable.
    pub async fn requeue(&self, events: Vec<(i64, Event)>) -> Result<u64, AppendError> {
        let (done, durable) = oneshot::channel();
        let mut job = Job::Requeue(Requeue { events, done });
        loop {
            match self.jobs.try_send(job) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => job = back,
                Err(TrySendError::Disconnected(_)) => return Err(AppendError::Failed),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        match durable.await {
            Ok(Some(moved)) => Ok(moved),
            Ok(None) | Err(_) => Err(AppendError::Failed),
        }
    }

    /// A reader of its own connection.
    pub fn reader(&self) -> anyhow::Result<Reader> {
        Ok(Reader::new(
            sql::Connection::Sqlite(open_database(&self.path)?),
            self.jobs.clone(),
            Arc::clone(&self.spooled),
        ))
    }
}

impl Drop for Stream {
    /// Waits for the writer, which commits what it took.
    fn drop(&mut self) {
        // Readers hold senders, too: the writer is told.
        let _ = self.jobs.send(Job::Stop);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod body;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;
