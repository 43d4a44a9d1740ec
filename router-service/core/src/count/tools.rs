//! The tools of a request: what they take is counted as OpenAI's cookbook does
//! ("How to count tokens with tiktoken", tool calls), to any depth.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use weir_dialects::routes::Endpoint;

/// Of each tool, of a list of properties, of each of them, of a list of values, of
/// each of them, and of all tools together.
const TOOL: u64 = 7;
const PROPERTIES: u64 = 3;
const PROPERTY: u64 = 3;
const VALUE: u64 = 3;
const END: u64 = 12;

/// The prompt that Anthropic puts before tools ("Tool use", pricing), for a choice
/// that is the model's.
const ANTHROPIC_PROMPT: u64 = 346;

type Text<'a> = Option<Cow<'a, str>>;

/// A tool of chat completions; the others have its members themselves.
#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow)]
    function: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    description: Text<'a>,
    #[serde(borrow)]
    parameters: Option<Box<Schema<'a>>>,
    /// Anthropic's.
    #[serde(borrow)]
    input_schema: Option<Box<Schema<'a>>>,
}

#[derive(Deserialize)]
struct Schema<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    description: Text<'a>,
    #[serde(borrow)]
    properties: Option<BTreeMap<Cow<'a, str>, Schema<'a>>>,
    #[serde(borrow)]
    items: Option<Box<Schema<'a>>>,
    #[serde(borrow, rename = "enum")]
    values: Option<Vec<&'a RawValue>>,
}

/// Hands over the texts of a list of tools; gives the tokens beside.
pub(super) fn walk(raw: &RawValue, endpoint: Endpoint, text: &mut dyn FnMut(&str)) -> u64 {
    let mut tools = 0_u64;
    let items: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
    let mut fixed = 0_u64;
    for item in items {
        tools = tools.saturating_add(1);
        let within = serde_json::from_str::<Tool<'_>>(item.get());
        let own = within.ok().and_then(|tool| tool.function).unwrap_or(item);
        let walked = match serde_json::from_str(own.get()) {
            Ok(tool) => function(&tool, text),
            // What is not understood is shown to the model all the same.
            Err(_) => {
                text(item.get());
                TOOL
            }
        };
        fixed = fixed.saturating_add(walked);
    }
    match (tools, endpoint) {
        (0, _) => 0,
        (_, Endpoint::Messages) => fixed.saturating_add(ANTHROPIC_PROMPT),
        _ => fixed.saturating_add(END),
    }
}

fn function(function: &Function<'_>, text: &mut dyn FnMut(&str)) -> u64 {
    for part in [&function.name, &function.description]
        .into_iter()
        .flatten()
    {
        text(part);
    }
    let schemas = [&function.parameters, &function.input_schema];
    schemas
        .into_iter()
        .flatten()
        .fold(TOOL, |sum, of| sum.saturating_add(inner(of, text)))
}

/// What is within a schema: its properties, values and items.
fn inner(schema: &Schema<'_>, text: &mut dyn FnMut(&str)) -> u64 {
    let mut sum = 0_u64;
    if let Some(properties) = &schema.properties {
        sum = sum.saturating_add(PROPERTIES);
        for (name, property) in properties {
            text(name);
            let kind = property.kind.map(RawValue::get).unwrap_or_default();
            text(kind.trim_matches('"'));
            if let Some(description) = &property.description {
                text(description);
            }
            sum = sum.saturating_add(PROPERTY);
            sum = sum.saturating_add(inner(property, text));
        }
    }
    for value in schema.values.iter().flatten() {
        text(value.get().trim_matches('"'));
        sum = sum.saturating_add(VALUE);
    }
    if let Some(items) = &schema.items {
        sum = sum.saturating_add(inner(items, text));
    }
    sum
}
