//! Headers that all fakes read in the same way.

use http::{HeaderMap, header};

/// The media type of a body, without parameters; empty where none is named.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default()
        .trim()
}
