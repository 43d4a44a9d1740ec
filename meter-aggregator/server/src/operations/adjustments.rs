//! Adjustments: changes of hours that are final, which an operator decides.

use serde::{Deserialize, Serialize};
use weir_meter_core::ledger::{AdjustmentState, operator};
use weir_meter_store::ledger::{AdjustmentFilter, ShownAdjustment, ShownIntent};
use weir_process::now_ms;

use super::{
    LIMIT_MAX, Refused,
    intents::{About, decide},
    limit, named, reason, tenant,
};
use crate::api::Parts;

/// Which adjustments are listed, the newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdjustmentsList {
    /// In that state alone; in any where `all`, else those that wait.
    pub state: Option<String>,
    /// Of that tenant alone.
    pub tenant: Option<String>,
    /// Older than this number: the next page.
    pub before: Option<i64>,
    /// How many at the most.
    pub limit: Option<u32>,
}

/// A page of adjustments.
#[derive(Debug, Serialize)]
pub struct Adjustments {
    /// The newest first.
    pub adjustments: Vec<ShownAdjustment>,
}

const STATES: [&str; 4] = ["proposed", "approved", "rejected", "withdrawn"];

impl AdjustmentsList {
    pub(super) async fn perform(self, parts: &Parts) -> Result<Adjustments, Refused> {
        let filter = AdjustmentFilter {
            state: named(
                "state",
                self.state.as_deref(),
                AdjustmentState::parse,
                &STATES,
            )?,
            tenant: tenant(self.tenant.as_deref())?,
            before: self.before,
            limit: limit(self.limit)?,
        };
        let look = parts.books.look(move |ledger| ledger.adjustments(&filter));
        Ok(Adjustments {
            adjustments: look.await?,
        })
    }
}

/// Which adjustments are billed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdjustmentsApprove {
    /// That one.
    pub id: Option<i64>,
    /// All that wait, ten thousand at the most.
    #[serde(default)]
    pub all: bool,
    /// Of all, those of that tenant.
    pub tenant: Option<String>,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub struct Approved {
    /// The intents that they became.
    pub intents: Vec<ShownIntent>,
    /// Adjustments that stay, and why.
    pub refused: Vec<Kept>,
}

/// An adjustment that stays.
#[derive(Debug, Serialize)]
pub struct Kept {
    /// Its number.
    pub id: i64,
    /// Why.
    pub reason: String,
}

impl AdjustmentsApprove {
    pub(super) async fn perform(self, parts: &Parts) -> Result<Approved, Refused> {
        let ids = match (self.id, self.all) {
            (Some(id), false) if self.tenant.is_none() => vec![id],
            (None, true) => {
                let filter = AdjustmentFilter {
                    state: Some(AdjustmentState::Proposed),
                    tenant: tenant(self.tenant.as_deref())?,
                    before: None,
                    limit: LIMIT_MAX,
                };
                let look = parts.books.look(move |ledger| ledger.adjustments(&filter));
                let mut ids: Vec<i64> = look.await?.iter().map(|a| a.id).collect();
                // As they were proposed.
                ids.reverse();
                ids
            }
            _ => {
                return Err(Refused::Wrong(
                    "id, all: must be one of the two; tenant goes with all".to_owned(),
                ));
            }
        };
        let mut approved = Approved::default();
        for id in ids {
            let account = parts.sender.stripe.account().to_owned();
            let policy = parts.books.billing().policy.clone();
            let outcome = decide(parts, About::Adjustment(id), move |change| {
                operator::approve(change, id, &account, &policy, now_ms())
            });
            match outcome.await {
                Ok(intent) => approved.intents.push(intent),
                Err(Refused::Conflict(reason)) if self.all => {
                    approved.refused.push(Kept { id, reason });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(approved)
    }
}

/// An adjustment is not billed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdjustmentReject {
    /// Its number.
    pub id: i64,
    /// Why, for whoever reads it later.
    pub reason: String,
}

impl AdjustmentReject {
    pub(super) async fn perform(self, parts: &Parts) -> Result<ShownIntent, Refused> {
        let why = reason(self.reason)?;
        let account = parts.sender.stripe.account().to_owned();
        decide(parts, About::Adjustment(self.id), move |change| {
            operator::reject(change, self.id, &why, &account, now_ms())
        })
        .await
    }
}
