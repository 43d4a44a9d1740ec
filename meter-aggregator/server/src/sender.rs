//! Takes intents to Stripe: many calls at once, and one at a time for a tenant and a meter.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use tokio::{
    sync::{Mutex, watch},
    task::{JoinError, JoinSet},
};
use weir_meter_core::{
    intent::{Attempt, State},
    lag::Round,
    lease::{SHARDS, Scope},
    ledger::{
        Intent,
        plan::{self, Billable},
        send::{self, Lane},
    },
    meter::Meter,
};
use weir_meter_store::ledger::LedgerError;
use weir_process::now_ms;
use weir_wire::ids::TenantId;

use crate::{
    books::Books,
    metrics::{Called, Metrics},
    stripe::{Mappings, MeterError, Stripe},
};

/// The most calls that are under way at a time.
const CALLS_MAX: usize = 16;

/// The way from the ledger to Stripe.
pub struct Sender {
    pub stripe: Arc<Stripe>,
    books: Books,
    /// The meters, once they were found good.
    mappings: OnceLock<Arc<Mappings>>,
    /// Who holds one, sends of that shard, or of all where there are none.
    sending: [Mutex<()>; SHARDS as usize],
    billable: Arc<BTreeSet<String>>,
    stop: watch::Sender<bool>,
}

/// Why nothing more is sent just now.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The meters can't be looked up.
    #[error("the meters can't be checked: {0}")]
    Meters(String),
    /// Stripe refuses the key, which is no fault of what is sent.
    #[error("Stripe refuses the key of stripe.api_key_env: {0}")]
    Key(String),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Tenants that have a customer, and meters that are configured.
struct Configured {
    account: String,
    tenants: Arc<BTreeSet<String>>,
    meters: BTreeSet<Meter>,
}

impl Billable for Configured {
    fn account(&self) -> &str {
        &self.account
    }

    fn is_billable(&self, tenant: &TenantId, meter: &Meter) -> bool {
        self.tenants.contains(tenant.as_str()) && self.meters.contains(meter)
    }
}

/// What came of a call.
enum Outcome {
    Tried(Attempt),
    /// It can't be made.
    Held(String),
}

impl Outcome {
    /// What it says of Stripe, where one answer says more than none; nothing, where it was
    /// not called.
    fn round(&self, before: Round) -> Round {
        match (self, before) {
            (Self::Tried(Attempt::Answered { .. }), _) => Round::Answered,
            (Self::Tried(Attempt::Unanswered), Round::Idle) => Round::Unanswered,
            (_, before) => before,
        }
    }

    /// What Stripe says of a key that it refuses.
    fn refused_key(&self) -> Option<String> {
        match self {
            Self::Tried(Attempt::Answered {
                status: status @ (401 | 403),
                message,
                ..
            }) => Some(format!("{status}: {message}")),
            _ => None,
        }
    }
}

impl Sender {
    pub fn new(stripe: Stripe, books: Books) -> Self {
        Self {
            billable: Arc::new(stripe.tenants().map(str::to_owned).collect()),
            stripe: Arc::new(stripe),
            books,
            mappings: OnceLock::new(),
            sending: std::array::from_fn(|_| Mutex::new(())),
            stop: watch::Sender::new(false),
        }
    }

    /// The tenants that have a customer.
    pub fn billable(&self) -> Arc<BTreeSet<String>> {
        self.billable.clone()
    }

    /// What can be billed at all.
    pub fn configured(&self) -> impl Billable + use<> {
        Configured {
            account: self.stripe.account().to_owned(),
            tenants: self.billable(),
            meters: self.stripe.configured_meters().cloned().collect(),
        }
    }

    /// Begins no call any more; those under way are waited for.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Looks the meters up once, so that a wrong one stops the start.
    pub async fn check_meters(&self) -> Result<(), MeterError> {
        self.mappings().await.map(|_| ())
    }

    /// The meters as Stripe has them.
    pub async fn mappings(&self) -> Result<Arc<Mappings>, MeterError> {
        if let Some(known) = self.mappings.get() {
            return Ok(known.clone());
        }
        let found = Arc::new(self.stripe.meters().await?);
        Ok(self.mappings.get_or_init(|| found).clone())
    }

    /// Plans the hours that are over, or all there are, and says how many
    /// intents that made.
    pub async fn plan(&self, scope: Scope, all: bool) -> Result<usize, LedgerError> {
        let configured = self.configured();
        let policy = self.books.billing().policy.clone();
        self.books
            .with(move |ledger| {
                ledger.transaction(scope, |change| {
                    plan::plan(change, &configured, &policy, now_ms(), all)
                })
            })
            .await
    }

    /// Sends every intent that is due, and takes note of what keeps it from that.
    pub async fn send_due(&self, scope: Scope) -> Result<(), SendError> {
        let sent = self.send(scope).await;
        let mut problems = self.books.metrics().problems();
        match &sent {
            Ok(round) => problems.ended(scope, *round),
            // Another replica sends by now.
            Err(SendError::Ledger(LedgerError::Fenced { .. })) => {}
            Err(error @ SendError::Key(_)) => problems.refused(error.to_string()),
            Err(error) => problems.failed(scope, told(error)),
        }
        sent.map(|_| ())
    }

    /// Says whether Stripe answered.
    async fn send(&self, scope: Scope) -> Result<Round, SendError> {
        let mappings = self.mappings().await.map_err(|error| {
            SendError::Meters(match error {
                MeterError::Unknown(error) => format!("{error:#}"),
                MeterError::Wrong(message) => message,
            })
        })?;
        // Held as long as calls are under way: their lanes are known here alone.
        let number = scope.shard().map_or(0, |shard| usize::from(shard.number()));
        let _sending = match self.sending.get(number) {
            Some(sending) => sending.lock().await,
            None => return Ok(Round::Idle),
        };
        let mut round = Round::Idle;
        let mut calls: JoinSet<(Lane, Intent, Outcome)> = JoinSet::new();
        let mut busy: BTreeSet<Lane> = BTreeSet::new();
        let mut answered: Vec<(Intent, Outcome)> = Vec::new();
        let mut refused: Option<String> = None;
        loop {
            let room = match *self.stop.borrow() || refused.is_some() {
                true => 0,
                false => CALLS_MAX.saturating_sub(busy.len()),
            };
            let started = self
                .step(scope, std::mem::take(&mut answered), busy.clone(), room)
                .await?;
            for intent in started {
                let lane = (intent.bucket.tenant.clone(), intent.bucket.meter.clone());
                busy.insert(lane.clone());
                let (stripe, mappings) = (self.stripe.clone(), mappings.clone());
                let metrics = self.books.metrics().clone();
                calls.spawn(async move {
                    let outcome = attempt(&stripe, &mappings, &metrics, &intent).await;
                    (lane, intent, outcome)
                });
            }
            let Some(first) = calls.join_next().await else {
                return refused.map_or(Ok(round), |said| Err(SendError::Key(said)));
            };
            let mut take = |done: Result<(Lane, Intent, Outcome), JoinError>| {
                // A call that died counts as one without an answer, and its lane stays
                // busy until the others are done.
                if let Ok((lane, intent, outcome)) = done {
                    busy.remove(&lane);
                    round = outcome.round(round);
                    refused = refused.take().or_else(|| outcome.refused_key());
                    answered.push((intent, outcome));
                }
            };
            take(first);
            while let Some(more) = calls.try_join_next() {
                take(more);
            }
        }
    }

    /// Writes down what came of calls and begins others, as one transaction.
    async fn step(
        &self,
        scope: Scope,
        answered: Vec<(Intent, Outcome)>,
        busy: BTreeSet<Lane>,
        room: usize,
    ) -> Result<Vec<Intent>, LedgerError> {
        let account = self.stripe.account().to_owned();
        let policy = self.books.billing().policy.clone();
        self.books
            .with(move |ledger| {
                ledger.transaction(scope, |change| {
                    let now_ms = now_ms();
                    for (intent, outcome) in &answered {
                        let state = match outcome {
                            Outcome::Tried(attempt) => {
                                send::finish(change, intent, attempt, &account, &policy, now_ms)?
                            }
                            Outcome::Held(reason) => {
                                send::hold(change, intent.id, reason)?;
                                Some(State::Held)
                            }
                        };
                        if state == Some(State::Held) {
                            tracing::error!(intent = intent.id, identifier = %intent.identifier, "an intent is held");
                        }
                    }
                    match room {
                        0 => Ok(Vec::new()),
                        room => send::start(change, &busy, room, &policy, now_ms),
                    }
                })
            })
            .await
    }
}

/// An error with what caused it.
fn told(error: &SendError) -> String {
    let causes = anyhow::Chain::new(error).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

async fn attempt(
    stripe: &Stripe,
    mappings: &Mappings,
    metrics: &Metrics,
    intent: &Intent,
) -> Outcome {
    let (tenant, meter) = (&intent.bucket.tenant, &intent.bucket.meter);
    let Some(customer) = stripe.customer(tenant.as_str()) else {
        return Outcome::Held(format!(
            "tenants.{tenant}.stripe_customer is not configured"
        ));
    };
    let Some(mapping) = mappings.get(meter) else {
        return Outcome::Held(format!("stripe.meters.{meter} is not configured"));
    };
    // Stripe replays a stored answer to a known key, a 500 as well: after each answer
    // that was received the key is another one.
    let key = format!("{}-{}", intent.identifier, intent.answers);
    let names = (intent.identifier.as_str(), key.as_str());
    let event = mapping.event(customer, intent.delta, names, intent.timestamp_s);
    // Who slept, here or while he waited for his turn, comes too late: Stripe knows the
    // identifier no longer than a day.
    let is_late = || send::is_late(intent, now_ms());
    let Some(attempt) = stripe.send_unless(&event, is_late).await else {
        return Outcome::Tried(Attempt::Unanswered);
    };
    metrics.called(match &attempt {
        Attempt::Unanswered => Called::Unanswered,
        Attempt::Answered { status, .. } if (200..300).contains(status) => Called::Accepted,
        Attempt::Answered { .. } => Called::Refused,
    });
    Outcome::Tried(attempt)
}

#[cfg(test)]
mod tests;
