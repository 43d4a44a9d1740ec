//! Providers' error objects, in the words of the other dialect.
//!
//! Formats: Anthropic API reference, "Errors"; OpenAI API reference, "Error
//! codes". Servers that copy OpenAI's API also send a number as `code`, a
//! string as `error`, or the members without the object around them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use weir_wire::error::{ApiError, Dialect};

use super::fields::Text;

/// Anthropic's types: OpenAI's type and code for each, and its HTTP status.
const KINDS: [(&str, &str, Option<&str>, u16); 9] = [
    ("invalid_request_error", "invalid_request_error", None, 400),
    (
        "authentication_error",
        "invalid_request_error",
        Some("invalid_api_key"),
        401,
    ),
    (
        "billing_error",
        "insufficient_quota",
        Some("insufficient_quota"),
        402,
    ),
    (
        "permission_error",
        "invalid_request_error",
        Some("permission_denied"),
        403,
    ),
    (
        "not_found_error",
        "invalid_request_error",
        Some("model_not_found"),
        404,
    ),
    (
        "request_too_large",
        "invalid_request_error",
        Some("request_too_large"),
        413,
    ),
    (
        "rate_limit_error",
        "rate_limit_error",
        Some("rate_limit_exceeded"),
        429,
    ),
    ("timeout_error", "server_error", Some("timeout"), 504),
    ("overloaded_error", "server_error", Some("overloaded"), 529),
];

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Detail<'a> {
    #[serde(borrow)]
    message: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    param: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
}

/// Anthropic's body, as OpenAI would say it.
pub(super) fn of_anthropic(body: &[u8]) -> Option<ApiError> {
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    let detail: Detail<'_> = serde_json::from_str(body.error?.get()).ok()?;
    let kind = detail.kind?.0;
    let (_, kind, code, _) = KINDS
        .into_iter()
        .find(|(theirs, ..)| *theirs == kind)
        .unwrap_or(("api_error", "server_error", Some("provider_error"), 500));
    Some(ApiError {
        message: detail.message?.0.into_owned(),
        kind: kind.to_owned(),
        param: None,
        code: code.map(str::to_owned),
    })
}

/// OpenAI's body, or that of a server that copies it.
pub(super) fn of_openai(body: &[u8]) -> Option<ApiError> {
    if let Ok(Body { error: Some(error) }) = serde_json::from_slice::<Body<'_>>(body) {
        return of_openai_error(error);
    }
    let flat: Flat<'_> = serde_json::from_slice(body).ok()?;
    if flat.object?.0 != "error" {
        return None;
    }
    detail(serde_json::from_slice(body).ok()?)
}

#[derive(Deserialize)]
struct Flat<'a> {
    #[serde(borrow)]
    object: Option<Text<'a>>,
}

/// The value of `error`, alone.
pub(super) fn of_openai_error(error: &RawValue) -> Option<ApiError> {
    if let Ok(Text(message)) = serde_json::from_str(error.get()) {
        return Some(ApiError::new("server_error", "provider_error", message));
    }
    detail(serde_json::from_str(error.get()).ok()?)
}

fn detail(detail: Detail<'_>) -> Option<ApiError> {
    Some(ApiError {
        message: detail.message?.0.into_owned(),
        kind: detail
            .kind
            .map_or(Cow::Borrowed("server_error"), |k| k.0)
            .into_owned(),
        param: word(detail.param),
        code: word(detail.code),
    })
}

/// A string, or whatever else stands there, as it is written.
fn word(raw: Option<&RawValue>) -> Option<String> {
    let raw = raw?.get();
    Some(serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()))
}

/// The status that such an error has outside of a stream.
fn status(error: &ApiError) -> u16 {
    let code = error.code.as_deref().unwrap_or_default();
    if let Ok(status @ 400..600) = code.parse() {
        return status;
    }
    let of_code = |(.., ours, _): &&(_, _, Option<&str>, _)| ours.is_some_and(|c| c == code);
    let of_kind = |(theirs, ours, ..): &&(&str, &str, _, _)| {
        // A server's error without a code that is known is a plain one.
        error.kind != "server_error" && (*theirs == error.kind || *ours == error.kind)
    };
    KINDS
        .iter()
        .find(of_code)
        .or_else(|| KINDS.iter().find(of_kind))
        .map_or(500, |(.., status)| *status)
}

/// The event that ends a stream for a client of Anthropic's dialect.
pub(super) fn event_for_anthropic(error: &ApiError) -> Vec<u8> {
    let body = error.body_in(Dialect::Anthropic, status(error));
    format!("event: error\ndata: {body}\n\n").into_bytes()
}

/// An event of the provider's was none of its dialect.
pub(super) fn unreadable() -> ApiError {
    ApiError::new(
        "server_error",
        "provider_error",
        "the provider sent an event that could not be read",
    )
}

/// The provider's stream ended before it began.
pub(super) fn nothing() -> ApiError {
    ApiError::new(
        "server_error",
        "provider_error",
        "the provider's stream ended without an answer",
    )
}
