//! One Stripe account: what is asked of it and sent to it.

mod client;
mod meters;

use reqwest::header::HeaderValue;
use weir_meter_core::{
    hour::Hour,
    intent::Attempt,
    meter::Meter,
    stripe::{
        self, Call, CoreEvent, Invoice, InvoiceLine, MeterEvent, MeterObject, Price, Summary,
    },
};

use self::client::Client;
pub use self::{
    client::StripeError,
    meters::{Mappings, MeterError},
};
use crate::config::StripeSettings;

/// One Stripe account.
pub struct Stripe {
    settings: StripeSettings,
    client: Client,
}

impl Stripe {
    pub fn new(settings: StripeSettings) -> anyhow::Result<Self> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", settings.api_key))
            .map_err(|_| anyhow::anyhow!("stripe.api_key_env: holds what no header can"))?;
        bearer.set_sensitive(true);
        let client = Client::new(&settings.api_base, bearer, settings.calls_per_second)?;
        Ok(Self { settings, client })
    }

    /// Makes calls at that part of what Stripe allows; see [`Client::share`].
    pub fn share(&self, part: u16, whole: u16) {
        self.client.share(part, whole);
    }

    pub fn account(&self) -> &str {
        &self.settings.account
    }

    /// The tenants that have a customer.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.settings.customers.keys().map(String::as_str)
    }

    /// The meters that are configured.
    pub fn configured_meters(&self) -> impl Iterator<Item = &Meter> {
        self.settings.meters.keys()
    }

    /// The customer of a tenant.
    pub fn customer(&self, tenant: &str) -> Option<&str> {
        self.settings.customers.get(tenant).map(String::as_str)
    }

    /// The tenant of a customer: one at the most, which the configuration's check says.
    pub fn tenant(&self, customer: &str) -> Option<&str> {
        let mut all = self.settings.customers.iter();
        let found = all.find(|(_, known)| *known == customer);
        found.map(|(tenant, _)| tenant.as_str())
    }

    /// Looks up the meters and checks that each is active and a plain sum: of
    /// any other, revisions by difference would not add up.
    pub async fn meters(&self) -> Result<Mappings, MeterError> {
        let found = self
            .client
            .all(|after| Ok(Call::meters(after)), |m: &MeterObject| &m.id)
            .await
            .map_err(|error| MeterError::Unknown(error.into()))?;
        meters::check(&self.settings.meters, &found).map_err(MeterError::Wrong)
    }

    /// Sends one meter event, once, when the limiter lets it, unless that is too late then.
    pub async fn send_unless(
        &self,
        event: &MeterEvent<'_>,
        is_late: impl FnOnce() -> bool,
    ) -> Option<Attempt> {
        let call = Call::meter_event(event);
        self.client.turn(&call).await;
        if is_late() {
            return None;
        }
        Some(match self.client.now(&call).await {
            Ok((answer, _)) => stripe::attempt(Some(answer)),
            Err(error) => {
                tracing::warn!(
                    identifier = event.identifier,
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "Stripe did not answer"
                );
                stripe::attempt(None)
            }
        })
    }

    /// What a meter counted of a customer in each hour of `[start, end)` that has
    /// anything, in the order of hours.
    pub async fn summaries(
        &self,
        meter_id: &str,
        customer: &str,
        hours: (Hour, Hour),
    ) -> Result<Vec<(Hour, i64)>, StripeError> {
        let found = self
            .client
            .all(
                |after| Call::summaries(meter_id, customer, hours, after),
                |s: &Summary| &s.id,
            )
            .await?;
        let mut counted = Vec::with_capacity(found.len());
        for summary in found {
            let hour = Hour::of_ms(summary.start_time.saturating_mul(1_000));
            let window = (summary.start_time, summary.end_time);
            if window != (hour.start_s(), hour.last_s().saturating_add(1)) {
                return Err(StripeError::Window(window.0, window.1));
            }
            counted.push((hour, summary.value()?));
        }
        counted.sort_unstable();
        Ok(counted)
    }

    /// An invoice as it is now.
    pub async fn invoice(&self, id: &str) -> Result<Invoice, StripeError> {
        self.client.get(&Call::invoice(id)?).await
    }

    /// An invoice's lines.
    pub async fn invoice_lines(&self, id: &str) -> Result<Vec<InvoiceLine>, StripeError> {
        self.client
            .all(
                |after| Call::invoice_lines(id, after),
                |l: &InvoiceLine| &l.id,
            )
            .await
    }

    /// A price: of which meter a line is.
    pub async fn price(&self, id: &str) -> Result<Price, StripeError> {
        self.client.get(&Call::price(id)?).await
    }

    /// An event of which a webhook told nothing but the id.
    pub async fn core_event(&self, id: &str) -> Result<CoreEvent, StripeError> {
        self.client.get(&Call::core_event(id)?).await
    }
}

#[cfg(test)]
pub mod stub;
#[cfg(test)]
mod tests;
