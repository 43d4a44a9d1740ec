//! What a request says beside its messages: system, tools, thinking, the form of the answer.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    blocks::{Reader, need},
    error::ApiError,
};
use crate::inference::{
    answers::Format,
    params::{self, Kind, Param, array, flag, given, number, text},
    tools::{Choice, Wanted, is_name},
};

/// The longest name of a tool.
const NAME_LENGTH: usize = 128;

/// The smallest budget for thinking.
const LEAST_BUDGET: u64 = 1_024;

const TOOL: &[Param] = &[
    ("cache_control", Kind::Object),
    ("description", Kind::Text),
    ("input_examples", Kind::Array),
    ("input_schema", Kind::Object),
    ("name", Kind::Text),
    ("strict", Kind::Boolean),
    ("type", Kind::OneOf(&["custom"])),
];

const TOOL_CHOICE: &[Param] = &[
    ("disable_parallel_tool_use", Kind::Boolean),
    ("name", Kind::Text),
    ("type", Kind::OneOf(&["auto", "any", "tool", "none"])),
];

const THINKING: &[Param] = &[
    ("budget_tokens", Kind::Integer(1_024, i64::MAX)),
    ("display", Kind::OneOf(&["summarized", "omitted"])),
    ("type", Kind::OneOf(&["enabled", "disabled"])),
];

const OUTPUT_CONFIG: &[Param] = &[
    (
        "effort",
        Kind::OneOf(&["low", "medium", "high", "xhigh", "max"]),
    ),
    ("format", Kind::Object),
];

const FORMAT: &[Param] = &[
    ("schema", Kind::Object),
    ("type", Kind::OneOf(&["json_schema"])),
];

/// Reads `system`: a text, or blocks of text.
pub(super) fn system(reader: &mut Reader, body: &Map<String, Value>) -> Result<(), ApiError> {
    match given(body, "system") {
        Some(Value::String(text)) => reader.prompt.text(text),
        Some(Value::Array(blocks)) => {
            for (index, block) in blocks.iter().enumerate() {
                let empty = block.get("text").and_then(Value::as_str) == Some("");
                if empty {
                    let message = "text content blocks must be non-empty";
                    return Err(ApiError::at("system", message));
                }
                reader.block(&format!("system.{index}"), block, &["text"])?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Reads `tools` and counts them as part of the prompt.
pub(super) fn tools<'a>(
    reader: &mut Reader,
    body: &'a Map<String, Value>,
) -> Result<Vec<Wanted<'a>>, ApiError> {
    let mut names = HashSet::new();
    let mut tools = Vec::new();
    for (index, tool) in array(body, "tools").iter().enumerate() {
        let path = format!("tools.{index}.custom");
        let Some(object) = tool.as_object() else {
            return Err(ApiError::at(&path, "Input should be a valid dictionary"));
        };
        params::check(&path, object, TOOL)?;
        reader.cache_mark(&path, object)?;
        let name = need(&path, object, "name")?;
        if !is_name(name, NAME_LENGTH) {
            let message = "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'";
            return Err(ApiError::at(&format!("{path}.name"), message));
        }
        if !names.insert(name) {
            return Err(ApiError::at("tools", "Tool names must be unique."));
        }
        let schema_path = format!("{path}.input_schema");
        let schema = given(object, "input_schema");
        let schema = schema.ok_or_else(|| ApiError::missing(&schema_path))?;
        match schema.get("type") {
            None => return Err(ApiError::missing(&format!("{schema_path}.type"))),
            Some(kind) if kind == "object" => {}
            Some(_) => {
                let path = format!("{schema_path}.type");
                return Err(ApiError::at(&path, "Input should be 'object'"));
            }
        }
        reader.prompt.tool(&tool.to_string());
        tools.push(Wanted {
            name,
            schema: Some(schema),
        });
    }
    Ok(tools)
}

/// Reads `tool_choice`: which, and whether calls may be parallel.
pub(super) fn tool_choice<'a>(
    body: &'a Map<String, Value>,
    tools: &[Wanted<'a>],
) -> Result<(Choice<'a>, bool), ApiError> {
    let Some(Value::Object(choice)) = given(body, "tool_choice") else {
        return Ok((Choice::Auto, true));
    };
    params::check("tool_choice", choice, TOOL_CHOICE)?;
    let kind = need("tool_choice", choice, "type")?;
    let refused = |name: &str| {
        let path = format!("tool_choice.{kind}.{name}");
        Err(ApiError::at(&path, "Extra inputs are not permitted"))
    };
    if kind != "tool" && given(choice, "name").is_some() {
        return refused("name");
    }
    if kind == "none" && given(choice, "disable_parallel_tool_use").is_some() {
        return refused("disable_parallel_tool_use");
    }
    if tools.is_empty() {
        let message = "tool_choice may only be specified while providing tools.";
        return Err(ApiError::invalid(message));
    }
    let chosen = match kind {
        "any" => Choice::Any,
        "none" => Choice::None,
        "tool" => {
            let name = need("tool_choice.tool", choice, "name")?;
            if !tools.iter().any(|tool| tool.name == name) {
                let message = format!("Tool '{name}' not found in provided tools");
                return Err(ApiError::invalid(message));
            }
            Choice::Named(name)
        }
        _ => Choice::Auto,
    };
    Ok((chosen, !flag(choice, "disable_parallel_tool_use")))
}

/// Reads `thinking`: whether there is any.
pub(super) fn thinking(
    body: &Map<String, Value>,
    max_tokens: Option<u64>,
    choice: Choice<'_>,
) -> Result<bool, ApiError> {
    let Some(Value::Object(thinking)) = given(body, "thinking") else {
        return Ok(false);
    };
    params::check("thinking", thinking, THINKING)?;
    let budget = number(thinking, "budget_tokens");
    if need("thinking", thinking, "type")? == "disabled" {
        return match budget {
            None => Ok(false),
            Some(_) => Err(ApiError::at(
                "thinking.disabled.budget_tokens",
                "Extra inputs are not permitted",
            )),
        };
    }
    let budget = budget.ok_or_else(|| ApiError::missing("thinking.enabled.budget_tokens"))?;
    if max_tokens.is_some_and(|max| max <= budget.max(LEAST_BUDGET)) {
        return Err(ApiError::invalid(
            "`max_tokens` must be greater than `thinking.budget_tokens`.",
        ));
    }
    if matches!(choice, Choice::Any | Choice::Named(_)) {
        return Err(ApiError::invalid(
            "Thinking may not be enabled when tool_choice forces tool use.",
        ));
    }
    let temperature = given(body, "temperature").and_then(Value::as_f64);
    if temperature.is_some_and(|temperature| temperature < 1.0) {
        return Err(ApiError::invalid(
            "`temperature` may only be set to 1 when thinking is enabled.",
        ));
    }
    if given(body, "top_k").is_some() {
        return Err(ApiError::invalid(
            "`top_k` must be unset when thinking is enabled.",
        ));
    }
    Ok(true)
}

/// Reads `output_config`: the form of the answer.
pub(super) fn format(body: &Map<String, Value>) -> Result<Format<'_>, ApiError> {
    let Some(Value::Object(config)) = given(body, "output_config") else {
        return Ok(Format::Text);
    };
    params::check("output_config", config, OUTPUT_CONFIG)?;
    let Some(Value::Object(format)) = given(config, "format") else {
        return Ok(Format::Text);
    };
    let path = "output_config.format";
    params::check(path, format, FORMAT)?;
    need(path, format, "type")?;
    let schema = given(format, "schema");
    schema
        .map(Format::Schema)
        .ok_or_else(|| ApiError::missing(&format!("{path}.schema")))
}

/// Reads `stop_sequences`.
pub(super) fn stop(body: &Map<String, Value>) -> Result<Vec<&str>, ApiError> {
    let mut stops = Vec::new();
    for (index, one) in array(body, "stop_sequences").iter().enumerate() {
        let Some(stop) = one.as_str() else {
            let path = format!("stop_sequences.{index}");
            return Err(ApiError::at(&path, "Input should be a valid string"));
        };
        if stop.trim().is_empty() {
            let message = "each stop sequence must contain non-whitespace";
            return Err(ApiError::at("stop_sequences", message));
        }
        stops.push(stop);
    }
    Ok(stops)
}

/// Checks `metadata`.
pub(super) fn metadata(body: &Map<String, Value>) -> Result<(), ApiError> {
    if let Some(Value::Object(metadata)) = given(body, "metadata") {
        params::check("metadata", metadata, &[("user_id", Kind::Text)])?;
        if text(metadata, "user_id").is_some_and(|id| id.chars().count() > 256) {
            let message = "String should have at most 256 characters";
            return Err(ApiError::at("metadata.user_id", message));
        }
    }
    Ok(())
}
