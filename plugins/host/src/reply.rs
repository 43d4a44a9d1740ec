//! Answers that a filter gives itself.

use proxy_wasm::{hostcalls, types::Action};
use weir_wire::error::{ApiError, Dialect};

use crate::headers;

/// Answers with the error object of the dialect that the path belongs to, and
/// ends the filter chain. Called while request headers can still be read.
#[must_use]
pub fn refuse(status: u32, error: &ApiError, extra: &[(&str, &str)]) -> Action {
    let path = headers::request_text(":path").unwrap_or_default();
    let dialect = Dialect::of_path(&path);
    let body = error.body_in(dialect, u16::try_from(status).unwrap_or(500));
    let mut fields = vec![("content-type", "application/json")];
    fields.extend_from_slice(extra);
    let _ = hostcalls::send_http_response(status, fields, Some(body.as_bytes()));
    Action::Pause
}
