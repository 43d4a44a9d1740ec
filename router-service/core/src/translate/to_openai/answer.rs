//! Anthropic's message, as a chat completion.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::{
        JSON_ANSWER_TOOL,
        fields::Text,
        openai::{Answer, Choice, Completion, ToolCall},
        usage::{OfAnthropic, Usage},
        write::compact,
    },
    finish_reason,
};

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    content: Vec<Block<'a>>,
    #[serde(borrow)]
    stop_reason: Option<Text<'a>>,
    usage: Option<OfAnthropic>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// Anthropic's whole answer, for a client of OpenAI's dialect; `created_s` is
/// when it was made, in seconds since 1970. `None` where it is no message.
///
/// Texts are joined. Thinking, which nobody asked for, is left out, and counts
/// as output.
#[must_use]
pub fn answer(body: &[u8], created_s: i64) -> Option<Vec<u8>> {
    let message: Message<'_> = serde_json::from_slice(body).ok()?;
    if message.kind.0 != "message" {
        return None;
    }
    let mut content: Option<Cow<'_, str>> = None;
    let mut say = |more: Cow<'_, str>| match &mut content {
        Some(content) => content.to_mut().push_str(&more),
        None => content = Some(Cow::Owned(more.into_owned())),
    };
    let mut tool_calls = Vec::new();
    for block in message.content {
        match block.kind.0.as_ref() {
            "text" => say(block.text?.0),
            "tool_use" => {
                let arguments = block.input.map_or("{}".to_owned(), |i| compact(i.get()));
                let name = block.name?.0;
                if name == JSON_ANSWER_TOOL {
                    say(Cow::Owned(arguments));
                } else {
                    tool_calls.push(ToolCall::new(block.id?.0, name, arguments));
                }
            }
            _ => {}
        }
    }
    let mut usage = Usage::default();
    if let Some(reported) = &message.usage {
        usage.update(reported);
    }
    let stop_reason = message.stop_reason.map(|t| t.0).unwrap_or_default();
    serde_json::to_vec(&Completion {
        id: message.id.map(|t| t.0).unwrap_or_default(),
        object: "chat.completion",
        created: created_s,
        model: message.model.map(|t| t.0).unwrap_or_default(),
        choices: [Choice {
            index: 0,
            logprobs: None,
            finish_reason: finish_reason(&stop_reason, !tool_calls.is_empty()),
            message: Answer {
                role: "assistant",
                content,
                refusal: None,
                tool_calls,
            },
        }],
        usage: usage.for_openai(),
    })
    .ok()
}
