//! Translation between OpenAI's chat completions and Anthropic's Messages, so
//! that a client of either dialect reaches a provider of the other.
//!
//! The modules are named after the dialect of the text they write:
//! [`to_anthropic`] holds the request of an OpenAI client on its way to
//! Anthropic, and the answer of an OpenAI provider on its way to a client of
//! Anthropic's dialect; [`to_openai`] the reverse.
//!
//! A request is read strictly: what has no counterpart is refused by name, and
//! what is not known is refused too, so that nobody pays for an answer to
//! another question than theirs. A value that equals the dialect's default is
//! as good as absence. Answers are read leniently, because providers add
//! members at will.
//!
//! What is said in other words, or left out because it changes no answer:
//! - OpenAI's system and developer messages are hoisted; texts of white space
//!   alone are left out;
//! - a `response_format` without a schema is a tool that must be called
//!   ([`JSON_ANSWER_TOOL`]), which not every model lets be forced;
//!   where the client forces a call of its own tools, there is none;
//! - Anthropic's `cache_control` is left out, and `is_error` of a tool's result
//!   is said in its text;
//! - what a model thought is left out of answers, and counts as output;
//! - arguments that are no JSON object stand in [`RAW_ARGUMENTS`].
//!
//! An assistant's message at the end is refused both ways: Anthropic's models
//! go on with it, OpenAI's answer to it.
//!
//! Formats: OpenAI API reference, "Chat Completions"; Anthropic API reference,
//! "Messages" and "Streaming Messages", version 2023-06-01.

mod anthropic;
mod errors;
mod fields;
mod openai;
#[cfg(test)]
mod tests;
pub mod to_anthropic;
pub mod to_openai;
mod usage;
mod write;

/// What the router decided beside the body.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The provider's name for the model.
    pub model: &'a str,
    /// The most tokens of output, already clamped; for Anthropic, which
    /// requires one, the caller always gives it.
    pub max_tokens: Option<u64>,
    /// The provider is no OpenAI but a server that copies its API (vLLM,
    /// llama.cpp, Ollama). Only [`to_openai`] asks: such servers know
    /// `max_tokens` and no files.
    pub compatible: bool,
}

/// The tool through which a model of Anthropic's gives JSON to a client that
/// asked for a `response_format`. A client's own tool of that name is refused;
/// a call of it in an answer becomes the answer's text.
pub const JSON_ANSWER_TOOL: &str = "json_answer";

/// The member of a tool's input that holds arguments as the model wrote them,
/// where they are no JSON object. Anthropic's dialect has objects alone here,
/// and an empty one would hide what the model said.
pub const RAW_ARGUMENTS: &str = "_raw";
