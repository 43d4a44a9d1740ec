//! What is written in Anthropic's dialect: requests of OpenAI's clients for a
//! provider that speaks it, and answers of OpenAI's for its clients.

mod answer;
mod blocks;
mod format;
mod messages;
mod request;
mod stream;
mod tools;

use weir_wire::error::ApiError;

pub use self::{answer::answer, request::request, stream::Stream};
use super::errors;

/// An error body of an OpenAI provider's, or of a server that copies OpenAI's
/// API. `None` where it is none.
#[must_use]
pub fn error(body: &[u8]) -> Option<ApiError> {
    errors::of_openai(body)
}

/// Anthropic's `stop_reason` for OpenAI's `finish_reason`. Some servers say
/// `stop` after tool calls too, and a client that goes by it would not run
/// them. Which stop sequence was met, OpenAI's dialect does not say.
fn stop_reason(finish_reason: &str, calls: bool, refused: bool) -> &'static str {
    match finish_reason {
        "content_filter" => "refusal",
        _ if refused => "refusal",
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        _ if calls => "tool_use",
        _ => "end_turn",
    }
}

/// The identifier of a tool call for which the server gave none: answers need
/// one, and this one is no other call's.
fn call_id(message_id: &str, index: usize) -> String {
    format!("call_{message_id}_{index}")
}
