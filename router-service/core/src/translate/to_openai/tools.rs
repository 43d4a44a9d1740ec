//! Anthropic's tools and the choice among them, as OpenAI's.

use super::{
    super::{
        fields::{Fields, Is, Node, Without},
        openai::{Function, Name, Tool, ToolChoice},
    },
    messages::{CACHE_CONTROL, cache_control},
};
use crate::refusal::Refusal;

/// What is said of tools.
#[derive(Debug, Default)]
pub(super) struct Choice<'a> {
    pub tools: Vec<Tool<'a>>,
    pub tool_choice: Option<ToolChoice<'a>>,
    pub parallel_tool_calls: Option<bool>,
}

/// Members of a tool that OpenAI has no counterpart for.
const WITHOUT: [Without; 3] = [
    (
        "defer_loading",
        Is::Bool(false),
        "its models see all tools from the start",
    ),
    ("input_examples", Is::Empty, "it takes no examples"),
    (
        "allowed_callers",
        Is::Only("direct"),
        "its tools are called by the model alone",
    ),
];

pub(super) fn read<'a>(fields: &mut Fields<'a>) -> Result<Choice<'a>, Refusal> {
    let tools: Vec<Tool<'a>> = match fields.take("tools") {
        Some(list) => list.list()?.iter().map(tool).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let Some(asked) = fields.take("tool_choice") else {
        return Ok(Choice {
            tools,
            ..Choice::default()
        });
    };
    let (tool_choice, serial) = tool_choice(&asked)?;
    if tools.is_empty() {
        return Err(asked.invalid("needs `tools` to choose from"));
    }
    Ok(Choice {
        tools,
        tool_choice: Some(tool_choice),
        parallel_tool_calls: serial.then_some(false),
    })
}

fn tool<'a>(node: &Node<'a>) -> Result<Tool<'a>, Refusal> {
    let mut fields = node.fields()?;
    if let Some(kind) = fields.take("type")
        && kind.text()? != "custom"
    {
        return Err(kind.unsupported("it has none of Anthropic's own tools"));
    }
    // Whether the input streams as it is made; OpenAI's always does.
    fields.flag("eager_input_streaming")?;
    cache_control(&mut fields, CACHE_CONTROL)?;
    let function = Function {
        name: fields.require("name")?.text()?,
        description: fields.text("description")?,
        parameters: fields.require("input_schema")?.object()?,
        strict: fields.flag("strict")?.unwrap_or(false),
    };
    for without in WITHOUT {
        fields.without(without)?;
    }
    fields.end()?;
    Ok(Tool {
        kind: "function",
        function,
    })
}

/// The choice, and whether calls come one at a time.
fn tool_choice<'a>(node: &Node<'a>) -> Result<(ToolChoice<'a>, bool), Refusal> {
    let mut fields = node.fields()?;
    let kind = fields.require("type")?;
    let choice = match kind.text()?.as_ref() {
        "auto" => ToolChoice::Mode("auto"),
        "any" => ToolChoice::Mode("required"),
        "none" => ToolChoice::Mode("none"),
        "tool" => ToolChoice::Named {
            kind: "function",
            function: Name {
                name: fields.require("name")?.text()?,
            },
        },
        _ => return Err(kind.invalid("must be `auto`, `any`, `tool` or `none`")),
    };
    let serial = fields.flag("disable_parallel_tool_use")?.unwrap_or(false);
    fields.end()?;
    Ok((choice, serial))
}
