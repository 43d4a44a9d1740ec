//! `POST /v1/responses`, without what needs stored ones.

use serde_json::{Map, Value, json};

use super::{
    Config, Shared,
    chat_request::{fits, schema_of},
    error::ApiError,
    models::{self, Model, ModelKind},
    output::{Output, set},
    responses_events,
    responses_input::Items,
    tools::{self, Shape},
};
use crate::{
    ids,
    inference::{
        answers::{Answer, Brief, End, Format},
        faults::Fault,
        log::Recorder,
        params::{Kind, Param, array, flag, given, number, text},
        prompt::Prompt,
        reply::Reply,
        tools::{Wanted, calls},
    },
};

const KNOWN: &[Param] = &[
    ("background", Kind::Boolean),
    ("include", Kind::Array),
    ("input", Kind::TextOrArray),
    ("instructions", Kind::Text),
    ("max_output_tokens", Kind::Integer(16, i64::MAX)),
    ("max_tool_calls", Kind::Integer(1, i64::MAX)),
    ("metadata", Kind::Object),
    ("model", Kind::Text),
    ("parallel_tool_calls", Kind::Boolean),
    ("previous_response_id", Kind::Text),
    ("prompt_cache_key", Kind::Text),
    ("prompt_cache_retention", Kind::OneOf(&["in_memory", "24h"])),
    ("reasoning", Kind::Object),
    ("safety_identifier", Kind::Text),
    (
        "service_tier",
        Kind::OneOf(&["auto", "default", "flex", "scale", "priority"]),
    ),
    ("store", Kind::Boolean),
    ("stream", Kind::Boolean),
    ("stream_options", Kind::Object),
    ("temperature", Kind::Number(0.0, 2.0)),
    ("text", Kind::Object),
    ("tool_choice", Kind::TextOrObject),
    ("tools", Kind::Array),
    ("top_logprobs", Kind::Integer(0, 20)),
    ("top_p", Kind::Number(0.0, 1.0)),
    ("truncation", Kind::OneOf(&["auto", "disabled"])),
    ("user", Kind::Text),
];

const TEXT: &[Param] = &[
    ("format", Kind::Object),
    ("verbosity", Kind::OneOf(&["low", "medium", "high"])),
];

const FORMAT: &[Param] = &[
    ("description", Kind::Text),
    ("name", Kind::Text),
    ("schema", Kind::Object),
    ("strict", Kind::Boolean),
    ("type", Kind::OneOf(&["text", "json_object", "json_schema"])),
];

pub(super) async fn answer(
    shared: &Shared,
    body: &Map<String, Value>,
    recorder: &mut Recorder,
) -> Result<Reply, ApiError> {
    let request = Request::read(body, &shared.config)?;
    let asked = text(body, "model").unwrap_or_default();
    let stream = flag(body, "stream");
    let fault = shared.faults.begin(asked, "/v1/responses", stream).await?;
    let response = Made::new(&request, body, &fault);
    recorder.status(200);
    recorder.prompt(&response.output.charge);
    if stream {
        return Ok(Reply::Stream(Box::new(responses_events::plan(
            &response, fault,
        ))));
    }
    response.output.record(recorder, !fault.missing_usage);
    Ok(Reply::json(response.finished(!fault.missing_usage), &fault))
}

/// A request that may be answered.
struct Request<'a> {
    model: &'a Model,
    prompt: Prompt,
    limit: Option<u64>,
    format: Format<'a>,
    calls: Vec<Wanted<'a>>,
}

impl<'a> Request<'a> {
    fn read(body: &'a Map<String, Value>, config: &'a Config) -> Result<Self, ApiError> {
        let name = given(body, "model").ok_or_else(|| ApiError::missing("model"))?;
        // Unlike the older paths, this one words an unknown argument as it does inner ones.
        config.check_inner("", body, KNOWN)?;
        let model = models::find(&config.models, name.as_str().unwrap_or_default())?;
        let ModelKind::Chat {
            context_tokens,
            max_output_tokens,
        } = model.kind
        else {
            return Err(ApiError::wrong_model_kind("/v1/responses"));
        };
        if let Some(id) = text(body, "previous_response_id") {
            let message = format!("Previous response with id '{id}' not found.");
            return Err(ApiError::invalid(
                "previous_response_id",
                "previous_response_not_found",
                message,
            ));
        }
        if flag(body, "background") {
            let message = "This fake has no background responses.".to_owned();
            return Err(ApiError::invalid("background", "invalid_value", message));
        }
        let input = given(body, "input").ok_or_else(|| ApiError::missing("input"))?;
        let mut items = Items::read(config, input)?;
        if let Some(instructions) = text(body, "instructions") {
            items.text("system", instructions);
        }
        let functions = tools::read(body, Shape::Flat, config, &mut items.prompt)?;
        let (choice, parallel) = tools::choice(body, Shape::Flat, &functions)?;
        let limit = number(body, "max_output_tokens");
        if limit.is_some_and(|limit| limit > max_output_tokens) {
            let message = format!("This model gives at most {max_output_tokens} tokens.");
            return Err(ApiError::invalid(
                "max_output_tokens",
                "integer_above_max_value",
                message,
            ));
        }
        fits(&items.prompt, limit, context_tokens, "input")?;
        Ok(Self {
            model,
            limit,
            format: format(body, config, items.says_json)?,
            calls: calls(&functions, choice, parallel, &items.last),
            prompt: items.prompt,
        })
    }
}

fn format<'a>(
    body: &'a Map<String, Value>,
    config: &Config,
    says_json: bool,
) -> Result<Format<'a>, ApiError> {
    let Some(Value::Object(options)) = given(body, "text") else {
        return Ok(Format::Text);
    };
    config.check_inner("text", options, TEXT)?;
    let Some(Value::Object(format)) = given(options, "format") else {
        return Ok(Format::Text);
    };
    config.check_inner("text.format", format, FORMAT)?;
    match text(format, "type") {
        None => Err(ApiError::missing("text.format.type")),
        Some("json_schema") => schema_of(format, "text.format"),
        Some("json_object") if says_json => Ok(Format::Object),
        Some("json_object") => {
            let message = "Response input messages must contain the word 'json' in some form to use 'text.format' of type 'json_object'.".to_owned();
            Err(ApiError::refused("input", message))
        }
        Some(_) => Ok(Format::Text),
    }
}

/// The response, before it is known how it is sent.
pub(super) struct Made {
    pub(super) output: Output,
    /// The items of the output, as they are when they are complete.
    pub(super) items: Vec<Value>,
    /// The response without output and usage.
    frame: Value,
    incomplete: bool,
}

impl Made {
    fn new(request: &Request<'_>, body: &Map<String, Value>, fault: &Fault) -> Self {
        let output = Output::new(&request.prompt, fault, 1, request.limit, |choice, limit| {
            Answer::new(&Brief {
                prompt_hash: request.prompt.hash,
                choice,
                words: fault.answer_words,
                limit,
                stop: &[],
                format: request.format,
                calls: &request.calls,
                preamble_words: 0,
            })
        });
        let incomplete = output.answers.iter().any(|answer| answer.end == End::Limit);
        Self {
            items: output.answers.iter().flat_map(items).collect(),
            output,
            frame: frame(body, &request.model.served),
            incomplete,
        }
    }

    /// The one answer.
    pub(super) fn answer(&self) -> Option<&Answer> {
        self.output.answers.first()
    }

    /// The response before anything of it is there.
    pub(super) fn begun(&self) -> Value {
        self.frame.clone()
    }

    /// The response with all that is in it.
    pub(super) fn finished(&self, with_usage: bool) -> Value {
        let mut value = self.frame.clone();
        let status = if self.incomplete {
            let details = json!({"reason": "max_output_tokens"});
            set(&mut value, "incomplete_details", details);
            "incomplete"
        } else {
            "completed"
        };
        set(&mut value, "status", status);
        set(&mut value, "output", self.items.clone());
        if with_usage {
            set(&mut value, "usage", self.output.responses_usage());
        }
        value
    }

    /// The type of the event that ends a stream of it.
    pub(super) fn last_event(&self) -> &'static str {
        if self.incomplete {
            "response.incomplete"
        } else {
            "response.completed"
        }
    }
}

/// A message where there is text, or else the calls.
fn items(answer: &Answer) -> Vec<Value> {
    let status = |whole: bool| if whole { "completed" } else { "incomplete" };
    if answer.calls.is_empty() {
        let text = answer.text.concat();
        let part = json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text});
        return vec![json!({
            "id": ids::random_hex("msg_", 48),
            "type": "message",
            "status": status(answer.end != End::Limit),
            "role": "assistant",
            "content": [part],
        })];
    }
    let call = |call: &crate::inference::answers::Call| {
        json!({
            "id": ids::random_hex("fc_", 48),
            "type": "function_call",
            "status": status(call.whole),
            "call_id": ids::random("call_", 24),
            "name": call.name,
            "arguments": call.input.concat(),
        })
    };
    answer.calls.iter().map(call).collect()
}

fn frame(body: &Map<String, Value>, model: &str) -> Value {
    let given = |name: &str, otherwise: Value| given(body, name).cloned().unwrap_or(otherwise);
    json!({
        "id": ids::random_hex("resp_", 48),
        "object": "response",
        "created_at": ids::now_s(),
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": given("instructions", Value::Null),
        "max_output_tokens": given("max_output_tokens", Value::Null),
        "max_tool_calls": given("max_tool_calls", Value::Null),
        "metadata": given("metadata", json!({})),
        "model": model,
        "output": [],
        "parallel_tool_calls": given("parallel_tool_calls", json!(true)),
        "previous_response_id": null,
        "reasoning": given("reasoning", json!({"effort": null, "summary": null})),
        "service_tier": "default",
        "store": given("store", json!(true)),
        "temperature": given("temperature", json!(1.0)),
        "text": given("text", json!({"format": {"type": "text"}})),
        "tool_choice": given("tool_choice", json!("auto")),
        "tools": array(body, "tools"),
        "top_logprobs": given("top_logprobs", json!(0)),
        "top_p": given("top_p", json!(1.0)),
        "truncation": given("truncation", json!("disabled")),
        "usage": null,
        "user": given("user", Value::Null),
    })
}
