//! A stream of chat completion chunks, as Anthropic's events.
//!
//! Sources: OpenAI API reference, "Chat Completions", "Streaming"; Anthropic
//! API reference, "Streaming Messages".

use serde::Deserialize;
use serde_json::value::RawValue;
use weir_wire::error::ApiError;

use super::{
    super::{
        errors,
        fields::Text,
        usage::{OfOpenAi, Usage},
        write::{filled, put, quoted},
    },
    blocks::{Blocks, Kind},
    call_id, stop_reason,
};

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<OfOpenAi>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<Vec<Call<'a>>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    index: Option<u64>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    arguments: Option<Text<'a>>,
}

/// The stream of a provider of OpenAI's dialect, for a client of Anthropic's.
///
/// What OpenAI used comes last, after the reason why the model stopped, and
/// Anthropic's `message_delta` says both: it waits for the usage chunk or for
/// `[DONE]`. Arguments pass as the model wrote them, be they JSON or not.
#[derive(Debug, Default)]
pub struct Stream {
    message_id: Option<String>,
    blocks: Blocks,
    /// The position of the last tool call; servers that send each call whole
    /// leave it out.
    last_call: Option<u64>,
    refused: bool,
    content: bool,
    finish: Option<String>,
    usage: Usage,
    /// `message_stop` or an error was written: nothing comes after.
    over: bool,
    done: bool,
}

impl Stream {
    /// At the start of an answer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether any content was written: text, a refusal or a tool call.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.content
    }

    /// Whether the answer came to its end, which is no error.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether it ended with an error that it wrote itself, or handed on.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.over && !self.done
    }

    /// Takes the data of one whole event and appends what it says to `out`.
    pub fn take(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if self.over || data.is_empty() {
            return;
        }
        if data == b"[DONE]" {
            self.end(out);
            return;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            self.fail(&errors::unreadable(), out);
            return;
        };
        if let Some(error) = chunk.error {
            let error = errors::of_openai_error(error).unwrap_or_else(errors::unreadable);
            self.fail(&error, out);
            return;
        }
        if chunk.choices.is_none()
            && let Some(error) = errors::of_openai(data)
        {
            self.fail(&error, out);
            return;
        }
        self.chunk(&chunk, out);
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut Vec<u8>) {
        if let Some(usage) = &chunk.usage {
            self.usage = Usage::from(usage);
        }
        let choice = chunk.choices.iter().flatten().next();
        let Some(choice) = choice else {
            // The usage chunk, or a notice, such as Azure's of its filters. The end is
            // told at `[DONE]` alone: a stream that is cut before it is not whole.
            return;
        };
        if self.message_id.is_none() {
            self.start(chunk, out);
        }
        if let Some(delta) = &choice.delta
            && self.delta(delta, out).is_none()
        {
            self.fail(&errors::unreadable(), out);
            return;
        }
        if let Some(Text(reason)) = &choice.finish_reason {
            self.blocks.finish(out);
            self.finish.get_or_insert_with(|| reason.to_string());
        }
    }

    fn start(&mut self, chunk: &Chunk<'_>, out: &mut Vec<u8>) {
        let text = |t: &Option<Text<'_>>| t.as_ref().map_or(String::new(), |t| t.0.to_string());
        let id = text(&chunk.id);
        put(
            out,
            &[
                b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":",
                quoted(&id).as_bytes(),
                b",\"type\":\"message\",\"role\":\"assistant\",\"model\":",
                quoted(&text(&chunk.model)).as_bytes(),
                b",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":",
                // Not known yet: `message_delta` has it all.
                json(&Usage::default()).as_bytes(),
                b"}}\n\n",
            ],
        );
        self.message_id = Some(id);
    }

    /// `None` where a text is no string.
    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) -> Option<()> {
        for (text, refusal) in [(delta.content, false), (delta.refusal, true)] {
            if let Some(text) = filled(text) {
                let said = serde_json::from_str::<Text<'_>>(text.get()).ok()?;
                self.refused |= refusal;
                self.content = true;
                self.blocks.push(&Kind::Text, &said.0, out);
            }
        }
        for call in delta.tool_calls.iter().flatten() {
            self.call(call, out);
        }
        Some(())
    }

    fn call(&mut self, call: &Call<'_>, out: &mut Vec<u8>) {
        let function = call.function.as_ref();
        let name = function.and_then(|f| f.name.as_ref()).map(|n| n.0.as_ref());
        let name = name.filter(|n| !n.is_empty());
        let arguments = function
            .and_then(|f| f.arguments.as_ref())
            .map_or("", |a| a.0.as_ref());
        let next = || self.last_call.map_or(0, |last| last.saturating_add(1));
        let index = call.index.unwrap_or_else(|| match (name, self.last_call) {
            (None, Some(last)) => last,
            _ => next(),
        });
        self.last_call = Some(index);
        if !self.blocks.knows(index) {
            let id = call.id.as_ref().map(|id| id.0.as_ref());
            let id = id.filter(|id| !id.is_empty()).map_or_else(
                || {
                    let message_id = self.message_id.as_deref().unwrap_or_default();
                    call_id(message_id, usize::try_from(index).unwrap_or(usize::MAX))
                },
                str::to_owned,
            );
            self.content = true;
            self.blocks.call(index, &id, name.unwrap_or_default(), out);
        }
        if !arguments.is_empty() {
            self.blocks.push(&Kind::Call(index), arguments, out);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.message_id.is_none() {
            self.fail(&errors::nothing(), out);
            return;
        }
        self.blocks.finish(out);
        let finish = self.finish.as_deref().unwrap_or_default();
        let reason = stop_reason(finish, self.last_call.is_some(), self.refused);
        put(
            out,
            &[
                b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"",
                reason.as_bytes(),
                b"\",\"stop_sequence\":null},\"usage\":",
                json(&self.usage).as_bytes(),
                b"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            ],
        );
        self.over = true;
        self.done = true;
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        out.extend(errors::event_for_anthropic(error));
        self.over = true;
    }
}

fn json(usage: &Usage) -> String {
    // Counts always serialise; the fallback is unreachable.
    serde_json::to_string(&usage.for_anthropic()).unwrap_or_default()
}
