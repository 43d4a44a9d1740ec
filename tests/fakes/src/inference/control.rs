//! The control API under `/__fake/`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRef, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{faults::Fault, log::Log};
use crate::control::{Faults, fault_routes, unknown};

/// How many requests are not finished, on the answer to `GET /__fake/log`.
const OPEN_REQUESTS: HeaderName = HeaderName::from_static("x-fake-open-requests");

/// `/__fake/...` and `/healthz`.
pub(crate) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Faults<Fault>: FromRef<S>,
    Arc<Log>: FromRef<S>,
{
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .merge(fault_routes::<Fault, S>())
        .route("/__fake/log", get(read_log).delete(clear_log))
        .route("/__fake/{*rest}", any(unknown))
}

async fn read_log(State(log): State<Arc<Log>>) -> Response {
    // Counted first: 0 then means that the entries are complete.
    let open = log.open_requests();
    let mut response = Json(log.entries()).into_response();
    response
        .headers_mut()
        .insert(OPEN_REQUESTS, HeaderValue::from(open));
    response
}

async fn clear_log(State(log): State<Arc<Log>>) -> StatusCode {
    log.clear();
    StatusCode::NO_CONTENT
}
