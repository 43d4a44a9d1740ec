//! `POST /v1/completions`, the older API: text that goes on from a prompt.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::{
    Shared,
    chat::{TOKENS_A_CHUNK, stream_error},
    chat_request::{fits, include_usage, stop},
    embeddings::{Input, inputs},
    error::ApiError,
    logprobs,
    models::{self, Model, ModelKind},
    output::{Output, set},
};
use crate::{
    ids,
    inference::{
        answers::{Answer, Brief, End, Format},
        faults::Fault,
        log::Recorder,
        params::{Kind, Param, flag, given, number, text},
        prompt::Prompt,
        reply::Reply,
        stream::{Event, Plan},
        tokens,
    },
};

/// The most tokens of an answer where the request says nothing.
const MAX_TOKENS: u64 = 16;

const KNOWN: &[Param] = &[
    ("best_of", Kind::Integer(1, 20)),
    ("echo", Kind::Boolean),
    ("frequency_penalty", Kind::Number(-2.0, 2.0)),
    ("logit_bias", Kind::Object),
    ("logprobs", Kind::Integer(0, 5)),
    ("max_tokens", Kind::Integer(0, i64::MAX)),
    ("model", Kind::Text),
    ("n", Kind::Integer(1, 128)),
    ("presence_penalty", Kind::Number(-2.0, 2.0)),
    ("prompt", Kind::Checked),
    ("seed", Kind::Integer(i64::MIN, i64::MAX)),
    ("stop", Kind::Checked),
    ("stream", Kind::Boolean),
    ("stream_options", Kind::Object),
    ("suffix", Kind::Text),
    ("temperature", Kind::Number(0.0, 2.0)),
    ("top_p", Kind::Number(0.0, 1.0)),
    ("user", Kind::Text),
];

/// A request that may be answered.
struct Request<'a> {
    model: &'a Model,
    prompts: Vec<Input>,
    /// All prompts, and the suffix with each.
    prompt: Prompt,
    choices: u64,
    max_tokens: u64,
    stop: Vec<&'a str>,
    stream: bool,
    include_usage: bool,
    echo: bool,
    logprobs: Option<u64>,
}

pub(super) async fn answer(
    shared: &Shared,
    body: &Map<String, Value>,
    recorder: &mut Recorder,
) -> Result<Reply, ApiError> {
    let request = Request::read(body, shared)?;
    let asked = text(body, "model").unwrap_or_default();
    let path = "/v1/completions";
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
    let all = completion.choices.iter();
    let choices = all.map(|choice| choice.describe(&choice.tokens, 0, choice.end()));
    let mut value = completion.object(choices.collect());
    if !fault.missing_usage {
        set(&mut value, "usage", completion.output.plain_usage());
    }
    Ok(Reply::json(value, &fault))
}

impl<'a> Request<'a> {
    fn read(body: &'a Map<String, Value>, shared: &'a Shared) -> Result<Self, ApiError> {
        let config = &shared.config;
        let name = given(body, "model").ok_or_else(|| ApiError::missing("model"))?;
        config.check(body, KNOWN)?;
        let model = models::find(&config.models, name.as_str().unwrap_or_default())?;
        let context_tokens = match model.kind {
            ModelKind::Completion { context_tokens } => context_tokens,
            ModelKind::Chat { context_tokens, .. } if config.compatible => context_tokens,
            _ => return Err(ApiError::wrong_model_kind("/v1/completions")),
        };
        let prompts = given(body, "prompt").ok_or_else(|| ApiError::missing("prompt"))?;
        let prompts = inputs("prompt", prompts, true)?;
        let max_tokens = number(body, "max_tokens").unwrap_or(MAX_TOKENS);
        let suffix = text(body, "suffix").unwrap_or_default();
        let mut prompt = Prompt::default();
        for input in &prompts {
            let mut one = Prompt::default();
            one.add(input.tokens);
            one.text(suffix);
            fits(&one, Some(max_tokens), context_tokens, "prompt")?;
            prompt.add(one.tokens);
        }
        let choices = number(body, "n").unwrap_or(1);
        let best_of = number(body, "best_of").unwrap_or(choices);
        let stream = flag(body, "stream");
        if best_of < choices || (stream && best_of > choices) {
            let message = format!(
                "Invalid 'best_of': {best_of}; it must be at least 'n', and 'n' in a stream."
            );
            return Err(ApiError::invalid("best_of", "invalid_value", message));
        }
        Ok(Self {
            model,
            prompts,
            prompt,
            choices,
            max_tokens,
            stop: stop(body)?,
            stream,
            include_usage: include_usage(body, config, stream)?,
            echo: flag(body, "echo"),
            logprobs: number(body, "logprobs"),
        })
    }
}

/// One choice: the text that is sent, in tokens.
struct Choice {
    index: u64,
    /// The echo of the prompt, if it was asked for, and the answer.
    tokens: Vec<String>,
    /// How many of them are the echo, which is not charged as an answer.
    echoed: usize,
    finish_reason: &'static str,
    logprobs: Option<u64>,
}

impl Choice {
    fn end(&self) -> Value {
        json!(self.finish_reason)
    }

    fn describe(&self, tokens: &[String], offset: u64, finish_reason: Value) -> Value {
        let logprobs = self
            .logprobs
            .map_or(Value::Null, |top| logprobs::completion(tokens, top, offset));
        json!({
            "text": tokens.concat(),
            "index": self.index,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        })
    }
}

struct Completion {
    id: String,
    model: String,
    created: i64,
    output: Output,
    choices: Vec<Choice>,
}

impl Completion {
    /// `n` choices for each prompt, the first prompt's first.
    fn new(request: &Request<'_>, fault: &Fault) -> Self {
        let of_prompt = |index: u64| {
            let position = index.checked_div(request.choices).unwrap_or(0);
            let position = usize::try_from(position).unwrap_or(usize::MAX);
            request.prompts.get(position)
        };
        let count = request.choices.saturating_mul(request.prompts.len() as u64);
        let limit = Some(request.max_tokens);
        let output = Output::new(&request.prompt, fault, count, limit, |index, limit| {
            Answer::new(&Brief {
                prompt_hash: of_prompt(index).map_or(0, |prompt| prompt.hash),
                choice: index.checked_rem(request.choices).unwrap_or(0),
                words: fault.answer_words,
                limit,
                stop: &request.stop,
                format: Format::Text,
                calls: &[],
                preamble_words: 0,
            })
        });
        let choice = |(index, answer): (u64, &Answer)| {
            let prompt = of_prompt(index).filter(|_| request.echo);
            let echo = prompt.map_or("", |prompt| prompt.text.as_str());
            let mut tokens: Vec<String> = tokens::split(echo).map(str::to_owned).collect();
            let echoed = tokens.len();
            tokens.extend(answer.text.iter().cloned());
            Choice {
                index,
                tokens,
                echoed,
                finish_reason: if answer.end == End::Limit {
                    "length"
                } else {
                    "stop"
                },
                logprobs: request.logprobs,
            }
        };
        Self {
            id: ids::random("cmpl-", 29),
            model: request.model.served.clone(),
            created: ids::now_s(),
            choices: (0..).zip(&output.answers).map(choice).collect(),
            output,
        }
    }

    fn object(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    /// The chunks: the choices take turns.
    fn events(&self, include_usage: bool, with_usage: bool) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        let null_usage = include_usage && with_usage;
        let mut push = |choice: Value, tokens: usize| {
            let mut chunk = self.object(vec![choice]);
            if null_usage {
                set(&mut chunk, "usage", Value::Null);
            }
            events.push_back(Event::data(&chunk, tokens as u64));
        };
        let longest = self.choices.iter().map(|choice| choice.tokens.len()).max();
        for start in (0..longest.unwrap_or(0)).step_by(TOKENS_A_CHUNK) {
            let end = start.saturating_add(TOKENS_A_CHUNK);
            for choice in &self.choices {
                let end = end.min(choice.tokens.len());
                if let Some(part) = choice.tokens.get(start..end)
                    && !part.is_empty()
                {
                    let before = choice.tokens.iter().take(start);
                    let offset = before.map(|token| token.chars().count() as u64).sum();
                    let answered = end.saturating_sub(start.max(choice.echoed));
                    push(choice.describe(part, offset, Value::Null), answered);
                }
            }
        }
        for choice in &self.choices {
            let last = json!({
                "text": "", "index": choice.index, "logprobs": null,
                "finish_reason": choice.end(),
            });
            push(last, 0);
        }
        if null_usage {
            let mut chunk = self.object(Vec::new());
            set(&mut chunk, "usage", self.output.plain_usage());
            events.push_back(Event::data(&chunk, 0).with_usage(true));
        }
        events
    }
}
