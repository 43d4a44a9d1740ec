//! A request's way: key, version, route, parameters, idempotency, faults, lock, work.

use std::time::Duration;

use axum::{
    Json,
    body::{self, Body},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use serde_json::Value;

use super::{
    Fault, Stripe,
    error::StripeError,
    events,
    form::Form,
    idempotency::Used,
    params,
    routes::{self, Call, METER_EVENTS, Route},
};
use crate::{headers::media_type, ids, server::DropConnection};

/// Largest body: 1 MiB.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The version that answers name where the request does not ask for one.
pub(super) const DEFAULT_VERSION: &str = "2026-10-28.endive";

const VERSION: HeaderName = HeaderName::from_static("stripe-version");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// What a request came to; kept for its idempotency key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    fn error(error: &StripeError) -> Self {
        Self {
            status: error.status,
            body: error.body(),
        }
    }
}

/// An answer, and how it is sent.
struct Outcome {
    answer: Answer,
    replayed: bool,
    fault: Fault,
}

impl Outcome {
    fn plain(answer: Answer) -> Self {
        Self {
            answer,
            replayed: false,
            fault: Fault::default(),
        }
    }
}

/// Every path but the control API's.
///
/// The work runs as a task of its own: as at Stripe, it goes on when the client
/// gives up waiting.
pub(super) async fn handle(State(stripe): State<Stripe>, request: Request) -> Response {
    let route = format!("{} {}", request.method(), request.uri().path());
    let (parts, body) = request.into_parts();
    let version = parts.headers.get(VERSION).cloned();
    let form = read_form(&parts, body).await;
    let outcome = tokio::spawn(async move { work(&stripe, &parts, form).await }).await;
    let Ok(outcome) = outcome else {
        tracing::error!(%route, "the fake itself failed");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let request_id = ids::random("req_", 14);
    tracing::info!(%route, status = outcome.answer.status, replayed = outcome.replayed, %request_id, "answered");
    respond(&outcome, version, &request_id)
}

fn respond(outcome: &Outcome, version: Option<HeaderValue>, request_id: &str) -> Response {
    let status = StatusCode::from_u16(outcome.answer.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = (status, Json(&outcome.answer.body)).into_response();
    if outcome.fault.accept_then_drop {
        response.extensions_mut().insert(DropConnection);
    }
    let headers = response.headers_mut();
    headers.insert(
        VERSION,
        version.unwrap_or(HeaderValue::from_static(DEFAULT_VERSION)),
    );
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if outcome.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    if let Some(should_retry) = outcome.fault.should_retry {
        let value = if should_retry { "true" } else { "false" };
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(value));
    }
    if let Some(wait_s) = outcome.fault.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
    }
    response
}

async fn work(stripe: &Stripe, parts: &Parts, form: Result<Form, StripeError>) -> Outcome {
    match prepare(stripe, parts, form) {
        Ok(prepared) => idempotent(stripe, parts, prepared).await,
        Err(error) => {
            stripe.store().count_refusal(error.reason);
            Outcome::plain(Answer::error(&error))
        }
    }
}

/// A request that may be carried out.
struct Prepared {
    route: &'static Route,
    id: String,
    form: Form,
    key: Option<String>,
}

/// The checks before a request is carried out, none of which an idempotency key keeps.
fn prepare(
    stripe: &Stripe,
    parts: &Parts,
    form: Result<Form, StripeError>,
) -> Result<Prepared, StripeError> {
    authorise(&parts.headers, &stripe.shared.config.keys)?;
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    check_version(&parts.headers, path)?;
    let (route, id) =
        routes::find(method, path).ok_or_else(|| StripeError::unknown_url(method, path))?;
    if path == METER_EVENTS && stripe.shared.bucket.as_ref().is_some_and(|b| !b.take()) {
        return Err(StripeError::too_many());
    }
    let form = form?;
    params::check(&form, route.params)?;
    let key = parts
        .headers
        .get(IDEMPOTENCY_KEY)
        .and_then(|key| key.to_str().ok());
    // Only a POST changes something that a repeat would change again.
    let key = key.filter(|key| !key.is_empty() && parts.method == Method::POST);
    if key.is_some_and(|key| key.chars().count() > 255) {
        return Err(StripeError::key_too_long());
    }
    Ok(Prepared {
        route,
        id: id.to_owned(),
        form,
        key: key.map(str::to_owned),
    })
}

async fn idempotent(stripe: &Stripe, parts: &Parts, prepared: Prepared) -> Outcome {
    let Some(key) = prepared.key.clone() else {
        return execute(stripe, parts, &prepared).await.0;
    };
    let used = Used::new(parts.uri.path(), &prepared.form);
    let now = stripe.now_s();
    let begun = stripe.store().keys.begin(&key, &used, now);
    match begun {
        Ok(None) => {
            let (outcome, keep) = execute(stripe, parts, &prepared).await;
            let kept = keep.then(|| outcome.answer.clone());
            stripe.store().keys.end(&key, kept);
            outcome
        }
        Ok(Some(answer)) => Outcome {
            replayed: true,
            ..Outcome::plain(answer)
        },
        Err(error) => {
            stripe.store().count_refusal(error.reason);
            Outcome::plain(Answer::error(&error))
        }
    }
}

/// Carries the request out, as far as the fault lets it; tells whether an
/// idempotency key keeps the answer.
async fn execute(stripe: &Stripe, parts: &Parts, prepared: &Prepared) -> (Outcome, bool) {
    let fault = stripe
        .shared
        .faults
        .take(|fault| fault.matches(parts.method.as_str(), parts.uri.path()));
    let result = match fault.status {
        Some(status) => {
            pause(fault.delay_ms.unwrap_or(0)).await;
            Err(StripeError::fault(status))
        }
        None => locked(stripe, parts.uri.path(), prepared, &fault).await,
    };
    let (answer, keep) = match &result {
        Ok(value) => match fault.accept_then_status.map(StripeError::fault) {
            // The work is done, so whatever is answered stays the answer.
            Some(error) => (Answer::error(&error), true),
            None => (
                Answer {
                    status: 200,
                    body: value.clone(),
                },
                true,
            ),
        },
        Err(error) => {
            stripe.store().count_refusal(error.reason);
            (Answer::error(error), error.executed)
        }
    };
    (
        Outcome {
            answer,
            replayed: false,
            fault,
        },
        keep,
    )
}

/// Does the work; a meter event holds the lock on its customer and meter for as long as it takes.
async fn locked(
    stripe: &Stripe,
    path: &str,
    prepared: &Prepared,
    fault: &Fault,
) -> Result<Value, StripeError> {
    let delay_ms = fault.delay_ms.unwrap_or(0);
    if path != METER_EVENTS {
        pause(delay_ms).await;
        return run(stripe, path, prepared, false);
    }
    let pair = {
        let mut store = stripe.store();
        let pair = events::lock(&store, &prepared.form);
        if let Some(pair) = &pair
            && !store.busy.insert(pair.clone())
        {
            return Err(StripeError::locked());
        }
        pair
    };
    pause(delay_ms.saturating_add(stripe.shared.config.event_ms)).await;
    let result = run(stripe, path, prepared, fault.accept_then_lose);
    if let Some(pair) = pair {
        stripe.store().busy.remove(&pair);
    }
    result
}

fn run(stripe: &Stripe, path: &str, prepared: &Prepared, lose: bool) -> Result<Value, StripeError> {
    let now = stripe.now_s();
    let call = Call {
        id: &prepared.id,
        path,
        form: &prepared.form,
        now,
        lose,
    };
    let result = (prepared.route.run)(&mut stripe.store(), &call);
    stripe.post_events();
    result
}

async fn pause(delay_ms: u64) {
    if delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
}

/// The query and the body as one form; what is not a form is refused later,
/// after the key was checked.
async fn read_form(parts: &Parts, body: Body) -> Result<Form, StripeError> {
    let query = Form::parse(parts.uri.query().unwrap_or_default().as_bytes())?;
    let bytes = body::to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|_| StripeError::too_large())?;
    if bytes.is_empty() {
        return Ok(query);
    }
    let mime = media_type(&parts.headers);
    if !mime.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(StripeError::not_a_form(mime));
    }
    Ok(query.merge(Form::parse(&bytes)?))
}

/// A bearer token, or HTTP basic with the key as user and no password.
fn authorise(headers: &HeaderMap, keys: &[String]) -> Result<(), StripeError> {
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let (scheme, token) = value
        .and_then(|value| value.split_once(' '))
        .ok_or_else(StripeError::no_key)?;
    let key = if scheme.eq_ignore_ascii_case("bearer") {
        token.trim().to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD
            .decode(token.trim())
            .map_err(|_| StripeError::no_key())?;
        let decoded = String::from_utf8(decoded).map_err(|_| StripeError::no_key())?;
        decoded.split(':').next().unwrap_or_default().to_owned()
    } else {
        return Err(StripeError::no_key());
    };
    match key.as_str() {
        "" => Err(StripeError::no_key()),
        key if keys.iter().any(|known| known == key) => Ok(()),
        _ => Err(StripeError::wrong_key()),
    }
}

/// `2026-10-28` or `2026-10-28.endive`; `/v2` has no default.
fn check_version(headers: &HeaderMap, path: &str) -> Result<(), StripeError> {
    let Some(value) = headers.get(VERSION) else {
        if path.starts_with("/v2/") {
            return Err(StripeError::wrong_version(""));
        }
        return Ok(());
    };
    let version = value.to_str().unwrap_or_default();
    let (date, name) = version.split_once('.').unwrap_or((version, "x"));
    let digits =
        |part: &str, count: usize| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = date.split('-').collect();
    let dated =
        matches!(parts.as_slice(), [y, m, d] if digits(y, 4) && digits(m, 2) && digits(d, 2));
    let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if dated && named {
        Ok(())
    } else {
        Err(StripeError::wrong_version(version))
    }
}
