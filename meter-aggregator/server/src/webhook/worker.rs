//! Deals with what webhooks told: one event at a time, the oldest first, and again
//! after a while where Stripe or the router is away.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::sync::{Notify, watch};
use weir_meter_core::{
    dunning::{Hold, Policy, Seen},
    lease::Scope,
    ledger::reconcile,
    meter::Meter,
    stripe::METER_ERRORS,
};
use weir_meter_store::ledger::{Ledger, LedgerError, Webhook};
use weir_process::now_ms;

use super::router::Router;
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

/// What deals with webhooks.
pub struct Worker {
    pub books: Books,
    pub sender: Arc<Sender>,
    /// Without a policy nothing follows from an invoice.
    pub dunning: Option<(Policy, Router)>,
    pub wake: Arc<Notify>,
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

    async fn forget(&self) {
        match self.books.with(|l| l.forget_webhooks(now_ms())).await {
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

    /// All that is due, where no other replica does it.
    pub async fn handle_due(&self) {
        while self.books.held().borrow().house().is_some() {
            let handled = match self.books.with(|l| l.next_webhook(now_ms())).await {
                Ok(None) => return,
                Ok(Some(webhook)) => self.handle(webhook).await,
                Err(error) => Err(error),
            };
            if let Err(error) = handled {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "webhooks can't be looked up"
                );
                return;
            }
        }
    }

    async fn handle(&self, webhook: Webhook) -> Result<(), LedgerError> {
        let handled = if webhook.kind == METER_ERRORS {
            self.meter_errors(&webhook).await
        } else {
            self.invoice(&webhook).await
        };
        match handled {
            Ok(()) => self.books.with(move |l| l.webhook_done(&webhook.id)).await,
            Err(error) => {
                let problem = format!("{error:#}");
                tracing::warn!(
                    event = webhook.id,
                    kind = webhook.kind,
                    problem,
                    "a webhook has to wait"
                );
                self.books
                    .with(move |l| l.webhook_again(&webhook, &problem, now_ms()))
                    .await
            }
        }
    }

    /// Something became of an invoice: looks at it as it is now, and at its tenant.
    async fn invoice(&self, webhook: &Webhook) -> anyhow::Result<()> {
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
        let of = tenant.to_owned();
        let account = self.books.with(move |l| l.account(&of)).await?;
        let (account, newly_due) = account.with(policy, &invoice);
        if !account.concerns_router() {
            return Ok(());
        }
        let seen = router.seen(tenant).await?;
        let (account, action) = account.decide(newly_due, seen);
        self.keep(tenant, &account).await?;
        let Some(action) = action else {
            if account.hold == Hold::Operators {
                tracing::info!(
                    tenant,
                    invoice = invoice.id,
                    "an operator suspended it already"
                );
            }
            return Ok(());
        };
        if router.act(tenant, action).await? == Seen::Unknown {
            let (account, _) = account.decide(false, Seen::Unknown);
            return self.keep(tenant, &account).await;
        }
        let account = account.done(action);
        self.keep(tenant, &account).await?;
        tracing::warn!(
            tenant,
            invoice = invoice.id,
            ?action,
            due = account.due.len(),
            "dunning"
        );
        Ok(())
    }

    async fn keep(
        &self,
        tenant: &str,
        account: &weir_meter_core::dunning::Account,
    ) -> anyhow::Result<()> {
        let problem = (account.hold == Hold::Unknown).then(|| {
            tracing::error!(
                tenant,
                "the router does not know a tenant that has to be suspended"
            );
            "the router does not know this tenant"
        });
        let (tenant, account) = (tenant.to_owned(), account.clone());
        self.books
            .with(move |l| l.set_account(&tenant, &account, problem, now_ms()))
            .await?;
        Ok(())
    }

    /// A meter did not count events that Stripe took: keeps which, and has the ledger
    /// look at that meter again.
    async fn meter_errors(&self, webhook: &Webhook) -> anyhow::Result<()> {
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
        let scopes = self.books.asked();
        self.books
            .with(move |ledger| {
                ledger.note_meter_errors(&id, &about, &report, at_ms)?;
                match &meter {
                    Some(meter) => recheck(ledger, &scopes, meter, (since_ms, until_ms)),
                    None => Ok(()),
                }
            })
            .await?;
        Ok(())
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
