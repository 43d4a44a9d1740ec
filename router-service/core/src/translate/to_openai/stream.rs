//! A stream of Anthropic's events, as chat completion chunks.
//!
//! Sources: Anthropic API reference, "Streaming Messages"; OpenAI API
//! reference, "Chat Completions", "Streaming".

use serde::Deserialize;
use serde_json::value::RawValue;
use weir_wire::error::ApiError;

use super::{
    super::{
        JSON_ANSWER_TOOL, errors,
        fields::Text,
        usage::{OfAnthropic, Usage},
        write::{compact, filled, put, quoted},
    },
    finish_reason,
};

/// What the client asked for, and the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The client wants the chunk that says what the answer used.
    pub include_usage: bool,
    /// When the answer began, in seconds since 1970.
    pub created_s: i64,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    index: Option<u64>,
    #[serde(borrow)]
    message: Option<Start<'a>>,
    #[serde(borrow)]
    content_block: Option<BlockStart<'a>>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    usage: Option<OfAnthropic>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    model: Option<Text<'a>>,
    usage: Option<OfAnthropic>,
}

#[derive(Deserialize)]
struct BlockStart<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow)]
    stop_reason: Option<Text<'a>>,
}

/// Only the name, of an event that may be newer than this code.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
}

/// The events that an answer is made of.
const KNOWN: [&str; 7] = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
];

/// A tool's input as it comes.
#[derive(Debug)]
struct Input {
    /// The block's place in Anthropic's message.
    block: u64,
    /// The call's place among the client's; `None` for the JSON answer.
    call: Option<u64>,
    /// What the block began with: the whole, where nothing follows.
    start: String,
    written: bool,
}

/// Anthropic's stream, for a client of OpenAI's dialect.
#[derive(Debug)]
pub struct Stream {
    options: Options,
    /// Every chunk's first members.
    head: Vec<u8>,
    /// Inputs whose blocks are open.
    inputs: Vec<Input>,
    calls: u64,
    usage: Usage,
    content: bool,
    finished: bool,
    /// `[DONE]` or an error was written: nothing comes after.
    over: bool,
    done: bool,
}

impl Stream {
    /// At the start of an answer.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut stream = Self {
            options,
            head: Vec::new(),
            inputs: Vec::new(),
            calls: 0,
            usage: Usage::default(),
            content: false,
            finished: false,
            over: false,
            done: false,
        };
        stream.set_head("", "");
        stream
    }

    /// Whether any content was written: text or a tool call.
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
        let taken = match serde_json::from_slice::<Event<'_>>(data) {
            Ok(event) => self.event(&event, out),
            Err(_) => serde_json::from_slice::<Kind<'_>>(data)
                .is_ok_and(|e| !KNOWN.contains(&e.kind.0.as_ref()))
                .then_some(()),
        };
        if taken.is_none() {
            self.fail(&errors::unreadable(), out);
        }
    }

    /// `None` where it lacks what its kind must have.
    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Option<()> {
        match event.kind.0.as_ref() {
            "message_start" => self.start(event.message.as_ref()?, out),
            "content_block_start" => {
                self.block(event.index?, event.content_block.as_ref()?, out)?;
            }
            "content_block_delta" => {
                let delta = event.delta.as_ref()?;
                if let Some(text) = filled(delta.text) {
                    self.say(text.get(), out)?;
                } else if let Some(json) = filled(delta.partial_json) {
                    self.more(event.index?, json.get(), out)?;
                }
            }
            "content_block_stop" => self.settle(event.index, out),
            "message_delta" => {
                if let Some(usage) = &event.usage {
                    self.usage.update(usage);
                }
                if let Some(Text(reason)) = event.delta.as_ref()?.stop_reason.as_ref() {
                    self.finish(reason, out);
                }
            }
            "message_stop" => self.end(out),
            "ping" => out.extend_from_slice(b": ping\n\n"),
            "error" => {
                let body = format!("{{\"error\":{}}}", event.error?.get());
                self.fail(&errors::of_anthropic(body.as_bytes())?, out);
            }
            _ => {}
        }
        Some(())
    }

    fn start(&mut self, message: &Start<'_>, out: &mut Vec<u8>) {
        let text = |t: &Option<Text<'_>>| t.as_ref().map_or(String::new(), |t| t.0.to_string());
        self.set_head(&text(&message.id), &text(&message.model));
        if let Some(usage) = &message.usage {
            self.usage.update(usage);
        }
        self.delta(&[b"\"role\":\"assistant\",\"content\":\"\""], out);
    }

    fn block(&mut self, block: u64, start: &BlockStart<'_>, out: &mut Vec<u8>) -> Option<()> {
        match start.kind.0.as_ref() {
            "text" => {
                if let Some(text) = filled(start.text) {
                    self.say(text.get(), out)?;
                }
            }
            "tool_use" => {
                let name = start.name.as_ref()?.0.as_ref();
                let call = if name == JSON_ANSWER_TOOL {
                    None
                } else {
                    Some(self.call(start.id.as_ref()?.0.as_ref(), name, out))
                };
                self.inputs.push(Input {
                    block,
                    call,
                    start: start.input.map_or("{}".to_owned(), |i| compact(i.get())),
                    written: false,
                });
            }
            // Thinking, and what only the provider's own tools make.
            _ => {}
        }
        Some(())
    }

    fn call(&mut self, id: &str, name: &str, out: &mut Vec<u8>) -> u64 {
        let call = self.calls;
        self.calls = call.saturating_add(1);
        self.content = true;
        self.delta(
            &[
                b"\"tool_calls\":[{\"index\":",
                call.to_string().as_bytes(),
                b",\"id\":",
                quoted(id).as_bytes(),
                b",\"type\":\"function\",\"function\":{\"name\":",
                quoted(name).as_bytes(),
                b",\"arguments\":\"\"}}]",
            ],
            out,
        );
        call
    }

    /// A string of text, as raw JSON, which both dialects write alike.
    fn say(&mut self, raw: &str, out: &mut Vec<u8>) -> Option<()> {
        if !raw.starts_with('"') {
            return None;
        }
        self.content = true;
        self.delta(&[b"\"content\":", raw.as_bytes()], out);
        Some(())
    }

    /// A piece of a tool's input, as the raw JSON of a string.
    fn more(&mut self, block: u64, raw: &str, out: &mut Vec<u8>) -> Option<()> {
        // Of a block that is hidden.
        let Some(input) = self.inputs.iter_mut().find(|i| i.block == block) else {
            return Some(());
        };
        input.written = true;
        let call = input.call;
        self.input(call, raw, out)
    }

    fn input(&mut self, call: Option<u64>, raw: &str, out: &mut Vec<u8>) -> Option<()> {
        let Some(call) = call else {
            return self.say(raw, out);
        };
        if !raw.starts_with('"') {
            return None;
        }
        self.delta(
            &[
                b"\"tool_calls\":[{\"index\":",
                call.to_string().as_bytes(),
                b",\"function\":{\"arguments\":",
                raw.as_bytes(),
                b"}}]",
            ],
            out,
        );
        Some(())
    }

    /// A block ended, or all did. A tool without parameters gets no piece of
    /// input, and OpenAI's clients parse its arguments nevertheless.
    fn settle(&mut self, block: Option<u64>, out: &mut Vec<u8>) {
        let inputs = std::mem::take(&mut self.inputs);
        let (ended, open): (Vec<_>, Vec<_>) = inputs
            .into_iter()
            .partition(|i| block.is_none_or(|b| b == i.block));
        self.inputs = open;
        for input in ended.iter().filter(|i| !i.written) {
            // A quoted string is one that can be written.
            let _ = self.input(input.call, &quoted(&input.start), out);
        }
    }

    fn finish(&mut self, stop_reason: &str, out: &mut Vec<u8>) {
        self.settle(None, out);
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let reason = finish_reason(stop_reason, self.calls > 0);
        self.chunk(
            &[
                b",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"",
                reason.as_bytes(),
                b"\"}]",
            ],
            out,
        );
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.finish("tool_use", out);
        if self.options.include_usage {
            // Counts always serialise; the fallback is unreachable.
            let usage = serde_json::to_string(&self.usage.for_openai()).unwrap_or_default();
            put(
                out,
                &[
                    &self.head,
                    b",\"choices\":[],\"usage\":",
                    usage.as_bytes(),
                    b"}\n\n",
                ],
            );
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
        self.over = true;
        self.done = true;
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        put(out, &[b"data: ", error.body().as_bytes(), b"\n\n"]);
        self.over = true;
    }

    fn set_head(&mut self, id: &str, model: &str) {
        self.head = format!(
            "data: {{\"id\":{},\"object\":\"chat.completion.chunk\",\"created\":{},\"model\":{}",
            quoted(id),
            self.options.created_s,
            quoted(model)
        )
        .into_bytes();
    }

    /// A chunk with these members of its delta.
    fn delta(&self, members: &[&[u8]], out: &mut Vec<u8>) {
        put(
            out,
            &[&self.head, b",\"choices\":[{\"index\":0,\"delta\":{"],
        );
        put(out, members);
        self.close(b"},\"logprobs\":null,\"finish_reason\":null}]", out);
    }

    fn chunk(&self, members: &[&[u8]], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        put(out, members);
        self.close(b"", out);
    }

    /// Where the client asked for usage, every chunk has the member.
    fn close(&self, rest: &[u8], out: &mut Vec<u8>) {
        let usage: &[u8] = if self.options.include_usage {
            b",\"usage\":null"
        } else {
            b""
        };
        put(out, &[rest, usage, b"}\n\n"]);
    }
}
