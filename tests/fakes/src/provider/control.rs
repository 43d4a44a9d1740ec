//! The control API under `/__fake/`.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::{Fault, Provider};

/// How many requests are not finished, on the answer to `GET /__fake/log`.
const OPEN_REQUESTS: HeaderName = HeaderName::from_static("x-fake-open-requests");

pub(super) fn routes() -> Router<Provider> {
    Router::new()
        .route(
            "/__fake/faults",
            post(add_fault).delete(clear_faults).get(list_faults),
        )
        .route(
            "/__fake/log",
            axum::routing::get(read_log).delete(clear_log),
        )
        .route("/__fake/{*rest}", axum::routing::any(unknown))
}

async fn add_fault(State(provider): State<Provider>, body: Bytes) -> Response {
    let fault = serde_json::from_slice::<Fault>(&body).map_err(|error| error.to_string());
    match fault.and_then(|fault| fault.validate().map(|()| fault)) {
        Ok(fault) => {
            tracing::info!(?fault, "fault added");
            provider.add_fault(fault.clone());
            Json(fault).into_response()
        }
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
    }
}

async fn list_faults(State(provider): State<Provider>) -> Json<Vec<Fault>> {
    Json(provider.shared.faults.list())
}

async fn clear_faults(State(provider): State<Provider>) -> StatusCode {
    provider.shared.faults.clear();
    StatusCode::NO_CONTENT
}

async fn read_log(State(provider): State<Provider>) -> Response {
    // Counted first: 0 then means that the entries are complete.
    let open = provider.open_requests();
    let mut response = Json(provider.log()).into_response();
    response
        .headers_mut()
        .insert(OPEN_REQUESTS, HeaderValue::from(open));
    response
}

async fn clear_log(State(provider): State<Provider>) -> StatusCode {
    provider.shared.log.clear();
    StatusCode::NO_CONTENT
}

async fn unknown() -> Response {
    refuse(StatusCode::NOT_FOUND, "no such control path")
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
