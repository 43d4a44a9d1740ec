//! `POST /v1/chat/completions`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    Reply, Shared, answers,
    chat_request::ChatRequest,
    error::ApiError,
    faults::Fault,
    log::Recorder,
    stream::{Event, Plan},
    tokens,
};
use crate::ids;

/// How many tokens of a choice go into one chunk.
const TOKENS_A_CHUNK: usize = 4;

pub(super) async fn answer(
    shared: &Shared,
    body: &Map<String, Value>,
    recorder: &mut Recorder,
) -> Result<Reply, ApiError> {
    let request = ChatRequest::read(body, &shared.config.models)?;
    let asked = body
        .get("model")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let fault = shared
        .faults
        .take(|fault| fault.matches(asked, "/v1/chat/completions", request.stream));
    begin(&fault).await?;
    let completion = Completion::new(&request, &fault);
    recorder.status(200);
    recorder.prompt(completion.prompt_tokens, completion.cached_tokens);
    if request.stream {
        let reasoning_tokens = completion.reasoning_tokens;
        let events = completion.events(request.include_usage, !fault.missing_usage);
        return Ok(Reply::Stream(Box::new(Plan::new(
            events,
            reasoning_tokens,
            fault,
        ))));
    }
    recorder.reasoned(completion.reasoning_tokens);
    recorder.generated(completion.visible_tokens());
    if !fault.missing_usage {
        recorder.usage_sent();
    }
    let cut = fault.cut_after_chunks.is_some();
    let value = completion.whole(!fault.missing_usage);
    Ok(if cut {
        Reply::HalfJson(value)
    } else {
        Reply::Json(value)
    })
}

/// What a fault does before anything is answered.
pub(super) async fn begin(fault: &Fault) -> Result<(), ApiError> {
    if let Some(delay) = fault.delay_ms {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    match fault.status {
        Some(status) => Err(ApiError::fault(status, fault.retry_after_s)),
        None => Ok(()),
    }
}

/// One choice: its text in tokens, and why it ended.
struct Choice {
    tokens: Vec<String>,
    finish_reason: &'static str,
}

impl Choice {
    fn new(request: &ChatRequest<'_>, index: u64, words: Option<u64>, limit: Option<u64>) -> Self {
        let mut text = answers::text(request.prompt_hash, index, words);
        // OpenAI ends the text before the stop sequence that comes first.
        let stops = request.stop.iter().filter(|stop| !stop.is_empty());
        if let Some(end) = stops.filter_map(|stop| text.find(stop)).min() {
            text.truncate(end);
        }
        let mut tokens: Vec<String> = tokens::split(&text).map(str::to_owned).collect();
        let limit = limit
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(usize::MAX);
        let finish_reason = if tokens.len() > limit {
            "length"
        } else {
            "stop"
        };
        tokens.truncate(limit);
        Self {
            tokens,
            finish_reason,
        }
    }
}

/// The answer, before it is known how it is sent.
struct Completion {
    id: String,
    model: String,
    created: i64,
    choices: Vec<Choice>,
    prompt_tokens: u64,
    cached_tokens: u64,
    reasoning_tokens: u64,
}

impl Completion {
    fn new(request: &ChatRequest<'_>, fault: &Fault) -> Self {
        let limit = request.max_tokens;
        // Reasoning comes first and out of the same allowance; it is booked on the first choice.
        let wanted = fault.reasoning_tokens.unwrap_or(0);
        let reasoning_tokens = limit.map_or(wanted, |limit| wanted.min(limit));
        let choice = |index: u64| {
            let spent = if index == 0 { reasoning_tokens } else { 0 };
            let limit = limit.map(|limit| limit.saturating_sub(spent));
            Choice::new(request, index, fault.answer_words, limit)
        };
        Self {
            id: ids::random("chatcmpl-", 29),
            model: request.model.served.clone(),
            created: ids::now_s(),
            choices: (0..request.choices).map(choice).collect(),
            prompt_tokens: request.prompt_tokens,
            cached_tokens: fault.cached_tokens.unwrap_or(0).min(request.prompt_tokens),
            reasoning_tokens,
        }
    }

    fn visible_tokens(&self) -> u64 {
        self.choices
            .iter()
            .map(|choice| choice.tokens.len() as u64)
            .sum()
    }

    fn usage(&self) -> Value {
        let completion_tokens = self.visible_tokens().saturating_add(self.reasoning_tokens);
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens.saturating_add(completion_tokens),
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        })
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

    fn whole(&self, with_usage: bool) -> Value {
        let choice = |(index, choice): (usize, &Choice)| {
            json!({
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": choice.tokens.concat(),
                    "refusal": null,
                    "annotations": [],
                },
                "logprobs": null,
                "finish_reason": choice.finish_reason,
            })
        };
        let choices = self.choices.iter().enumerate().map(choice).collect();
        let mut value = self.object("chat.completion", choices);
        if with_usage && let Some(object) = value.as_object_mut() {
            object.insert("usage".to_owned(), self.usage());
        }
        value
    }

    /// The chunks in order: choices take turns, as they do where OpenAI streams several.
    fn events(&self, include_usage: bool, with_usage: bool) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        let mut push = |index: usize, delta: Value, finish: Value, tokens: usize| {
            let choice = json!([{
                "index": index, "delta": delta, "logprobs": null, "finish_reason": finish,
            }]);
            let mut chunk = self.object("chat.completion.chunk", choice);
            if include_usage
                && with_usage
                && let Some(object) = chunk.as_object_mut()
            {
                object.insert("usage".to_owned(), Value::Null);
            }
            events.push(Event {
                chunk,
                tokens: tokens as u64,
                usage: false,
            });
        };
        let mut parts: Vec<_> = self
            .choices
            .iter()
            .map(|choice| choice.tokens.chunks(TOKENS_A_CHUNK))
            .collect();
        for index in 0..parts.len() {
            let delta = json!({"role": "assistant", "content": "", "refusal": null});
            push(index, delta, Value::Null, 0);
        }
        let mut more = true;
        while more {
            more = false;
            for (index, part) in parts.iter_mut().enumerate() {
                if let Some(tokens) = part.next() {
                    push(
                        index,
                        json!({"content": tokens.concat()}),
                        Value::Null,
                        tokens.len(),
                    );
                    more = true;
                }
            }
        }
        for (index, choice) in self.choices.iter().enumerate() {
            push(index, json!({}), json!(choice.finish_reason), 0);
        }
        if include_usage && with_usage {
            let mut chunk = self.object("chat.completion.chunk", json!([]));
            if let Some(object) = chunk.as_object_mut() {
                object.insert("usage".to_owned(), self.usage());
            }
            events.push(Event {
                chunk,
                tokens: 0,
                usage: true,
            });
        }
        events
    }
}
