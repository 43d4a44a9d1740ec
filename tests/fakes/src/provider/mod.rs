//! A strict fake of OpenAI's API: chat completions, completions, responses (JSON and
//! SSE), embeddings, models; or of a compatible server such as vLLM.
//!
//! Answers depend on the prompt alone, so a test can't pass with constants.
//! Tools are called where the request demands it, or where the last user
//! message contains `tool` and no tool's result comes last; two of them where
//! it contains `two tools`.
//! `GET /__fake/log` tells exactly what each request used and how it ended;
//! `POST /__fake/faults` makes the next ones go wrong.

mod models;

mod chat;
mod chat_messages;
mod chat_request;
mod completions;
mod embeddings;
mod responses;
mod responses_events;
mod responses_input;

mod error;
mod logprobs;
mod output;
mod tools;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{FromRef, Request, State},
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::{Map, Value};

use self::error::ApiError;
use crate::{
    control::Faults,
    ids,
    inference::{
        self,
        log::{Log, Recorder},
        params::{self, Param},
        reply::Reply,
    },
};

pub use self::models::{Model, ModelKind};
pub use crate::inference::{
    faults::Fault,
    log::{Entry, Outcome},
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
    /// Stands for vLLM and its like: no key is needed where there is none,
    /// unknown arguments are passed over, chat models serve `/v1/completions`,
    /// and there is no `/v1/responses`.
    pub compatible: bool,
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
            compatible: false,
        }
    }

    /// A compatible server with its default model under these keys, or none.
    #[must_use]
    pub fn compatible(keys: Vec<String>) -> Self {
        Self {
            models: Model::compatible_defaults(),
            compatible: true,
            ..Self::new(keys)
        }
    }

    /// Checks a body's arguments; a compatible server passes over unknown ones.
    fn check(&self, body: &Map<String, Value>, known: &[Param]) -> Result<(), ApiError> {
        self.check_at("", body, known, ApiError::of_argument)
    }

    /// The same for an object inside the body.
    fn check_inner(
        &self,
        path: &str,
        object: &Map<String, Value>,
        known: &[Param],
    ) -> Result<(), ApiError> {
        self.check_at(path, object, known, ApiError::from)
    }

    fn check_at(
        &self,
        path: &str,
        object: &Map<String, Value>,
        known: &[Param],
        word: impl FnOnce(params::Mistake) -> ApiError,
    ) -> Result<(), ApiError> {
        let checked = if self.compatible {
            params::check_known(path, object, known)
        } else {
            params::check(path, object, known)
        };
        checked.map_err(word)
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
    log: Arc<Log>,
}

impl FromRef<Provider> for Arc<Log> {
    fn from_ref(fake: &Provider) -> Self {
        fake.shared.log.clone()
    }
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
async fn api(State(provider): State<Provider>, request: Request) -> Response {
    let started = Instant::now();
    let shared = &provider.shared;
    let compatible = shared.config.compatible;
    let mut recorder = shared.log.open(request.uri().path());
    let request_id = ids::random_hex("req_", 32);
    let route = format!("{} {}", request.method(), request.uri().path());
    let mut response = match dispatch(shared, request, &mut recorder).await {
        Ok(reply) => reply.respond(recorder),
        Err(error) => {
            recorder.refuse(error.status, error.on_demand);
            error.respond(compatible)
        }
    };
    let headers = response.headers_mut();
    if !compatible {
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(0);
        let name = HeaderName::from_static("openai-processing-ms");
        headers.insert(name, HeaderValue::from(elapsed_ms));
        let name = HeaderName::from_static("openai-version");
        headers.insert(name, HeaderValue::from_static("2020-10-01"));
    }
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
    let post = match path {
        "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings" => true,
        "/v1/responses" => !shared.config.compatible,
        _ => false,
    };
    let model_id = path.strip_prefix("/v1/models/").filter(|id| !id.is_empty());
    if !post && path != "/v1/models" && model_id.is_none() {
        return Err(ApiError::unknown_url(&parts.method, path));
    }
    if parts.method != if post { Method::POST } else { Method::GET } {
        return Err(ApiError::wrong_method(&parts.method, path));
    }
    authorise(&parts.headers, &shared.config)?;
    if !post {
        recorder.status(200);
        return models::answer(&shared.config.models, model_id).map(Reply::Json);
    }
    let body = inference::body::read(&parts.headers, body, shared.config.max_body_bytes).await?;
    let (model, user) = (params::text(&body, "model"), params::text(&body, "user"));
    recorder.asked(model, user, params::flag(&body, "stream"));
    match path {
        "/v1/embeddings" => embeddings::answer(shared, &body, recorder).await,
        "/v1/completions" => completions::answer(shared, &body, recorder).await,
        "/v1/responses" => responses::answer(shared, &body, recorder).await,
        _ => chat::answer(shared, &body, recorder).await,
    }
}

fn authorise(headers: &HeaderMap, config: &Config) -> Result<(), ApiError> {
    let keys = &config.keys;
    if config.compatible && keys.is_empty() {
        return Ok(());
    }
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
