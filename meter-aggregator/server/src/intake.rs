//! Where batches go: their events to the stream, and what can't be booked to quarantine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use weir_meter_store::stream::{
    AppendError, Batch, Event, Held, Lane, Mark, Noted, QuarantineWanted, Quarantined, Reader,
    Stream, Transport, Waiting,
};
use weir_process::now_ms;

use crate::{books::BookError, fleet, pool::Pool};

/// How long producers are told to stay away where too much waits, in seconds.
const FULL_RETRY_S: u64 = 10;

/// The stream, and what lies beside it.
pub enum Intake {
    /// One in this process's folder, with its quarantine.
    Embedded {
        /// What is written.
        stream: Arc<Stream>,
        /// What is read of it beside the events.
        reader: Mutex<Reader>,
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
    /// What waited when that was last asked.
    waiting: Mutex<Vec<Waiting>>,
    /// Grows when something was appended here, or read.
    tail: watch::Sender<i64>,
}

/// Quarantine can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// That of the embedded stream.
    #[error("the stream can't be read")]
    Stream(#[from] rusqlite::Error),
    /// That of the ledger.
    #[error(transparent)]
    Ledger(#[from] weir_meter_store::ledger::LedgerError),
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
            reader: Mutex::new(stream.reader()?),
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
            waiting: Mutex::default(),
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
        self: &Arc<Self>,
        wanted: QuarantineWanted,
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
        self: &Arc<Self>,
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
    pub async fn quarantined(self: &Arc<Self>) -> Result<i64, QuarantineError> {
        self.beside(|reader| reader.quarantined(), |ledger| ledger.quarantined())
            .await
    }

    /// Events that were set aside, `limit` at the most, after `after`; the ledger knows
    /// those of its own quarantine.
    pub fn noted(&self, after: i64, limit: usize) -> rusqlite::Result<Vec<Noted>> {
        match self {
            Self::Embedded { reader, .. } => locked(reader).noted(after, limit),
            Self::Shared(_) => Ok(Vec::new()),
        }
    }

    /// The ledger took note up to and with `upto`.
    pub fn trim_noted(&self, upto: i64) -> rusqlite::Result<()> {
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
        let waiting = transport.waiting().await?;
        *locked(&shared.waiting) = waiting;
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
            Self::Shared(shared) => locked(&shared.waiting)
                .iter()
                .all(|lane| lane.entries == 0 || lane.oldest_ms.is_some_and(|at| at >= ms)),
        }
    }

    /// When the oldest of what waits was taken, milliseconds of the Unix epoch, where that is
    /// known; of the embedded stream since when nothing was booked, as far as it was looked.
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
                .iter()
                .filter_map(|lane| lane.oldest_ms)
                .min(),
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
        self: &Arc<Self>,
        of_stream: impl FnOnce(&Reader) -> rusqlite::Result<T> + Send + 'static,
        of_ledger: impl FnOnce(
            &mut weir_meter_store::ledger::Ledger,
        ) -> Result<T, weir_meter_store::ledger::LedgerError>
        + Send
        + 'static,
    ) -> Result<T, QuarantineError> {
        if let Self::Shared(shared) = self.as_ref() {
            return Ok(shared.ledgers.with(of_ledger).await?);
        }
        let intake = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || match intake.as_ref() {
            Self::Embedded { reader, .. } => of_stream(&locked(reader)),
            Self::Shared(_) => Err(rusqlite::Error::InvalidQuery),
        });
        Ok(read.await.unwrap_or(Err(rusqlite::Error::InvalidQuery))?)
    }
}

impl Shared {
    fn moved(&self) {
        self.tail.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn entries(&self) -> u64 {
        let waiting = locked(&self.waiting);
        waiting
            .iter()
            .fold(0, |sum: u64, lane| sum.saturating_add(lane.entries))
    }

    /// What can't be booked first: told that a batch failed, a producer sends it again, and
    /// finds its events at their places.
    async fn append(&self, batch: Batch) -> Result<(), AppendError> {
        let Batch {
            events,
            aside,
            producer,
            way,
        } = batch;
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
