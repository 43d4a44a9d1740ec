//! The ledger and the stream that feeds it, for the async world.

mod lanes;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use weir_meter_core::{
    lease::{Scope, Shard},
    ledger::book,
};
use weir_meter_store::{
    DatabaseError,
    ledger::{Ledger, LedgerError},
    stream::{Lane, StreamError},
};
use weir_process::now_ms;
use weir_wire::{ids::TenantId, keys::Keyring};

use crate::{config::Billing, fleet::Held, intake::Intake, metrics::Metrics, pool::Pool};
use lanes::{BOOK_MAX, LaneState};

/// The most requests that are booked in one transaction because their time is up.
const WAITING_MAX: usize = 1_000;

/// What waits in a shared stream is younger, where old days go.
const DAY_MS: i64 = 86_400_000;

/// How long whoever wants all of a shared stream booked waits for that.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// For how long something is waited for of a lane that is to be booked up, at a time.
const SETTLE_PATIENCE: Duration = Duration::from_millis(50);

/// How often it is looked then how far it is, as long as there is more.
const SETTLE_LOOK: Duration = Duration::from_millis(500);

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

impl From<DatabaseError> for BookError {
    fn from(error: DatabaseError) -> Self {
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
        let lanes = intake.transport().lanes().into_iter().map(LaneState::of);
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
    ///
    /// # Errors
    /// Also where a shared stream still holds what was taken before: try again.
    pub async fn close(&self, scope: Scope) -> Result<(), BookError> {
        match scope.shard() {
            None => self.book_all().await?,
            Some(shard) => {
                let of_it = |state: &LaneState| state.lane == Lane::Of(shard);
                match self.0.lanes.iter().position(of_it) {
                    Some(lane) => self.settle_lane(lane).await?,
                    None => self.book_all().await?,
                }
                self.note().await?;
            }
        }
        Ok(self.book_waiting(scope, true).await?)
    }

    /// Books what a lane held when this was begun.
    async fn settle_lane(&self, number: usize) -> Result<(), BookError> {
        let Some(state) = self.0.lanes.get(number) else {
            return Ok(());
        };
        let (begun, begun_ms) = (Instant::now(), now_ms());
        let mut looked = begun;
        while begun.elapsed() < SETTLE_MAX {
            let count = self.step(number, SETTLE_PATIENCE).await?;
            // What comes meanwhile is for the next one: there may always be more.
            if count == 0 || looked.elapsed() >= SETTLE_LOOK {
                looked = Instant::now();
                self.0.intake.look().await?;
                if self.0.intake.is_lane_booked_upto(state.lane, begun_ms) {
                    return Ok(());
                }
            }
        }
        let why = "a lane holds more than could be booked in time";
        Err(StreamError::Unavailable(why.to_owned()).into())
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
