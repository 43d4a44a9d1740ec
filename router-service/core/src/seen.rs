//! What an answer shows of its use, in the words of whoever gave it.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use weir_dialects::{
    routes::Endpoint,
    tokens::{TokenCounts, clip_model, parse_usage, parse_usage_after},
};

/// The most text that is kept of an answer, in bytes.
pub const TEXT_MAX_BYTES: usize = 256 << 10;

/// What an answer showed of its use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The model that the provider says it used.
    pub model: Option<String>,
    /// What the provider reported.
    pub usage: Option<TokenCounts>,
    /// What a stream reported as it began: its input.
    pub begun: Option<TokenCounts>,
    /// Bytes of text, tool arguments, refusals and reasoning that came.
    pub output_bytes: usize,
    /// That text as it came, all kinds one after the other, up to
    /// [`TEXT_MAX_BYTES`]: to be counted where no usage is reported.
    pub text: String,
    /// The answer is an error, or holds one.
    pub error: bool,
    /// The answer came to its end.
    pub done: bool,
    /// Whether a whole answer is one of its kind, and not some other text.
    pub understood: bool,
}

/// The shape of a provider's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// OpenAI's chat completions, completions and embeddings.
    Chat,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
}

impl Wire {
    /// Of the answers of that call.
    #[must_use]
    pub fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Responses => Self::Responses,
            Endpoint::Messages | Endpoint::CountTokens => Self::Messages,
            _ => Self::Chat,
        }
    }
}

/// A string, or whatever stands in its place.
type Text<'a> = Option<&'a RawValue>;

/// A string's text.
fn word(text: Text<'_>) -> Option<String> {
    serde_json::from_str(text?.get()).ok()
}

/// Members of a chunk as they stand: one that is odd does not hide the others.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<&'a RawValue>,
    /// Of embeddings.
    data: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    /// In a stream.
    #[serde(borrow)]
    delta: Option<Message<'a>>,
    /// In a whole answer.
    #[serde(borrow)]
    message: Option<Message<'a>>,
    /// Of completions.
    #[serde(borrow)]
    text: Text<'a>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Text<'a>,
    #[serde(borrow)]
    refusal: Text<'a>,
    /// vLLM's, llama.cpp's and others' name for what the model thinks.
    #[serde(borrow)]
    reasoning_content: Text<'a>,
    /// Their newer name for it.
    #[serde(borrow)]
    reasoning: Text<'a>,
    /// What tools were called by before.
    #[serde(borrow)]
    function_call: Option<Function<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    arguments: Text<'a>,
}

impl<'a> Message<'a> {
    fn texts(&self) -> impl Iterator<Item = Text<'a>> {
        let calls = self.tool_calls.iter().flatten();
        let calls = calls.filter_map(|c| c.function.as_ref());
        let calls = calls.chain(&self.function_call);
        let own = [
            self.content,
            self.refusal,
            self.reasoning_content,
            self.reasoning,
        ];
        own.into_iter()
            .chain(calls.flat_map(|f| [f.name, f.arguments]))
    }
}

/// An event of Anthropic's, or a whole message.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    model: Text<'a>,
    input_tokens: Option<IgnoredAny>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    /// In `message_start`.
    #[serde(borrow)]
    message: Option<Begun<'a>>,
    #[serde(borrow)]
    delta: Option<Block<'a>>,
    #[serde(borrow)]
    content_block: Option<Block<'a>>,
    #[serde(borrow)]
    content: Option<Vec<Block<'a>>>,
}

#[derive(Deserialize)]
struct Begun<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// A block of content, or a piece of one.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    thinking: Text<'a>,
    #[serde(borrow)]
    partial_json: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

impl<'a> Block<'a> {
    fn texts(&self) -> [Text<'a>; 4] {
        [self.text, self.thinking, self.partial_json, self.name]
    }

    /// The input of a block that begins is the empty object.
    fn input(&self) -> Option<&'a str> {
        self.input.map(RawValue::get).filter(|raw| raw.len() > 2)
    }
}

/// An event of a stream of `responses`, or a whole response.
#[derive(Deserialize)]
struct ResponseEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    delta: Text<'a>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<Vec<Item<'a>>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    content: Option<Vec<Block<'a>>>,
    #[serde(borrow)]
    arguments: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
}

/// What one event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The chunk with the usage that a stream was asked for, and nothing else.
    UsageAlone,
    /// Anything else.
    Other,
}

impl Seen {
    /// Takes the data of one event of a stream.
    pub fn take(&mut self, wire: Wire, data: &[u8]) -> Part {
        match wire {
            Wire::Chat if data.trim_ascii() == b"[DONE]" => {
                self.done = true;
                Part::Other
            }
            Wire::Chat => self.take_chunk(data),
            Wire::Messages => {
                self.take_event(data);
                Part::Other
            }
            Wire::Responses => {
                self.take_response_event(data);
                Part::Other
            }
        }
    }

    fn take_chunk(&mut self, json: &[u8]) -> Part {
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(json) else {
            return Part::Other;
        };
        self.named(word(chunk.model));
        self.understood = chunk.choices.is_some() || chunk.data.is_some();
        let usage = chunk.usage.and_then(|u| parse_usage(u.get().as_bytes()));
        if usage.is_some() {
            self.usage = usage;
        }
        self.error |= chunk.error.is_some();
        let choices = chunk.choices.map(RawValue::get).unwrap_or_default();
        let is_empty = choices == "[]";
        let choices = serde_json::from_str::<Vec<Choice<'_>>>(choices);
        for choice in choices.iter().flatten() {
            let messages = [&choice.delta, &choice.message].into_iter().flatten();
            let texts = messages.flat_map(Message::texts);
            texts.chain([choice.text]).for_each(|text| self.wrote(text));
        }
        if usage.is_some() && is_empty {
            Part::UsageAlone
        } else {
            Part::Other
        }
    }

    fn take_event(&mut self, json: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(json) else {
            return;
        };
        if let Some(begun) = event.message {
            self.named(word(begun.model));
            self.begun = begun.usage.and_then(|u| parse_usage(u.get().as_bytes()));
        }
        self.named(word(event.model));
        self.understood = event.content.is_some() || event.input_tokens.is_some();
        let usage = event
            .usage
            .and_then(|u| parse_usage_after(u.get().as_bytes(), self.begun));
        if usage.is_some() {
            self.usage = usage;
        }
        match event.kind.as_deref() {
            Some("error") => self.error = true,
            Some("message_stop") => self.done = true,
            _ => {}
        }
        let blocks = event.delta.iter().chain(&event.content_block);
        let blocks = blocks.chain(event.content.iter().flatten());
        blocks.for_each(|block| self.wrote_block(block));
    }

    fn take_response_event(&mut self, json: &[u8]) {
        let Ok(event) = serde_json::from_slice::<ResponseEvent<'_>>(json) else {
            return;
        };
        let kind = event.kind.as_deref().unwrap_or_default();
        match kind {
            "response.completed" | "response.incomplete" => self.done = true,
            "response.failed" | "error" => self.error = true,
            _ if kind.ends_with(".delta") => self.wrote(event.delta),
            _ => {}
        }
        if let Some(response) = event.response
            && let Ok(response) = serde_json::from_str::<Response<'_>>(response.get())
        {
            self.take_response(&response);
        }
    }

    fn take_response(&mut self, response: &Response<'_>) {
        self.named(word(response.model));
        let usage = response.usage.and_then(|u| parse_usage(u.get().as_bytes()));
        if usage.is_some() {
            self.usage = usage;
        }
        self.error |= response.error.is_some();
    }

    fn named(&mut self, model: Option<String>) {
        if let Some(model) = model {
            self.model = Some(clip_model(model));
        }
    }

    /// Takes a string's text. Few strings of a stream hold escapes.
    fn wrote(&mut self, text: Text<'_>) {
        let Some(raw) = text.map(RawValue::get) else {
            return;
        };
        let Some(inner) = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')) else {
            return;
        };
        if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
            return self.keep(inner);
        }
        match serde_json::from_str::<String>(raw) {
            Ok(text) => self.keep(&text),
            Err(_) => self.keep(inner),
        }
    }

    fn wrote_block(&mut self, block: &Block<'_>) {
        block.texts().into_iter().for_each(|text| self.wrote(text));
        if let Some(input) = block.input() {
            self.keep(input);
        }
    }

    fn keep(&mut self, text: &str) {
        self.output_bytes = self.output_bytes.saturating_add(text.len());
        let room = TEXT_MAX_BYTES.saturating_sub(self.text.len());
        if text.len() <= room {
            self.text.push_str(text);
        } else {
            let (kept, _) = text.split_at(text.floor_char_boundary(room));
            self.text.push_str(kept);
        }
    }

    /// What a whole JSON answer used.
    #[must_use]
    pub fn of_json(wire: Wire, body: &[u8]) -> Self {
        let mut seen = Self::default();
        match wire {
            Wire::Chat => {
                seen.take_chunk(body);
            }
            Wire::Messages => seen.take_event(body),
            Wire::Responses => {
                if let Ok(response) = serde_json::from_slice::<Response<'_>>(body) {
                    seen.take_response(&response);
                    seen.understood = response.output.is_some();
                    for item in response.output.iter().flatten() {
                        let blocks = item.content.iter().flatten();
                        blocks.for_each(|block| seen.wrote_block(block));
                        seen.wrote(item.arguments);
                        seen.wrote(item.name);
                    }
                }
            }
        }
        seen.done = true;
        seen
    }
}

#[cfg(test)]
mod tests;
