//! A chat completion, as Anthropic's message.

use std::borrow::Cow;

use serde::Deserialize;

use super::{
    super::{
        RAW_ARGUMENTS,
        anthropic::{Block, Message},
        fields::Text,
        usage::{OfOpenAi, Usage},
        write::{object_in, quoted, raw},
    },
    call_id, stop_reason,
};

#[derive(Deserialize)]
struct Completion<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
    usage: Option<OfOpenAi>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    message: Said<'a>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    content: Option<Text<'a>>,
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<Call<'a>>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    function: Function<'a>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    arguments: Option<Text<'a>>,
}

/// The whole answer of a provider of OpenAI's dialect, for a client of
/// Anthropic's. `None` where it is no chat completion.
///
/// Arguments that are no JSON object stand whole in [`RAW_ARGUMENTS`]; text
/// that a server gives as reasoning is left out, and counts as output.
#[must_use]
pub fn answer(body: &[u8]) -> Option<Vec<u8>> {
    let completion: Completion<'_> = serde_json::from_slice(body).ok()?;
    let choice = completion.choices.into_iter().next()?;
    let id = completion.id.map(|t| t.0).unwrap_or_default();
    let said = choice.message;
    let refused = filled(&said.refusal);
    let mut content: Vec<Block<'_>> = [said.content, said.refusal]
        .into_iter()
        .flatten()
        .filter(|text| !text.0.is_empty())
        .map(|text| Block::Text { text: text.0 })
        .collect();
    let calls = said.tool_calls.unwrap_or_default();
    let called = !calls.is_empty();
    for (index, call) in calls.into_iter().enumerate() {
        content.push(tool_use(call, &id, index)?);
    }
    let finish_reason = choice.finish_reason.map(|t| t.0).unwrap_or_default();
    serde_json::to_vec(&Message {
        id,
        kind: "message",
        role: "assistant",
        model: completion.model.map(|t| t.0).unwrap_or_default(),
        content,
        stop_reason: stop_reason(&finish_reason, called, refused),
        stop_sequence: None,
        usage: completion
            .usage
            .as_ref()
            .map(Usage::from)
            .unwrap_or_default()
            .for_anthropic(),
    })
    .ok()
}

fn filled(text: &Option<Text<'_>>) -> bool {
    text.as_ref().is_some_and(|t| !t.0.is_empty())
}

fn tool_use<'a>(call: Call<'a>, message_id: &str, index: usize) -> Option<Block<'a>> {
    let arguments = call.function.arguments.map(|t| t.0).unwrap_or_default();
    let input = match object_in(&arguments) {
        Some(input) => input,
        None => raw(format!("{{\"{RAW_ARGUMENTS}\":{}}}", quoted(&arguments))).ok()?,
    };
    let id = call.id.map(|t| t.0).filter(|id| !id.is_empty());
    Some(Block::ToolUse {
        id: id.unwrap_or_else(|| Cow::Owned(call_id(message_id, index))),
        name: call.function.name.0,
        input,
    })
}
