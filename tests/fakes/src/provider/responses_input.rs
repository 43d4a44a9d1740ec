//! The input of a response: a text, or messages, calls and their results.

use serde_json::{Map, Value};

use super::{Config, chat_messages::check_image_url, error::ApiError};
use crate::inference::{
    params::{Kind, Param, given, text},
    prompt::{MESSAGE_TOKENS, Prompt},
    tools::LastTurn,
};

const MESSAGE: &[Param] = &[
    ("content", Kind::TextOrArray),
    ("id", Kind::Text),
    ("phase", Kind::Text),
    (
        "role",
        Kind::OneOf(&["user", "assistant", "system", "developer"]),
    ),
    ("status", Kind::Text),
    ("type", Kind::Text),
];

const CALL: &[Param] = &[
    ("arguments", Kind::Text),
    ("call_id", Kind::Text),
    ("id", Kind::Text),
    ("name", Kind::Text),
    ("status", Kind::Text),
    ("type", Kind::Text),
];

const RESULT: &[Param] = &[
    ("call_id", Kind::Text),
    ("id", Kind::Text),
    ("output", Kind::TextOrArray),
    ("status", Kind::Text),
    ("type", Kind::Text),
];

const TEXT_PART: &[Param] = &[
    ("annotations", Kind::Array),
    ("logprobs", Kind::Array),
    ("text", Kind::Text),
    ("type", Kind::Text),
];

const IMAGE_PART: &[Param] = &[
    ("detail", Kind::OneOf(&["auto", "low", "high"])),
    ("file_id", Kind::Text),
    ("image_url", Kind::Text),
    ("type", Kind::Text),
];

const FILE_PART: &[Param] = &[
    ("file_data", Kind::Text),
    ("file_id", Kind::Text),
    ("file_url", Kind::Text),
    ("filename", Kind::Text),
    ("type", Kind::Text),
];

/// Reads items, one after the other.
pub(super) struct Items<'a> {
    config: &'a Config,
    pub(super) prompt: Prompt,
    pub(super) last: LastTurn,
    pub(super) says_json: bool,
    /// Calls without their result so far.
    open_calls: Vec<String>,
}

impl<'a> Items<'a> {
    pub(super) fn read(config: &'a Config, input: &Value) -> Result<Self, ApiError> {
        let mut read = Self {
            config,
            prompt: Prompt::default(),
            last: LastTurn::default(),
            says_json: false,
            open_calls: Vec::new(),
        };
        match input {
            Value::String(text) => {
                read.prompt.add(MESSAGE_TOKENS);
                read.text("user", text);
            }
            Value::Array(items) if items.is_empty() => {
                let message = "Invalid 'input': an empty array; at least one is needed.";
                return Err(ApiError::invalid(
                    "input",
                    "empty_array",
                    message.to_owned(),
                ));
            }
            other => {
                for (index, item) in other.as_array().into_iter().flatten().enumerate() {
                    read.item(&format!("input[{index}]"), item)?;
                }
            }
        }
        if let Some(open) = read.open_calls.first() {
            let message = format!("No tool output found for function call {open}.");
            return Err(ApiError::refused("input", message));
        }
        read.prompt.add(MESSAGE_TOKENS);
        Ok(read)
    }

    fn item(&mut self, path: &str, item: &Value) -> Result<(), ApiError> {
        let Some(object) = item.as_object() else {
            return Err(ApiError::wrong_type(path, "an object", item));
        };
        self.prompt.add(MESSAGE_TOKENS);
        let kind = text(object, "type").unwrap_or("message");
        self.last.is_result = kind == "function_call_output";
        let need = |name: &str| {
            let missing = || ApiError::missing(&format!("{path}.{name}"));
            text(object, name).ok_or_else(missing)
        };
        match kind {
            "message" => return self.message(path, object),
            "function_call" => {
                self.config.check_inner(path, object, CALL)?;
                self.open_calls.push(need("call_id")?.to_owned());
                self.prompt.text(need("name")?);
                self.prompt.text(need("arguments")?);
            }
            "function_call_output" => {
                self.config.check_inner(path, object, RESULT)?;
                let id = need("call_id")?;
                let Some(position) = self.open_calls.iter().position(|open| open == id) else {
                    let message =
                        format!("No tool call found for function call output with call_id {id}.");
                    return Err(ApiError::refused("input", message));
                };
                self.open_calls.remove(position);
                let output = given(object, "output");
                let output = output.ok_or_else(|| ApiError::missing(&format!("{path}.output")))?;
                self.content(&format!("{path}.output"), "tool", output)?;
            }
            "reasoning" => self.prompt.text(&item.to_string()),
            "item_reference" => {
                let message = format!("Item with id '{}' not found.", need("id")?);
                return Err(ApiError::refused("input", message));
            }
            other => {
                let message = format!("Invalid value: '{other}' is no type of an input item.");
                return Err(ApiError::invalid(path, "invalid_value", message));
            }
        }
        Ok(())
    }

    fn message(&mut self, path: &str, message: &Map<String, Value>) -> Result<(), ApiError> {
        self.config.check_inner(path, message, MESSAGE)?;
        let missing = |name: &str| ApiError::missing(&format!("{path}.{name}"));
        let role = text(message, "role").ok_or_else(|| missing("role"))?;
        self.prompt.text(role);
        if role == "user" {
            self.last.user_text.clear();
        }
        let content = given(message, "content").ok_or_else(|| missing("content"))?;
        self.content(&format!("{path}.content"), role, content)
    }

    fn content(&mut self, path: &str, role: &str, content: &Value) -> Result<(), ApiError> {
        let parts = match content {
            Value::String(text) => {
                self.text(role, text);
                return Ok(());
            }
            other => other.as_array().into_iter().flatten(),
        };
        for (index, part) in parts.enumerate() {
            let path = format!("{path}[{index}]");
            let Some(object) = part.as_object() else {
                return Err(ApiError::wrong_type(&path, "an object", part));
            };
            self.part(&path, role, object)?;
        }
        Ok(())
    }

    fn part(&mut self, path: &str, role: &str, part: &Map<String, Value>) -> Result<(), ApiError> {
        let missing = |name: &str| ApiError::missing(&format!("{path}.{name}"));
        let kind = text(part, "type").ok_or_else(|| missing("type"))?;
        let allowed = match role {
            "assistant" => &["output_text", "refusal"][..],
            _ => &["input_text", "input_image", "input_file"],
        };
        if !allowed.contains(&kind) {
            let allowed = allowed.join(", ");
            let message = format!("Invalid value: '{kind}'. Supported values are: {allowed}.");
            return Err(ApiError::invalid(path, "invalid_value", message));
        }
        match kind {
            "input_image" => {
                self.config.check_inner(path, part, IMAGE_PART)?;
                let url = text(part, "image_url").ok_or_else(|| missing("image_url"))?;
                check_image_url(&format!("{path}.image_url"), url)?;
                self.prompt.image(url);
            }
            "input_file" => {
                self.config.check_inner(path, part, FILE_PART)?;
                self.prompt
                    .attachment(&Value::Object(part.clone()).to_string());
            }
            "refusal" => self.prompt.text(&Value::Object(part.clone()).to_string()),
            _ => {
                self.config.check_inner(path, part, TEXT_PART)?;
                let text = text(part, "text").ok_or_else(|| missing("text"))?;
                self.text(role, text);
            }
        }
        Ok(())
    }

    /// Counts a text, and notes what the rules for tools and JSON look at.
    pub(super) fn text(&mut self, role: &str, text: &str) {
        self.prompt.text(text);
        self.says_json |= text.to_lowercase().contains("json");
        if role == "user" {
            self.last.user_text.push_str(text);
        }
    }
}
