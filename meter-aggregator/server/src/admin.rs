//! What an operator asks of the running aggregator, over HTTP.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequest as _, FromRequestParts as _, Query, Request, State},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, get, post},
};
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use weir_process::bears;

use crate::{
    api::{Parts, plain},
    operations::{Operation, Refused, path, perform},
};

/// The largest body, in bytes: events that are brought in.
const BODY_MAX_BYTES: usize = 8 << 20;

/// The admin's paths.
pub fn routes() -> Router<Arc<Parts>> {
    Router::new()
        .route(path::STATUS, reads(Operation::Status))
        .route(path::CLOSE_HOUR, changes(Operation::CloseHour))
        .route(path::EVENTS, reads(Operation::Events))
        .route(path::QUARANTINE, reads(Operation::QuarantineList))
        .route(
            path::QUARANTINE_REPLAY,
            changes(Operation::QuarantineReplay),
        )
        .route(path::BACKFILL, changes(Operation::Backfill))
        .route(path::INTENTS, reads(Operation::IntentsList))
        .route(path::INTENT_RETRY, changes(Operation::IntentRetry))
        .route(path::INTENT_CANCEL, changes(Operation::IntentCancel))
        .route(path::INTENT_ACCEPT, changes(Operation::IntentAccept))
        .route(path::ADJUSTMENTS, reads(Operation::AdjustmentsList))
        .route(
            path::ADJUSTMENTS_APPROVE,
            changes(Operation::AdjustmentsApprove),
        )
        .route(
            path::ADJUSTMENT_REJECT,
            changes(Operation::AdjustmentReject),
        )
        .route(path::RECONCILE, changes(Operation::Reconcile))
        .route(path::DISCREPANCIES, reads(Operation::Discrepancies))
        .route(path::PROVE, reads(Operation::Prove))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

/// An operation that changes nothing: its arguments are the query.
fn reads<A: DeserializeOwned + Send + 'static>(
    operation: fn(A) -> Operation,
) -> MethodRouter<Arc<Parts>> {
    get(
        move |State(parts): State<Arc<Parts>>, request: Request| async move {
            if let Some(refusal) = refuse_others(&parts, request.headers()) {
                return refusal;
            }
            let (mut head, _) = request.into_parts();
            match Query::<A>::from_request_parts(&mut head, &()).await {
                Ok(Query(arguments)) => answer(&parts, operation(arguments)).await,
                Err(rejection) => plain(StatusCode::BAD_REQUEST, &rejection.body_text()),
            }
        },
    )
}

/// An operation that changes something: its arguments are JSON.
fn changes<A: DeserializeOwned + Send + 'static>(
    operation: fn(A) -> Operation,
) -> MethodRouter<Arc<Parts>> {
    post(
        move |State(parts): State<Arc<Parts>>, request: Request| async move {
            if let Some(refusal) = refuse_others(&parts, request.headers()) {
                return refusal;
            }
            match Json::<A>::from_request(request, &()).await {
                Ok(Json(arguments)) => answer(&parts, operation(arguments)).await,
                Err(rejection) => plain(rejection.status(), &rejection.body_text()),
            }
        },
    )
}

/// An answer for whoever is not the operator, before anything is read of the request.
fn refuse_others(parts: &Parts, headers: &HeaderMap) -> Option<Response> {
    let operator = bears(headers, &parts.admin_token);
    (!operator).then(|| {
        plain(
            StatusCode::UNAUTHORIZED,
            "authorization: not the admin token",
        )
    })
}

async fn answer(parts: &Parts, operation: Operation) -> Response {
    let error = match perform(parts, operation).await {
        Ok(value) => return Json(value).into_response(),
        Err(error) => error,
    };
    let status = match error {
        Refused::Wrong(_) => StatusCode::BAD_REQUEST,
        Refused::Missing(_) => StatusCode::NOT_FOUND,
        Refused::Conflict(_) => StatusCode::CONFLICT,
        Refused::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refused::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    plain(status, &error.to_string())
}
