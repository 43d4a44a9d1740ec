//! Reads a chat completion request as strictly as OpenAI does.

use serde_json::{Map, Value};

use super::{
    Config,
    chat_messages::Messages,
    error::ApiError,
    models::{self, Model, ModelKind},
    tools::{self, Shape},
};
use crate::inference::{
    answers::Format,
    params::{Kind, Param, flag, given, number, text},
    prompt::Prompt,
    tools::{Wanted, calls},
};

const KNOWN: &[Param] = &[
    ("audio", Kind::Object),
    ("frequency_penalty", Kind::Number(-2.0, 2.0)),
    ("function_call", Kind::TextOrObject),
    ("functions", Kind::Array),
    ("logit_bias", Kind::Object),
    ("logprobs", Kind::Boolean),
    ("max_completion_tokens", Kind::Integer(1, i64::MAX)),
    ("max_tokens", Kind::Integer(1, i64::MAX)),
    ("messages", Kind::Array),
    ("metadata", Kind::Object),
    ("modalities", Kind::Array),
    ("model", Kind::Text),
    ("n", Kind::Integer(1, 128)),
    ("parallel_tool_calls", Kind::Boolean),
    ("prediction", Kind::Object),
    ("presence_penalty", Kind::Number(-2.0, 2.0)),
    ("prompt_cache_key", Kind::Text),
    ("prompt_cache_retention", Kind::OneOf(&["in-memory", "24h"])),
    (
        "reasoning_effort",
        Kind::OneOf(&["none", "minimal", "low", "medium", "high", "xhigh"]),
    ),
    ("response_format", Kind::Object),
    ("safety_identifier", Kind::Text),
    ("seed", Kind::Integer(i64::MIN, i64::MAX)),
    (
        "service_tier",
        Kind::OneOf(&["auto", "default", "flex", "scale", "priority"]),
    ),
    ("stop", Kind::Checked),
    ("store", Kind::Boolean),
    ("stream", Kind::Boolean),
    ("stream_options", Kind::Object),
    ("temperature", Kind::Number(0.0, 2.0)),
    ("tool_choice", Kind::TextOrObject),
    ("tools", Kind::Array),
    ("top_logprobs", Kind::Integer(0, 20)),
    ("top_p", Kind::Number(0.0, 1.0)),
    ("user", Kind::Text),
    ("verbosity", Kind::OneOf(&["low", "medium", "high"])),
    ("web_search_options", Kind::Object),
];

const STREAM_OPTIONS: &[Param] = &[
    ("include_usage", Kind::Boolean),
    ("include_obfuscation", Kind::Boolean),
];

const FORMAT: &[Param] = &[
    ("json_schema", Kind::Object),
    ("type", Kind::OneOf(&["text", "json_object", "json_schema"])),
];

const JSON_SCHEMA: &[Param] = &[
    ("description", Kind::Text),
    ("name", Kind::Text),
    ("schema", Kind::Object),
    ("strict", Kind::Boolean),
];

/// A request that may be answered.
#[derive(Debug)]
pub(super) struct ChatRequest<'a> {
    pub(super) model: &'a Model,
    pub(super) prompt: Prompt,
    pub(super) choices: u64,
    /// The most tokens of one choice.
    pub(super) max_tokens: Option<u64>,
    pub(super) stop: Vec<&'a str>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) format: Format<'a>,
    /// The tools that the answer calls.
    pub(super) calls: Vec<Wanted<'a>>,
    /// How many candidates a token has, where its probability is asked for.
    pub(super) logprobs: Option<u64>,
}

impl<'a> ChatRequest<'a> {
    pub(super) fn read(body: &'a Map<String, Value>, config: &'a Config) -> Result<Self, ApiError> {
        let name = given(body, "model").ok_or_else(|| ApiError::missing("model"))?;
        config.check(body, KNOWN)?;
        let model = models::find(&config.models, name.as_str().unwrap_or_default())?;
        let ModelKind::Chat {
            context_tokens,
            max_output_tokens,
        } = model.kind
        else {
            return Err(ApiError::wrong_model_kind("/v1/chat/completions"));
        };
        let messages = given(body, "messages").ok_or_else(|| ApiError::missing("messages"))?;
        let messages = messages.as_array().map_or(&[][..], Vec::as_slice);
        let mut messages = Messages::read(config, messages)?;
        let functions = tools::read(body, Shape::Nested, config, &mut messages.prompt)?;
        let (choice, parallel) = tools::choice(body, Shape::Nested, &functions)?;
        let stream = flag(body, "stream");
        let format = format(body, config, messages.says_json)?;
        let logprobs = flag(body, "logprobs");
        if given(body, "top_logprobs").is_some() && !logprobs {
            let message = "'top_logprobs' needs 'logprobs' to be true.".to_owned();
            return Err(ApiError::invalid("top_logprobs", "invalid_value", message));
        }
        let request = Self {
            model,
            choices: number(body, "n").unwrap_or(1),
            max_tokens: max_tokens(body, config, max_output_tokens)?,
            stop: stop(body)?,
            stream,
            include_usage: include_usage(body, config, stream)?,
            format,
            calls: calls(&functions, choice, parallel, &messages.last),
            logprobs: logprobs.then(|| number(body, "top_logprobs").unwrap_or(0)),
            prompt: messages.prompt,
        };
        fits(
            &request.prompt,
            request.max_tokens,
            context_tokens,
            "messages",
        )?;
        Ok(request)
    }
}

/// Refuses what is longer than the model's context.
pub(super) fn fits(
    prompt: &Prompt,
    max_tokens: Option<u64>,
    context_tokens: u64,
    param: &str,
) -> Result<(), ApiError> {
    let total = prompt.tokens.saturating_add(max_tokens.unwrap_or(0));
    if total <= context_tokens {
        return Ok(());
    }
    let message = format!(
        "This model's context is {context_tokens} tokens; the {param} and the answer ask for {total}."
    );
    Err(ApiError::invalid(param, "context_length_exceeded", message))
}

fn max_tokens(
    body: &Map<String, Value>,
    config: &Config,
    most: u64,
) -> Result<Option<u64>, ApiError> {
    let old = number(body, "max_tokens");
    let new = number(body, "max_completion_tokens");
    if old.is_some() && new.is_some() && !config.compatible {
        return Err(ApiError::invalid(
            "max_tokens",
            "invalid_parameter_combination",
            "Setting 'max_tokens' and 'max_completion_tokens' together is not supported."
                .to_owned(),
        ));
    }
    let name = if new.is_some() {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    // Where both are allowed, the newer one counts.
    match new.or(old) {
        Some(asked) if asked > most => Err(ApiError::invalid(
            name,
            "invalid_value",
            format!("{name} is too large: {asked}. This model gives at most {most} tokens."),
        )),
        asked => Ok(asked),
    }
}

fn format<'a>(
    body: &'a Map<String, Value>,
    config: &Config,
    says_json: bool,
) -> Result<Format<'a>, ApiError> {
    let Some(Value::Object(format)) = given(body, "response_format") else {
        return Ok(Format::Text);
    };
    config.check_inner("response_format", format, FORMAT)?;
    match text(format, "type") {
        None => Err(ApiError::missing("response_format.type")),
        Some("json_object") if !says_json && !config.compatible => {
            let message = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.".to_owned();
            Err(ApiError::refused("messages", message))
        }
        Some("json_object") => Ok(Format::Object),
        Some("json_schema") => {
            let inner = given(format, "json_schema").and_then(Value::as_object);
            let path = "response_format.json_schema";
            let inner = inner.ok_or_else(|| ApiError::missing(path))?;
            config.check_inner(path, inner, JSON_SCHEMA)?;
            schema_of(inner, path)
        }
        Some(_) => Ok(Format::Text),
    }
}

/// The schema beside its name at `path`.
pub(super) fn schema_of<'a>(
    inner: &'a Map<String, Value>,
    path: &str,
) -> Result<Format<'a>, ApiError> {
    let missing = |name: &str| ApiError::missing(&format!("{path}.{name}"));
    let name = text(inner, "name").ok_or_else(|| missing("name"))?;
    tools::check_name(&format!("{path}.name"), name)?;
    let schema = given(inner, "schema").ok_or_else(|| missing("schema"))?;
    Ok(Format::Schema(schema))
}

/// The sequences in `stop`.
pub(super) fn stop(body: &Map<String, Value>) -> Result<Vec<&str>, ApiError> {
    let wanted = "a string or an array of at most 4 strings";
    match given(body, "stop") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(value @ Value::Array(several)) if several.len() <= 4 => several
            .iter()
            .map(|one| {
                one.as_str()
                    .ok_or_else(|| ApiError::wrong_type("stop", wanted, value))
            })
            .collect(),
        Some(Value::Array(several)) => Err(ApiError::invalid(
            "stop",
            "array_above_max_length",
            format!(
                "Invalid 'stop': at most 4 strings, but got {}.",
                several.len()
            ),
        )),
        Some(other) => Err(ApiError::wrong_type("stop", wanted, other)),
    }
}

/// Whether a stream is to tell its usage.
pub(super) fn include_usage(
    body: &Map<String, Value>,
    config: &Config,
    stream: bool,
) -> Result<bool, ApiError> {
    let Some(Value::Object(options)) = given(body, "stream_options") else {
        return Ok(false);
    };
    if !stream {
        let message = "'stream_options' is only allowed when 'stream' is true.".to_owned();
        return Err(ApiError::invalid(
            "stream_options",
            "invalid_value",
            message,
        ));
    }
    config.check_inner("stream_options", options, STREAM_OPTIONS)?;
    Ok(flag(options, "include_usage"))
}
