//! What is written in OpenAI's dialect: requests of Anthropic's clients for a
//! provider that speaks it, and answers of Anthropic's for its clients.

mod answer;
mod messages;
mod request;
mod stream;
mod tools;

use weir_wire::error::ApiError;

pub use self::{
    answer::answer,
    request::request,
    stream::{Options, Stream},
};
use super::errors;

/// An error body of Anthropic's, in OpenAI's words. `None` where it is none.
#[must_use]
pub fn error(body: &[u8]) -> Option<ApiError> {
    errors::of_anthropic(body)
}

/// OpenAI's `finish_reason` for Anthropic's `stop_reason`. A call of
/// [`super::JSON_ANSWER_TOOL`] alone is no call for the client.
fn finish_reason(stop_reason: &str, calls: bool) -> &'static str {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "refusal" => "content_filter",
        "tool_use" if calls => "tool_calls",
        _ => "stop",
    }
}
