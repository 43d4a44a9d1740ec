//! Reads a request for a message as strictly as Anthropic does.

use serde_json::{Map, Value};

use super::{
    blocks::Reader,
    error::ApiError,
    messages,
    models::{self, Model},
    options,
};
use crate::inference::{
    answers::Format,
    params::{self, Kind, Param, given, number},
    prompt::Prompt,
    tools::{Choice, Wanted, calls},
};

const KNOWN: &[Param] = &[
    ("cache_control", Kind::Object),
    ("max_tokens", Kind::Integer(1, i64::MAX)),
    ("messages", Kind::Array),
    ("metadata", Kind::Object),
    ("model", Kind::Text),
    ("output_config", Kind::Object),
    ("service_tier", Kind::OneOf(&["auto", "standard_only"])),
    ("stop_sequences", Kind::Array),
    ("stream", Kind::Boolean),
    ("system", Kind::TextOrArray),
    ("temperature", Kind::Number(0.0, 1.0)),
    ("thinking", Kind::Object),
    ("tool_choice", Kind::Object),
    ("tools", Kind::Array),
    ("top_k", Kind::Integer(0, i64::MAX)),
    ("top_p", Kind::Number(0.0, 1.0)),
];

const COUNTED: &[Param] = &[
    ("cache_control", Kind::Object),
    ("messages", Kind::Array),
    ("model", Kind::Text),
    ("output_config", Kind::Object),
    ("system", Kind::TextOrArray),
    ("thinking", Kind::Object),
    ("tool_choice", Kind::Object),
    ("tools", Kind::Array),
];

/// A request that may be answered, or counted.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) model: &'a Model,
    pub(super) prompt: Prompt,
    /// What goes into the cache is kept for an hour, not five minutes.
    pub(super) cached_for_an_hour: bool,
    /// Absent where tokens are only counted.
    pub(super) max_tokens: Option<u64>,
    pub(super) stop: Vec<&'a str>,
    pub(super) thinking: bool,
    pub(super) format: Format<'a>,
    /// The tools that the answer uses.
    pub(super) calls: Vec<Wanted<'a>>,
    /// Whether text comes before them.
    pub(super) text_before_calls: bool,
}

impl<'a> Request<'a> {
    /// Reads a request for an answer.
    pub(super) fn read(body: &'a Map<String, Value>, all: &'a [Model]) -> Result<Self, ApiError> {
        Self::of(body, all, KNOWN)
    }

    /// Reads a request for the count of its tokens.
    pub(super) fn counted(
        body: &'a Map<String, Value>,
        all: &'a [Model],
    ) -> Result<Self, ApiError> {
        Self::of(body, all, COUNTED)
    }

    fn of(
        body: &'a Map<String, Value>,
        all: &'a [Model],
        known: &[Param],
    ) -> Result<Self, ApiError> {
        let name = given(body, "model").ok_or_else(|| ApiError::missing("model"))?;
        params::check("", body, known)?;
        let answered = known.iter().any(|(name, _)| *name == "max_tokens");
        let max_tokens = number(body, "max_tokens");
        if answered && max_tokens.is_none() {
            return Err(ApiError::missing("max_tokens"));
        }
        let model = models::find(all, name.as_str().unwrap_or_default())?;
        let mut reader = Reader::default();
        reader.cache_mark("", body)?;
        options::system(&mut reader, body)?;
        let tools = options::tools(&mut reader, body)?;
        let last = messages::read(&mut reader, body)?;
        let (choice, parallel) = options::tool_choice(body, &tools)?;
        options::metadata(body)?;
        let request = Self {
            model,
            cached_for_an_hour: reader.cached_for_an_hour,
            max_tokens,
            stop: options::stop(body)?,
            thinking: options::thinking(body, max_tokens, choice)?,
            format: options::format(body)?,
            calls: calls(&tools, choice, parallel, &last),
            text_before_calls: matches!(choice, Choice::Auto),
            prompt: reader.prompt,
        };
        if given(body, "temperature").is_some() && given(body, "top_p").is_some() {
            return Err(ApiError::invalid(
                "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
            ));
        }
        if !model.can_be_forced {
            check_unforced(body, choice)?;
        }
        request.check_limits()?;
        Ok(request)
    }

    fn check_limits(&self) -> Result<(), ApiError> {
        let Model {
            context_tokens,
            max_output_tokens,
            served,
            ..
        } = self.model;
        let Some(max_tokens) = self.max_tokens else {
            return Ok(());
        };
        if max_tokens > *max_output_tokens {
            return Err(ApiError::invalid(format!(
                "max_tokens: {max_tokens} > {max_output_tokens}, which is the maximum allowed number of output tokens for {served}"
            )));
        }
        // What the answer may not have room for ends it; only the prompt must fit.
        if self.prompt.tokens > *context_tokens {
            return Err(ApiError::invalid(format!(
                "prompt is too long: {} tokens > {context_tokens} maximum",
                self.prompt.tokens
            )));
        }
        Ok(())
    }
}

/// What models that think by their own rules refuse.
fn check_unforced(body: &Map<String, Value>, choice: Choice<'_>) -> Result<(), ApiError> {
    if matches!(choice, Choice::Any | Choice::Named(_)) {
        let message = "Forced tool use is not supported by this model.";
        return Err(ApiError::at("tool_choice.type", message));
    }
    for name in ["temperature", "top_p"] {
        let value = given(body, name).and_then(Value::as_f64);
        if value.is_some_and(|value| (value - 1.0).abs() > f64::EPSILON) {
            let message = "may only be set to its default for this model";
            return Err(ApiError::at(name, message));
        }
    }
    Ok(())
}
