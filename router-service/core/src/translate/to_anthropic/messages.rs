//! OpenAI's messages, as Anthropic's system blocks and turns.
//!
//! System and developer messages are hoisted in order, wherever they stand, as
//! Anthropic's own layer for OpenAI's SDK does ("OpenAI SDK compatibility").
//! A text without any character but white space is left out: Anthropic refuses
//! such a block, and OpenAI's histories are full of them.

use std::borrow::Cow;

use super::super::{
    anthropic::{Block, Source, Turn},
    fields::{Fields, Is, Node, Without},
    write,
};
use crate::refusal::Refusal;

/// What the messages say.
#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    pub system: Vec<Block<'a>>,
    pub turns: Vec<Turn<'a>>,
    /// The last turn holds results of tools alone so far: Anthropic wants what
    /// answers one assistant's turn in one turn, results first.
    open: bool,
}

const NAME: Without = ("name", Is::Absent, "its messages have no names");

/// Members of messages that clients send back from an answer as it came.
const ASSISTANT: [Without; 4] = [
    NAME,
    ("audio", Is::Absent, "it takes no audio"),
    ("function_call", Is::Absent, "say `tool_calls` instead"),
    ("annotations", Is::Empty, "it takes no annotations back"),
];

const PARTS: [Without; 1] = [(
    "prompt_cache_breakpoint",
    Is::Absent,
    "its cache is directed otherwise",
)];

/// The media types that Anthropic reads images of ("Vision").
const IMAGES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

pub(super) fn read<'a>(messages: &Node<'a>) -> Result<Conversation<'a>, Refusal> {
    let mut conversation = Conversation::default();
    for message in messages.list()? {
        let mut fields = message.fields()?;
        let role = fields.require("role")?;
        match role.text()?.as_ref() {
            "system" | "developer" => {
                let content = texts(&fields.require("content")?)?;
                fields.without(NAME)?;
                conversation.system.extend(content);
            }
            "user" => {
                let content = content(&fields.require("content")?, user_part)?;
                fields.without(NAME)?;
                conversation.user(content);
            }
            "assistant" => {
                let content = assistant(&mut fields)?;
                conversation.turn("assistant", content);
            }
            "tool" => {
                let result = tool_result(&mut fields)?;
                conversation.result(result);
            }
            "function" => return Err(role.unsupported("say `tool` instead")),
            _ => return Err(role.invalid("is no role of a message")),
        }
        fields.end()?;
    }
    match conversation.turns.last() {
        None => {
            Err(messages.unsupported("it wants a message beside the system's that says something"))
        }
        // OpenAI's model would answer to it.
        Some(Turn {
            role: "assistant", ..
        }) => Err(messages.unsupported("its model would go on with an assistant's last message")),
        Some(_) => Ok(conversation),
    }
}

impl<'a> Conversation<'a> {
    fn turn(&mut self, role: &'static str, content: Vec<Block<'a>>) {
        if content.is_empty() {
            return;
        }
        self.open = false;
        self.turns.push(Turn { role, content });
    }

    fn user(&mut self, content: Vec<Block<'a>>) {
        match self.turns.last_mut() {
            Some(turn) if self.open && !content.is_empty() => {
                turn.content.extend(content);
                self.open = false;
            }
            _ => self.turn("user", content),
        }
    }

    fn result(&mut self, result: Block<'a>) {
        match self.turns.last_mut() {
            Some(turn) if self.open => turn.content.push(result),
            _ => {
                self.turn("user", vec![result]);
                self.open = true;
            }
        }
    }
}

fn assistant<'a>(fields: &mut Fields<'a>) -> Result<Vec<Block<'a>>, Refusal> {
    let mut blocks = match fields.take("content") {
        Some(said) => content(&said, assistant_part)?,
        None => Vec::new(),
    };
    blocks.extend(fields.text("refusal")?.and_then(text));
    if let Some(calls) = fields.take("tool_calls") {
        for call in calls.list()? {
            blocks.push(tool_use(&call)?);
        }
    }
    for without in ASSISTANT {
        fields.without(without)?;
    }
    Ok(blocks)
}

fn tool_use<'a>(call: &Node<'a>) -> Result<Block<'a>, Refusal> {
    let mut fields = call.fields()?;
    let kind = fields.require("type")?;
    if kind.text()? != "function" {
        return Err(kind.unsupported("its tools are functions"));
    }
    let id = fields.require("id")?.text()?;
    let mut function = fields.require("function")?.fields()?;
    let name = function.require("name")?.text()?;
    let arguments = function.require("arguments")?;
    let input = write::object_in(&arguments.text()?)
        .ok_or_else(|| arguments.invalid("must be the text of a JSON object"))?;
    function.end()?;
    fields.end()?;
    Ok(Block::ToolUse { id, name, input })
}

fn tool_result<'a>(fields: &mut Fields<'a>) -> Result<Block<'a>, Refusal> {
    let result = Block::ToolResult {
        tool_use_id: fields.require("tool_call_id")?.text()?,
        content: texts(&fields.require("content")?)?,
    };
    fields.without(NAME)?;
    Ok(result)
}

/// A string, or a list of parts.
fn content<'a>(
    node: &Node<'a>,
    part: fn(&str, &Node<'a>, &mut Fields<'a>) -> Result<Option<Block<'a>>, Refusal>,
) -> Result<Vec<Block<'a>>, Refusal> {
    if node.is_text() {
        return Ok(text(node.text()?).into_iter().collect());
    }
    if !node.raw.get().starts_with('[') {
        return Err(node.wrong_type("a string or an array of parts"));
    }
    let mut blocks = Vec::new();
    for item in node.list()? {
        let mut fields = item.fields()?;
        let kind = fields.require("type")?;
        blocks.extend(part(&kind.text()?, &kind, &mut fields)?);
        for without in PARTS {
            fields.without(without)?;
        }
        fields.end()?;
    }
    Ok(blocks)
}

fn texts<'a>(node: &Node<'a>) -> Result<Vec<Block<'a>>, Refusal> {
    content(node, |kind, node, fields| match kind {
        "text" => Ok(text(fields.require("text")?.text()?)),
        _ => Err(node.invalid("is no part of such a message, which holds text alone")),
    })
}

fn text(text: Cow<'_, str>) -> Option<Block<'_>> {
    (!text.trim().is_empty()).then_some(Block::Text { text })
}

fn assistant_part<'a>(
    kind: &str,
    node: &Node<'a>,
    fields: &mut Fields<'a>,
) -> Result<Option<Block<'a>>, Refusal> {
    match kind {
        "text" | "refusal" => Ok(text(fields.require(kind)?.text()?)),
        _ => Err(node.invalid("is no part of an assistant's message")),
    }
}

fn user_part<'a>(
    kind: &str,
    node: &Node<'a>,
    fields: &mut Fields<'a>,
) -> Result<Option<Block<'a>>, Refusal> {
    match kind {
        "text" => Ok(text(fields.require("text")?.text()?)),
        "image_url" => image(fields.require("image_url")?.fields()?).map(Some),
        "file" => file(fields.require("file")?.fields()?).map(Some),
        "input_audio" => Err(node.unsupported("it takes no audio")),
        _ => Err(node.invalid("is no part of a user's message")),
    }
}

fn image(mut fields: Fields<'_>) -> Result<Block<'_>, Refusal> {
    let node = fields.require("url")?;
    let url = node.text()?;
    let source = if url.starts_with("https://") || url.starts_with("http://") {
        Source::Url { url }
    } else {
        let (media_type, data) = data_url(&url).ok_or_else(|| {
            node.unsupported("it takes images at http or https, or as `data:…;base64,…`")
        })?;
        // No registered type, and common nevertheless.
        let media_type = match media_type.as_ref() {
            "image/jpg" => Cow::Borrowed("image/jpeg"),
            _ => media_type,
        };
        if !IMAGES.contains(&media_type.as_ref()) {
            return Err(node.unsupported("it reads JPEG, PNG, GIF and WebP"));
        }
        Source::Base64 { media_type, data }
    };
    fields.without((
        "detail",
        Is::Words(&["auto"]),
        "it sees images in one resolution",
    ))?;
    fields.end()?;
    Ok(Block::Image { source })
}

fn file(mut fields: Fields<'_>) -> Result<Block<'_>, Refusal> {
    fields.without(("file_id", Is::Absent, "it has no files of OpenAI's"))?;
    let node = fields.require("file_data")?;
    let (media_type, data) = data_url(&node.text()?)
        .filter(|(media_type, _)| media_type == "application/pdf")
        .ok_or_else(|| node.unsupported("it takes PDF as `data:application/pdf;base64,…`"))?;
    let title = fields.text("filename")?;
    fields.end()?;
    Ok(Block::Document {
        source: Source::Base64 { media_type, data },
        title,
    })
}

/// The media type and the data of a base64 `data:` URL (RFC 2397).
fn data_url<'a>(url: &Cow<'a, str>) -> Option<(Cow<'a, str>, Cow<'a, str>)> {
    fn parts(url: &str) -> Option<(&str, &str)> {
        let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
        let (media_type, encoding) = head.split_once(';')?;
        (encoding == "base64" || encoding.ends_with(";base64")).then_some((media_type, data))
    }
    Some(match url {
        Cow::Borrowed(url) => {
            let (media_type, data) = parts(url)?;
            (Cow::Borrowed(media_type), Cow::Borrowed(data))
        }
        Cow::Owned(url) => {
            let (media_type, data) = parts(url)?;
            (
                Cow::Owned(media_type.to_owned()),
                Cow::Owned(data.to_owned()),
            )
        }
    })
}
