//! Anthropic's system prompt and messages, as OpenAI's messages.
//!
//! Two things are not said as they were. `cache_control` of type `ephemeral`
//! is read and left out: it asks for a price, changes no answer, and
//! Anthropic's own clients always send it; OpenAI caches unasked. `is_error` of
//! a tool's result has no member of its own, so it is said where OpenAI's
//! models read it, in the text ([`FAILED`]); refusing it would end each agent's
//! session at the first tool that fails. And what an assistant said after a
//! tool call stands before it: OpenAI's messages have no order among the two.

use std::borrow::Cow;

use super::super::{
    fields::{Fields, Is, Node, Without},
    openai::{Content, File, ImageUrl, Message, Part, ToolCall},
    write::compact,
};
use crate::refusal::Refusal;

/// Said before the result of a tool that failed.
const FAILED: &str = "The tool failed:";

/// The member by which Anthropic's cache is directed.
pub(super) const CACHE_CONTROL: &str = "cache_control";

/// What OpenAI calls a document that the client gave no title; it wants a name.
const UNTITLED: &str = "document.pdf";

const CITATIONS: Without = ("citations", Is::Empty, "its texts carry no citations");

/// Members of a tool's call or result that speak of Anthropic's own tools.
const TOOLSET: Without = ("toolset_name", Is::Absent, "it has no toolsets");

pub(super) fn read<'a>(
    fields: &mut Fields<'a>,
    compatible: bool,
) -> Result<Vec<Message<'a>>, Refusal> {
    let mut messages = Vec::new();
    if let Some(system) = fields.take("system") {
        messages.extend(system_message(&system)?);
    }
    let list = fields.require("messages")?;
    for message in list.list()? {
        let mut fields = message.fields()?;
        let role = fields.require("role")?;
        let content = fields.require("content")?;
        match role.text()?.as_ref() {
            "user" => user(&content, compatible, &mut messages)?,
            "assistant" => messages.push(assistant(&content)?),
            "system" => messages.extend(system_message(&content)?),
            _ => return Err(role.invalid("must be `user`, `assistant` or `system`")),
        }
        fields.end()?;
    }
    if let Some(Message::Assistant { .. }) = messages.last() {
        return Err(list.unsupported("its model would not go on with an assistant's last message"));
    }
    Ok(messages)
}

/// Takes `cache_control`, and leaves it out where it is `ephemeral`.
pub(super) fn cache_control(fields: &mut Fields<'_>, name: &str) -> Result<(), Refusal> {
    let Some(control) = fields.take(name) else {
        return Ok(());
    };
    let mut control = control.fields()?;
    let kind = control.require("type")?;
    if kind.text()? != "ephemeral" {
        return Err(kind.invalid("must be `ephemeral`"));
    }
    // For how long is a matter of price, too.
    if let Some(ttl) = control.take("ttl")
        && !matches!(ttl.text()?.as_ref(), "5m" | "1h")
    {
        return Err(ttl.invalid("must be `5m` or `1h`"));
    }
    control.end()
}

/// A block that is being read: its type, where that stands, and the rest.
struct Block<'a> {
    kind: Node<'a>,
    fields: Fields<'a>,
}

/// A string, or a list of blocks that `take` reads one by one.
fn blocks<'a>(
    content: &Node<'a>,
    mut take: impl FnMut(&str, &mut Block<'a>) -> Result<(), Refusal>,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    if content.is_text() {
        return content.text().map(Some);
    }
    if !content.raw.get().starts_with('[') {
        return Err(content.wrong_type("a string or an array of blocks"));
    }
    for node in content.list()? {
        let mut fields = node.fields()?;
        let kind = fields.require("type")?;
        let mut block = Block { kind, fields };
        let name = block.kind.text()?;
        take(&name, &mut block)?;
        cache_control(&mut block.fields, CACHE_CONTROL)?;
        block.fields.end()?;
    }
    Ok(None)
}

/// A content of texts alone.
fn texts<'a>(content: &Node<'a>, whose: &str) -> Result<Vec<Part<'a>>, Refusal> {
    let mut parts = Vec::new();
    let plain = blocks(content, |kind, block| match kind {
        "text" => {
            parts.push(text(block)?);
            Ok(())
        }
        _ => Err(block.kind.unsupported(format!("{whose} holds text alone"))),
    })?;
    parts.extend(plain.map(|text| Part::Text { text }));
    Ok(parts)
}

fn text<'a>(block: &mut Block<'a>) -> Result<Part<'a>, Refusal> {
    let text = block.fields.require("text")?.text()?;
    block.fields.without(CITATIONS)?;
    Ok(Part::Text { text })
}

fn system_message<'a>(content: &Node<'a>) -> Result<Option<Message<'a>>, Refusal> {
    let parts = texts(content, "its system prompt")?;
    let filled = parts
        .iter()
        .any(|p| matches!(p, Part::Text { text } if !text.is_empty()));
    Ok(filled.then(|| Message::System {
        content: Content::of(parts),
    }))
}

/// Results of tools are messages of their own, before the rest.
fn user<'a>(
    content: &Node<'a>,
    compatible: bool,
    messages: &mut Vec<Message<'a>>,
) -> Result<(), Refusal> {
    let (mut results, mut parts) = (Vec::new(), Vec::new());
    let plain = blocks(content, |kind, block| {
        match kind {
            "text" => parts.push(text(block)?),
            "image" => parts.push(image(block)?),
            "document" => parts.push(document(block, compatible)?),
            "tool_result" => results.push(tool_result(block)?),
            _ => return Err(unknown(&block.kind, kind, "a user")),
        }
        Ok(())
    })?;
    parts.extend(plain.map(|text| Part::Text { text }));
    if results.is_empty() || !parts.is_empty() {
        results.push(Message::User {
            content: Content::of(parts),
        });
    }
    messages.append(&mut results);
    Ok(())
}

/// A block that is none of a user's or an assistant's, or one of Anthropic's
/// that OpenAI does not know.
fn unknown(node: &Node<'_>, kind: &str, whose: &str) -> Refusal {
    match kind {
        "text" | "image" | "document" | "tool_use" | "tool_result" => {
            node.invalid(format!("is no block of {whose}'s message"))
        }
        "thinking" | "redacted_thinking" => node.unsupported("it takes no thinking back"),
        _ => node.unsupported("it knows no such block"),
    }
}

fn image<'a>(block: &mut Block<'a>) -> Result<Part<'a>, Refusal> {
    let mut source = block.fields.require("source")?.fields()?;
    block.fields.without((
        "transformations",
        Is::Empty,
        "it transforms images by its own rules",
    ))?;
    let kind = source.require("type")?;
    let url = match kind.text()?.as_ref() {
        "url" => source.require("url")?.text()?,
        "base64" => {
            let media_type = source.require("media_type")?.text()?;
            let data = source.require("data")?.text()?;
            format!("data:{media_type};base64,{data}").into()
        }
        _ => return Err(kind.unsupported("it takes images as `base64` or `url`")),
    };
    source.end()?;
    Ok(Part::ImageUrl {
        image_url: ImageUrl { url },
    })
}

fn document<'a>(block: &mut Block<'a>, compatible: bool) -> Result<Part<'a>, Refusal> {
    if compatible {
        return Err(block.kind.unsupported("it reads no documents"));
    }
    let fields = &mut block.fields;
    fields.without(("context", Is::Absent, "its files have a name alone"))?;
    if let Some(citations) = fields.take("citations") {
        let mut citations = citations.fields()?;
        citations.without(("enabled", Is::Bool(false), "it cites no documents"))?;
        citations.end()?;
    }
    let filename = fields.text("title")?.unwrap_or(Cow::Borrowed(UNTITLED));
    let mut source = fields.require("source")?.fields()?;
    let kind = source.require("type")?;
    if kind.text()? != "base64" {
        return Err(kind.unsupported("it takes documents as `base64`"));
    }
    let media_type = source.require("media_type")?;
    if media_type.text()? != "application/pdf" {
        return Err(media_type.unsupported("it takes documents in PDF"));
    }
    let data = source.require("data")?.text()?;
    source.end()?;
    Ok(Part::File {
        file: File {
            filename,
            file_data: format!("data:application/pdf;base64,{data}"),
        },
    })
}

fn tool_result<'a>(block: &mut Block<'a>) -> Result<Message<'a>, Refusal> {
    let fields = &mut block.fields;
    let tool_call_id = fields.require("tool_use_id")?.text()?;
    let mut parts = match fields.take("content") {
        Some(content) => texts(&content, "its tool messages")?,
        None => Vec::new(),
    };
    if fields.flag("is_error")? == Some(true) {
        parts.insert(
            0,
            Part::Text {
                text: FAILED.into(),
            },
        );
    }
    fields.without(TOOLSET)?;
    Ok(Message::Tool {
        tool_call_id,
        content: Content::of(parts),
    })
}

fn assistant<'a>(content: &Node<'a>) -> Result<Message<'a>, Refusal> {
    let (mut tool_calls, mut parts) = (Vec::new(), Vec::new());
    let plain = blocks(content, |kind, block| {
        match kind {
            "text" => parts.push(text(block)?),
            "tool_use" => tool_calls.push(tool_use(block)?),
            _ => return Err(unknown(&block.kind, kind, "an assistant")),
        }
        Ok(())
    })?;
    parts.extend(plain.map(|text| Part::Text { text }));
    let content = (!parts.is_empty() || tool_calls.is_empty()).then(|| Content::of(parts));
    Ok(Message::Assistant {
        content,
        tool_calls,
    })
}

fn tool_use<'a>(block: &mut Block<'a>) -> Result<ToolCall<'a>, Refusal> {
    let fields = &mut block.fields;
    let id = fields.require("id")?.text()?;
    let name = fields.require("name")?.text()?;
    let input = fields.require("input")?.object()?;
    if let Some(caller) = fields.take("caller") {
        let mut caller = caller.fields()?;
        let kind = caller.require("type")?;
        if kind.text()? != "direct" {
            return Err(kind.unsupported("its tools are called by the model alone"));
        }
        caller.end()?;
    }
    fields.without(TOOLSET)?;
    Ok(ToolCall::new(id, name, compact(input.get())))
}
