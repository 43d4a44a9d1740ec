//! What this process may work on: all of a ledger that it has alone, or the shards whose
//! leases it holds, among replicas that share one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};
use weir_meter_core::lease::{self, Lease, Leases as _, Member, SHARDS, Scope, Shard, Terms};
use weir_meter_store::ledger::LedgerError;

use crate::pool::Pool;

/// Between two looks whether another replica lives.
const OTHERS_LOOK: Duration = Duration::from_millis(200);

/// What is held now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// The whole ledger.
    Whole,
    /// These shards, each under its epoch.
    Shards(BTreeMap<Shard, i64>),
}

impl Held {
    /// Nothing, of a ledger that replicas share.
    pub fn nothing() -> Self {
        Self::Shards(BTreeMap::new())
    }

    /// Of those leases.
    fn of(leases: Vec<Lease>) -> Self {
        let shards = leases.into_iter().map(|lease| (lease.shard, lease.epoch));
        Self::Shards(shards.collect())
    }

    /// As what a shard's events are booked; `None` where another has it.
    pub fn scope(&self, shard: Shard) -> Option<Scope> {
        match self {
            Self::Whole => Some(Scope::Whole),
            Self::Shards(shards) => shards.get(&shard).map(|epoch| {
                Scope::Held(Lease {
                    shard,
                    epoch: *epoch,
                })
            }),
        }
    }

    /// All that is held, each on its own.
    pub fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::Whole => vec![Scope::Whole],
            Self::Shards(shards) => shards
                .keys()
                .filter_map(|shard| self.scope(*shard))
                .collect(),
        }
    }

    /// Whether nobody else holds anything.
    pub fn is_all(&self) -> bool {
        match self {
            Self::Whole => true,
            Self::Shards(shards) => shards.len() == usize::from(SHARDS),
        }
    }

    /// As what it is done what is no shard's; the holder of the first shard does it.
    pub fn house(&self) -> Option<Scope> {
        Shard::all().next().and_then(|shard| self.scope(shard))
    }

    /// Which part of all is held, of [`SHARDS`].
    pub fn share(&self) -> u16 {
        match self {
            Self::Whole => SHARDS,
            Self::Shards(shards) => u16::try_from(shards.len()).unwrap_or(SHARDS),
        }
    }
}

/// This process among the others.
pub struct Fleet {
    /// A connection of its own: who keeps leases waits behind nobody who works.
    ledger: Arc<Pool>,
    member: Member,
    terms: Terms,
    held: watch::Sender<Held>,
    /// A transaction found that a lease is another's.
    fenced: Arc<Notify>,
}

impl Fleet {
    /// That of a member. What it holds is told by `held`.
    pub fn new(
        ledger: Arc<Pool>,
        member: Member,
        terms: Terms,
        held: watch::Sender<Held>,
        fenced: Arc<Notify>,
    ) -> Self {
        Self {
            ledger,
            member,
            terms,
            held,
            fenced,
        }
    }

    /// Keeps its part until it is to stop, and gives it back then.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        loop {
            self.beat().await;
            tokio::select! {
                _ = stopped.wait_for(|s| *s) => break,
                () = self.fenced.notified() => {}
                () = tokio::time::sleep(self.pause()) => {}
            }
        }
        self.leave().await;
    }

    /// Says that it lives, and learns what it holds. Where the ledger is away it goes on
    /// with what it held: each transaction is checked.
    pub async fn beat(&self) {
        let (member, terms) = (self.member.clone(), self.terms);
        let kept = self
            .ledger
            .with(move |ledger| ledger.leases(|leases| lease::keep(leases, &member, &terms)))
            .await;
        match kept {
            Ok(leases) => {
                let now = Held::of(leases);
                self.held.send_if_modified(|held| {
                    let is_new = *held != now;
                    if is_new {
                        tracing::info!(shards = now.share(), "holds other shards now");
                        *held = now;
                    }
                    is_new
                });
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "the leases can't be kept"
                );
            }
        }
    }

    /// Whether another replica lives, which is one that beats. One that died is waited for,
    /// until its lease is over.
    pub async fn others_live(&self) -> Result<bool, LedgerError> {
        let first = self.others().await?;
        loop {
            let now = self.others().await?;
            let beats = |(id, until_ms): (&String, &i64)| {
                first.get(id).is_none_or(|before_ms| before_ms < until_ms)
            };
            if now.iter().any(beats) {
                return Ok(true);
            }
            if now.is_empty() {
                return Ok(false);
            }
            tokio::time::sleep(OTHERS_LOOK).await;
        }
    }

    /// The others whose leases are not over, and when they will be.
    async fn others(&self) -> Result<BTreeMap<String, i64>, LedgerError> {
        let id = self.member.id.clone();
        self.ledger
            .with(move |ledger| {
                ledger.leases(|leases| {
                    let now_ms = leases.now_ms()?;
                    let others = leases.replicas()?.into_iter();
                    let live = others.filter(|o| o.until_ms > now_ms && o.id != id);
                    Ok(live.map(|other| (other.id, other.until_ms)).collect())
                })
            })
            .await
    }

    /// Takes every shard, where no other replica lives.
    ///
    /// # Errors
    /// Where that does not come to an end.
    pub async fn take_all(&self) -> anyhow::Result<()> {
        let begun = tokio::time::Instant::now();
        let ttl = Duration::from_millis(u64::try_from(self.terms.ttl_ms).unwrap_or(0));
        while !self.held.borrow().is_all() {
            if begun.elapsed() > ttl.saturating_mul(3) {
                anyhow::bail!("ledger.postgres: other replicas hold a part of the shards");
            }
            self.beat().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Gives all back, so that others take over at once.
    pub async fn leave(&self) {
        self.held.send_replace(Held::nothing());
        let member = self.member.clone();
        let left = self
            .ledger
            .with(move |ledger| ledger.leases(|leases| lease::leave(leases, &member)))
            .await;
        if let Err(error) = left {
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "the leases can't be given back; others take them when they end"
            );
        }
    }

    /// Between two beats: a lease outlives two that fail.
    fn pause(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.terms.ttl_ms / 3).unwrap_or(1_000))
    }
}
