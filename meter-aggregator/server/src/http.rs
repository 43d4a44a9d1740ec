//! What producers send: usage events, taken once they are durable.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use prost::Message as _;
use weir_process::bears;
use weir_wire::{
    headers as names,
    proto::usage::PublishRequest,
    usage::{PROTO_CONTENT_TYPE, PUBLISH_PATH},
};

use crate::{
    api::{Ingest, plain},
    ingest::{response, sort},
    stream::AppendError,
};

/// The largest batch, in bytes.
const BODY_MAX_BYTES: usize = 8 << 20;

/// The producers' paths.
pub fn routes() -> Router<Arc<Ingest>> {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route(PUBLISH_PATH, post(publish))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

async fn publish(
    State(ingest): State<Arc<Ingest>>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let Some(producer) = ingest.producers.iter().find(|p| bears(&headers, &p.token)) else {
        return plain(
            StatusCode::UNAUTHORIZED,
            "authorization: no producer has this token",
        );
    };
    // A tenant's request that was led here by mistake is not a producer's.
    if headers.contains_key(names::TENANT_CONTEXT) {
        return plain(
            StatusCode::FORBIDDEN,
            &format!("{}: not for service methods", names::TENANT_CONTEXT),
        );
    }
    if headers.get(header::CONTENT_TYPE).map(|v| v.as_bytes())
        != Some(PROTO_CONTENT_TYPE.as_bytes())
    {
        return plain(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-type: must be application/proto",
        );
    }
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return plain(rejection.status(), "body: too large or cut"),
    };
    let Ok(request) = PublishRequest::decode(body) else {
        return plain(StatusCode::BAD_REQUEST, "body: not a PublishRequest");
    };
    let batch = sort(request.events, producer, &ingest.keys, |_| None);
    let response = response(&batch);
    match ingest.stream.append(batch).await {
        Ok(()) => (
            StatusCode::ACCEPTED,
            [(header::CONTENT_TYPE, PROTO_CONTENT_TYPE)],
            response.encode_to_vec(),
        )
            .into_response(),
        Err(AppendError::Busy) => {
            let mut response = plain(StatusCode::TOO_MANY_REQUESTS, "the stream is busy");
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, http::HeaderValue::from_static("1"));
            response
        }
        Err(error @ AppendError::Failed) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
    }
}
