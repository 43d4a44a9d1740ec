//! Deals with what webhooks told: one event at a time, the oldest first, and again
//! after a while where Stripe or the router is away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::{Notify, watch};
use weir_meter_core::{
    dunning::{self, Account, Accounts as _, Action, Call, DOUBT_MS, Decision, Hold, Policy, Why},
    lease::Scope,
    ledger::reconcile,
    meter::Meter,
    stripe::{Invoice, METER_ERRORS},
};
use weir_meter_store::ledger::{Change, Ledger, LedgerError, Webhook};
use weir_process::now_ms;

use super::router::{Router, RouterError};
use crate::{
    books::Books,
    sender::Sender,
    stripe::{MeterError, StripeError},
};

/// How often it looks whether a pause is over.
const LOOK: Duration = Duration::from_secs(1);

/// How often old events are dropped.
const FORGET: Duration = Duration::from_secs(3_600);

/// Before a report that does not say since when: a day.
const WINDOW_MS: i64 = 86_400_000;

/// How long may be between a decision and the call to the router that follows: far less
/// than [`DOUBT_MS`], with the time of the call.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often a tenant is looked at anew at once, where others change what is known of it.
const TURNS_MAX: usize = 5;

/// How often it is tried to say that the router was told something.
const WORDS_MAX: usize = 60;

/// What deals with webhooks.
pub struct Worker {
    pub books: Books,
    pub sender: Arc<Sender>,
    /// Without a policy nothing follows from an invoice.
    pub dunning: Option<(Policy, Router)>,
    pub wake: Arc<Notify>,
    /// [`PATIENCE`].
    pub patience: Duration,
}

impl Worker {
    /// Until it is told to stop.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut forget = tokio::time::interval(FORGET);
        loop {
            // What is under way may be broken off anywhere: it is begun again.
            tokio::select! {
                _ = stopped.wait_for(|s| *s) => return,
                () = self.handle_due() => {}
            }
            let old = tokio::select! {
                _ = stopped.wait_for(|s| *s) => return,
                () = self.wake.notified() => false,
                () = tokio::time::sleep(LOOK) => false,
                _ = forget.tick() => true,
            };
            if old {
                self.forget().await;
            }
        }
    }

    /// Of one who holds the first shard.
    async fn forget(&self) {
        let Some(house) = self.house() else { return };
        match self.write(house, |c| c.forget_webhooks(now_ms())).await {
            Ok(0) => {}
            Ok(open) => {
                tracing::error!(open, "webhooks were dropped that could never be dealt with")
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "old webhooks can't be dropped"
                );
            }
        }
    }

    fn house(&self) -> Option<Scope> {
        self.books.held().borrow().house()
    }

    /// Writes as the holder of the first shard, as which what is written was begun.
    async fn write<T: Send + 'static>(
        &self,
        house: Scope,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.books.with(move |l| l.transaction(house, work)).await
    }

    /// All that is due, where no other replica does it.
    pub async fn handle_due(&self) {
        // What is read, asked and written of one event is the same holder's: whoever lost
        // the lease meanwhile writes nothing, and the next one begins with the event again.
        while let Some(house) = self.house() {
            let handled = match self.books.with(|l| l.next_webhook(now_ms())).await {
                Ok(None) => return,
                Ok(Some(webhook)) => self.handle(house, webhook).await,
                Err(error) => Err(error),
            };
            match handled {
                Ok(()) => {}
                Err(LedgerError::Fenced { .. }) => {
                    tracing::info!("another replica deals with webhooks by now");
                    return;
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{:#}", anyhow::Error::new(error)),
                        "webhooks can't be looked up"
                    );
                    return;
                }
            }
        }
    }

    async fn handle(&self, house: Scope, webhook: Webhook) -> Result<(), LedgerError> {
        let handled = match webhook.call() {
            Some(action) => self.doubted(house, &webhook.about, action).await,
            None if webhook.kind == METER_ERRORS => self.meter_errors(house, &webhook).await,
            None => self.invoice(house, &webhook).await,
        };
        match handled {
            // It went with what was decided, or stays for a while.
            Ok(()) if webhook.call().is_some() => Ok(()),
            Ok(()) => {
                self.write(house, move |c| c.webhook_done(&webhook.id))
                    .await
            }
            Err(Failure::Fenced(error)) => Err(error),
            Err(Failure::Waits(error)) => {
                let problem = format!("{error:#}");
                tracing::warn!(
                    event = webhook.id,
                    kind = webhook.kind,
                    problem,
                    "a webhook has to wait"
                );
                self.write(house, move |c| {
                    c.webhook_again(&webhook, &problem, now_ms())
                })
                .await
            }
        }
    }

    /// Something became of an invoice: looks at it as it is now, and at its tenant.
    async fn invoice(&self, house: Scope, webhook: &Webhook) -> Result<(), Failure> {
        let Some((policy, router)) = &self.dunning else {
            return Ok(());
        };
        let Some(invoice) = found(webhook, self.sender.stripe.invoice(&webhook.about).await)?
        else {
            return Ok(());
        };
        let customer = invoice.customer.as_deref().unwrap_or_default();
        let Some(tenant) = self.sender.stripe.tenant(customer) else {
            tracing::info!(
                invoice = invoice.id,
                customer,
                "an invoice is of no tenant's customer"
            );
            return Ok(());
        };
        let reason = Reason::Invoice(*policy, invoice);
        self.agree(house, router, tenant, &reason).await
    }

    /// The router may have been told something by one that died or lost the lease: looks at
    /// the tenant.
    async fn doubted(&self, house: Scope, tenant: &str, action: Action) -> Result<(), Failure> {
        match &self.dunning {
            Some((_, router)) => {
                self.agree(house, router, tenant, &Reason::Doubt(action))
                    .await
            }
            None => {
                let tenant = tenant.to_owned();
                let work = move |c: &mut Change<'_>| c.drop_call(&tenant, action);
                Ok(self.write(house, work).await?)
            }
        }
    }

    /// Brings a tenant's account and the router to agree: see `core/src/dunning/calls.rs`.
    async fn agree(
        &self,
        house: Scope,
        router: &Router,
        tenant: &str,
        reason: &Reason,
    ) -> Result<(), Failure> {
        for _ in 0..TURNS_MAX {
            let of = tenant.to_owned();
            let view = self.write(house, move |c| dunning::look(c, &of)).await?;
            if !view.concerns_router(reason.why()) {
                return Ok(());
            }
            let seen = router.seen(tenant).await?;
            let begun = Instant::now();
            let (of, reason) = (tenant.to_owned(), reason.clone());
            let decision = self
                .write(house, move |c| {
                    dunning::decide(c, &of, &view, reason.why(), seen, now_ms())
                })
                .await?;
            match decision {
                Decision::Changed => {}
                Decision::Agreed(account) => {
                    tell_operator(tenant, &account);
                    return Ok(());
                }
                Decision::Tell(call) => return self.tell(house, router, tenant, call, begun).await,
            }
        }
        Err(anyhow::anyhow!("what is known of the tenant changed again and again").into())
    }

    /// Tells the router what was decided, and writes down that it did it.
    async fn tell(
        &self,
        house: Scope,
        router: &Router,
        tenant: &str,
        call: Call,
        begun: Instant,
    ) -> Result<(), Failure> {
        // Nobody looks for a call that comes much later.
        if begun.elapsed() > self.patience {
            return Err(anyhow::anyhow!("it took too long to decide about the tenant").into());
        }
        let action = call.action;
        let seen = match router.act(tenant, action).await {
            Ok(seen) => seen,
            Err(error) => {
                // It may come nevertheless.
                self.doubt(house, tenant, action, DOUBT_MS).await;
                return Err(error.into());
            }
        };
        let of = tenant.to_owned();
        let done = self
            .write(house, move |c| dunning::done(c, &of, &call, seen, now_ms()))
            .await;
        let account = match done {
            Ok(account) => account,
            Err(error) => {
                // Who has the lease may have decided otherwise.
                self.doubt(house, tenant, action, 0).await;
                return Err(error.into());
            }
        };
        tracing::warn!(tenant, ?action, due = account.due.len(), "dunning");
        tell_operator(tenant, &account);
        Ok(())
    }

    /// Has whoever holds the first shard look at a tenant.
    async fn doubt(&self, house: Scope, tenant: &str, action: Action, in_ms: i64) {
        let anyone = house.shard().map_or(Scope::Whole, Scope::Asked);
        for _ in 0..WORDS_MAX {
            let (of, now_ms) = (tenant.to_owned(), now_ms());
            let look_ms = now_ms.saturating_add(in_ms);
            let work = move |c: &mut Change<'_>| dunning::doubt(c, &of, action, now_ms, look_ms);
            let Err(error) = self.write(anyone, work).await else {
                return;
            };
            tracing::error!(
                tenant,
                ?action,
                error = format!("{:#}", anyhow::Error::new(error)),
                "that the router was told can't be written down"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A meter did not count events that Stripe took: keeps which, and has the ledger
    /// look at that meter again.
    async fn meter_errors(&self, house: Scope, webhook: &Webhook) -> Result<(), Failure> {
        let stripe = &self.sender.stripe;
        let Some(event) = found(webhook, stripe.core_event(&webhook.id).await)? else {
            return Ok(());
        };
        let report = event.data.context("the event has no data yet")?;
        let mappings = stripe.meters().await.map_err(|error| match error {
            MeterError::Unknown(error) => error,
            MeterError::Wrong(message) => anyhow::anyhow!(message),
        })?;
        let meter = mappings.iter().find(|(_, m)| m.id == webhook.about);
        let meter = meter.map(|(meter, _)| meter.clone());
        tracing::error!(
            meter = meter.as_ref().map(tracing::field::display),
            meter_id = webhook.about,
            count = report.reason.error_count,
            summary = report.developer_message_summary,
            "a meter did not count events that Stripe took"
        );
        let until_ms = report.until_ms.unwrap_or(webhook.at_ms);
        let since_ms = report
            .since_ms
            .unwrap_or_else(|| until_ms.saturating_sub(WINDOW_MS));
        let (id, about, at_ms) = (webhook.id.clone(), webhook.about.clone(), webhook.at_ms);
        self.write(house, move |c| {
            c.note_meter_errors(&id, &about, &report, at_ms)
        })
        .await?;
        let Some(meter) = meter else { return Ok(()) };
        let scopes = self.books.asked();
        self.books
            .with(move |ledger| recheck(ledger, &scopes, &meter, (since_ms, until_ms)))
            .await?;
        Ok(())
    }
}

/// Why a tenant is looked at; [`Why`], owned.
#[derive(Clone)]
enum Reason {
    Invoice(Policy, Invoice),
    Doubt(Action),
}

impl Reason {
    fn why(&self) -> Why<'_> {
        match self {
            Self::Invoice(policy, invoice) => Why::Invoice(policy, invoice),
            Self::Doubt(action) => Why::Doubt(*action),
        }
    }
}

/// Why an event is not dealt with.
enum Failure {
    /// Another replica deals with it.
    Fenced(LedgerError),
    /// Something is away or wrong; it is tried again.
    Waits(anyhow::Error),
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Fenced { .. } => Self::Fenced(error),
            error => Self::Waits(error.into()),
        }
    }
}

impl From<RouterError> for Failure {
    fn from(error: RouterError) -> Self {
        Self::Waits(error.into())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Waits(error)
    }
}

/// What somebody may want to know of a tenant that owes.
fn tell_operator(tenant: &str, account: &Account) {
    match account.hold {
        Hold::Operators => tracing::info!(tenant, "an operator suspended it already"),
        Hold::Unknown => tracing::error!(
            tenant,
            "the router does not know a tenant that has to be suspended"
        ),
        _ => {}
    }
}

/// Has the ledger compare with the summaries what it sent to that meter between these
/// times. They say when Stripe looked at the events (milliseconds of the Unix epoch):
/// the events' own times may be up to 35 days before. It may come twice for one report.
///
/// The one place where a report starts a reconciliation.
fn recheck(
    ledger: &mut Ledger,
    scopes: &[Scope],
    meter: &Meter,
    (since_ms, until_ms): (i64, i64),
) -> Result<(), LedgerError> {
    // Stripe looks at events some time after it took them.
    let sent = (since_ms.saturating_sub(WINDOW_MS), until_ms);
    let mut intents = 0_usize;
    for scope in scopes {
        let found = ledger.transaction(*scope, |change| reconcile::recheck(change, meter, sent))?;
        intents = intents.saturating_add(found);
    }
    tracing::info!(%meter, since_ms, until_ms, intents, "what was sent is asked about again");
    Ok(())
}

/// The object; nothing where Stripe has none, which no waiting mends.
fn found<T>(webhook: &Webhook, answer: Result<T, StripeError>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_missing() => {
            tracing::error!(event = webhook.id, about = webhook.about, %error, "a webhook is about nothing");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
