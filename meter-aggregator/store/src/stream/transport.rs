//! What every stream does: the embedded one, Redis Streams, Kafka.
//!
//! A stream has lanes. Events of a lane are read in the order in which they were taken,
//! again and again until they are booked; twice is as good as once, because the ledger
//! knows each event. The embedded stream has one lane with every tenant's events, the
//! others one for each shard of the tenants.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use weir_meter_core::{lag::Oldest, lease::Shard};
use weir_wire::ids::TenantId;

use super::AppendError;

/// A part of a stream that one process reads at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Every tenant's events.
    Whole,
    /// The events of a shard's tenants.
    Of(Shard),
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("whole"),
            Self::Of(shard) => shard.number().fmt(f),
        }
    }
}

/// An event that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its tenant's shard.
    pub shard: Shard,
    /// The tenant, by which Kafka knows what belongs together.
    pub tenant: String,
    /// The CloudEvent, as JSON.
    pub text: String,
}

impl Event {
    /// An event of that tenant.
    #[must_use]
    pub fn of(tenant: &TenantId, text: String) -> Self {
        Self {
            shard: Shard::of(tenant),
            tenant: tenant.as_str().to_owned(),
            text,
        }
    }
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Each event's text, with a number that says where it stands: later ones are larger.
    /// Several may share one, and none of these is in another chunk.
    pub events: Vec<(i64, String)>,
    /// Entries that were never booked and that the stream has no more: somebody else
    /// trimmed it. What was in them is lost to it. One text may be of several.
    pub lost: Vec<String>,
    /// How many these are.
    pub lost_entries: usize,
}

impl Chunk {
    /// So many entries are lost, in words.
    pub(super) fn lose(&mut self, what: String, entries: usize) {
        self.lost.push(what);
        self.lost_entries = self.lost_entries.saturating_add(entries);
    }
}

/// What waits in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Where.
    pub lane: Lane,
    /// Events, or entries with several events each where the stream counts no further.
    pub entries: u64,
    /// When the oldest of it was taken, where something waits.
    pub oldest: Option<Oldest>,
}

/// The stream can't be used as it is set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The settings can't be used, whatever answers.
    #[error("the stream's settings can't be used: {0}")]
    Settings(String),
    /// It is away, or refuses; later it may not.
    #[error("the stream is away: {0}")]
    Unavailable(String),
    /// It answers, and is not what has to be there: it would lose what it acknowledged, or
    /// has another form.
    #[error("the stream is not fit for events: {0}")]
    Unfit(String),
}

/// The stream can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It is away, or refuses.
    #[error("the stream can't be read: {0}")]
    Unavailable(String),
    /// What it holds is nothing that this version writes.
    #[error("the stream holds what this version does not write: {0}")]
    Unreadable(String),
}

/// A stream, for those who append and for those who begin to read.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Its lanes.
    fn lanes(&self) -> Vec<Lane>;

    /// Under which name the ledger keeps how far a lane was booked, in the transaction that
    /// books; `None` where the stream keeps count itself.
    fn progress(&self, lane: Lane) -> Option<String> {
        let _ = lane;
        None
    }

    /// Appends events; returns once they are durable.
    ///
    /// # Errors
    /// [`AppendError`]: nobody knows whether some were taken. Appended again, they are
    /// booked once.
    async fn append(&self, events: Vec<Event>) -> Result<(), AppendError>;

    /// Begins to read a lane, which the caller alone works on: its shard's lease is held.
    /// `after` is the number that the ledger has of what was booked last, 0 at first; a
    /// stream that keeps count itself needs it not.
    ///
    /// # Errors
    /// [`StreamError`]: try again later.
    async fn reader(&self, lane: Lane, after: i64) -> Result<Box<dyn LaneReader>, StreamError>;

    /// Says what the ledger has of a lane, which another replica may read: for
    /// [`Self::waiting`] of a stream that does not keep count itself.
    fn note_booked(&self, _lane: Lane, _number: i64) {}

    /// What waits in each lane, but for those of which it is not known here.
    ///
    /// # Errors
    /// [`StreamError`]: nobody knows.
    async fn waiting(&self) -> Result<Vec<Waiting>, StreamError>;
}

/// Reads a lane. Dropped, what was read and not [booked](Self::booked) is read by the next
/// reader.
#[async_trait]
pub trait LaneReader: Send {
    /// The next events, some `limit` of them; where there are none it waits for `patience`,
    /// and gives an empty chunk then.
    ///
    /// # Errors
    /// [`StreamError`]: begin a new reader.
    async fn read(&mut self, limit: usize, patience: Duration) -> Result<Chunk, StreamError>;

    /// All that was read is durable in the ledger: it is acknowledged, and what nobody
    /// needs any more is trimmed.
    ///
    /// # Errors
    /// [`StreamError`]: begin a new reader; what was booked is read again.
    async fn booked(&mut self) -> Result<(), StreamError>;
}
