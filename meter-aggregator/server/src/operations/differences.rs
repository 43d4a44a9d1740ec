//! What does not fit: the list of it, and asking Stripe's sums now.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_meter_core::ledger::{DiscrepancyKind, reconcile};
use weir_meter_store::ledger::{DiscrepancyFilter, LedgerError, ShownDiscrepancy};
use weir_process::now_ms;
use weir_wire::ids::TenantId;

use super::{Refused, limit, named, tenant};
use crate::{api::Parts, reconciler::Reconciler};

/// Which discrepancies are listed, the newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discrepancies {
    /// Of that kind alone.
    pub kind: Option<String>,
    /// Of that tenant alone.
    pub tenant: Option<String>,
    /// With those that were resolved.
    #[serde(default)]
    pub all: bool,
    /// Older than this number: the next page.
    pub before: Option<i64>,
    /// How many at the most.
    pub limit: Option<u32>,
}

/// A page of discrepancies.
#[derive(Debug, Serialize)]
pub struct Differences {
    /// The newest first.
    pub discrepancies: Vec<ShownDiscrepancy>,
}

impl Discrepancies {
    pub(super) async fn perform(self, parts: &Parts) -> Result<Differences, Refused> {
        let kinds = DiscrepancyKind::ALL.map(DiscrepancyKind::as_str);
        let filter = DiscrepancyFilter {
            kind: named("kind", self.kind.as_deref(), DiscrepancyKind::parse, &kinds)?,
            tenant: tenant(self.tenant.as_deref())?,
            with_resolved: self.all,
            before: self.before,
            limit: limit(self.limit)?,
        };
        let look = parts
            .books
            .look(move |ledger| ledger.discrepancies(&filter));
        Ok(Differences {
            discrepancies: look.await?,
        })
    }
}

/// The most hours that are asked about again: what Stripe still takes.
const HOURS_MAX: u32 = 35 * 24;

/// The most rounds of asking in one call.
const ROUNDS_MAX: usize = 100;

/// Asks Stripe's sums about what is due and, where hours are given, about what was
/// sent in the last ones and confirmed again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// Of what was confirmed, only that tenant's.
    pub tenant: Option<String>,
    /// How many hours back.
    pub hours: Option<u32>,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub struct Reconciled {
    /// Intents that were confirmed and are asked about again.
    pub rechecked: usize,
    /// Hours that Stripe was asked about.
    pub asked: usize,
    /// Open discrepancies with Stripe's sums, the newest first, a hundred at the most.
    pub discrepancies: Vec<ShownDiscrepancy>,
}

impl Reconcile {
    pub(super) async fn perform(self, parts: &Parts) -> Result<Reconciled, Refused> {
        let tenant = tenant(self.tenant.as_deref())?;
        let mut reconciled = Reconciled::default();
        if let Some(hours) = self.hours {
            if !(1..=HOURS_MAX).contains(&hours) {
                return Err(Refused::Wrong(format!(
                    "hours: must be 1 to {HOURS_MAX}, found {hours}"
                )));
            }
            reconciled.rechecked = recheck(parts, hours, tenant.clone()).await?;
        } else if tenant.is_some() {
            return Err(Refused::Wrong("tenant: goes with hours".to_owned()));
        }
        let reconciler = Reconciler::new(parts.books.clone(), Arc::clone(&parts.sender));
        for scope in parts.books.asked() {
            for _ in 0..ROUNDS_MAX {
                let asked = reconciler
                    .run(scope)
                    .await
                    .map_err(|error| Refused::Failed(format!("{:#}", anyhow::Error::new(error))))?;
                reconciled.asked = reconciled.asked.saturating_add(asked);
                if asked == 0 {
                    break;
                }
            }
        }
        let filter = DiscrepancyFilter {
            kind: Some(DiscrepancyKind::StripeDiffers),
            tenant,
            with_resolved: false,
            before: None,
            limit: 100,
        };
        let look = parts
            .books
            .look(move |ledger| ledger.discrepancies(&filter));
        reconciled.discrepancies = look.await?;
        Ok(reconciled)
    }
}

/// Has what was confirmed asked about again; says how many intents.
async fn recheck(parts: &Parts, hours: u32, tenant: Option<TenantId>) -> Result<usize, Refused> {
    let to_ms = now_ms();
    let from_ms = to_ms.saturating_sub(i64::from(hours).saturating_mul(3_600_000));
    let meters: Vec<_> = parts.sender.stripe.configured_meters().cloned().collect();
    let scopes = match &tenant {
        Some(tenant) => vec![parts.books.asked_of(tenant)],
        None => parts.books.asked(),
    };
    let work = parts.books.with(move |ledger| {
        let mut count = 0_usize;
        for scope in scopes {
            let found = ledger.transaction(scope, |change| {
                let mut count = 0_usize;
                for meter in &meters {
                    let time = (from_ms, to_ms);
                    let found = match &tenant {
                        Some(tenant) => reconcile::recheck_of(change, tenant, meter, time)?,
                        None => reconcile::recheck(change, meter, time)?,
                    };
                    count = count.saturating_add(found);
                }
                Ok::<_, LedgerError>(count)
            })?;
            count = count.saturating_add(found);
        }
        Ok(count)
    });
    Ok(work.await?)
}
