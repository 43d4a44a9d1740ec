//! Answers that a filter gives itself.

use proxy_wasm::{hostcalls, types::Action};
use weir_wire::error::ApiError;

/// Answers with OpenAI's error object and ends the filter chain.
#[must_use]
pub fn refuse(status: u32, error: &ApiError, extra: &[(&str, &str)]) -> Action {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend_from_slice(extra);
    let _ = hostcalls::send_http_response(status, headers, Some(error.body().as_bytes()));
    Action::Pause
}
