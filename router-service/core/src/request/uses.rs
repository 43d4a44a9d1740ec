//! What a request uses beside text.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    members::Members,
    scan::{self, Found},
};
use crate::refusal::Refusal;

/// What a request uses beside text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uses {
    /// It defines tools.
    pub tools: bool,
    /// There are images among its messages.
    pub images: bool,
    /// It wants an answer in JSON by a schema.
    pub json: bool,
    /// It wants any JSON object as its answer.
    pub json_object: bool,
    /// It wants documents of the tenant's to be found.
    pub rag: bool,
}

impl Uses {
    /// What these members use.
    ///
    /// # Errors
    /// 400 for messages that can be read in two ways, and for what the provider
    /// keeps.
    pub fn of(members: &Members<'_>) -> Result<Self, Refusal> {
        let mut all = Found::default();
        for name in ["messages", "input", "system"] {
            let Some(value) = members.get(name) else {
                continue;
            };
            let found = scan::scan(value).map_err(|why| {
                let message = format!("Invalid '{name}': {why}.");
                Refusal::invalid(400, "invalid_value", message).at(name)
            })?;
            if found.kept {
                let message = format!(
                    "'{name}' names a file or an item that is kept by the provider, which is not supported here: send it along."
                );
                return Err(Refusal::invalid(400, "unsupported_parameter", message).at(name));
            }
            all.images |= found.images;
        }
        let form = wanted_form(members);
        Ok(Self {
            tools: ["tools", "functions"].iter().any(|n| is_filled(members, n)),
            images: all.images,
            json: form.as_deref() == Some("json_schema"),
            json_object: form.as_deref() == Some("json_object"),
            rag: members.has("retrieval"),
        })
    }
}

/// Whether it is a list with something in it.
fn is_filled(members: &Members<'_>, name: &str) -> bool {
    members.get(name).is_some_and(|value| {
        let text = value.get();
        let inner = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        inner.is_some_and(|inner| !inner.trim_ascii().is_empty())
    })
}

#[derive(Deserialize)]
struct Format<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    format: Option<&'a RawValue>,
}

/// `response_format` of chat completions, `text.format` of responses,
/// `output_config.format` of messages: its type.
fn wanted_form(members: &Members<'_>) -> Option<String> {
    let kind = |raw: &RawValue| {
        let format = serde_json::from_str::<Format<'_>>(raw.get()).ok()?;
        format.kind.map(Cow::into_owned)
    };
    let within = |name: &str| {
        let raw = members.get(name)?;
        serde_json::from_str::<Format<'_>>(raw.get()).ok()?.format
    };
    let inner = ["text", "output_config"]
        .iter()
        .find_map(|name| within(name));
    members.get("response_format").or(inner).and_then(kind)
}

/// The type of the first tool that has one which is none of the `known`.
///
/// # Errors
/// 400 for tools that can be read in two ways, or not at all.
pub(super) fn tool_but(
    members: &Members<'_>,
    known: fn(&str) -> bool,
) -> Result<Option<String>, Refusal> {
    let tools: Option<Vec<Members<'_>>> = members.typed("tools", "an array of objects")?;
    for tool in tools.iter().flatten() {
        let kind: Option<String> = tool.typed("type", "a string").map_err(|r| r.at("tools"))?;
        if let Some(kind) = kind.filter(|kind| !known(kind)) {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}
