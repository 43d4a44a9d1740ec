//! The ledger and the stream that feeds it, for the async world.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, Notify, watch},
    time::Instant,
};
use weir_meter_core::{
    lease::{Scope, Shard},
    ledger::book,
};
use weir_meter_store::{
    ledger::{Ledger, LedgerError},
    stream::{Chunk, Lane, LaneReader, StreamError, Way},
};
use weir_process::now_ms;
use weir_wire::{ids::TenantId, keys::Keyring};

use crate::{
    config::Billing,
    fleet::Held,
    intake::Intake,
    metrics::Metrics,
    pool::Pool,
    sorting::{scope_of, sort},
};

/// The most events in one booking transaction.
const BOOK_MAX: usize = 2_000;

/// The most requests that are booked in one transaction because their time is up.
const WAITING_MAX: usize = 1_000;

/// What waits in a shared stream is younger, where old days go.
const DAY_MS: i64 = 86_400_000;

/// How long whoever wants all of a shared stream booked waits for that.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// The ledger and what feeds it.
#[derive(Clone)]
pub struct Books(Arc<Inner>);

/// Connections to the ledger.
pub struct Ledgers {
    /// For whoever works on it.
    pub writing: Arc<Pool>,
    /// For whoever only looks.
    pub looking: Arc<Pool>,
    /// Whether replicas share it.
    pub is_shared: bool,
}

struct Inner {
    ledgers: Ledgers,
    intake: Arc<Intake>,
    lanes: Vec<LaneState>,
    held: watch::Receiver<Held>,
    fenced: Arc<Notify>,
    metrics: Metrics,
    billing: Billing,
    /// By which what a shared stream holds is checked again: others may write there.
    keys: Option<Arc<Keyring>>,
}

/// How far a lane is read here.
struct LaneState {
    lane: Lane,
    /// Who holds it, books.
    reading: Mutex<Option<Reading>>,
    /// The number of what was booked last.
    booked: AtomicI64,
}

struct Reading {
    /// As what it is read; another holder's reader begins anew.
    held: Held,
    reader: Box<dyn LaneReader>,
}

/// Why nothing could be booked.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The stream failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl From<rusqlite::Error> for BookError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Stream(StreamError::Unavailable(error.to_string()))
    }
}

impl Books {
    /// Of these ledgers, fed by that stream.
    pub fn new(
        ledgers: Ledgers,
        intake: Intake,
        held: watch::Receiver<Held>,
        fenced: Arc<Notify>,
        metrics: Metrics,
        (billing, keys): (Billing, Option<Arc<Keyring>>),
    ) -> Self {
        let lanes = intake
            .transport()
            .lanes()
            .into_iter()
            .map(|lane| LaneState {
                lane,
                reading: Mutex::default(),
                booked: AtomicI64::new(0),
            });
        Self(Arc::new(Inner {
            lanes: lanes.collect(),
            ledgers,
            intake: Arc::new(intake),
            held,
            fenced,
            metrics,
            billing,
            keys,
        }))
    }

    /// Of a ledger that this process has alone, fed by the embedded stream.
    #[cfg(test)]
    pub fn alone(
        ledger: Ledger,
        stream: weir_meter_store::stream::Stream,
        billing: Billing,
    ) -> anyhow::Result<Self> {
        let (_, held) = watch::channel(Held::Whole);
        let ledgers = Ledgers {
            looking: Pool::new(vec![ledger.another()?]),
            writing: Pool::new(vec![ledger]),
            is_shared: false,
        };
        let intake = Intake::embedded(stream, book::STREAM.to_owned(), None)?;
        let metrics = Metrics::new()?;
        Ok(Self::new(
            ledgers,
            intake,
            held,
            Arc::default(),
            metrics,
            (billing, None),
        ))
    }

    /// What is billed and when.
    pub fn billing(&self) -> &Billing {
        &self.0.billing
    }

    /// Where events come in.
    pub fn intake(&self) -> &Arc<Intake> {
        &self.0.intake
    }

    /// What is held now, and when that changes.
    pub fn held(&self) -> watch::Receiver<Held> {
        self.0.held.clone()
    }

    /// Whether the stream is this process's own.
    pub fn is_embedded(&self) -> bool {
        self.0.is_embedded()
    }

    /// Whether replicas share the ledger.
    pub fn is_shared(&self) -> bool {
        self.0.ledgers.is_shared
    }

    /// What is held now, each on its own.
    pub fn scopes(&self) -> Vec<Scope> {
        self.0.held.borrow().scopes()
    }

    /// All tenants, on an operator's word.
    pub fn asked(&self) -> Vec<Scope> {
        match self.0.ledgers.is_shared {
            true => Shard::all().map(Scope::Asked).collect(),
            false => vec![Scope::Whole],
        }
    }

    /// A tenant, on an operator's word.
    pub fn asked_of(&self, tenant: &TenantId) -> Scope {
        match self.0.ledgers.is_shared {
            true => Scope::Asked(Shard::of(tenant)),
            false => Scope::Whole,
        }
    }

    /// Whether what is no shard's is to be done here.
    pub fn is_house(&self) -> bool {
        self.0.held.borrow().house().is_some()
    }

    /// Whether a lane is to be booked here.
    pub fn holds(&self, lane: usize) -> bool {
        let state = self.0.lanes.get(lane);
        state.is_some_and(|state| self.grip(state.lane).is_some())
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Runs `work` on the ledger, off the async threads.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let outcome = self.0.ledgers.writing.with(work).await;
        if let Err(LedgerError::Fenced { .. }) = &outcome {
            self.0.fenced.notify_one();
        }
        outcome
    }

    /// Runs `work`, which only looks; nobody who books waits for it.
    pub async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.0.ledgers.looking.with(work).await
    }

    /// How many lanes the stream has.
    pub fn lanes(&self) -> usize {
        self.0.lanes.len()
    }

    /// Books what comes next in a lane, and says how many events that were. Where there is
    /// nothing it waits for `patience`; where the lane is another's it does nothing.
    pub async fn step(&self, lane: usize, patience: Duration) -> Result<usize, BookError> {
        let Some(state) = self.0.lanes.get(lane) else {
            return Ok(0);
        };
        let mut reading = state.reading.lock().await;
        let outcome = self.step_on(state, &mut reading, patience).await;
        match &outcome {
            Ok(count) => self.0.metrics.booked(*count),
            Err(_) => self.0.metrics.booking_failed(),
        }
        if outcome.is_err() {
            // What was not booked is read again.
            *reading = None;
        }
        outcome
    }

    async fn step_on(
        &self,
        state: &LaneState,
        slot: &mut Option<Reading>,
        patience: Duration,
    ) -> Result<usize, BookError> {
        let Some(held) = self.grip(state.lane) else {
            *slot = None;
            return Ok(0);
        };
        if slot.as_ref().is_some_and(|reading| reading.held != held) {
            *slot = None;
        }
        let progress = self.0.intake.progress(state.lane);
        let reading = match slot {
            Some(reading) => reading,
            None => {
                let after = match progress.clone() {
                    Some(name) => self.with(move |ledger| ledger.progress(&name)).await?,
                    None => 0,
                };
                state.booked.store(after, Ordering::Release);
                let transport = self.0.intake.transport();
                let reader = transport.reader(state.lane, after).await?;
                slot.insert(Reading {
                    held: held.clone(),
                    reader,
                })
            }
        };
        let chunk = reading.reader.read(BOOK_MAX, patience).await?;
        self.tell_lost(&chunk);
        let (Some((last, _)), count) = (chunk.events.last(), chunk.events.len()) else {
            return Ok(0);
        };
        let last = *last;
        self.0.intake.has_read();
        self.book(state.lane, chunk.events, held, progress).await?;
        reading.reader.booked().await?;
        state.booked.store(last, Ordering::Release);
        Ok(count)
    }

    /// What must be held to book a lane; `None` where it is not.
    fn grip(&self, lane: Lane) -> Option<Held> {
        let held = self.0.held.borrow();
        match (lane, &*held) {
            (_, Held::Whole) => Some(Held::Whole),
            (Lane::Whole, all) => all.is_all().then(|| all.clone()),
            (Lane::Of(shard), Held::Shards(shards)) => {
                let epoch = shards.get(&shard)?;
                Some(Held::Shards(BTreeMap::from([(shard, *epoch)])))
            }
        }
    }

    /// Books what was read of a lane.
    async fn book(
        &self,
        lane: Lane,
        texts: Vec<(i64, String)>,
        held: Held,
        progress: Option<String>,
    ) -> Result<(), BookError> {
        let inner = Arc::clone(&self.0);
        let booked = self.with(move |ledger| {
            let last = texts.last().map_or(0, |(position, _)| *position);
            let position = progress.as_deref().map(|name| (name, last));
            let rules = inner.billing.rules();
            let (groups, strange) = sort(lane, texts, &held, inner.keys.as_deref())?;
            if !strange.is_empty() {
                let count = strange.len();
                ledger.set_aside(&strange, None, Way::Stream, now_ms())?;
                tracing::error!(count, "the stream holds what is no event of its partition");
            }
            // Of one group the stream's number is written with it, of several after all.
            let is_one = groups.len() <= 1;
            let mut any = None;
            for (scope, events) in groups {
                let position = position.filter(|_| is_one);
                ledger.book(scope, events, &rules, now_ms(), position)?;
                any = Some(scope);
            }
            match (position, any.or_else(|| scope_of(lane, &held))) {
                (Some((name, last)), Some(scope)) if !is_one || any.is_none() => ledger
                    .transaction(scope, |change| {
                        weir_meter_core::ledger::Books::set_progress(change, name, last)
                    }),
                _ => Ok(()),
            }
        });
        Ok(booked.await?)
    }

    fn tell_lost(&self, chunk: &Chunk) {
        if chunk.lost.is_empty() {
            return;
        }
        self.0.metrics.lost(chunk.lost.len());
        tracing::error!(
            count = chunk.lost.len(),
            first = chunk.lost.first(),
            "somebody else trimmed the stream: entries were never booked, and are gone"
        );
    }

    /// Books all that the stream holds now, and takes note of what was set aside. Of a
    /// shared stream it waits for the others, too; for a while.
    pub async fn book_all(&self) -> Result<(), BookError> {
        match self.0.is_embedded() {
            true => self.book_embedded().await,
            false => self.settle().await,
        }
    }

    async fn book_embedded(&self) -> Result<(), BookError> {
        // What comes meanwhile is for the next one who books: whoever waits for this one
        // would else wait as long as there is traffic.
        let last = *self.0.intake.tail().borrow();
        loop {
            let count = self.step(0, Duration::ZERO).await?;
            let booked = self
                .0
                .lanes
                .first()
                .map(|l| l.booked.load(Ordering::Acquire));
            if count == 0 || booked.is_none_or(|booked| booked >= last) {
                break;
            }
        }
        self.note().await
    }

    /// Takes note of what the embedded stream set aside: it is not missing.
    pub async fn note(&self) -> Result<(), BookError> {
        if !self.0.is_embedded() {
            return Ok(());
        }
        let Some(name) = self.0.intake.progress(Lane::Whole) else {
            return Ok(());
        };
        loop {
            let (intake, name) = (Arc::clone(&self.0.intake), name.clone());
            let last = self
                .with(move |ledger| {
                    let upto = ledger.noted_upto(&name)?;
                    let noted = intake.noted(upto, BOOK_MAX)?;
                    ledger.note(&name, &noted, now_ms())?;
                    Ok(noted.last().map(|last| last.id))
                })
                .await?;
            let Some(last) = last else {
                return Ok(());
            };
            self.0.intake.trim_noted(last)?;
        }
    }

    async fn settle(&self) -> Result<(), BookError> {
        let (begun, begun_ms) = (Instant::now(), now_ms());
        for lane in 0..self.lanes() {
            while self.step(lane, Duration::ZERO).await? > 0 && begun.elapsed() < SETTLE_MAX {}
        }
        while begun.elapsed() < SETTLE_MAX {
            self.0.intake.look().await?;
            if self.0.intake.is_booked_upto(begun_ms) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Books requests whose second witness did not come in time; where `all`, those that
    /// still wait, too.
    pub async fn book_waiting(&self, scope: Scope, all: bool) -> Result<(), LedgerError> {
        loop {
            let inner = Arc::clone(&self.0);
            let booked = self
                .with(move |ledger| {
                    let rules = inner.billing.rules();
                    ledger.transaction(scope, |change| {
                        book::book_waiting(change, &rules, now_ms(), all, WAITING_MAX)
                    })
                })
                .await?;
            if booked < WAITING_MAX {
                return Ok(());
            }
        }
    }

    /// Books all there is of what is held here, and waits for no second witness: the books
    /// are closed.
    pub async fn close(&self, scope: Scope) -> Result<(), BookError> {
        match scope.shard() {
            None => self.book_all().await?,
            Some(shard) => {
                let of_it = |state: &LaneState| state.lane == Lane::Of(shard);
                let lane = self.0.lanes.iter().position(of_it).unwrap_or(0);
                while self.step(lane, Duration::ZERO).await? > 0 {}
                self.note().await?;
            }
        }
        Ok(self.book_waiting(scope, true).await?)
    }

    /// Lets a part of what is too old go; says whether there is more.
    pub async fn drop_old(&self) -> Result<bool, BookError> {
        let Some(house) = self.0.held.borrow().house() else {
            return Ok(false);
        };
        let now_ms = now_ms();
        // What is booked later is younger than what goes.
        match self.0.is_embedded() {
            true => self.book_all().await?,
            false => {
                self.0.intake.look().await?;
                if !self.0.intake.is_booked_upto(now_ms.saturating_sub(DAY_MS)) {
                    return Ok(false);
                }
            }
        }
        Ok(self
            .with(move |ledger| ledger.drop_old(house, now_ms))
            .await?)
    }
}

impl Inner {
    fn is_embedded(&self) -> bool {
        matches!(*self.intake, Intake::Embedded { .. })
    }
}
