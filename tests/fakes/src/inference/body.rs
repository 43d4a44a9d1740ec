//! Reads a request's body as JSON.

use axum::body::{self, Body};
use http::{HeaderMap, header};
use serde_json::{Map, Value};

use crate::headers::media_type;

/// Why a body is no JSON object.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// It is declared as something else.
    ContentType(String),
    /// It is longer than so many bytes.
    TooLarge(usize),
    /// It is none; says where it breaks.
    Broken(String),
}

/// The object in a body of at most `limit` bytes.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Map<String, Value>, Unreadable> {
    let mime = media_type(headers);
    if !mime.eq_ignore_ascii_case("application/json") {
        return Err(Unreadable::ContentType(mime.to_owned()));
    }
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: usize| length > limit) {
        return Err(Unreadable::TooLarge(limit));
    }
    let bytes = body::to_bytes(body, limit)
        .await
        .map_err(|_| Unreadable::TooLarge(limit))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Unreadable::Broken("the body is not an object".to_owned())),
        // The parser's own message may quote the prompt; its place is enough.
        Err(error) => Err(Unreadable::Broken(format!(
            "parse error at line {}, column {}",
            error.line(),
            error.column()
        ))),
    }
}
