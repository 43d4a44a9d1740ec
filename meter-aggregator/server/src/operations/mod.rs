//! What an operator may ask and decide, in one place: the running aggregator answers it
//! over its admin API, and where none runs the command line does so on the data folder.

mod adjustments;
mod backfill;
mod books;
mod differences;
mod intents;
mod prove;
mod quarantine;

use http::Method;
use serde::Serialize;
use serde_json::Value;
use weir_meter_store::{ledger::LedgerError, stream::AppendError};
use weir_wire::ids::TenantId;

use crate::{api::Parts, books::BookError};
pub use adjustments::{AdjustmentReject, AdjustmentsApprove, AdjustmentsList};
pub use backfill::{Backfill, Backfilled, LINES_MAX};
pub use books::{CloseHour, Events, Status};
pub use differences::{Discrepancies, Reconcile};
pub use intents::{IntentRetry, IntentWord, IntentsList};
pub use prove::Prove;
pub use quarantine::{QuarantineList, QuarantineReplay, Replayed};

/// How many are listed where nothing is said.
const LIMIT_DEFAULT: u32 = 100;

/// The longest reason of an operator's.
const REASON_MAX_CHARS: usize = 500;

/// The most that are listed at a time.
const LIMIT_MAX: u32 = 10_000;

/// One operation, with what it is about.
#[derive(Debug, Clone)]
pub enum Operation {
    /// The state of the books.
    Status(Status),
    /// Books, plans and sends what there is, not waiting for the hour to end.
    CloseHour(CloseHour),
    /// Single requests.
    Events(Events),
    /// What is in quarantine.
    QuarantineList(QuarantineList),
    /// Checks again what is in quarantine.
    QuarantineReplay(QuarantineReplay),
    /// Brings in events.
    Backfill(Backfill),
    /// What Stripe is to have.
    IntentsList(IntentsList),
    /// Sends an intent again.
    IntentRetry(IntentRetry),
    /// Stripe is not to have an intent.
    IntentCancel(IntentWord),
    /// Stripe has an intent.
    IntentAccept(IntentWord),
    /// Changes of hours that are final.
    AdjustmentsList(AdjustmentsList),
    /// Bills adjustments.
    AdjustmentsApprove(AdjustmentsApprove),
    /// Does not bill an adjustment.
    AdjustmentReject(AdjustmentReject),
    /// Asks Stripe's sums.
    Reconcile(Reconcile),
    /// What does not fit.
    Discrepancies(Discrepancies),
    /// The requests behind a line of an invoice.
    Prove(Prove),
}

/// Why an operation was not performed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It can't be asked so; the message names what is wrong.
    #[error("{0}")]
    Wrong(String),
    /// There is none of that name or number.
    #[error("{0}")]
    Missing(String),
    /// It does not stand where that can be done.
    #[error("{0}")]
    Conflict(String),
    /// Come back later.
    #[error("{0}")]
    Busy(String),
    /// It failed here.
    #[error("{0}")]
    Failed(String),
}

impl From<LedgerError> for Refused {
    fn from(error: LedgerError) -> Self {
        Self::Failed(format!("{:#}", anyhow::Error::new(error)))
    }
}

impl From<BookError> for Refused {
    fn from(error: BookError) -> Self {
        Self::Failed(format!("{:#}", anyhow::Error::new(error)))
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Failed => Self::Failed(error.to_string()),
            AppendError::Busy | AppendError::Full { .. } => Self::Busy(error.to_string()),
        }
    }
}

impl Operation {
    /// How the running aggregator is asked: what only reads by GET, with the arguments
    /// as query, what changes something by POST, with them as JSON.
    ///
    /// # Errors
    /// Where an argument can't be written as JSON, which none is.
    pub fn call(&self) -> serde_json::Result<(Method, &'static str, Value)> {
        fn of(
            method: Method,
            path: &'static str,
            arguments: &impl Serialize,
        ) -> serde_json::Result<(Method, &'static str, Value)> {
            Ok((method, path, serde_json::to_value(arguments)?))
        }
        match self {
            Self::Status(arguments) => of(Method::GET, path::STATUS, arguments),
            Self::CloseHour(arguments) => of(Method::POST, path::CLOSE_HOUR, arguments),
            Self::Events(arguments) => of(Method::GET, path::EVENTS, arguments),
            Self::QuarantineList(arguments) => of(Method::GET, path::QUARANTINE, arguments),
            Self::QuarantineReplay(arguments) => {
                of(Method::POST, path::QUARANTINE_REPLAY, arguments)
            }
            Self::Backfill(arguments) => of(Method::POST, path::BACKFILL, arguments),
            Self::IntentsList(arguments) => of(Method::GET, path::INTENTS, arguments),
            Self::IntentRetry(arguments) => of(Method::POST, path::INTENT_RETRY, arguments),
            Self::IntentCancel(arguments) => of(Method::POST, path::INTENT_CANCEL, arguments),
            Self::IntentAccept(arguments) => of(Method::POST, path::INTENT_ACCEPT, arguments),
            Self::AdjustmentsList(arguments) => of(Method::GET, path::ADJUSTMENTS, arguments),
            Self::AdjustmentsApprove(arguments) => {
                of(Method::POST, path::ADJUSTMENTS_APPROVE, arguments)
            }
            Self::AdjustmentReject(arguments) => {
                of(Method::POST, path::ADJUSTMENT_REJECT, arguments)
            }
            Self::Reconcile(arguments) => of(Method::POST, path::RECONCILE, arguments),
            Self::Discrepancies(arguments) => of(Method::GET, path::DISCREPANCIES, arguments),
            Self::Prove(arguments) => of(Method::GET, path::PROVE, arguments),
        }
    }
}

/// Where each operation is on the admin API.
pub mod path {
    pub const STATUS: &str = "/admin/status";
    pub const CLOSE_HOUR: &str = "/admin/close-hour";
    pub const EVENTS: &str = "/admin/events";
    pub const QUARANTINE: &str = "/admin/quarantine";
    pub const QUARANTINE_REPLAY: &str = "/admin/quarantine/replay";
    pub const BACKFILL: &str = "/admin/backfill";
    pub const INTENTS: &str = "/admin/intents";
    pub const INTENT_RETRY: &str = "/admin/intents/retry";
    pub const INTENT_CANCEL: &str = "/admin/intents/cancel";
    pub const INTENT_ACCEPT: &str = "/admin/intents/accept";
    pub const ADJUSTMENTS: &str = "/admin/adjustments";
    pub const ADJUSTMENTS_APPROVE: &str = "/admin/adjustments/approve";
    pub const ADJUSTMENT_REJECT: &str = "/admin/adjustments/reject";
    pub const RECONCILE: &str = "/admin/reconcile";
    pub const DISCREPANCIES: &str = "/admin/discrepancies";
    pub const PROVE: &str = "/admin/prove";
}

/// Performs an operation, wherever it was asked for.
///
/// # Errors
/// [`Refused`]: what is wrong with it, or why it failed.
pub async fn perform(parts: &Parts, operation: Operation) -> Result<Value, Refused> {
    match operation {
        Operation::Status(status) => status.perform(parts).await.and_then(json),
        Operation::CloseHour(close) => close.perform(parts).await.and_then(json),
        Operation::Events(events) => events.perform(parts).await.and_then(json),
        Operation::QuarantineList(list) => list.perform(parts).await.and_then(json),
        Operation::QuarantineReplay(replay) => replay.perform(parts).await.and_then(json),
        Operation::Backfill(backfill) => backfill.perform(parts).await.and_then(json),
        Operation::IntentsList(list) => list.perform(parts).await.and_then(json),
        Operation::IntentRetry(retry) => retry.perform(parts).await.and_then(json),
        Operation::IntentCancel(word) => word.cancel(parts).await.and_then(json),
        Operation::IntentAccept(word) => word.accept(parts).await.and_then(json),
        Operation::AdjustmentsList(list) => list.perform(parts).await.and_then(json),
        Operation::AdjustmentsApprove(approve) => approve.perform(parts).await.and_then(json),
        Operation::AdjustmentReject(reject) => reject.perform(parts).await.and_then(json),
        Operation::Reconcile(reconcile) => reconcile.perform(parts).await.and_then(json),
        Operation::Discrepancies(list) => list.perform(parts).await.and_then(json),
        Operation::Prove(prove) => prove.perform(parts, |_, _| {}).await.and_then(json),
    }
}

fn json(answer: impl Serialize) -> Result<Value, Refused> {
    serde_json::to_value(answer).map_err(|error| Refused::Failed(error.to_string()))
}

/// How many are listed.
fn limit(given: Option<u32>) -> Result<u32, Refused> {
    let limit = given.unwrap_or(LIMIT_DEFAULT);
    match limit {
        1..=LIMIT_MAX => Ok(limit),
        _ => Err(Refused::Wrong(format!(
            "limit: must be 1 to {LIMIT_MAX}, found {limit}"
        ))),
    }
}

/// A tenant's name, if one is given.
fn tenant(given: Option<&str>) -> Result<Option<TenantId>, Refused> {
    given
        .map(TenantId::new)
        .transpose()
        .map_err(|error| Refused::Wrong(format!("tenant: {error}")))
}

/// What a name stands for, if one is given.
fn named<T>(
    field: &str,
    given: Option<&str>,
    parse: impl FnOnce(&str) -> Option<T>,
    names: &[&str],
) -> Result<Option<T>, Refused> {
    let Some(name) = given else {
        return Ok(None);
    };
    parse(name).map(Some).ok_or_else(|| {
        Refused::Wrong(format!(
            "{field}: must be one of {}, found {name:?}",
            names.join(", ")
        ))
    })
}

/// Why an operator decides so, which the ledger keeps.
fn reason(given: String) -> Result<String, Refused> {
    match given.trim().chars().count() {
        1..=REASON_MAX_CHARS => Ok(given.trim().to_owned()),
        found => Err(Refused::Wrong(format!(
            "reason: must have 1 to {REASON_MAX_CHARS} characters, found {found}"
        ))),
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    let task = tokio::task::spawn_blocking(work);
    task.await
        .map_err(|error| Refused::Failed(error.to_string()))?
}
