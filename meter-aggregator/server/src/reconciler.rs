//! Asks Stripe's sums what it counted of what it was sent.

use std::{collections::BTreeMap, sync::Arc};

use weir_meter_core::{
    hour::Hour,
    lease::Scope,
    ledger::{
        expire,
        reconcile::{self, Question},
    },
};
use weir_meter_store::ledger::LedgerError;
use weir_process::now_ms;

use crate::{
    books::Books,
    sender::{SendError, Sender},
};

/// The most intents that one round asks about.
const ROUND_MAX: usize = 1_000;

/// After how many questions in a row without an answer the round ends.
const UNANSWERED_MAX: usize = 3;

/// What asks, and writes down what follows.
pub struct Reconciler {
    books: Books,
    sender: Arc<Sender>,
}

impl Reconciler {
    pub fn new(books: Books, sender: Arc<Sender>) -> Self {
        Self { books, sender }
    }

    /// Asks about all that is due, a question at a time, and expires what is too old. Says
    /// how many hours were answered. What was not is asked the next time.
    pub async fn run(&self, scope: Scope) -> Result<usize, SendError> {
        let policy = self.books.billing().policy.clone();
        let questions = self
            .books
            .with(move |ledger| {
                ledger.transaction(scope, |change| {
                    let now_ms = now_ms();
                    expire::expire(change, &policy, now_ms, ROUND_MAX)?;
                    reconcile::due(change, &policy, now_ms, ROUND_MAX)
                })
            })
            .await?;
        let (mut asked, mut unanswered) = (0_usize, 0_usize);
        for question in questions {
            let hours = question.hours.len();
            if self.ask(scope, question).await? {
                asked = asked.saturating_add(hours);
                unanswered = 0;
            } else {
                unanswered = unanswered.saturating_add(1);
            }
            if unanswered >= UNANSWERED_MAX {
                break;
            }
        }
        Ok(asked)
    }

    /// Asks one question, and takes its answer; says whether there was one. Without one it
    /// is asked again later, so that those behind it get their turn.
    async fn ask(&self, scope: Scope, question: Question) -> Result<bool, SendError> {
        let sums = self.sums(&question).await;
        let is_answered = sums.is_some();
        let policy = self.books.billing().policy.clone();
        let account = self.sender.stripe.account().to_owned();
        self.books
            .with(move |ledger| {
                ledger.transaction(scope, |change| {
                    for hour in &question.hours {
                        let of = (&question.tenant, &question.meter, *hour);
                        let Some(sums) = &sums else {
                            reconcile::unanswered(change, of, &policy, now_ms())?;
                            continue;
                        };
                        // An hour of which there is no sum has none.
                        let sum = sums.get(hour).copied().unwrap_or(0);
                        reconcile::answer(change, of, sum, &account, &policy, now_ms())?;
                    }
                    Ok::<_, LedgerError>(())
                })
            })
            .await?;
        Ok(is_answered)
    }

    /// Stripe's sums of those hours; nothing where it does not tell them.
    async fn sums(&self, question: &Question) -> Option<BTreeMap<Hour, i64>> {
        let (tenant, meter) = (&question.tenant, &question.meter);
        let (first, last) = question.hours.first().zip(question.hours.last())?;
        let mappings = self.sender.mappings().await.ok()?;
        let stripe = &self.sender.stripe;
        let (Some(mapping), Some(customer)) =
            (mappings.get(meter), stripe.customer(tenant.as_str()))
        else {
            tracing::warn!(%tenant, %meter, "has no meter or customer to be asked about any more");
            return None;
        };
        // Up to the hour after the last.
        let hours = (*first, Hour(last.0.saturating_add(1)));
        match stripe.summaries(&mapping.id, customer, hours).await {
            Ok(sums) => Some(sums.into_iter().collect()),
            Err(error) => {
                tracing::warn!(%tenant, %meter, error = format!("{:#}", anyhow::Error::new(error)), "Stripe's sums can't be read");
                None
            }
        }
    }
}
