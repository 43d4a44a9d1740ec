//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::{Shared, error::ApiError, request::Request};
use crate::{
    ids::{self, Mixer},
    inference::{
        answers::{self, Answer, Brief, End},
        faults::Fault,
        log::Recorder,
        params::{flag, text},
        prompt::Charge,
        reply::Reply,
        stream::{Event, Plan},
        tokens,
    },
};

/// How many tokens go into one event.
const TOKENS_AN_EVENT: usize = 4;

/// How many words come before the use of a tool that was the model's choice.
const PREAMBLE_WORDS: u64 = 5;

/// How many tokens are spent on thinking where it is enabled and no fault says how many.
const THINKING_TOKENS: u64 = 12;

pub(super) async fn answer(
    shared: &Shared,
    body: &Map<String, Value>,
    recorder: &mut Recorder,
) -> Result<Reply, ApiError> {
    let request = Request::read(body, &shared.config.models)?;
    let asked = text(body, "model").unwrap_or_default();
    let stream = flag(body, "stream");
    let fault = shared.faults.begin(asked, "/v1/messages", stream).await?;
    let message = Message::new(&request, &fault);
    recorder.status(200);
    recorder.prompt(&message.charge);
    if stream {
        return Ok(Reply::Stream(Box::new(message.plan(fault))));
    }
    recorder.reasoned(message.reasoning_tokens);
    recorder.generated(message.answer.tokens());
    if !fault.missing_usage {
        recorder.usage_sent();
    }
    Ok(Reply::json(message.whole(!fault.missing_usage), &fault))
}

/// The count is free: the record has no tokens for it.
pub(super) async fn count(
    shared: &Shared,
    body: &Map<String, Value>,
    recorder: &mut Recorder,
) -> Result<Reply, ApiError> {
    let request = Request::counted(body, &shared.config.models)?;
    let asked = text(body, "model").unwrap_or_default();
    let path = "/v1/messages/count_tokens";
    let fault = shared.faults.begin(asked, path, false).await?;
    recorder.status(200);
    let value = json!({"input_tokens": request.prompt.tokens});
    Ok(Reply::json(value, &fault))
}

/// The answer, before it is known how it is sent.
struct Message {
    id: String,
    model: String,
    charge: Charge,
    cached_for_an_hour: bool,
    reasoning_tokens: u64,
    /// The text of the thinking, where it is told.
    thinking: Option<String>,
    answer: Answer,
    call_ids: Vec<String>,
}

impl Message {
    fn new(request: &Request<'_>, fault: &Fault) -> Self {
        let default = if request.thinking { THINKING_TOKENS } else { 0 };
        let limit = request.max_tokens.unwrap_or(u64::MAX);
        let reasoning_tokens = fault.reasoning_tokens.unwrap_or(default).min(limit);
        let mut answer = Answer::new(&Brief {
            prompt_hash: request.prompt.hash,
            choice: 0,
            words: fault.answer_words,
            limit: Some(limit.saturating_sub(reasoning_tokens)),
            stop: &request.stop,
            format: request.format,
            calls: &request.calls,
            preamble_words: if request.text_before_calls {
                PREAMBLE_WORDS
            } else {
                0
            },
        });
        // An input is an object here: one that was cut off can't be told.
        answer.calls.retain(|call| call.whole);
        let thinking = request.thinking && reasoning_tokens > 0;
        Self {
            id: ids::random("msg_01", 22),
            model: request.model.served.clone(),
            charge: request.prompt.charge(fault),
            cached_for_an_hour: request.cached_for_an_hour,
            reasoning_tokens,
            thinking: thinking.then(|| thought(request.prompt.hash, reasoning_tokens)),
            call_ids: answer
                .calls
                .iter()
                .map(|_| ids::random("toolu_01", 22))
                .collect(),
            answer,
        }
    }

    /// The counts of input tokens, which don't overlap, with this many of output.
    fn counts(&self, output_tokens: u64) -> Value {
        let mut counts = json!({
            "input_tokens": self.charge.fresh(),
            "cache_creation_input_tokens": self.charge.cache_write,
            "cache_read_input_tokens": self.charge.cached,
            "output_tokens": output_tokens,
        });
        // A stream begins before there is any thinking to tell apart.
        if self.reasoning_tokens > 0 && output_tokens >= self.reasoning_tokens {
            let details = json!({"thinking_tokens": self.reasoning_tokens});
            extend(&mut counts, json!({"output_tokens_details": details}));
        }
        counts
    }

    fn usage(&self, output_tokens: u64) -> Value {
        let (hour, minutes) = if self.cached_for_an_hour {
            (self.charge.cache_write, 0)
        } else {
            (0, self.charge.cache_write)
        };
        let mut usage = self.counts(output_tokens);
        let more = json!({
            "cache_creation": {
                "ephemeral_5m_input_tokens": minutes,
                "ephemeral_1h_input_tokens": hour,
            },
            "service_tier": "standard",
        });
        extend(&mut usage, more);
        usage
    }

    fn output_tokens(&self) -> u64 {
        self.answer.tokens().saturating_add(self.reasoning_tokens)
    }

    fn stop(&self) -> Value {
        let (reason, sequence) = match &self.answer.end {
            End::Done => ("end_turn", None),
            End::Sequence(sequence) => ("stop_sequence", Some(sequence)),
            End::Limit => ("max_tokens", None),
            End::Calls => ("tool_use", None),
        };
        json!({"stop_reason": reason, "stop_sequence": sequence})
    }

    fn frame(&self, content: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
        })
    }

    fn whole(&self, with_usage: bool) -> Value {
        let mut content = Vec::new();
        if let Some(thinking) = &self.thinking {
            content.push(json!({
                "type": "thinking", "thinking": thinking, "signature": self.signature(),
            }));
        }
        let text = self.answer.text.concat();
        if !text.is_empty() {
            content.push(json!({"type": "text", "text": text}));
        }
        for (call, id) in self.answer.calls.iter().zip(&self.call_ids) {
            let input = call.input.concat();
            let input: Value = serde_json::from_str(&input).unwrap_or_else(|_| json!({}));
            content.push(json!({"type": "tool_use", "id": id, "name": call.name, "input": input}));
        }
        let mut value = self.frame(content);
        extend(&mut value, self.stop());
        if with_usage {
            let usage = json!({"usage": self.usage(self.output_tokens())});
            extend(&mut value, usage);
        }
        value
    }

    fn signature(&self) -> String {
        ids::derived("EqQBCkYIARgCKkA", &self.id)
    }

    fn plan(&self, fault: Fault) -> Plan {
        let tells = !fault.missing_usage;
        let mut begun = self.frame(Vec::new());
        extend(
            &mut begun,
            json!({"stop_reason": null, "stop_sequence": null}),
        );
        let mut last = json!({"type": "message_delta", "delta": self.stop()});
        if tells {
            extend(&mut begun, json!({"usage": self.usage(1)}));
            let usage = json!({"usage": self.counts(self.output_tokens())});
            extend(&mut last, usage);
        }
        let mut blocks = Blocks::default();
        blocks.push(&json!({"type": "message_start", "message": begun}), 0);
        self.blocks(&mut blocks);
        let mut events = blocks.events;
        events.push_back(Event::named(&last, 0).with_usage(tells));
        let error = ApiError::fault(529, None).body(None);
        Plan {
            events,
            end: Some(Event::named(&json!({"type": "message_stop"}), 0)),
            error: Event::named(&error, 0),
            reasoning_tokens: self.reasoning_tokens,
            fault,
        }
    }

    fn blocks(&self, blocks: &mut Blocks) {
        if let Some(thinking) = &self.thinking {
            blocks.start(
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                0,
            );
            let pieces: Vec<&str> = tokens::split(thinking).collect();
            for piece in pieces.chunks(TOKENS_AN_EVENT) {
                // Counted when the stream begins, as all reasoning is.
                blocks.delta(
                    json!({"type": "thinking_delta", "thinking": piece.concat()}),
                    0,
                );
            }
            blocks.delta(
                json!({"type": "signature_delta", "signature": self.signature()}),
                0,
            );
            blocks.stop();
        }
        if !self.answer.text.is_empty() {
            blocks.start(json!({"type": "text", "text": ""}), 0);
            for piece in self.answer.text.chunks(TOKENS_AN_EVENT) {
                blocks.delta(
                    json!({"type": "text_delta", "text": piece.concat()}),
                    piece.len() as u64,
                );
            }
            blocks.stop();
        }
        for (call, id) in self.answer.calls.iter().zip(&self.call_ids) {
            let block = json!({"type": "tool_use", "id": id, "name": call.name, "input": {}});
            blocks.start(block, call.name_tokens);
            blocks.delta(json!({"type": "input_json_delta", "partial_json": ""}), 0);
            for piece in call.input.chunks(TOKENS_AN_EVENT) {
                blocks.delta(
                    json!({"type": "input_json_delta", "partial_json": piece.concat()}),
                    piece.len() as u64,
                );
            }
            blocks.stop();
        }
    }
}

/// The events of a stream's blocks, which are numbered.
#[derive(Debug, Default)]
struct Blocks {
    events: VecDeque<Event>,
    index: u64,
}

impl Blocks {
    fn push(&mut self, value: &Value, tokens: u64) {
        self.events.push_back(Event::named(value, tokens));
    }

    fn start(&mut self, block: Value, tokens: u64) {
        let value = json!({
            "type": "content_block_start", "index": self.index, "content_block": block,
        });
        self.push(&value, tokens);
        if self.index == 0 {
            self.push(&json!({"type": "ping"}), 0);
        }
    }

    fn delta(&mut self, delta: Value, tokens: u64) {
        let value = json!({"type": "content_block_delta", "index": self.index, "delta": delta});
        self.push(&value, tokens);
    }

    fn stop(&mut self) {
        self.push(
            &json!({"type": "content_block_stop", "index": self.index}),
            0,
        );
        self.index = self.index.saturating_add(1);
    }
}

/// A text of exactly that many tokens.
fn thought(prompt_hash: u64, count: u64) -> String {
    let mut mixer = Mixer::new(prompt_hash.rotate_left(32));
    let text = answers::prose(&mut mixer, Some(count));
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    tokens::split(&text).take(count).collect()
}

fn extend(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}
