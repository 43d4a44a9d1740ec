//! A request for `POST /v1/messages`, as a chat completion's.
//!
//! Sources: Anthropic API reference, "Create a Message"; OpenAI API reference,
//! "Create chat completion".

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    super::{
        Target,
        fields::{Fields, Is, Without},
        openai::{JsonSchema, Request, ResponseFormat, StreamOptions},
        write,
    },
    messages::{self, CACHE_CONTROL},
    tools,
};
use crate::refusal::Refusal;

/// Members of the request that OpenAI has no counterpart for.
const WITHOUT: [Without; 9] = [
    ("top_k", Is::Absent, "OpenAI's dialect has none"),
    ("service_tier", Is::Words(&["auto"]), "its tiers are others"),
    ("container", Is::Absent, "it runs no containers"),
    ("mcp_servers", Is::Empty, "the router calls no MCP servers"),
    (
        "context_management",
        Is::Absent,
        "it edits no context of its own accord",
    ),
    (
        "inference_geo",
        Is::Absent,
        "where it runs is no matter of a request",
    ),
    ("diagnostics", Is::Absent, "it gives none"),
    ("speed", Is::Words(&["standard"]), "it has one speed"),
    ("user_profile_id", Is::Absent, "it has no such profiles"),
];

/// The most stop sequences that OpenAI takes.
const STOP_MAX: usize = 4;

/// The request of a client of Anthropic's dialect, for OpenAI or for a server
/// that copies its API.
///
/// # Errors
/// 400, naming the parameter, for what is of the wrong type, unknown, or
/// without a counterpart.
pub fn request(body: &[u8], target: &Target<'_>) -> Result<Vec<u8>, Refusal> {
    let mut fields = Fields::root(body)?;
    fields.text("model")?;
    // The router decided by it, and says so in the target.
    fields
        .require("max_tokens")?
        .typed::<u64>("a whole number that is not negative")?;
    let messages = messages::read(&mut fields, target.compatible)?;
    let choice = tools::read(&mut fields)?;
    let stop = stop(&mut fields, target.compatible)?;
    let temperature = number(&mut fields, "temperature")?;
    let top_p = number(&mut fields, "top_p")?;
    let user = user(&mut fields)?;
    let response_format = output_config(&mut fields)?;
    let stream = fields.flag("stream")?.unwrap_or(false);
    thinking(&mut fields)?;
    messages::cache_control(&mut fields, CACHE_CONTROL)?;
    for without in WITHOUT {
        fields.without(without)?;
    }
    fields.end()?;
    write::body(&Request {
        model: target.model,
        messages,
        max_completion_tokens: target.max_tokens.filter(|_| !target.compatible),
        max_tokens: target.max_tokens.filter(|_| target.compatible),
        tools: choice.tools,
        tool_choice: choice.tool_choice,
        parallel_tool_calls: choice.parallel_tool_calls,
        response_format,
        stop,
        temperature,
        top_p,
        user,
        stream,
        // Anthropic's streams always say what they used.
        stream_options: stream.then_some(StreamOptions {
            include_usage: true,
        }),
    })
}

fn stop<'a>(fields: &mut Fields<'a>, compatible: bool) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let Some(node) = fields.take("stop_sequences") else {
        return Ok(Vec::new());
    };
    let stop = node.texts()?;
    if stop.len() > STOP_MAX && !compatible {
        return Err(node.unsupported(format!("it takes up to {STOP_MAX}")));
    }
    Ok(stop)
}

fn number<'a>(fields: &mut Fields<'a>, name: &str) -> Result<Option<&'a RawValue>, Refusal> {
    Ok(fields.number(name)?.map(|(_, node)| node.raw))
}

fn user<'a>(fields: &mut Fields<'a>) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(metadata) = fields.take("metadata") else {
        return Ok(None);
    };
    let mut metadata = metadata.fields()?;
    let user = metadata.text("user_id")?;
    metadata.end()?;
    Ok(user)
}

fn thinking(fields: &mut Fields<'_>) -> Result<(), Refusal> {
    let Some(thinking) = fields.take("thinking") else {
        return Ok(());
    };
    let mut inner = thinking.fields()?;
    let kind = inner.require("type")?;
    if kind.text()? != "disabled" {
        return Err(thinking.unsupported("its dialect shows no thinking; say `disabled`"));
    }
    inner.end()
}

fn output_config<'a>(fields: &mut Fields<'a>) -> Result<Option<ResponseFormat<'a>>, Refusal> {
    let Some(config) = fields.take("output_config") else {
        return Ok(None);
    };
    let mut config = config.fields()?;
    config.without((
        "effort",
        Is::Words(&["high"]),
        "its levels of effort are others",
    ))?;
    let format = config.take("format");
    config.end()?;
    let Some(format) = format else {
        return Ok(None);
    };
    let mut format = format.fields()?;
    let kind = format.require("type")?;
    if kind.text()? != "json_schema" {
        return Err(kind.invalid("must be `json_schema`"));
    }
    let schema = format.require("schema")?.object()?;
    format.end()?;
    Ok(Some(ResponseFormat {
        kind: "json_schema",
        json_schema: JsonSchema {
            name: "answer",
            strict: true,
            schema,
        },
    }))
}
