//! What a client is told where its provider did not serve.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use weir_router_core::{refusal::Refusal, relay::Passage};
use weir_wire::error::{ApiError, Dialect};

use super::{Answer, AnswerBody};
use crate::exchange::Exchange;

/// Anthropic's own status for too much load, which others' clients do not know.
const OVERLOADED: u16 = 529;

/// What a client is told of a provider's refusal. That our own key was refused
/// is no news for a tenant, whose key is good.
pub fn provider_refusal(
    passage: &Passage,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    has_error: bool,
) -> Result<Answer, Refusal> {
    let code = status.as_u16();
    match code {
        // What a provider says of our account is no news for tenants either.
        402 => return Err(unavailable(502, "refused the router")),
        429 => {
            let error = ApiError::new(
                "rate_limit_error",
                "provider_rate_limit_exceeded",
                "The model's provider takes no more requests of the router's just now.",
            );
            return Ok(told(passage, status, headers, &error));
        }
        401 | 403 => {
            tracing::error!(%status, "the provider refused the router's key");
            return Err(unavailable(502, "refused the router"));
        }
        300..=399 => return Err(unavailable(502, "answered with a redirect")),
        _ => {}
    }
    if mentions_account(&body) {
        tracing::error!(%status, "the provider says something of the router's account");
        return Err(unavailable(502, "refused the router"));
    }
    if passage.from.dialect() == passage.to.dialect() && has_error {
        return Ok(Answer {
            status,
            headers,
            body: AnswerBody::Whole(body),
        });
    }
    let dialect = passage.to.dialect();
    let status = match (code, dialect) {
        (OVERLOADED, Dialect::OpenAi) => StatusCode::SERVICE_UNAVAILABLE,
        _ => status,
    };
    match passage.error(&body) {
        Some(error) => Ok(told(passage, status, headers, &error)),
        None => Err(unavailable(status.as_u16(), "answered with an error")),
    }
}

/// An error in the client's words, with what else the provider's answer said.
fn told(passage: &Passage, status: StatusCode, mut headers: HeaderMap, error: &ApiError) -> Answer {
    let json = http::HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    let body = error.body_in(passage.to.dialect(), status.as_u16());
    Answer {
        status,
        headers,
        body: AnswerBody::Whole(body.into()),
    }
}

/// Whether an error is about who pays the provider: Anthropic tells so with 400.
fn mentions_account(body: &[u8]) -> bool {
    ["credit balance", "billing", "organization"]
        .iter()
        .any(|words| memchr::memmem::find(body, words.as_bytes()).is_some())
}

/// The refusal for a stream that held an error before any content.
pub fn in_stream(error: Option<&ApiError>) -> Refusal {
    let Some(error) = error else {
        return provider_failed();
    };
    let status = match (error.kind.as_str(), error.code.as_deref()) {
        ("rate_limit_error", _) => 429,
        ("invalid_request_error", _) => 400,
        (_, Some("overloaded")) => 503,
        _ => 502,
    };
    Refusal {
        status,
        error: error.clone(),
    }
}

pub fn unavailable(status: u16, what: &str) -> Refusal {
    Refusal::server(
        status,
        "provider_error",
        format!("The model's provider {what}."),
    )
}

pub fn provider_failed() -> Refusal {
    unavailable(502, "broke off its answer")
}

/// The plan's time is over.
pub fn late(exchange: &Exchange, time: Duration) -> Refusal {
    Refusal::server(
        504,
        "timeout",
        format!(
            "The model's provider did not answer in the {} s of the plan {}.",
            time.as_secs(),
            exchange.caller.verified.plan
        ),
    )
}

pub fn stopped() -> Refusal {
    Refusal::server(
        503,
        "router_stopping",
        "The router stops; send the request again.",
    )
}
