//! `POST /v1/chat/completions`.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::{
    Shared,
    chat_request::ChatRequest,
    error::ApiError,
    logprobs,
    output::{Output, set},
};
use crate::{
    ids,
    inference::{
        answers::{Answer, Brief, End},
        faults::Fault,
        log::Recorder,
        params::text,
        reply::Reply,
        stream::{Event, Plan},
    },
};

/// How many tokens of a choice go into one chunk.
pub(super) const TOKENS_A_CHUNK: usize = 4;

pub(super) async fn answer(
    shared: &Shared,
    body: &Map<String, Value>,
    recorder: &mut Recorder,
) -> Result<Reply, ApiError> {
    let request = ChatRequest::read(body, &shared.config)?;
    let asked = text(body, "model").unwrap_or_default();
    let path = "/v1/chat/completions";
    let fault = shared.faults.begin(asked, path, request.stream).await?;
    let completion = Completion::new(&request, &fault);
    recorder.status(200);
    recorder.prompt(&completion.output.charge);
    if request.stream {
        let events = completion.events(request.include_usage, !fault.missing_usage);
        return Ok(Reply::Stream(Box::new(Plan {
            events,
            end: Some(Event::done()),
            error: stream_error(shared.config.compatible),
            reasoning_tokens: completion.output.reasoning_tokens,
            fault,
        })));
    }
    completion.output.record(recorder, !fault.missing_usage);
    Ok(Reply::json(completion.whole(!fault.missing_usage), &fault))
}

/// The error that a fault puts into a stream.
pub(super) fn stream_error(compatible: bool) -> Event {
    let error = ApiError::fault(500, None);
    let body = if compatible {
        error.compatible_body()
    } else {
        error.body()
    };
    Event::data(&body, 0)
}

/// The answer, before it is known how it is sent.
struct Completion {
    id: String,
    model: String,
    created: i64,
    output: Output,
    /// How many candidates a token has, where probabilities are told.
    logprobs: Option<u64>,
    /// The ids of the calls of each choice.
    call_ids: Vec<Vec<String>>,
}

/// What one chunk says of a choice.
struct Piece {
    delta: Value,
    logprobs: Value,
    tokens: u64,
}

impl Completion {
    fn new(request: &ChatRequest<'_>, fault: &Fault) -> Self {
        let limit = request.max_tokens;
        let output = Output::new(
            &request.prompt,
            fault,
            request.choices,
            limit,
            |choice, limit| {
                Answer::new(&Brief {
                    prompt_hash: request.prompt.hash,
                    choice,
                    words: fault.answer_words,
                    limit,
                    stop: &request.stop,
                    format: request.format,
                    calls: &request.calls,
                    preamble_words: 0,
                })
            },
        );
        let ids = |answer: &Answer| {
            let calls = answer.calls.iter();
            calls.map(|_| ids::random("call_", 24)).collect()
        };
        Self {
            id: ids::random("chatcmpl-", 29),
            model: request.model.served.clone(),
            created: ids::now_s(),
            call_ids: output.answers.iter().map(ids).collect(),
            output,
            logprobs: request.logprobs,
        }
    }

    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": "fp_weirfake00",
            "choices": choices,
        })
    }

    fn logprobs(&self, tokens: &[String]) -> Value {
        self.logprobs
            .map_or(Value::Null, |top| logprobs::chat(tokens, top))
    }

    fn answers(&self) -> impl Iterator<Item = (usize, &Answer, &[String])> {
        let ids = self.call_ids.iter().map(Vec::as_slice);
        let answers = self.output.answers.iter().zip(ids).enumerate();
        answers.map(|(index, (answer, ids))| (index, answer, ids))
    }

    fn whole(&self, with_usage: bool) -> Value {
        let choice = |(index, answer, ids): (usize, &Answer, &[String])| {
            let mut message = json!({
                "role": "assistant",
                "content": answer.text.concat(),
                "refusal": null,
                "annotations": [],
            });
            let calls: Vec<Value> = answer
                .calls
                .iter()
                .zip(ids)
                .map(|(call, id)| {
                    let function = json!({"name": call.name, "arguments": call.input.concat()});
                    json!({"id": id, "type": "function", "function": function})
                })
                .collect();
            if !calls.is_empty() {
                set(&mut message, "content", Value::Null);
                set(&mut message, "tool_calls", calls);
            }
            json!({
                "index": index,
                "message": message,
                "logprobs": self.logprobs(&answer.text),
                "finish_reason": finish_reason(answer),
            })
        };
        let choices = self.answers().map(choice).collect();
        let mut value = self.object("chat.completion", choices);
        if with_usage {
            set(&mut value, "usage", self.output.chat_usage());
        }
        value
    }

    /// What the chunks of a choice say, up to why it ended.
    fn pieces(&self, answer: &Answer, ids: &[String]) -> VecDeque<Piece> {
        let piece = |delta: Value, tokens: u64| Piece {
            delta,
            logprobs: Value::Null,
            tokens,
        };
        let mut pieces = VecDeque::new();
        let content = if answer.calls.is_empty() {
            json!("")
        } else {
            Value::Null
        };
        pieces.push_back(piece(
            json!({"role": "assistant", "content": content, "refusal": null}),
            0,
        ));
        for tokens in answer.text.chunks(TOKENS_A_CHUNK) {
            pieces.push_back(Piece {
                logprobs: self.logprobs(tokens),
                ..piece(json!({"content": tokens.concat()}), tokens.len() as u64)
            });
        }
        for (index, (call, id)) in answer.calls.iter().zip(ids).enumerate() {
            let begun = json!({"tool_calls": [{
                "index": index, "id": id, "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }]});
            pieces.push_back(piece(begun, call.name_tokens));
            for tokens in call.input.chunks(TOKENS_A_CHUNK) {
                let function = json!({"arguments": tokens.concat()});
                let more = json!({"tool_calls": [{"index": index, "function": function}]});
                pieces.push_back(piece(more, tokens.len() as u64));
            }
        }
        pieces
    }

    /// The chunks in order: choices take turns, as they do where OpenAI streams several.
    fn events(&self, include_usage: bool, with_usage: bool) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        let mut push = |index: usize, piece: Piece, finish: Value| {
            let choice = json!([{
                "index": index, "delta": piece.delta, "logprobs": piece.logprobs,
                "finish_reason": finish,
            }]);
            let mut chunk = self.object("chat.completion.chunk", choice);
            if include_usage && with_usage {
                set(&mut chunk, "usage", Value::Null);
            }
            events.push_back(Event::data(&chunk, piece.tokens));
        };
        let mut queues: Vec<(usize, VecDeque<Piece>)> = self
            .answers()
            .map(|(index, answer, ids)| (index, self.pieces(answer, ids)))
            .collect();
        while queues.iter().any(|(_, pieces)| !pieces.is_empty()) {
            for (index, pieces) in &mut queues {
                if let Some(piece) = pieces.pop_front() {
                    push(*index, piece, Value::Null);
                }
            }
        }
        for (index, answer, _) in self.answers() {
            let piece = Piece {
                delta: json!({}),
                logprobs: Value::Null,
                tokens: 0,
            };
            push(index, piece, json!(finish_reason(answer)));
        }
        if include_usage && with_usage {
            let mut chunk = self.object("chat.completion.chunk", json!([]));
            set(&mut chunk, "usage", self.output.chat_usage());
            events.push_back(Event::data(&chunk, 0).with_usage(true));
        }
        events
    }
}

fn finish_reason(answer: &Answer) -> &'static str {
    match answer.end {
        End::Done | End::Sequence(_) => "stop",
        End::Limit => "length",
        End::Calls => "tool_calls",
    }
}
