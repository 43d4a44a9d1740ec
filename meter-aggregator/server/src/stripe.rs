//! The client for Stripe's billing API.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use reqwest::{Client, RequestBuilder, header::AUTHORIZATION};
use serde::Deserialize;
use weir_meter_core::{intent::Attempt, meter::Meter};

use crate::{config::StripeSettings, ledger::Intent};

/// The API version that the requests are written for.
const VERSION: &str = "2026-10-28.endive";

const TIMEOUT: Duration = Duration::from_secs(20);

/// How a meter wants its events.
#[derive(Debug, Clone)]
pub struct MeterMapping {
    event_name: String,
    customer_key: String,
    value_key: String,
}

/// The meters as Stripe has them, found good.
pub type Mappings = BTreeMap<Meter, MeterMapping>;

/// One Stripe account.
pub struct Stripe {
    settings: StripeSettings,
    http: Client,
}

#[derive(Deserialize)]
struct List {
    data: Vec<MeterObject>,
    has_more: bool,
}

#[derive(Deserialize)]
struct MeterObject {
    id: String,
    event_name: String,
    default_aggregation: Aggregation,
    customer_mapping: PayloadKey,
    value_settings: PayloadKey,
}

#[derive(Deserialize)]
struct Aggregation {
    formula: String,
}

#[derive(Deserialize)]
struct PayloadKey {
    event_payload_key: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Deserialize)]
struct ErrorObject {
    message: Option<String>,
}

/// Why the meters can't be used.
pub enum MeterError {
    /// Stripe was not reached or did not answer well; try again.
    Unknown(anyhow::Error),
    /// They are not what they must be; the operator has to mend it.
    Wrong(String),
}

impl Stripe {
    pub fn new(settings: StripeSettings) -> anyhow::Result<Self> {
        let http = Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { settings, http })
    }

    pub fn account(&self) -> &str {
        &self.settings.account
    }

    /// The tenants that have a customer.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.settings.customers.keys().map(String::as_str)
    }

    /// The customer of a tenant.
    pub fn customer(&self, tenant: &str) -> Option<&str> {
        self.settings.customers.get(tenant).map(String::as_str)
    }

    /// Looks up the meters and checks that each is active and a plain sum: of
    /// any other, revisions by difference would not add up.
    pub async fn meters(&self) -> Result<Mappings, MeterError> {
        let found = self.list_meters().await.map_err(MeterError::Unknown)?;
        let mut mappings = Mappings::new();
        for (meter, event_name) in &self.settings.meters {
            let Some(object) = found.iter().find(|m| &m.event_name == event_name) else {
                return Err(MeterError::Wrong(format!(
                    "stripe.meters.{meter}: Stripe has no active meter with the event_name {event_name}"
                )));
            };
            let formula = &object.default_aggregation.formula;
            if formula != "sum" {
                return Err(MeterError::Wrong(format!(
                    "stripe.meters.{meter}: the meter {event_name} must aggregate by sum, found {formula}"
                )));
            }
            mappings.insert(
                *meter,
                MeterMapping {
                    event_name: event_name.clone(),
                    customer_key: object.customer_mapping.event_payload_key.clone(),
                    value_key: object.value_settings.event_payload_key.clone(),
                },
            );
        }
        Ok(mappings)
    }

    async fn list_meters(&self) -> anyhow::Result<Vec<MeterObject>> {
        let mut all: Vec<MeterObject> = Vec::new();
        loop {
            let mut query = vec![("limit", "100"), ("status", "active")];
            if let Some(last) = all.last() {
                query.push(("starting_after", &last.id));
            }
            let query: String = query
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join("&");
            let url = format!("{}/v1/billing/meters?{query}", self.settings.api_base);
            let response = self
                .sign(self.http.get(url))
                .send()
                .await
                .map_err(reqwest::Error::without_url)
                .context("Stripe was not reached")?;
            if !response.status().is_success() {
                bail!(
                    "Stripe answered {} to the list of meters",
                    response.status()
                );
            }
            let page: List = response.json().await.map_err(reqwest::Error::without_url)?;
            let more = page.has_more && !page.data.is_empty();
            all.extend(page.data);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Sends one meter event, once.
    pub async fn send(&self, intent: &Intent, mapping: &MeterMapping, customer: &str) -> Attempt {
        let form = [
            ("event_name".to_owned(), mapping.event_name.clone()),
            (
                format!("payload[{}]", mapping.customer_key),
                customer.to_owned(),
            ),
            (
                format!("payload[{}]", mapping.value_key),
                intent.delta.to_string(),
            ),
            ("identifier".to_owned(), intent.identifier.clone()),
            ("timestamp".to_owned(), intent.timestamp_s.to_string()),
        ];
        let url = format!("{}/v1/billing/meter_events", self.settings.api_base);
        let call = self
            .sign(self.http.post(url))
            // Stripe replays a stored answer to a known key, a 500 as well:
            // after each answer that was received the key is another one.
            .header(
                "Idempotency-Key",
                format!("{}-{}", intent.identifier, intent.answers),
            )
            .form(&form)
            .send();
        let response = match call.await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(error = %error.without_url(), "Stripe did not answer");
                return Attempt::Unanswered;
            }
        };
        let status = response.status().as_u16();
        let should_retry = match response
            .headers()
            .get("stripe-should-retry")
            .map(|v| v.as_bytes())
        {
            Some(b"true") => Some(true),
            Some(b"false") => Some(false),
            _ => None,
        };
        let message = match response.json::<ErrorBody>().await {
            Ok(body) => body.error.message.unwrap_or_default(),
            Err(_) => String::new(),
        };
        Attempt::Answered {
            status,
            message,
            should_retry,
        }
    }

    fn sign(&self, request: RequestBuilder) -> RequestBuilder {
        request
            .header(AUTHORIZATION, format!("Bearer {}", self.settings.api_key))
            .header("Stripe-Version", VERSION)
    }
}
