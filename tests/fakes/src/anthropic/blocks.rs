//! Content blocks of a message, read as strictly as Anthropic does.

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::inference::{
    media::{self, BadImage, IMAGE_TYPES},
    params::{self, Kind, Param, given, text},
    prompt::Prompt,
    tools::is_name,
};

/// The most blocks of a request that may be marked for the cache.
const MAX_CACHE_MARKS: u64 = 4;

/// The longest id of a use of a tool.
const ID_LENGTH: usize = 256;

const CACHE_CONTROL: &[Param] = &[
    ("ttl", Kind::OneOf(&["5m", "1h"])),
    ("type", Kind::OneOf(&["ephemeral"])),
];

const TEXT: &[Param] = &[
    ("cache_control", Kind::Object),
    ("citations", Kind::Array),
    ("text", Kind::Text),
    ("type", Kind::Text),
];

const IMAGE: &[Param] = &[
    ("cache_control", Kind::Object),
    ("source", Kind::Object),
    ("type", Kind::Text),
];

const DOCUMENT: &[Param] = &[
    ("cache_control", Kind::Object),
    ("citations", Kind::Object),
    ("context", Kind::Text),
    ("source", Kind::Object),
    ("title", Kind::Text),
    ("type", Kind::Text),
];

const TOOL_USE: &[Param] = &[
    ("cache_control", Kind::Object),
    ("caller", Kind::Object),
    ("id", Kind::Text),
    ("input", Kind::Object),
    ("name", Kind::Text),
    ("type", Kind::Text),
];

const TOOL_RESULT: &[Param] = &[
    ("cache_control", Kind::Object),
    ("content", Kind::TextOrArray),
    ("is_error", Kind::Boolean),
    ("tool_use_id", Kind::Text),
    ("type", Kind::Text),
];

const THINKING: &[Param] = &[
    ("signature", Kind::Text),
    ("thinking", Kind::Text),
    ("type", Kind::Text),
];

const REDACTED: &[Param] = &[("data", Kind::Text), ("type", Kind::Text)];

const BASE64_SOURCE: &[Param] = &[
    ("data", Kind::Text),
    ("media_type", Kind::Text),
    ("type", Kind::Text),
];

const URL_SOURCE: &[Param] = &[("type", Kind::Text), ("url", Kind::Text)];

/// What a block is, as far as the rules between messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Text(String),
    ToolUse(String),
    ToolResult(String),
    Other,
}

/// Reads blocks and counts them.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) prompt: Prompt,
    /// Blocks that are marked for the cache.
    cache_marks: u64,
    /// Whether one of the marks is for an hour.
    pub(super) cached_for_an_hour: bool,
}

impl Reader {
    /// Reads one block at `path` that is one of these types.
    pub(super) fn block(
        &mut self,
        path: &str,
        block: &Value,
        allowed: &[&str],
    ) -> Result<Block, ApiError> {
        let Some(object) = block.as_object() else {
            return Err(ApiError::at(path, "Input should be a valid dictionary"));
        };
        let kind = text(object, "type");
        let kind = kind.ok_or_else(|| ApiError::missing(&format!("{path}.type")))?;
        if !allowed.contains(&kind) {
            let quoted: Vec<String> = allowed.iter().map(|one| format!("'{one}'")).collect();
            let message = format!(
                "Input tag '{kind}' found using 'type' does not match any of the expected tags: {}",
                quoted.join(", ")
            );
            return Err(ApiError::at(path, &message));
        }
        let known = match kind {
            "text" => TEXT,
            "image" => IMAGE,
            "document" => DOCUMENT,
            "tool_use" => TOOL_USE,
            "tool_result" => TOOL_RESULT,
            "thinking" => THINKING,
            _ => REDACTED,
        };
        let path = format!("{path}.{kind}");
        params::check(&path, object, known)?;
        self.cache_mark(&path, object)?;
        match kind {
            "text" => return self.text_block(&path, object),
            "image" => self.image(&path, object)?,
            "document" => self.document(&path, object)?,
            "tool_use" => return self.tool_use(&path, object),
            "tool_result" => return self.tool_result(&path, object),
            "thinking" => {
                self.prompt.text(need(&path, object, "thinking")?);
                need(&path, object, "signature")?;
            }
            _ => self.prompt.text(need(&path, object, "data")?),
        }
        Ok(Block::Other)
    }

    /// Checks and counts a mark for the cache, if there is one.
    pub(super) fn cache_mark(
        &mut self,
        path: &str,
        object: &Map<String, Value>,
    ) -> Result<(), ApiError> {
        let Some(mark) = given(object, "cache_control").and_then(Value::as_object) else {
            return Ok(());
        };
        let path = format!("{path}.cache_control");
        params::check(&path, mark, CACHE_CONTROL)?;
        need(&path, mark, "type")?;
        self.cached_for_an_hour |= text(mark, "ttl") == Some("1h");
        self.cache_marks = self.cache_marks.saturating_add(1);
        if self.cache_marks > MAX_CACHE_MARKS {
            return Err(ApiError::invalid(format!(
                "A maximum of {MAX_CACHE_MARKS} blocks with cache_control may be provided. Found {}.",
                self.cache_marks
            )));
        }
        Ok(())
    }

    fn text_block(&mut self, path: &str, block: &Map<String, Value>) -> Result<Block, ApiError> {
        let text = need(path, block, "text")?;
        check_text(text)?;
        self.prompt.text(text);
        Ok(Block::Text(text.to_owned()))
    }

    fn image(&mut self, path: &str, block: &Map<String, Value>) -> Result<(), ApiError> {
        let (path, source, kind) = source(path, block)?;
        match kind {
            "base64" => {
                params::check(&path, source, BASE64_SOURCE)?;
                let media_type = need(&path, source, "media_type")?;
                let data = need(&path, source, "data")?;
                check_image(&path, media_type, data)?;
                self.prompt.image(data);
            }
            "url" => {
                params::check(&path, source, URL_SOURCE)?;
                self.prompt.image(web_url(&path, source)?);
            }
            other => return Err(unknown_source(&path, other, "'base64', 'url'")),
        }
        Ok(())
    }

    fn document(&mut self, path: &str, block: &Map<String, Value>) -> Result<(), ApiError> {
        let (path, source, kind) = source(path, block)?;
        let media_type = |wanted: &str| match need(&path, source, "media_type")? {
            found if found == wanted => Ok(()),
            _ => {
                let path = format!("{path}.media_type");
                Err(ApiError::at(&path, &format!("Input should be '{wanted}'")))
            }
        };
        match kind {
            "base64" => {
                params::check(&path, source, BASE64_SOURCE)?;
                media_type("application/pdf")?;
                let data = need(&path, source, "data")?;
                if media::decode(data).is_none() {
                    return Err(ApiError::at(&format!("{path}.data"), "Invalid base64 data"));
                }
                self.prompt.attachment(data);
            }
            "text" => {
                params::check(&path, source, BASE64_SOURCE)?;
                media_type("text/plain")?;
                self.prompt.text(need(&path, source, "data")?);
            }
            "url" => {
                params::check(&path, source, URL_SOURCE)?;
                self.prompt.attachment(web_url(&path, source)?);
            }
            other => return Err(unknown_source(&path, other, "'base64', 'text', 'url'")),
        }
        Ok(())
    }

    fn tool_use(&mut self, path: &str, block: &Map<String, Value>) -> Result<Block, ApiError> {
        let id = id(path, block, "id")?;
        let name = need(path, block, "name")?;
        let input = given(block, "input");
        let input = input.ok_or_else(|| ApiError::missing(&format!("{path}.input")))?;
        self.prompt.text(name);
        self.prompt.text(&input.to_string());
        Ok(Block::ToolUse(id.to_owned()))
    }

    fn tool_result(&mut self, path: &str, block: &Map<String, Value>) -> Result<Block, ApiError> {
        let id = id(path, block, "tool_use_id")?;
        let allowed = ["text", "image", "document"];
        match given(block, "content") {
            Some(Value::String(text)) => self.prompt.text(text),
            Some(Value::Array(blocks)) => {
                for (index, block) in blocks.iter().enumerate() {
                    self.block(&format!("{path}.content.{index}"), block, &allowed)?;
                }
            }
            _ => {}
        }
        Ok(Block::ToolResult(id.to_owned()))
    }
}

/// The text of a required field.
pub(super) fn need<'a>(
    path: &str,
    object: &'a Map<String, Value>,
    name: &str,
) -> Result<&'a str, ApiError> {
    text(object, name).ok_or_else(|| ApiError::missing(&format!("{path}.{name}")))
}

/// Refuses a text of which nothing is to be seen.
pub(super) fn check_text(text: &str) -> Result<(), ApiError> {
    if text.is_empty() {
        return Err(ApiError::at(
            "messages",
            "text content blocks must be non-empty",
        ));
    }
    if text.trim().is_empty() {
        return Err(ApiError::at(
            "messages",
            "text content blocks must contain non-whitespace text",
        ));
    }
    Ok(())
}

fn id<'a>(path: &str, block: &'a Map<String, Value>, name: &str) -> Result<&'a str, ApiError> {
    let id = need(path, block, name)?;
    if is_name(id, ID_LENGTH) {
        return Ok(id);
    }
    let message = "String should match pattern '^[a-zA-Z0-9_-]+$'";
    Err(ApiError::at(&format!("{path}.{name}"), message))
}

fn source<'a>(
    path: &str,
    block: &'a Map<String, Value>,
) -> Result<(String, &'a Map<String, Value>, &'a str), ApiError> {
    let path = format!("{path}.source");
    let source = given(block, "source").and_then(Value::as_object);
    let source = source.ok_or_else(|| ApiError::missing(&path))?;
    let kind = need(&path, source, "type")?;
    Ok((format!("{path}.{kind}"), source, kind))
}

fn unknown_source(path: &str, kind: &str, allowed: &str) -> ApiError {
    let message = format!(
        "Input tag '{kind}' found using 'type' does not match any of the expected tags: {allowed}"
    );
    ApiError::at(path, &message)
}

fn web_url<'a>(path: &str, source: &'a Map<String, Value>) -> Result<&'a str, ApiError> {
    let url = need(path, source, "url")?;
    if media::is_web_url(url) {
        Ok(url)
    } else {
        Err(ApiError::at(
            &format!("{path}.url"),
            "Only HTTP(S) URLs are supported.",
        ))
    }
}

fn check_image(path: &str, media_type: &str, data: &str) -> Result<(), ApiError> {
    match media::check_image(media_type, data) {
        Ok(()) => Ok(()),
        Err(BadImage::MediaType) => {
            let quoted: Vec<String> = IMAGE_TYPES.iter().map(|one| format!("'{one}'")).collect();
            let message = format!("Input should be {}", quoted.join(" or "));
            Err(ApiError::at(&format!("{path}.media_type"), &message))
        }
        Err(BadImage::Base64) => Err(ApiError::at(
            &format!("{path}.data"),
            "image source: invalid base64 data",
        )),
        Err(BadImage::Content) => Err(ApiError::at(
            &format!("{path}.data"),
            &format!("Image does not match the provided media type {media_type}"),
        )),
    }
}
