//! A strict fake of Anthropic's API: messages (JSON and SSE), the count of their tokens, models.
//!
//! It answers, misbehaves and keeps its record as the fake of OpenAI does.
//! Tools are used where the request demands it, or where the last user message
//! contains `tool` and does not bring a tool's result; two of them where it
//! contains `two tools`, unless parallel use is disabled.
//!
//! It speaks both versions of the API; 2026-10-21 has no `temperature`, `top_p` and
//! `top_k`. Keys come in `x-api-key` or, as from SDKs of late 2026, as
//! `Authorization: Bearer`.

mod models;

mod blocks;
mod message;
mod messages;
mod options;
mod request;

mod error;

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRef, Request, State},
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use self::error::ApiError;
use crate::{
    control::Faults,
    ids,
    inference::{
        self,
        faults::Fault,
        log::{Entry, Log, Recorder},
        params,
        reply::Reply,
    },
};

pub use self::models::Model;

/// The first version of the API, and the one that took parameters away.
const VERSIONS: [&str; 2] = ["2023-06-01", "2026-10-21"];

/// What the second one took away.
const REMOVED: [&str; 3] = ["temperature", "top_p", "top_k"];

/// What a fake Anthropic accepts.
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
    /// The default for [`Config::max_body_bytes`]: 32 MiB.
    pub const MAX_BODY_BYTES: usize = 32 << 20;

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

/// A fake Anthropic; clones share its faults and its log.
#[derive(Clone, Debug)]
pub struct Anthropic {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    faults: Faults<Fault>,
    log: Arc<Log>,
}

impl FromRef<Anthropic> for Faults<Fault> {
    fn from_ref(fake: &Anthropic) -> Self {
        fake.shared.faults.clone()
    }
}

impl FromRef<Anthropic> for Arc<Log> {
    fn from_ref(fake: &Anthropic) -> Self {
        fake.shared.log.clone()
    }
}

impl Anthropic {
    /// A fake with no faults and an empty log.
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

    /// The API, `/__fake/...` and `/healthz`; serve it as
    /// [`Provider::router`](crate::provider::Provider::router).
    pub fn router(&self) -> Router {
        Router::new()
            .merge(inference::control::routes::<Self>())
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

/// Every path but the control API's: one log entry a request, whatever happens.
async fn api(State(fake): State<Anthropic>, request: Request) -> Response {
    let shared = &fake.shared;
    let mut recorder = shared.log.open(request.uri().path());
    let request_id = ids::random("req_01", 22);
    let route = format!("{} {}", request.method(), request.uri().path());
    let mut response = match dispatch(shared, request, &mut recorder).await {
        Ok(reply) => reply.respond(recorder),
        Err(error) => {
            recorder.refuse(error.status, error.on_demand);
            error.respond(&request_id)
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert(HeaderName::from_static("request-id"), id);
    }
    headers.insert(
        HeaderName::from_static("anthropic-organization-id"),
        HeaderValue::from_static("5f1c2d1e-5b7a-4c3d-9e8f-0a1b2c3d4e5f"),
    );
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
    let post = path == "/v1/messages" || path == "/v1/messages/count_tokens";
    let model_id = path.strip_prefix("/v1/models/").filter(|id| !id.is_empty());
    if !post && path != "/v1/models" && model_id.is_none() {
        return Err(ApiError::unknown_path());
    }
    if parts.method != if post { Method::POST } else { Method::GET } {
        return Err(ApiError::wrong_method());
    }
    check_headers(&parts.headers, &shared.config.keys)?;
    if !post {
        recorder.status(200);
        let models = &shared.config.models;
        return models::answer(models, model_id, parts.uri.query()).map(Reply::Json);
    }
    let body = inference::body::read(&parts.headers, body, shared.config.max_body_bytes).await?;
    let newer = parts
        .headers
        .get("anthropic-version")
        .map(HeaderValue::as_bytes);
    if newer == Some(VERSIONS[1].as_bytes())
        && let Some(removed) = REMOVED.iter().find(|name| body.contains_key(**name))
    {
        return Err(ApiError::at(removed, "Extra inputs are not permitted"));
    }
    let user = body.get("metadata").and_then(|data| data.get("user_id"));
    recorder.asked(
        params::text(&body, "model"),
        user.and_then(Value::as_str),
        params::flag(&body, "stream"),
    );
    if path == "/v1/messages" {
        message::answer(shared, &body, recorder).await
    } else {
        message::count(shared, &body, recorder).await
    }
}

fn check_headers(headers: &HeaderMap, keys: &[String]) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || text("authorization")?.strip_prefix("Bearer ");
    match text("x-api-key").or_else(bearer) {
        None => return Err(ApiError::no_key()),
        Some(key) if keys.iter().any(|known| known == key) => {}
        Some(_) => return Err(ApiError::wrong_key()),
    }
    match text("anthropic-version") {
        Some(version) if VERSIONS.contains(&version) => Ok(()),
        Some(other) => Err(ApiError::at(
            "anthropic-version",
            &format!("\"{other}\" is not a valid version"),
        )),
        None => Err(ApiError::at("anthropic-version", "header is required")),
    }
}
