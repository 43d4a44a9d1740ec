//! The messages of a chat completion, read as strictly as OpenAI does.

use serde_json::{Map, Value};

use super::{Config, error::ApiError, tools};
use crate::inference::{
    media::{self, BadImage},
    params::{Kind, Param, array, given, text},
    prompt::{MESSAGE_TOKENS, Prompt},
    tools::LastTurn,
};

const MESSAGE: &[Param] = &[
    ("annotations", Kind::Array),
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

const TOOL_CALL: &[Param] = &[
    ("function", Kind::Object),
    ("id", Kind::Text),
    ("type", Kind::OneOf(&["function"])),
];

const CALLED_FUNCTION: &[Param] = &[("arguments", Kind::Text), ("name", Kind::Text)];

const IMAGE: &[Param] = &[
    ("detail", Kind::OneOf(&["auto", "low", "high"])),
    ("url", Kind::Text),
];

const AUDIO: &[Param] = &[
    ("data", Kind::Text),
    ("format", Kind::OneOf(&["wav", "mp3"])),
];

const FILE: &[Param] = &[
    ("file_data", Kind::Text),
    ("file_id", Kind::Text),
    ("filename", Kind::Text),
];

/// Reads messages, one after the other.
pub(super) struct Messages<'a> {
    config: &'a Config,
    pub(super) prompt: Prompt,
    pub(super) last: LastTurn,
    /// Whether the word JSON is in them.
    pub(super) says_json: bool,
    /// The calls that wait for a tool's message, and the message that made them.
    open_calls: Vec<String>,
    /// Whether a tool's message may come: calls were made, and nothing else came since.
    may_answer: bool,
}

impl<'a> Messages<'a> {
    pub(super) fn read(config: &'a Config, messages: &[Value]) -> Result<Self, ApiError> {
        let mut read = Self {
            config,
            prompt: Prompt::default(),
            last: LastTurn::default(),
            says_json: false,
            open_calls: Vec::new(),
            may_answer: false,
        };
        if messages.is_empty() {
            let message = "Invalid 'messages': an empty array; at least one is needed.".to_owned();
            return Err(ApiError::invalid("messages", "empty_array", message));
        }
        for (index, message) in messages.iter().enumerate() {
            match message {
                Value::Object(object) => read.message(index, object)?,
                other => {
                    let path = format!("messages[{index}]");
                    return Err(ApiError::wrong_type(&path, "an object", other));
                }
            }
        }
        read.no_open_call(messages.len())?;
        read.prompt.add(MESSAGE_TOKENS);
        Ok(read)
    }

    fn message(&mut self, index: usize, message: &Map<String, Value>) -> Result<(), ApiError> {
        let path = format!("messages[{index}]");
        self.config.check_inner(&path, message, MESSAGE)?;
        let role = text(message, "role");
        let role = role.ok_or_else(|| ApiError::missing(&format!("{path}.role")))?;
        self.prompt.add(MESSAGE_TOKENS);
        self.prompt.text(role);
        self.turn(index, role, message)?;
        for name in ["tool_calls", "function_call"] {
            if let Some(value) = given(message, name) {
                self.prompt.text(&value.to_string());
            }
        }
        if let Some(name) = text(message, "name") {
            self.prompt.text(name);
        }
        let calls = given(message, "tool_calls").or_else(|| given(message, "function_call"));
        match given(message, "content") {
            Some(Value::String(text)) => self.text(role, text),
            Some(Value::Array(parts)) => self.parts(&path, role, parts)?,
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

    /// Holds calls and tools' messages together.
    fn turn(
        &mut self,
        index: usize,
        role: &str,
        message: &Map<String, Value>,
    ) -> Result<(), ApiError> {
        let path = format!("messages[{index}]");
        self.last.is_result = role == "tool";
        if role == "user" {
            self.last.user_text.clear();
        }
        if role == "tool" {
            let id = text(message, "tool_call_id");
            let id = id.ok_or_else(|| ApiError::missing(&format!("{path}.tool_call_id")))?;
            let known = self.open_calls.iter().position(|open| open == id);
            match known {
                _ if self.config.compatible => {}
                Some(position) if self.may_answer => {
                    self.open_calls.remove(position);
                }
                _ => {
                    let message = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.".to_owned();
                    let path = format!("messages.[{index}].role");
                    return Err(ApiError::refused(&path, message));
                }
            }
            return Ok(());
        }
        self.no_open_call(index)?;
        self.may_answer = false;
        if given(message, "tool_calls").is_none() {
            return Ok(());
        }
        let calls = array(message, "tool_calls");
        if role != "assistant" || calls.is_empty() {
            let path = format!("{path}.tool_calls");
            let message = format!("Invalid '{path}': an assistant's calls, at least one.");
            return Err(ApiError::invalid(&path, "empty_array", message));
        }
        for (position, call) in calls.iter().enumerate() {
            self.call(&format!("{path}.tool_calls[{position}]"), call)?;
        }
        self.may_answer = true;
        Ok(())
    }

    fn call(&mut self, path: &str, call: &Value) -> Result<(), ApiError> {
        let Some(call) = call.as_object() else {
            return Err(ApiError::wrong_type(path, "an object", call));
        };
        self.config.check_inner(path, call, TOOL_CALL)?;
        let missing = |name: &str| ApiError::missing(&format!("{path}.{name}"));
        let id = text(call, "id").ok_or_else(|| missing("id"))?;
        text(call, "type").ok_or_else(|| missing("type"))?;
        let function = given(call, "function").and_then(Value::as_object);
        let function = function.ok_or_else(|| missing("function"))?;
        let inner = format!("{path}.function");
        self.config.check_inner(&inner, function, CALLED_FUNCTION)?;
        let name = text(function, "name").ok_or_else(|| missing("function.name"))?;
        tools::check_name(&format!("{inner}.name"), name)?;
        text(function, "arguments").ok_or_else(|| missing("function.arguments"))?;
        self.open_calls.push(id.to_owned());
        Ok(())
    }

    /// Refuses what comes at `index` where calls before it have no answer.
    fn no_open_call(&mut self, index: usize) -> Result<(), ApiError> {
        if self.open_calls.is_empty() || self.config.compatible {
            return Ok(());
        }
        let message = format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            self.open_calls.join(", ")
        );
        Err(ApiError::refused(
            &format!("messages.[{index}].role"),
            message,
        ))
    }

    fn text(&mut self, role: &str, text: &str) {
        self.prompt.text(text);
        self.says_json |= text.to_lowercase().contains("json");
        if role == "user" {
            self.last.user_text.push_str(text);
        }
    }

    fn parts(&mut self, path: &str, role: &str, parts: &[Value]) -> Result<(), ApiError> {
        if parts.is_empty() {
            let path = format!("{path}.content");
            let message = format!("Invalid '{path}': an empty array; at least one is needed.");
            return Err(ApiError::invalid(&path, "empty_array", message));
        }
        for (index, part) in parts.iter().enumerate() {
            let path = format!("{path}.content[{index}]");
            let Some(part) = part.as_object() else {
                return Err(ApiError::wrong_type(&path, "an object", part));
            };
            self.part(&path, role, part)?;
        }
        Ok(())
    }

    fn part(&mut self, path: &str, role: &str, part: &Map<String, Value>) -> Result<(), ApiError> {
        let kind = text(part, "type").ok_or_else(|| ApiError::missing(&format!("{path}.type")))?;
        let inner = format!("{path}.{kind}");
        let (param, known): (Param, &[Param]) = match kind {
            "text" => (("text", Kind::Text), &[]),
            "refusal" => (("refusal", Kind::Text), &[]),
            "image_url" => (("image_url", Kind::Object), IMAGE),
            "input_audio" => (("input_audio", Kind::Object), AUDIO),
            "file" => (("file", Kind::Object), FILE),
            _ => {
                let message = format!("Invalid value: '{kind}' is no type of a content part.");
                return Err(ApiError::invalid(path, "invalid_value", message));
            }
        };
        self.config
            .check_inner(path, part, &[("type", Kind::Text), param])?;
        let field = given(part, kind).ok_or_else(|| ApiError::missing(&inner))?;
        let Some(object) = field.as_object() else {
            self.text(role, field.as_str().unwrap_or_default());
            return Ok(());
        };
        if role != "user" && !self.config.compatible {
            let message = format!(
                "Invalid '{path}': only messages with role 'user' may have a part of type '{kind}'."
            );
            return Err(ApiError::invalid(path, "invalid_value", message));
        }
        self.config.check_inner(&inner, object, known)?;
        let need = |name: &str| {
            let missing = || ApiError::missing(&format!("{inner}.{name}"));
            text(object, name).ok_or_else(missing)
        };
        match kind {
            "image_url" => {
                let url = need("url")?;
                check_image_url(&format!("{inner}.url"), url)?;
                self.prompt.image(url);
            }
            "input_audio" => {
                need("format")?;
                let path = format!("{inner}.data");
                check_base64(&path, need("data")?)?;
                self.prompt.attachment(&field.to_string());
            }
            _ => {
                if given(object, "file_id").is_none() {
                    need("file_data")?;
                }
                self.prompt.attachment(&field.to_string());
            }
        }
        Ok(())
    }
}

fn check_base64(path: &str, data: &str) -> Result<(), ApiError> {
    if media::decode(data).is_some() {
        return Ok(());
    }
    let message = format!("Invalid '{path}': expected base64-encoded data.");
    Err(ApiError::invalid(path, "invalid_base64", message))
}

/// Refuses an image that is neither at a web address nor in the URL itself.
pub(super) fn check_image_url(path: &str, url: &str) -> Result<(), ApiError> {
    if !url.starts_with("data:") {
        if media::is_web_url(url) {
            return Ok(());
        }
        let message = format!("Invalid '{path}': expected an http, https or data URL.");
        return Err(ApiError::invalid(path, "invalid_image_url", message));
    }
    let bad = match media::split_data_url(url) {
        None => Some(BadImage::Base64),
        Some((media_type, data)) => media::check_image(media_type, data).err(),
    };
    match bad {
        None => Ok(()),
        Some(BadImage::Base64) => {
            let message = format!("Invalid '{path}': expected a base64-encoded data URL.");
            Err(ApiError::invalid(path, "invalid_base64", message))
        }
        Some(BadImage::MediaType | BadImage::Content) => {
            let message = "You uploaded an unsupported image. Please make sure your image has of one the following formats: ['png', 'jpeg', 'gif', 'webp'].".to_owned();
            Err(ApiError::invalid(path, "invalid_image_format", message))
        }
    }
}
