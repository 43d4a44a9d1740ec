//! Tools and their choice, of chat completions and of responses.

use serde_json::{Map, Value};

use super::{Config, error::ApiError};
use crate::inference::{
    params::{Kind, Param, array, given, text},
    prompt::Prompt,
    tools::{Choice, Wanted, is_name},
};

/// The longest name of a function.
const NAME_LENGTH: usize = 64;

/// What a function may have in a chat completion.
const FUNCTION: &[Param] = &[
    ("description", Kind::Text),
    ("name", Kind::Text),
    ("parameters", Kind::Object),
    ("strict", Kind::Boolean),
];

/// The same in a response, where it is not nested.
const FLAT_FUNCTION: &[Param] = &[
    ("description", Kind::Text),
    ("name", Kind::Text),
    ("parameters", Kind::Object),
    ("strict", Kind::Boolean),
    ("type", Kind::Text),
];

/// Where a dialect puts a function's fields: in `function`, or beside `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Nested,
    Flat,
}

impl Shape {
    fn path(self, path: &str) -> String {
        match self {
            Self::Nested => format!("{path}.function"),
            Self::Flat => path.to_owned(),
        }
    }
}

/// Reads `tools` and counts them as part of the prompt.
pub(super) fn read<'a>(
    body: &'a Map<String, Value>,
    shape: Shape,
    config: &Config,
    prompt: &mut Prompt,
) -> Result<Vec<Wanted<'a>>, ApiError> {
    let tools = array(body, "tools");
    let nested_only = shape == Shape::Nested && !config.compatible;
    if tools.is_empty() && given(body, "tools").is_some() && nested_only {
        let message = "Invalid 'tools': empty array. Expected at least one.".to_owned();
        return Err(ApiError::invalid("tools", "empty_array", message));
    }
    let mut functions = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        let path = format!("tools[{index}]");
        let Some(tool) = tool.as_object() else {
            return Err(ApiError::wrong_type(&path, "an object", tool));
        };
        match text(tool, "type") {
            None => return Err(ApiError::missing(&format!("{path}.type"))),
            Some("function") => functions.push(function(tool, shape, &path, config)?),
            Some("custom") => {}
            Some(other) => {
                let path = format!("{path}.type");
                let message =
                    format!("Invalid value: '{other}'. Supported values are: function, custom.");
                return Err(ApiError::invalid(&path, "invalid_value", message));
            }
        }
        prompt.tool(&Value::Object(tool.clone()).to_string());
    }
    Ok(functions)
}

fn function<'a>(
    tool: &'a Map<String, Value>,
    shape: Shape,
    path: &str,
    config: &Config,
) -> Result<Wanted<'a>, ApiError> {
    let path = shape.path(path);
    let name_path = format!("{path}.name");
    let function = match shape {
        Shape::Flat => tool,
        Shape::Nested => match tool.get("function") {
            None | Some(Value::Null) => return Err(ApiError::missing(&name_path)),
            Some(Value::Object(function)) => function,
            Some(other) => return Err(ApiError::wrong_type(&path, "an object", other)),
        },
    };
    let known = match shape {
        Shape::Flat => FLAT_FUNCTION,
        Shape::Nested => FUNCTION,
    };
    config.check_inner(&path, function, known)?;
    let name = text(function, "name").ok_or_else(|| ApiError::missing(&name_path))?;
    check_name(&name_path, name)?;
    let schema = given(function, "parameters");
    if let Some(kind) = schema.and_then(|schema| schema.get("type"))
        && kind != "object"
    {
        let message = format!(
            "Invalid schema for function '{name}': it must be of type \"object\", got {kind}."
        );
        let param = format!("{path}.parameters");
        return Err(ApiError::invalid(
            &param,
            "invalid_function_parameters",
            message,
        ));
    }
    Ok(Wanted { name, schema })
}

/// Refuses a name with other characters than a function's may have.
pub(super) fn check_name(path: &str, name: &str) -> Result<(), ApiError> {
    if name.len() > NAME_LENGTH {
        let message = format!("Invalid '{path}': at most {NAME_LENGTH} characters.");
        return Err(ApiError::invalid(path, "string_above_max_length", message));
    }
    if !is_name(name, NAME_LENGTH) {
        let message =
            format!("Invalid '{path}': expected a string that matches '^[a-zA-Z0-9_-]+$'.");
        return Err(ApiError::invalid(path, "invalid_value", message));
    }
    Ok(())
}

/// Reads `tool_choice` and `parallel_tool_calls`.
pub(super) fn choice<'a>(
    body: &'a Map<String, Value>,
    shape: Shape,
    tools: &[Wanted<'a>],
) -> Result<(Choice<'a>, bool), ApiError> {
    let given_choice = given(body, "tool_choice");
    let any_tool = !array(body, "tools").is_empty();
    if shape == Shape::Nested && !any_tool {
        for name in ["tool_choice", "parallel_tool_calls"] {
            if given(body, name).is_some() {
                let message = format!("'{name}' is only allowed when 'tools' are given.");
                return Err(ApiError::invalid(name, "invalid_value", message));
            }
        }
    }
    let choice = match given_choice {
        None => Choice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Choice::Auto,
            "none" => Choice::None,
            "required" => Choice::Any,
            other => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values are: none, auto, required."
                );
                return Err(ApiError::invalid("tool_choice", "invalid_value", message));
            }
        },
        Some(object) => named(object, shape, tools)?,
    };
    if matches!(choice, Choice::Any) && !any_tool {
        let message = "Tool choice 'required' must be specified with 'tools' parameter.".to_owned();
        return Err(ApiError::refused("tool_choice", message));
    }
    let parallel = given(body, "parallel_tool_calls").and_then(Value::as_bool);
    Ok((choice, parallel.unwrap_or(true)))
}

fn named<'a>(
    object: &'a Value,
    shape: Shape,
    tools: &[Wanted<'a>],
) -> Result<Choice<'a>, ApiError> {
    match object.get("type").and_then(Value::as_str) {
        None => return Err(ApiError::missing("tool_choice.type")),
        Some("function") => {}
        Some(other) => {
            let message = format!("Invalid value: '{other}'. Supported values are: function.");
            return Err(ApiError::invalid(
                "tool_choice.type",
                "invalid_value",
                message,
            ));
        }
    }
    let path = format!("{}.name", shape.path("tool_choice"));
    let name = match shape {
        Shape::Nested => object.pointer("/function/name"),
        Shape::Flat => object.get("name"),
    };
    let name = name
        .and_then(Value::as_str)
        .ok_or_else(|| ApiError::missing(&path))?;
    if !tools.iter().any(|tool| tool.name == name) {
        let message = format!("Tool choice '{name}' not found in 'tools' parameter.");
        return Err(ApiError::refused("tool_choice", message));
    }
    Ok(Choice::Named(name))
}
