//! Takes intents to Stripe, one call at a time.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::Mutex;
use weir_meter_core::intent::{self, Attempt, Next};

use weir_process::now_ms;

use crate::{
    books::Books,
    ledger::{Intent, LedgerError},
    stripe::{Mappings, MeterError, Stripe},
};

/// The way from the ledger to Stripe.
pub struct Sender {
    pub stripe: Stripe,
    books: Books,
    /// The meters, once they were found good. Who holds it, sends.
    mappings: Mutex<Option<Mappings>>,
    billable: Arc<BTreeSet<String>>,
}

/// Why nothing more is sent just now.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The meters can't be looked up.
    #[error("the meters can't be checked: {0}")]
    Meters(String),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Sender {
    pub fn new(stripe: Stripe, books: Books) -> Self {
        Self {
            billable: Arc::new(stripe.tenants().map(str::to_owned).collect()),
            stripe,
            books,
            mappings: Mutex::new(None),
        }
    }

    /// The tenants that have a customer.
    pub fn billable(&self) -> Arc<BTreeSet<String>> {
        self.billable.clone()
    }

    /// Looks the meters up once, so that a wrong one stops the start.
    pub async fn check_meters(&self) -> Result<(), MeterError> {
        let mut mappings = self.mappings.lock().await;
        if mappings.is_none() {
            *mappings = Some(self.stripe.meters().await?);
        }
        Ok(())
    }

    /// Plans the hours that are over, or all there are, and says how many
    /// intents that made.
    pub async fn plan(&self, all: bool) -> Result<usize, LedgerError> {
        let account = self.stripe.account().to_owned();
        let billable = self.billable();
        let now_s = now_ms().div_euclid(1_000);
        self.books
            .with(move |ledger| ledger.plan(&account, &billable, now_s, all))
            .await
    }

    /// Sends every intent that is due.
    pub async fn send_due(&self) -> Result<(), SendError> {
        if let Err(error) = self.check_meters().await {
            return Err(SendError::Meters(match error {
                MeterError::Unknown(error) => format!("{error:#}"),
                MeterError::Wrong(message) => message,
            }));
        }
        // Held over each call: one at a time, whoever asks.
        let mappings = self.mappings.lock().await;
        let Some(mappings) = mappings.as_ref() else {
            return Ok(());
        };
        while let Some(intent) = self.books.with(|l| l.start_attempt(now_ms())).await? {
            let (answered, next) = self.attempt(&intent, mappings).await;
            if let Next::Held(reason) = &next {
                tracing::error!(identifier = %intent.identifier, reason, "an intent is held");
            }
            self.books
                .with(move |l| l.finish_attempt(&intent, answered, &next, now_ms()))
                .await?;
        }
        Ok(())
    }

    async fn attempt(&self, intent: &Intent, mappings: &Mappings) -> (bool, Next) {
        let Some(customer) = self.stripe.customer(&intent.tenant) else {
            let reason = format!(
                "tenants.{}.stripe_customer is not configured",
                intent.tenant
            );
            return (false, Next::Held(reason));
        };
        let Some(mapping) = mappings.get(&intent.meter) else {
            let reason = format!("stripe.meters.{} is not configured", intent.meter);
            return (false, Next::Held(reason));
        };
        let attempt = self.stripe.send(intent, mapping, customer).await;
        let first = intent.first_attempt_ms.unwrap_or_else(now_ms);
        let next = intent::after(&attempt, first, now_ms());
        (matches!(attempt, Attempt::Answered { .. }), next)
    }
}
