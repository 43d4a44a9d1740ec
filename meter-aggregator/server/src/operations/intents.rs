//! Intents: what Stripe is to have, as an operator sees and decides it.

use serde::{Deserialize, Serialize};
use weir_meter_core::{
    intent::State,
    lease::Scope,
    ledger::{
        Intent,
        operator::{self, Failed},
    },
};
use weir_meter_store::ledger::{Change, IntentFilter, LedgerError, ShownIntent};
use weir_process::now_ms;

use super::{Refused, limit, named, reason, tenant};
use crate::api::Parts;

/// Which intents are listed, the newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentsList {
    /// In that state alone.
    pub state: Option<String>,
    /// Of that tenant alone.
    pub tenant: Option<String>,
    /// Older than this number: the next page.
    pub before: Option<i64>,
    /// How many at the most.
    pub limit: Option<u32>,
}

/// A page of intents.
#[derive(Debug, Serialize)]
pub struct Intents {
    /// The newest first.
    pub intents: Vec<ShownIntent>,
}

impl IntentsList {
    pub(super) async fn perform(self, parts: &Parts) -> Result<Intents, Refused> {
        let states = State::ALL.map(State::as_str);
        let filter = IntentFilter {
            state: named("state", self.state.as_deref(), State::parse, &states)?,
            tenant: tenant(self.tenant.as_deref())?,
            before: self.before,
            limit: limit(self.limit)?,
        };
        let look = parts.books.look(move |ledger| ledger.intents(&filter));
        Ok(Intents {
            intents: look.await?,
        })
    }
}

/// An intent is to be sent again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentRetry {
    /// Its number.
    pub id: i64,
}

/// What an operator says of an intent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentWord {
    /// Its number.
    pub id: i64,
    /// Why, for whoever reads it later.
    pub reason: String,
}

impl IntentRetry {
    pub(super) async fn perform(self, parts: &Parts) -> Result<ShownIntent, Refused> {
        let account = parts.sender.stripe.account().to_owned();
        let policy = parts.books.billing().policy.clone();
        decide(parts, About::Intent(self.id), move |change| {
            operator::retry(change, self.id, &account, &policy, now_ms())
        })
        .await
    }
}

impl IntentWord {
    /// Stripe is not to have it.
    pub(super) async fn cancel(self, parts: &Parts) -> Result<ShownIntent, Refused> {
        let why = reason(self.reason)?;
        let about = About::Intent(self.id);
        decide(parts, about, move |change| {
            operator::cancel(change, self.id, &why)
        })
        .await
    }

    /// Stripe has it.
    pub(super) async fn accept(self, parts: &Parts) -> Result<ShownIntent, Refused> {
        let why = reason(self.reason)?;
        let about = About::Intent(self.id);
        decide(parts, about, move |change| {
            operator::accept(change, self.id, &why)
        })
        .await
    }
}

/// What an operator's word is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The intent of that number.
    Intent(i64),
    /// The adjustment of that number.
    Adjustment(i64),
}

/// Takes an operator's word, in a transaction of its own.
pub(super) async fn decide(
    parts: &Parts,
    about: About,
    word: impl FnOnce(&mut Change<'_>) -> Result<Intent, Failed<LedgerError>> + Send + 'static,
) -> Result<ShownIntent, Refused> {
    let tenant = parts
        .books
        .look(move |ledger| match about {
            About::Intent(id) => ledger.tenant_of_intent(id),
            About::Adjustment(id) => ledger.tenant_of_adjustment(id),
        })
        .await?;
    let scope = match &tenant {
        Some(tenant) => parts.books.asked_of(tenant),
        // There is none of that number, as any scope will find.
        None => parts.books.asked().pop().unwrap_or(Scope::Whole),
    };
    let decided = parts
        .books
        .with(move |ledger| match ledger.transaction(scope, word) {
            Ok(intent) => Ok(Ok(ShownIntent::from(intent))),
            Err(Failed::Refused(refused)) => Ok(Err(refused)),
            Err(Failed::Store(error)) => Err(error),
        })
        .await?;
    decided.map_err(|refused| match refused {
        operator::Refused::Unknown { .. } => Refused::Missing(refused.to_string()),
        _ => Refused::Conflict(refused.to_string()),
    })
}
