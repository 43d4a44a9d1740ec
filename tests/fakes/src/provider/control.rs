//! The control API under `/__fake/`.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Fault, Provider};
use crate::control::{fault_routes, unknown};

/// How many requests are not finished, on the answer to `GET /__fake/log`.
const OPEN_REQUESTS: HeaderName = HeaderName::from_static("x-fake-open-requests");

pub(super) fn routes() -> Router<Provider> {
    Router::new()
        .merge(fault_routes::<Fault, Provider>())
        .route(
            "/__fake/log",
            axum::routing::get(read_log).delete(clear_log),
        )
        .route("/__fake/{*rest}", axum::routing::any(unknown))
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
