//! What could not be settled while the store was away: kept on disk, and settled once
//! it is back.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use weir_router_core::budget::{Ceiling, Settle};
use weir_router_store::{
    BudgetStore as _,
    spool::{Record, Spool},
};
use weir_wire::ids::{RequestId, TenantId};

use super::store::Store;

/// How often it is tried again.
const EVERY: Duration = Duration::from_secs(1);

/// The most that waits, in bytes: some million settlements.
const BYTES_MAX: u64 = 256 << 20;

/// A page of them.
const PAGE: usize = 256;
const PAGE_BYTES: usize = 1 << 20;

/// Settlements that wait.
pub struct Unsettled(Spool);

/// One, as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    tenant: String,
    id: String,
    micros: u64,
    tokens: u64,
    /// Micro-dollars, and whether it may be passed.
    ceiling: Option<(u64, bool)>,
}

impl Kept {
    fn of(settle: &Settle) -> Self {
        Self {
            tenant: settle.tenant.to_string(),
            id: settle.id.to_string(),
            micros: settle.micros,
            tokens: settle.tokens,
            ceiling: settle.ceiling.map(|c| (c.micros, c.overage)),
        }
    }

    fn settle(self) -> Option<Settle> {
        Some(Settle {
            tenant: TenantId::new(self.tenant).ok()?,
            id: RequestId::parse(&self.id).ok()?,
            micros: self.micros,
            tokens: self.tokens,
            ceiling: self
                .ceiling
                .map(|(micros, overage)| Ceiling { micros, overage }),
        })
    }
}

impl Unsettled {
    /// Opens the file in that folder.
    pub fn open(data: &Path) -> anyhow::Result<Self> {
        let spool = Spool::open(&data.join("unsettled.db"), BYTES_MAX);
        spool.map(Self).context("unsettled.db")
    }

    /// Keeps one; returns once it outlives this process.
    pub async fn keep(&self, settle: &Settle) {
        let kept = serde_json::to_vec(&Kept::of(settle)).unwrap_or_default();
        let durable = match self.0.append(kept) {
            Ok(appended) => appended.durable().await,
            Err(_) => false,
        };
        if !durable {
            tracing::error!(request_id = %settle.id, "a settlement is lost; its hold will be swept");
        }
    }

    /// Settles what waits until `stopped`, again and again.
    pub async fn run(&self, store: &Store, stopped: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
            while !self.0.is_empty() && self.settle_page(store).await {}
        }
    }

    /// Whether there may be more to do at once.
    async fn settle_page(&self, store: &Store) -> bool {
        let Ok(page) = self.0.read(0, PAGE, PAGE_BYTES).await else {
            return false;
        };
        let mut done: Vec<Record> = Vec::with_capacity(page.len());
        let length = page.len();
        for record in page {
            let kept = serde_json::from_slice::<Kept>(&record.bytes).ok();
            if let Some(settle) = kept.and_then(Kept::settle)
                && store.settle(settle).await.is_err()
            {
                break;
            }
            done.push(record);
        }
        let all = done.len() == length && length > 0;
        if let Err(error) = self.0.remove(&done).await {
            // They are settled again, which changes nothing.
            tracing::error!(%error, "settlements can't be taken out");
            return false;
        }
        all
    }
}
