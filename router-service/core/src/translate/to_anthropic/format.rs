//! OpenAI's `response_format`, as Anthropic has it: `output_config.format` for a
//! schema (Anthropic API reference, "Structured outputs"), and for any JSON object,
//! which that cannot say, a tool that must be called ([`JSON_ANSWER_TOOL`]).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::{
    JSON_ANSWER_TOOL,
    anthropic::{Format, OutputConfig, Tool},
    fields::{Fields, Is, Node},
    write::{quoted, raw},
};
use crate::{
    refusal::Refusal,
    request::members::{Members, Object},
};

/// In what form an answer is wanted.
pub(super) enum Wanted<'a> {
    /// As it comes.
    Text,
    /// As a JSON object, by way of this tool.
    Object(Tool<'a>),
    /// By a schema.
    Schema(OutputConfig),
}

/// Members whose values are schemas, each under a name.
const NAMED: [&str; 4] = ["properties", "$defs", "definitions", "patternProperties"];

/// Members whose value is a schema, or a list of them. (What must `not` be is no
/// narrower when it is closed.)
const INNER: [&str; 6] = [
    "items",
    "prefixItems",
    "anyOf",
    "allOf",
    "oneOf",
    "additionalProperties",
];

/// How deep a schema may be: each level is read once more.
const DEPTH_MAX: usize = 32;

/// The largest schema, in bytes.
const SCHEMA_MAX_BYTES: usize = 128 << 10;

/// It is too deep, or can be read in two ways.
struct Unreadable;

pub(super) fn read<'a>(fields: &mut Fields<'a>) -> Result<Wanted<'a>, Refusal> {
    let Some(node) = fields.take("response_format") else {
        return Ok(Wanted::Text);
    };
    let mut fields = node.fields()?;
    let kind = fields.require("type")?;
    let wanted = match kind.text()?.as_ref() {
        "text" => Wanted::Text,
        "json_object" => Wanted::Object(any_object()?),
        "json_schema" => Wanted::Schema(schema(&fields.require("json_schema")?)?),
        _ => return Err(kind.invalid("must be `text`, `json_object` or `json_schema`")),
    };
    // The other format's member, as some clients send it.
    fields.without((
        "json_schema",
        Is::Absent,
        "only the type `json_schema` has one",
    ))?;
    fields.end()?;
    Ok(wanted)
}

fn any_object<'a>() -> Result<Tool<'a>, Refusal> {
    let said = "Gives the answer to the user: the input of this tool is all that they see.";
    let schema = r#"{"type":"object","additionalProperties":true}"#;
    Ok(Tool {
        name: JSON_ANSWER_TOOL.into(),
        description: Some(said.into()),
        input_schema: Cow::Owned(raw(schema.to_owned())?),
        strict: false,
    })
}

/// The name is a label, and an answer by a schema always follows it, so that
/// `strict` says nothing more.
fn schema(node: &Node<'_>) -> Result<OutputConfig, Refusal> {
    let mut format = node.fields()?;
    format.require("name")?.text()?;
    format.flag("strict")?;
    let description = format.text("description")?;
    let schema = match format.take("schema") {
        None => raw(r#"{"type":"object"}"#.to_owned())?,
        Some(schema) => {
            object_at_root(&schema)?;
            schema.object()?.to_owned()
        }
    };
    format.end()?;
    if schema.get().len() > SCHEMA_MAX_BYTES {
        let why = format!("it takes schemas of up to {SCHEMA_MAX_BYTES} bytes");
        return Err(node.unsupported(why));
    }
    let mut text = closed(&schema, DEPTH_MAX).map_err(|Unreadable| {
        node.unsupported(format!(
            "it takes schemas of up to {DEPTH_MAX} levels, in which no member comes twice"
        ))
    })?;
    if let Some(description) = description.filter(|_| !says(&schema, "description"))
        && let Some(rest) = text.strip_prefix('{')
    {
        text = format!(r#"{{"description":{},{rest}"#, quoted(&description));
    }
    Ok(OutputConfig {
        format: Format {
            kind: "json_schema",
            schema: raw(text)?,
        },
    })
}

fn object_at_root(node: &Node<'_>) -> Result<(), Refusal> {
    match node.fields()?.take("type") {
        Some(kind) if !kind.is_text() || kind.text()? != "object" => {
            Err(kind.unsupported("it takes schemas of type `object` alone here"))
        }
        _ => Ok(()),
    }
}

fn says(schema: &RawValue, member: &str) -> bool {
    serde_json::from_str::<Members<'_>>(schema.get()).is_ok_and(|m| m.get(member).is_some())
}

/// A schema whose objects have no other members than it names, which Anthropic
/// demands to be said. Whatever follows it follows the schema as it was.
fn closed(schema: &RawValue, depth: usize) -> Result<String, Unreadable> {
    let text = schema.get();
    let depth = depth.checked_sub(1).ok_or(Unreadable)?;
    if text.starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Unreadable)?;
        let items = items.into_iter().map(|item| closed(item, depth));
        let items: Vec<String> = items.collect::<Result<_, _>>()?;
        return Ok(format!("[{}]", items.join(",")));
    }
    if !text.starts_with('{') {
        return Ok(text.to_owned());
    }
    let members: Members<'_> = serde_json::from_str(text).map_err(|_| Unreadable)?;
    let mut object = Object::default();
    for (name, value) in members.iter() {
        if NAMED.contains(&name) {
            object.member(name, &each_closed(value, depth)?);
        } else if INNER.contains(&name) {
            object.member(name, &closed(value, depth)?);
        } else {
            object.member(name, value.get());
        }
    }
    let is_object = members
        .get("type")
        .is_some_and(|t| t.get() == r#""object""#)
        || members.get("properties").is_some();
    if is_object && members.get("type").is_none() {
        object.member("type", r#""object""#);
    }
    if is_object && members.get("additionalProperties").is_none() {
        object.member("additionalProperties", "false");
    }
    Ok(object.close())
}

fn each_closed(named: &RawValue, depth: usize) -> Result<String, Unreadable> {
    let members: Members<'_> = serde_json::from_str(named.get()).map_err(|_| Unreadable)?;
    let mut object = Object::default();
    for (name, value) in members.iter() {
        object.member(name, &closed(value, depth)?);
    }
    Ok(object.close())
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn objects_are_closed_wherever_they_are_and_members_keep_their_order() {
        for (open, expected) in [
            (
                r#"{"type":"object","properties":{"b":{"type":"array","items":{"properties":{"z":{"type":"string"},"a":{}}}}},"required":["b"]}"#,
                r#"{"type":"object","properties":{"b":{"type":"array","items":{"properties":{"z":{"type":"string"},"a":{}},"type":"object","additionalProperties":false}}},"required":["b"],"additionalProperties":false}"#,
            ),
            (
                r#"{"type":"object","additionalProperties":true}"#,
                r#"{"type":"object","additionalProperties":true}"#,
            ),
            (
                r#"{"anyOf":[{"type":"object"},{"type":"null"}],"enum":[{"type":"object"}]}"#,
                r#"{"anyOf":[{"type":"object","additionalProperties":false},{"type":"null"}],"enum":[{"type":"object"}]}"#,
            ),
        ] {
            let raw = RawValue::from_string(open.to_owned()).unwrap();
            assert_eq!(closed(&raw, DEPTH_MAX).ok().as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_schema_without_a_bottom_is_refused() {
        let deep = format!(
            r#"{{"messages":[{{"role":"user","content":"x"}}],"response_format":{{"type":"json_schema","json_schema":{{"name":"a","schema":{{"type":"object","items":{}1{}}}}}}}}}"#,
            r#"{"items":"#.repeat(20_000),
            "}".repeat(20_000)
        );
        let target = super::super::super::Target {
            model: "m",
            max_tokens: Some(1),
            compatible: false,
        };
        let refusal = super::super::request(deep.as_bytes(), &target).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert!(refusal.error.param.unwrap().starts_with("response_format"));
    }
}
