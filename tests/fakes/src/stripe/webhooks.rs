//! Webhooks: events, and their way to whoever registered at `POST /__fake/webhooks`.

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, Request, header};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    Stripe,
    error::StripeError,
    routes::Call,
    store::{Store, long_id},
};
use crate::ids;

/// How often an event is posted, at the most.
const TRIES: u32 = 1_000;

/// The longest pause between two of them. Stripe's are hours; tests don't wait so long.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which form of events an endpoint gets: at Stripe a destination has one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    /// With its object.
    Snapshot,
    /// With its object's id.
    Thin,
}

/// Who gets events.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoint {
    url: String,
    #[serde(skip_serializing)]
    secret: String,
    /// Both where absent.
    form: Option<Form>,
}

/// An event that is to be posted.
#[derive(Debug)]
pub(super) struct Event {
    form: Form,
    body: Value,
}

impl Store {
    /// Tells what became of an object.
    pub(super) fn tell(&mut self, kind: &str, object: Value, now: i64) {
        let body = json!({
            "id": long_id("evt_1"),
            "object": "event",
            "api_version": super::api::DEFAULT_VERSION,
            "created": now,
            "data": {"object": object},
            "livemode": false,
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null},
            "type": kind,
        });
        let form = Form::Snapshot;
        self.outbox.push(Event { form, body });
    }

    /// Tells of an event that was accepted and bills nobody. Stripe gathers them for a
    /// while; here each is a report of its own.
    pub(super) fn report(&mut self, meter: &str, identifier: &str, customer: &str, now: i64) {
        // chrono without its formats writes `2026-11-10 12:34:56 UTC`.
        let time = |s: i64| {
            chrono::DateTime::from_timestamp(s, 0).map(|at| {
                at.to_string()
                    .replacen(' ', "T", 1)
                    .replace(" UTC", ".000Z")
            })
        };
        let thin = json!({
            "id": ids::random("evt_test_", 50),
            "object": "v2.core.event",
            "context": null,
            "created": time(now),
            "livemode": false,
            "reason": null,
            "related_object": {
                "id": meter,
                "type": "billing.meter",
                "url": format!("/v1/billing/meters/{meter}"),
            },
            "type": "v1.billing.meter.error_report_triggered",
        });
        let mut whole = thin.clone();
        if let Some(object) = whole.as_object_mut() {
            let message = format!("No such customer: '{customer}'.");
            let data = json!({
                "developer_message_summary": "There is 1 invalid event",
                "reason": {
                    "error_count": 1,
                    "error_types": [{
                        "code": "meter_event_customer_not_found",
                        "error_count": 1,
                        "sample_errors": [
                            {"error_message": message, "request": {"identifier": identifier}}
                        ],
                    }],
                },
                "validation_start": time(now),
                "validation_end": time(now.saturating_add(10)),
            });
            object.insert("data".to_owned(), data);
            object.insert("changes".to_owned(), Value::Null);
        }
        self.core_events.push(whole);
        let form = Form::Thin;
        self.outbox.push(Event { form, body: thin });
    }
}

/// `GET /v2/core/events/{id}`.
pub(super) fn retrieve(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let found = store.core_events.iter().find(|e| e["id"] == call.id);
    found
        .cloned()
        .ok_or_else(|| StripeError::no_such("event", call.id, "id"))
}

impl Stripe {
    /// Posts what is to be told, each to each endpoint by itself: what comes late comes
    /// behind what was told after it.
    pub(super) fn post_events(&self) {
        let (events, endpoints) = {
            let mut store = self.store();
            (std::mem::take(&mut store.outbox), store.endpoints.clone())
        };
        for event in events {
            let body = Bytes::from(event.body.to_string());
            for endpoint in &endpoints {
                if endpoint.form.is_none_or(|form| form == event.form) {
                    tokio::spawn(post(endpoint.clone(), body.clone()));
                }
            }
        }
    }
}

async fn post(endpoint: Endpoint, body: Bytes) {
    let mut pause = Duration::from_millis(50);
    for _ in 0..TRIES {
        match once(&endpoint, body.clone()).await {
            Ok(status) if status.is_success() => return,
            Ok(status) => tracing::info!(%status, "a webhook is posted again"),
            Err(error) => tracing::info!(error, "a webhook is posted again"),
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(PAUSE_MAX);
    }
    tracing::warn!(url = endpoint.url, "a webhook is given up");
}

async fn once(endpoint: &Endpoint, body: Bytes) -> Result<http::StatusCode, String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(&endpoint.url)
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        // By the machine's clock, which the receiver's is compared with.
        .header(
            "stripe-signature",
            sign(&endpoint.secret, ids::now_s(), &body),
        )
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    match tokio::time::timeout(TIMEOUT, client.request(request)).await {
        Ok(Ok(response)) => Ok(response.status()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// `Stripe-Signature`: HMAC-SHA256 over the time, a dot and the body.
fn sign(secret: &str, time: i64, body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(format!("{time}.").as_bytes());
    mac.update(body);
    let digits = mac.finalize().into_bytes();
    let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={time},v1={digits}")
}
