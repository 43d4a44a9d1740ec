//! What producers send over HTTP: usage events, taken once they are durable.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Request, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use prost::Message as _;
use tower::ServiceExt as _;
use weir_meter_store::stream::{AppendError, Way};
use weir_wire::{
    proto::usage::PublishRequest,
    usage::{PROTO_CONTENT_TYPE, PROTO_CONTENT_TYPE_OLD, PUBLISH_PATH},
};

use crate::{
    api::{Parts, plain},
    ingest::{BODY_MAX_BYTES, Denied, EVENTS_MAX, admit, is_too_many},
};

/// The producers' paths.
pub fn routes() -> Router<Arc<Parts>> {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/health/billing", get(billing))
        .route("/metrics", get(metrics))
        .route(PUBLISH_PATH, post(publish))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

/// 200 where billing keeps up; 503 with the reasons where it does not. It is no reason to
/// send the process no events.
async fn billing(State(parts): State<Arc<Parts>>) -> Response {
    match parts.books.metrics().behind(&parts).await {
        Ok(reasons) if reasons.is_empty() => plain(StatusCode::OK, "ok"),
        Ok(reasons) => {
            let texts: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            plain(StatusCode::SERVICE_UNAVAILABLE, &texts.join("\n"))
        }
        Err(error) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("it is not known how far billing is: {error:#}"),
        ),
    }
}

async fn metrics(State(parts): State<Arc<Parts>>) -> Response {
    match parts.books.metrics().text(&parts).await {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Everything on the port. A service's path is the same by gRPC; the content type
/// tells which is meant.
pub fn with_grpc(http: Router, grpc: Router) -> Router {
    let choose = move |request: Request| {
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if is_grpc { grpc.clone() } else { http.clone() }.oneshot(request)
    };
    Router::new().fallback_service(tower::service_fn(choose))
}

/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(30);

async fn publish(State(parts): State<Arc<Parts>>, request: Request) -> Response {
    let producer = match admit(request.headers(), &parts.producers) {
        Ok(producer) => producer,
        Err(denied) => {
            let status = match denied {
                Denied::Unknown => StatusCode::UNAUTHORIZED,
                Denied::Tenant => StatusCode::FORBIDDEN,
            };
            return plain(status, &denied.to_string());
        }
    };
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let answer_type = match content_type.map(|value| value.as_bytes()) {
        Some(found) if found == PROTO_CONTENT_TYPE.as_bytes() => PROTO_CONTENT_TYPE,
        Some(found) if found == PROTO_CONTENT_TYPE_OLD.as_bytes() => PROTO_CONTENT_TYPE_OLD,
        _ => {
            return plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content-type: must be application/proto or application/x-protobuf",
            );
        }
    };
    let body = match tokio::time::timeout(BODY_TIME, Bytes::from_request(request, &())).await {
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "body: did not come in time"),
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => return plain(rejection.status(), "body: too large or cut"),
    };
    if is_too_many(&body) {
        return plain(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("body: must hold at most {EVENTS_MAX} events"),
        );
    }
    let Ok(message) = PublishRequest::decode(body) else {
        return plain(StatusCode::BAD_REQUEST, "body: not a PublishRequest");
    };
    match parts.take(message.events, producer, Way::Http).await {
        Ok(response) => (
            StatusCode::ACCEPTED,
            [(header::CONTENT_TYPE, answer_type)],
            response.encode_to_vec(),
        )
            .into_response(),
        Err(error) => refuse(error),
    }
}

fn refuse(error: AppendError) -> Response {
    let retry_after_s = match error {
        AppendError::Failed => {
            return plain(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
        }
        AppendError::Busy => 1,
        AppendError::Full { retry_after_s } => retry_after_s,
    };
    let mut response = plain(StatusCode::TOO_MANY_REQUESTS, &error.to_string());
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
    response
}
