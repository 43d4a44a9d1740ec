//! Reads a chat completion request as strictly as OpenAI does.

use serde_json::{Map, Value};

use super::{
    error::ApiError,
    models::{self, Model, ModelKind},
    params::{self, Kind, Param, given},
    tokens,
};
use crate::ids;

/// Tokens that frame a message, and that prime the answer.
const MESSAGE_TOKENS: u64 = 3;

/// What an image, a sound or a file costs; the real one depends on its size.
const ATTACHMENT_TOKENS: u64 = 85;

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

const MESSAGE: &[Param] = &[
    ("audio", Kind::Object),
    ("content", Kind::Checked),
    ("function_call", Kind::Object),
    ("name", Kind::Text),
    ("refusal", Kind::Text),
    (
        "role",
        Kind::OneOf(&[
            "developer",
            "system",
            "user",
            "assistant",
            "tool",
            "function",
        ]),
    ),
    ("tool_call_id", Kind::Text),
    ("tool_calls", Kind::Array),
];

/// A request that may be answered.
#[derive(Debug)]
pub(super) struct ChatRequest<'a> {
    pub(super) model: &'a Model,
    pub(super) prompt_tokens: u64,
    pub(super) prompt_hash: u64,
    pub(super) choices: u64,
    /// The most tokens of one choice.
    pub(super) max_tokens: Option<u64>,
    pub(super) stop: Vec<&'a str>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

impl<'a> ChatRequest<'a> {
    pub(super) fn read(
        body: &'a Map<String, Value>,
        models: &'a [Model],
    ) -> Result<Self, ApiError> {
        let name = given(body, "model").ok_or_else(|| ApiError::missing("model"))?;
        params::check(body, KNOWN)?;
        let model = models::find(models, name.as_str().unwrap_or_default())?;
        let ModelKind::Chat {
            context_tokens,
            max_output_tokens,
        } = model.kind
        else {
            return Err(ApiError::not_a_chat_model());
        };
        let messages = given(body, "messages").ok_or_else(|| ApiError::missing("messages"))?;
        let mut prompt = Prompt::default();
        prompt.messages(messages.as_array().map_or(&[], Vec::as_slice))?;
        prompt.tools(body)?;
        let stream = flag(body.get("stream"));
        let request = Self {
            model,
            prompt_tokens: prompt.tokens,
            prompt_hash: prompt.hash,
            choices: given(body, "n").and_then(Value::as_u64).unwrap_or(1),
            max_tokens: max_tokens(body, max_output_tokens)?,
            stop: stop(body)?,
            stream,
            include_usage: include_usage(body, stream)?,
        };
        if given(body, "top_logprobs").is_some() && !flag(body.get("logprobs")) {
            let message = "'top_logprobs' needs 'logprobs' to be true.".to_owned();
            return Err(ApiError::invalid("top_logprobs", "invalid_value", message));
        }
        let total = request
            .prompt_tokens
            .saturating_add(request.max_tokens.unwrap_or(0));
        if total > context_tokens {
            let message = format!(
                "This model's context is {context_tokens} tokens; the messages and the answer ask for {total}."
            );
            return Err(ApiError::invalid(
                "messages",
                "context_length_exceeded",
                message,
            ));
        }
        Ok(request)
    }
}

fn flag(value: Option<&Value>) -> bool {
    value.and_then(Value::as_bool).unwrap_or(false)
}

fn max_tokens(body: &Map<String, Value>, most: u64) -> Result<Option<u64>, ApiError> {
    let old = given(body, "max_tokens").and_then(Value::as_u64);
    let new = given(body, "max_completion_tokens").and_then(Value::as_u64);
    if old.is_some() && new.is_some() {
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
    match old.or(new) {
        Some(asked) if asked > most => Err(ApiError::invalid(
            name,
            "invalid_value",
            format!("{name} is too large: {asked}. This model gives at most {most} tokens."),
        )),
        asked => Ok(asked),
    }
}

fn stop(body: &Map<String, Value>) -> Result<Vec<&str>, ApiError> {
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

fn include_usage(body: &Map<String, Value>, stream: bool) -> Result<bool, ApiError> {
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
    params::check_inner("stream_options", options, STREAM_OPTIONS)?;
    Ok(flag(options.get("include_usage")))
}

/// Counts the prompt while it is checked.
#[derive(Debug, Default)]
struct Prompt {
    tokens: u64,
    hash: u64,
}

impl Prompt {
    fn messages(&mut self, messages: &[Value]) -> Result<(), ApiError> {
        if messages.is_empty() {
            let message = "Invalid 'messages': an empty array; at least one is needed.".to_owned();
            return Err(ApiError::invalid("messages", "empty_array", message));
        }
        for (index, message) in messages.iter().enumerate() {
            let path = format!("messages[{index}]");
            match message {
                Value::Object(object) => self.message(&path, object)?,
                other => return Err(ApiError::wrong_type(&path, "an object", other)),
            }
        }
        self.add(MESSAGE_TOKENS);
        Ok(())
    }

    fn message(&mut self, path: &str, message: &Map<String, Value>) -> Result<(), ApiError> {
        params::check_inner(path, message, MESSAGE)?;
        let role = given(message, "role").and_then(Value::as_str);
        let role = role.ok_or_else(|| ApiError::missing(&format!("{path}.role")))?;
        self.add(MESSAGE_TOKENS);
        self.text(role);
        if role == "tool" && given(message, "tool_call_id").is_none() {
            return Err(ApiError::missing(&format!("{path}.tool_call_id")));
        }
        for name in ["tool_calls", "function_call"] {
            if let Some(value) = given(message, name) {
                self.text(&value.to_string());
            }
        }
        if let Some(name) = given(message, "name").and_then(Value::as_str) {
            self.text(name);
        }
        let calls = given(message, "tool_calls").or_else(|| given(message, "function_call"));
        match given(message, "content") {
            Some(Value::String(text)) => self.text(text),
            Some(Value::Array(parts)) => self.parts(path, parts)?,
            None if role == "assistant" && calls.is_some() => {}
            None => return Err(ApiError::missing(&format!("{path}.content"))),
            Some(other) => {
                let wanted = "a string or an array of parts";
                return Err(ApiError::wrong_type(
                    &format!("{path}.content"),
                    wanted,
                    other,
                ));
            }
        }
        Ok(())
    }

    fn parts(&mut self, path: &str, parts: &[Value]) -> Result<(), ApiError> {
        for (index, part) in parts.iter().enumerate() {
            let path = format!("{path}.content[{index}]");
            let kind = part
                .get("type")
                .and_then(Value::as_str)
                .ok_or_else(|| ApiError::missing(&format!("{path}.type")))?;
            let field = part.get(kind);
            match (kind, field) {
                ("text" | "refusal", Some(Value::String(text))) => self.text(text),
                ("image_url" | "input_audio" | "file", Some(Value::Object(object))) => {
                    self.add(ATTACHMENT_TOKENS);
                    self.mix(&Value::Object(object.clone()).to_string());
                }
                ("text" | "refusal" | "image_url" | "input_audio" | "file", _) => {
                    return Err(ApiError::missing(&format!("{path}.{kind}")));
                }
                _ => {
                    let message = format!("Invalid value: '{kind}' is no type of a content part.");
                    return Err(ApiError::invalid(&path, "invalid_value", message));
                }
            }
        }
        Ok(())
    }

    /// Tools are part of the prompt; the fake itself never calls one.
    fn tools(&mut self, body: &Map<String, Value>) -> Result<(), ApiError> {
        let tools = given(body, "tools")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        for (index, tool) in tools.iter().enumerate() {
            let path = format!("tools[{index}]");
            match tool.get("type").and_then(Value::as_str) {
                None => return Err(ApiError::missing(&format!("{path}.type"))),
                Some("function")
                    if tool
                        .pointer("/function/name")
                        .is_none_or(|n| !n.is_string()) =>
                {
                    return Err(ApiError::missing(&format!("{path}.function.name")));
                }
                Some(_) => self.text(&tool.to_string()),
            }
        }
        if tools.is_empty() && given(body, "tool_choice").is_some() {
            let message = "'tool_choice' is only allowed when 'tools' are given.".to_owned();
            return Err(ApiError::invalid("tool_choice", "invalid_value", message));
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.add(tokens::count(text));
        self.mix(text);
    }

    fn mix(&mut self, text: &str) {
        self.hash = self.hash.rotate_left(9) ^ ids::hash(text.as_bytes());
    }

    fn add(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
    }
}
