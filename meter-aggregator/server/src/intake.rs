//! Where batches go: their events to the stream, and what can't be booked to quarantine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use weir_meter_core::place;
use weir_meter_store::{
    DatabaseError,
    ledger::{Ledger, LedgerError},
    quarantine::{Held, Quarantined, Wanted},
    stream::{AppendError, Batch, Event, Lane, Mark, Noted, Reader, Stream, Transport, Waiting},
};
use weir_process::now_ms;

use crate::{
    books::BookError,
    fleet,
    pool::{Pool, broken_off},
};

/// How long producers are told to stay away where too much waits, in seconds.
const FULL_RETRY_S: u64 = 10;

/// The stream, and what lies beside it.
pub enum Intake {
    /// One in this process's folder, with its quarantine.
    Embedded {
        /// What is written.
        stream: Arc<Stream>,
        /// What is read of it beside the events.
        reader: Arc<Mutex<Reader>>,
        /// As what the ledger has how far it was booked.
        name: String,
        /// Among replicas one takes events: what others took would wait until it ends.
        gate: Option<watch::Receiver<fleet::Held>>,
        /// The last event that was booked when something waited, and since when that is so.
        stuck: Mutex<Option<(i64, i64)>>,
    },
    /// One that replicas share; quarantine is in the ledger.
    Shared(Shared),
}

/// A stream that replicas share.
pub struct Shared {
    transport: Arc<dyn Transport>,
    ledgers: Arc<Pool>,
    mark: Mark,
    waiting: Mutex<Looked>,
    /// Grows when something was appended here, or read.
    tail: watch::Sender<i64>,
}

/// What waited when that was last asked.
struct Looked {
    /// When it was, milliseconds of the Unix epoch.
    at_ms: i64,
    lanes: Vec<Waiting>,
}

/// Quarantine can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// That of the embedded stream.
    #[error("the stream can't be read")]
    Stream(#[from] DatabaseError),
    /// That of the ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Intake {
    /// Of the embedded stream, and as what the ledger knows it.
    pub fn embedded(
        stream: Stream,
        name: String,
        gate: Option<watch::Receiver<fleet::Held>>,
    ) -> anyhow::Result<Self> {
        Ok(Self::Embedded {
            reader: Arc::new(Mutex::new(stream.reader()?)),
            stream: Arc::new(stream),
            name,
            gate,
            stuck: Mutex::default(),
        })
    }

    /// Of a stream that replicas share; above the mark it takes nothing.
    pub fn shared(transport: Arc<dyn Transport>, ledgers: Arc<Pool>, mark: Mark) -> Self {
        Self::Shared(Shared {
            transport,
            ledgers,
            mark,
            waiting: Mutex::new(Looked {
                at_ms: now_ms(),
                lanes: Vec::new(),
            }),
            tail: watch::Sender::new(0),
        })
    }

    /// What carries the events.
    pub fn transport(&self) -> &dyn Transport {
        match self {
            Self::Embedded { stream, .. } => stream.as_ref(),
            Self::Shared(shared) => shared.transport.as_ref(),
        }
    }

    /// As what the ledger has how far a lane was booked; `None` where the stream itself
    /// knows.
    pub fn progress(&self, lane: Lane) -> Option<String> {
        match self {
            Self::Embedded { name, .. } => Some(name.clone()),
            Self::Shared(shared) => shared.transport.progress(lane),
        }
    }

    /// Changes when something came.
    pub fn tail(&self) -> watch::Receiver<i64> {
        match self {
            Self::Embedded { stream, .. } => stream.tail.clone(),
            Self::Shared(shared) => shared.tail.subscribe(),
        }
    }

    /// Something was read that others appended.
    pub fn has_read(&self) {
        if let Self::Shared(shared) = self {
            shared.moved();
        }
    }

    /// Whether a batch would be refused for what waits already.
    ///
    /// # Errors
    /// [`AppendError::Full`], which says when to come back.
    pub fn has_room(&self) -> Result<(), AppendError> {
        match self {
            Self::Embedded {
                gate: Some(held), ..
            } if !held.borrow().is_all() => Err(AppendError::Busy),
            Self::Embedded { stream, .. } => stream.has_room(),
            Self::Shared(shared) if shared.entries() >= shared.mark.events_max => {
                Err(AppendError::Full {
                    retry_after_s: FULL_RETRY_S,
                })
            }
            Self::Shared(_) => Ok(()),
        }
    }

    /// Appends a batch; returns once it is durable.
    ///
    /// # Errors
    /// [`AppendError`]: nothing of it was taken, or nobody knows.
    pub async fn append(&self, batch: Batch) -> Result<(), AppendError> {
        match self {
            Self::Embedded { stream, .. } => {
                self.has_room()?;
                stream.append(batch).await
            }
            Self::Shared(shared) => {
                self.has_room()?;
                shared.append(batch).await
            }
        }
    }

    /// Moves events from quarantine to the stream, each by its number there and as it is
    /// now; gives how many were still in quarantine.
    ///
    /// # Errors
    /// [`AppendError`], where that can't be made durable.
    pub async fn requeue(&self, events: Vec<(i64, Event)>) -> Result<u64, AppendError> {
        match self {
            Self::Embedded { stream, .. } => stream.requeue(events).await,
            Self::Shared(shared) => shared.requeue(events).await,
        }
    }

    /// A page of quarantine, and how many there are in all.
    pub async fn quarantine(
        &self,
        wanted: Wanted,
    ) -> Result<(i64, Vec<Quarantined>), QuarantineError> {
        self.beside(
            {
                let wanted = wanted.clone();
                move |reader| Ok((reader.quarantined()?, reader.quarantine(&wanted)?))
            },
            move |ledger| Ok((ledger.quarantined()?, ledger.quarantine(&wanted)?)),
        )
        .await
    }

    /// What is in quarantine after the number `after`, the oldest first: these alone, or
    /// those with that text in their reason, or all.
    pub async fn held(
        &self,
        ids: Option<Vec<i64>>,
        reason: Option<String>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Held>, QuarantineError> {
        let (of_ids, of_reason) = (ids.clone(), reason.clone());
        self.beside(
            move |reader| reader.held(of_ids.as_deref(), of_reason.as_deref(), after, limit),
            move |ledger| ledger.held(ids.as_deref(), reason.as_deref(), after, limit),
        )
        .await
    }

    /// How many events are in quarantine.
    pub async fn quarantined(&self) -> Result<i64, QuarantineError> {
        self.beside(|reader| reader.quarantined(), |ledger| ledger.quarantined())
            .await
    }

    /// Events that were set aside, `limit` at the most, after `after`; the ledger knows
    /// those of its own quarantine.
    pub fn noted(&self, after: i64, limit: usize) -> Result<Vec<Noted>, DatabaseError> {
        match self {
            Self::Embedded { reader, .. } => locked(reader).noted(after, limit),
            Self::Shared(_) => Ok(Vec::new()),
        }
    }

    /// The ledger took note up to and with `upto`.
    pub fn trim_noted(&self, upto: i64) -> Result<(), DatabaseError> {
        match self {
            Self::Embedded { reader, .. } => locked(reader).trim_noted(upto),
            Self::Shared(_) => Ok(()),
        }
    }

    /// Looks again how much waits.
    ///
    /// # Errors
    /// [`BookError`]: what was known stays.
    pub async fn look(&self) -> Result<(), BookError> {
        let Self::Shared(shared) = self else {
            return Ok(());
        };
        let transport = &shared.transport;
        let names = transport.lanes().into_iter();
        let names: Vec<(Lane, String)> = names
            .filter_map(|lane| Some((lane, transport.progress(lane)?)))
            .collect();
        if !names.is_empty() {
            let numbers = shared.ledgers.with(move |ledger| {
                let number = |(lane, name): (Lane, String)| Ok((lane, ledger.progress(&name)?));
                names.into_iter().map(number).collect::<Result<Vec<_>, _>>()
            });
            for (lane, number) in numbers.await? {
                transport.note_booked(lane, number);
            }
        }
        let at_ms = now_ms();
        let lanes = transport.waiting().await?;
        *locked(&shared.waiting) = Looked { at_ms, lanes };
        Ok(())
    }

    /// Events that wait to be booked, as far as it was looked; entries of several where
    /// the stream counts no further.
    pub fn unbooked(&self) -> u64 {
        match self {
            Self::Embedded { stream, .. } => stream.spooled().events(),
            Self::Shared(shared) => shared.entries(),
        }
    }

    /// Whether all is booked that was taken before `ms` (milliseconds of the Unix epoch), as
    /// far as it was looked; not where nobody knows.
    pub fn is_booked_upto(&self, ms: i64) -> bool {
        match self {
            Self::Embedded { stream, .. } => stream.spooled().events() == 0,
            Self::Shared(shared) => {
                let waiting = locked(&shared.waiting);
                waiting.lanes.iter().all(|lane| has_none_before(lane, ms))
            }
        }
    }

    /// The same of one lane.
    pub fn is_lane_booked_upto(&self, lane: Lane, ms: i64) -> bool {
        match self {
            Self::Embedded { .. } => self.is_booked_upto(ms),
            Self::Shared(shared) => {
                let waiting = locked(&shared.waiting);
                let mut of_it = waiting.lanes.iter().filter(|waiting| waiting.lane == lane);
                of_it.next().is_some_and(|lane| has_none_before(lane, ms))
            }
        }
    }

    /// By when the oldest of what waits was taken, milliseconds of the Unix epoch, as far as
    /// it was looked; of the embedded stream since when nothing was booked.
    pub fn oldest_ms(&self) -> Option<i64> {
        match self {
            Self::Embedded { stream, stuck, .. } => {
                let spooled = stream.spooled();
                let (waits, booked) = (spooled.events() > 0, spooled.booked());
                let mut stuck = locked(stuck);
                // It is not known when an event came; but since when none was booked.
                let since = stuck.filter(|(at, _)| *at == booked);
                *stuck = waits.then(|| since.unwrap_or((booked, now_ms())));
                stuck.map(|(_, since_ms)| since_ms)
            }
            Self::Shared(shared) => locked(&shared.waiting)
                .lanes
                .iter()
                .filter_map(|lane| lane.oldest.map(|oldest| oldest.by_ms))
                .min(),
        }
    }

    /// When it was last known how much waits, milliseconds of the Unix epoch; of the embedded
    /// stream it always is.
    pub fn known_ms(&self) -> Option<i64> {
        match self {
            Self::Embedded { .. } => None,
            Self::Shared(shared) => Some(locked(&shared.waiting).at_ms),
        }
    }

    /// Up to when all is booked that was taken, as far as it was looked: until then the
    /// numbers of events that nobody booked are missing, and not only late, because one
    /// lane of a shared stream is behind the others. Milliseconds of the Unix epoch, `now_ms`
    /// at the latest.
    pub fn settled_ms(&self, now_ms: i64) -> i64 {
        match self {
            Self::Embedded { .. } => now_ms,
            Self::Shared(_) => self.oldest_ms().map_or(now_ms, |oldest| oldest.min(now_ms)),
        }
    }

    /// Bytes of the embedded stream's file that are in use.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Embedded { stream, .. } => stream.spooled().bytes(),
            Self::Shared(_) => 0,
        }
    }

    /// Runs one of the two, where quarantine is.
    async fn beside<T: Send + 'static>(
        &self,
        of_stream: impl FnOnce(&Reader) -> Result<T, DatabaseError> + Send + 'static,
        of_ledger: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, QuarantineError> {
        match self {
            Self::Shared(shared) => Ok(shared.ledgers.with(of_ledger).await?),
            Self::Embedded { reader, .. } => {
                let reader = Arc::clone(reader);
                let read = tokio::task::spawn_blocking(move || of_stream(&locked(&reader)));
                Ok(read.await.unwrap_or_else(|_| Err(broken_off()))?)
            }
        }
    }
}

/// Whether nothing waits in a lane that was taken before `ms`.
fn has_none_before(lane: &Waiting, ms: i64) -> bool {
    let after_ms = lane.oldest.and_then(|oldest| oldest.after_ms);
    lane.entries == 0 || after_ms.is_some_and(|after_ms| after_ms >= ms)
}

impl Shared {
    fn moved(&self) {
        self.tail.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn entries(&self) -> u64 {
        let waiting = locked(&self.waiting);
        waiting
            .lanes
            .iter()
            .fold(0, |sum: u64, lane| sum.saturating_add(lane.entries))
    }

    /// What can't be booked first: told that a batch failed, a producer sends it again, and
    /// finds its events at their places.
    async fn append(&self, batch: Batch) -> Result<(), AppendError> {
        let Batch {
            events,
            mut aside,
            producer,
            way,
        } = batch;
        for one in &mut aside {
            let of_call = || place::of_call(producer.as_deref(), &one.bytes);
            one.place = one.place.take().or_else(|| Some(of_call()));
        }
        if !aside.is_empty() {
            let set_aside = self
                .ledgers
                .with(move |ledger| ledger.set_aside(&aside, producer.as_deref(), way, now_ms()));
            if let Err(error) = set_aside.await {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "events can't be set aside"
                );
                return Err(AppendError::Failed);
            }
        }
        if !events.is_empty() {
            self.transport.append(events).await?;
            self.moved();
        }
        Ok(())
    }

    /// Appended first: an event that is in both is booked once, and one that is in
    /// neither would be lost.
    async fn requeue(&self, events: Vec<(i64, Event)>) -> Result<u64, AppendError> {
        let (ids, events): (Vec<i64>, Vec<Event>) = events.into_iter().unzip();
        self.transport.append(events).await?;
        self.moved();
        let gone = self
            .ledgers
            .with(move |ledger| ledger.unquarantine(&ids))
            .await;
        gone.map_err(|_| AppendError::Failed)
    }
}
