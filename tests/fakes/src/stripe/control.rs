//! The control API under `/__fake/`.

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fault, Stripe, bills, error::StripeError, store::Store, webhooks::Endpoint};
use crate::control::{fault_routes, refuse, unknown};

pub(super) fn routes() -> Router<Stripe> {
    Router::new()
        .merge(fault_routes::<Fault, Stripe>())
        .route("/__fake/state", get(read_state).delete(clear_state))
        .route("/__fake/clock", post(set_clock).get(read_clock))
        .route("/__fake/invoices", post(finalize))
        .route("/__fake/invoices/{id}", post(change_invoice))
        .route(
            "/__fake/webhooks",
            post(add_webhook).get(list_webhooks).delete(clear_webhooks),
        )
        .route("/__fake/{*rest}", any(unknown))
}

/// The body of `POST /__fake/clock`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClockChange {
    /// Seconds added to the machine's clock.
    offset_s: Option<i64>,
    /// Seconds that an event takes to show in summaries and previews.
    summary_lag_s: Option<i64>,
}

async fn read_state(State(stripe): State<Stripe>) -> Json<Value> {
    Json(stripe.state())
}

async fn clear_state(State(stripe): State<Stripe>) -> StatusCode {
    *stripe.store() = Store::default();
    StatusCode::NO_CONTENT
}

async fn set_clock(State(stripe): State<Stripe>, body: Bytes) -> Response {
    match serde_json::from_slice::<ClockChange>(&body) {
        Ok(change) => {
            if let Some(offset_s) = change.offset_s {
                stripe.set_clock_offset_s(offset_s);
            }
            if let Some(lag_s) = change.summary_lag_s {
                stripe.store().summary_lag_s = lag_s;
            }
            read_clock(State(stripe)).await.into_response()
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn read_clock(State(stripe): State<Stripe>) -> Json<Value> {
    Json(json!({"now_s": stripe.now_s()}))
}

/// The body of `POST /__fake/invoices`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewInvoice {
    customer: String,
}

async fn finalize(State(stripe): State<Stripe>, body: Bytes) -> Response {
    let now = stripe.now_s();
    match serde_json::from_slice::<NewInvoice>(&body) {
        Ok(new) => answer(bills::finalize(&mut stripe.store(), &new.customer, now)),
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn change_invoice(
    State(stripe): State<Stripe>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let now = stripe.now_s();
    match serde_json::from_slice::<bills::Change>(&body) {
        Ok(change) => {
            let changed = bills::change(&mut stripe.store(), &id, &change, now);
            stripe.post_events();
            answer(changed)
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn add_webhook(State(stripe): State<Stripe>, body: Bytes) -> Response {
    match serde_json::from_slice::<Endpoint>(&body) {
        Ok(endpoint) => {
            stripe.store().endpoints.push(endpoint);
            list_webhooks(State(stripe)).await.into_response()
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn list_webhooks(State(stripe): State<Stripe>) -> Json<Value> {
    Json(json!(stripe.store().endpoints))
}

async fn clear_webhooks(State(stripe): State<Stripe>) -> StatusCode {
    stripe.store().endpoints.clear();
    StatusCode::NO_CONTENT
}

fn answer(result: Result<Value, StripeError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
            (status, Json(error.body())).into_response()
        }
    }
}
