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
    keys::Keyring,
    proto::usage::{PublishRequest, PublishResponse, UsageEvent},
    usage::{self, PROTO_CONTENT_TYPE, PUBLISH_PATH, cloudevents},
};

use crate::{
    api::{Ingest, plain},
    config::Producer,
    stream::{AppendError, Batch},
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
    let batch = sort(request.events, producer, &ingest.keys);
    let response = PublishResponse {
        accepted: u32::try_from(batch.events.len()).unwrap_or(u32::MAX),
        quarantined: u32::try_from(batch.quarantined.len()).unwrap_or(u32::MAX),
    };
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

/// Tells what can be booked from what is set aside, with the reason.
fn sort(events: Vec<UsageEvent>, producer: &Producer, keys: &Keyring) -> Batch {
    let mut batch = Batch::default();
    for event in events {
        let bytes = event.encode_to_vec();
        match line(event, producer, keys) {
            Ok(line) => batch.events.push(line),
            Err(reason) => {
                tracing::warn!(producer = %producer.name, reason, "an event was quarantined");
                batch.quarantined.push((bytes, reason));
            }
        }
    }
    batch
}

fn line(event: UsageEvent, producer: &Producer, keys: &Keyring) -> Result<String, String> {
    let checked = usage::check(event, keys).map_err(|e| e.to_string())?;
    if checked.witness != producer.witness {
        return Err(format!("witness is not what {} may send", producer.name));
    }
    let age_ms = weir_process::now_ms().saturating_sub(checked.request_id.time_ms());
    if age_ms > AGE_MAX_MS {
        return Err("request_id is older than 35 days".to_owned());
    }
    if age_ms < AHEAD_MAX_MS.saturating_neg() {
        return Err("request_id is more than 5 minutes ahead".to_owned());
    }
    cloudevents::encode(checked.event).map_err(|e| e.to_string())
}

/// What Stripe would no longer take: 35 days.
const AGE_MAX_MS: i64 = 35 * 86_400_000;

/// What Stripe would not yet take: five minutes.
const AHEAD_MAX_MS: i64 = 300_000;
