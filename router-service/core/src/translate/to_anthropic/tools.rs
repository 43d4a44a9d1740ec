//! OpenAI's tools and the choice among them, as Anthropic's tools and
//! `tool_choice`.
//!
//! Where any JSON object is wanted, that is a tool, too ([`JSON_ANSWER_TOOL`]),
//! whose input is the answer. Beside tools of the client's the model must call one
//! of them all, and one alone: an answer is either a call or the JSON.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::{
    JSON_ANSWER_TOOL,
    anthropic::{Tool, ToolChoice},
    fields::{Fields, Node},
    write::{compact, raw},
};
use crate::refusal::Refusal;

type Tools<'a> = (Vec<Tool<'a>>, Option<ToolChoice<'a>>);

enum Choice<'a> {
    Auto,
    None,
    Required,
    Named(Cow<'a, str>),
}

/// `answer` is the tool that is the answer, where there is one.
pub(super) fn read<'a>(
    fields: &mut Fields<'a>,
    answer: Option<Tool<'a>>,
) -> Result<Tools<'a>, Refusal> {
    let mut tools = match fields.take("tools") {
        Some(list) => list.list()?.iter().map(tool).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let asked = fields.take("tool_choice");
    let choice = asked.as_ref().map_or(Ok(Choice::Auto), choice)?;
    let serial = fields.flag("parallel_tool_calls")? == Some(false);
    if let (Some(asked), Choice::Required | Choice::Named(_), true) =
        (&asked, &choice, tools.is_empty())
    {
        return Err(asked.invalid("needs `tools` to choose from"));
    }
    let any = !tools.is_empty();
    let of = |kind, name, serial| {
        Some(ToolChoice {
            kind,
            name,
            disable_parallel_tool_use: serial,
        })
    };
    let tool_choice = match (choice, answer) {
        // A call must come, so that no answer does that could have a format.
        (Choice::Required, _) => of("any", None, serial),
        (Choice::Named(name), _) => of("tool", Some(name), serial),
        (Choice::Auto, Some(answer)) if any => {
            tools.push(answer);
            of("any", None, true)
        }
        (Choice::Auto | Choice::None, Some(answer)) => {
            tools.push(answer);
            of("tool", Some(JSON_ANSWER_TOOL.into()), true)
        }
        (Choice::Auto, None) => of("auto", None, serial).filter(|_| any && serial),
        (Choice::None, None) => of("none", None, false).filter(|_| any),
    };
    Ok((tools, tool_choice))
}

fn tool<'a>(node: &Node<'a>) -> Result<Tool<'a>, Refusal> {
    let mut fields = node.fields()?;
    function_type(&fields.require("type")?)?;
    let mut function = fields.require("function")?.fields()?;
    fields.end()?;
    let name = function.require("name")?;
    if name.text()? == JSON_ANSWER_TOOL {
        return Err(name.invalid("is a name that the router keeps for `response_format`"));
    }
    let tool = Tool {
        name: name.text()?,
        description: function.text("description")?,
        input_schema: schema(function.take("parameters"))?,
        strict: function.flag("strict")?.unwrap_or(false),
    };
    function.end()?;
    Ok(tool)
}

fn function_type(kind: &Node<'_>) -> Result<(), Refusal> {
    match kind.text()?.as_ref() {
        "function" => Ok(()),
        "custom" | "allowed_tools" => {
            Err(kind.unsupported("its tools are functions, and all or one are to choose from"))
        }
        _ => Err(kind.invalid("is no type of a tool")),
    }
}

/// The schema of a tool's input. Anthropic wants its type stated, and it can
/// be no other than an object; OpenAI takes that for granted.
fn schema(node: Option<Node<'_>>) -> Result<Cow<'_, RawValue>, Refusal> {
    let empty = r#"{"type":"object","properties":{}}"#;
    let Some(node) = node else {
        return Ok(Cow::Owned(raw(empty.to_owned())?));
    };
    let schema = node.object()?;
    let mut fields = node.fields()?;
    let stated = fields.has("type");
    match fields.take("type") {
        Some(kind) if kind.is_text() && kind.text()? == "object" => Ok(Cow::Borrowed(schema)),
        Some(kind) => Err(kind.unsupported("it takes schemas of type `object` alone here")),
        None if compact(schema.get()) == "{}" => Ok(Cow::Owned(raw(empty.to_owned())?)),
        None if stated => Err(node.invalid("must be a JSON Schema, where no type is null")),
        None => {
            let members = schema.get().trim_start_matches('{');
            raw(format!(r#"{{"type":"object",{members}"#)).map(Cow::Owned)
        }
    }
}

fn choice<'a>(node: &Node<'a>) -> Result<Choice<'a>, Refusal> {
    if node.is_text() {
        return match node.text()?.as_ref() {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            "required" => Ok(Choice::Required),
            _ => Err(node.invalid("must be `auto`, `none`, `required` or a function")),
        };
    }
    let mut fields = node.fields()?;
    function_type(&fields.require("type")?)?;
    let mut function = fields.require("function")?.fields()?;
    let name = function.require("name")?.text()?;
    function.end()?;
    fields.end()?;
    Ok(Choice::Named(name))
}
