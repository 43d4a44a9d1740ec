//! A strict fake of OpenAI's API: chat completions (JSON and SSE), embeddings, models.
//!
//! Answers depend on the prompt alone, so a test can't pass with constants.
//! `GET /__fake/log` tells exactly what each request used and how it ended;
//! `POST /__fake/faults` makes the next ones go wrong.

mod control;
mod models;

mod chat;
mod chat_request;
mod embeddings;
mod stream;

mod answers;
mod error;
mod faults;
mod log;
mod params;
mod tokens;

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::{self, Body},
    extract::{FromRef, Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;

use self::{error::ApiError, log::Recorder};
use crate::{control::Faults, headers::media_type, ids};

pub use self::{
    faults::Fault,
    log::{Entry, Outcome},
    models::{Model, ModelKind},
    tokens::count as count_tokens,
};

/// What a fake provider accepts.
#[derive(Clone, Debug)]
pub struct Config {
    /// API keys; any other is refused with 401.
    pub keys: Vec<String>,
    /// Models that are served; any other is refused with 404.
    pub models: Vec<Model>,
    /// Largest request body in bytes; more is refused with 413.
    pub max_body_bytes: usize,
}

impl Config {
    /// The default for [`Config::max_body_bytes`]: 8 MiB.
    pub const MAX_BODY_BYTES: usize = 8 << 20;

    /// The default models under these keys.
    #[must_use]
    pub fn new(keys: Vec<String>) -> Self {
        Self {
            keys,
            models: Model::defaults(),
            max_body_bytes: Self::MAX_BODY_BYTES,
        }
    }
}

/// A fake provider; clones share its faults and its log.
#[derive(Clone, Debug)]
pub struct Provider {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    faults: Faults<Fault>,
    log: Arc<log::Log>,
}

impl FromRef<Provider> for Faults<Fault> {
    fn from_ref(fake: &Provider) -> Self {
        fake.shared.faults.clone()
    }
}

impl Provider {
    /// A provider with no faults and an empty log.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let shared = Shared {
            config,
            faults: Faults::default(),
            log: Arc::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The API, `/__fake/...` and `/healthz`.
    ///
    /// Serve it with [`serve_until`](crate::server::serve_until): under another server, faults that cut a
    /// connection before the answer's head give an empty 200 instead.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .merge(control::routes())
            .fallback(api)
            .with_state(self.clone())
    }

    /// The finished requests, in the order in which they came; see `GET /__fake/log`.
    #[must_use]
    pub fn log(&self) -> Vec<Entry> {
        self.shared.log.entries()
    }

    /// How many requests are not finished yet.
    #[must_use]
    pub fn open_requests(&self) -> usize {
        self.shared.log.open_requests()
    }

    /// Adds a fault behind those that are there; see `POST /__fake/faults`.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }
}

/// What a handler decided; turned into a response after the log has it.
enum Reply {
    Json(Value),
    /// A JSON answer of which half is sent before the connection is cut.
    HalfJson(Value),
    Stream(Box<stream::Plan>),
}

/// Every path but the control API's: one log entry a request, whatever happens.
async fn api(State(provider): State<Provider>, request: Request) -> Response {
    let started = Instant::now();
    let shared = &provider.shared;
    let mut recorder = shared.log.open(request.uri().path());
    let request_id = ids::random_hex("req_", 32);
    let route = format!("{} {}", request.method(), request.uri().path());
    let mut response = match dispatch(shared, request, &mut recorder).await {
        Ok(Reply::Json(value)) => {
            recorder.finish(Outcome::Completed);
            Json(value).into_response()
        }
        Ok(Reply::HalfJson(value)) => {
            recorder.usage_not_sent();
            recorder.finish(Outcome::Cut);
            stream::half(&value)
        }
        Ok(Reply::Stream(plan)) => plan.play(recorder),
        Err(error) => {
            recorder.refuse(error.status, error.on_demand);
            error.into_response()
        }
    };
    let headers = response.headers_mut();
    let elapsed_ms = HeaderValue::from(u64::try_from(started.elapsed().as_millis()).unwrap_or(0));
    headers.insert(HeaderName::from_static("openai-processing-ms"), elapsed_ms);
    headers.insert(
        HeaderName::from_static("openai-version"),
        HeaderValue::from_static("2020-10-01"),
    );
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    tracing::info!(%route, status = response.status().as_u16(), %request_id, "answered");
    response
}

async fn dispatch(
    shared: &Shared,
    request: Request,
    recorder: &mut Recorder,
) -> Result<Reply, ApiError> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let post = path == "/v1/chat/completions" || path == "/v1/embeddings";
    let model_id = path.strip_prefix("/v1/models/").filter(|id| !id.is_empty());
    if !post && path != "/v1/models" && model_id.is_none() {
        return Err(ApiError::unknown_url(&parts.method, path));
    }
    if parts.method != if post { Method::POST } else { Method::GET } {
        return Err(ApiError::wrong_method(&parts.method, path));
    }
    authorise(&parts.headers, &shared.config.keys)?;
    if !post {
        recorder.status(200);
        return models::answer(&shared.config.models, model_id).map(Reply::Json);
    }
    let body = read_object(&parts.headers, body, shared.config.max_body_bytes).await?;
    recorder.asked(&body);
    if path == "/v1/embeddings" {
        embeddings::answer(shared, &body, recorder).await
    } else {
        chat::answer(shared, &body, recorder).await
    }
}

fn authorise(headers: &HeaderMap, keys: &[String]) -> Result<(), ApiError> {
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let key = value.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    match key {
        None => Err(ApiError::no_key()),
        Some(key) if keys.iter().any(|known| known == key) => Ok(()),
        Some(_) => Err(ApiError::wrong_key()),
    }
}

async fn read_object(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<serde_json::Map<String, Value>, ApiError> {
    let mime = media_type(headers);
    if !mime.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::content_type(mime));
    }
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: usize| length > limit) {
        return Err(ApiError::too_large(limit));
    }
    let bytes = body::to_bytes(body, limit)
        .await
        .map_err(|_| ApiError::too_large(limit))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::broken_json("the body is not an object")),
        // The parser's own message may quote the prompt; its place is enough.
        Err(error) => Err(ApiError::broken_json(&format!(
            "parse error at line {}, column {}",
            error.line(),
            error.column()
        ))),
    }
}
