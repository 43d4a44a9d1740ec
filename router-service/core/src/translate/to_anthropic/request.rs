//! A chat completion request, as `POST /v1/messages`.
//!
//! Sources: OpenAI API reference, "Create chat completion"; Anthropic API
//! reference, "Create a Message".

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    super::{
        Target,
        anthropic::{Metadata, Request},
        fields::{Fields, Is, Node, Without, unsupported},
        write,
    },
    format::{self, Wanted},
    messages, tools,
};
use crate::refusal::Refusal;

/// Members of the request that Anthropic has no counterpart for.
const WITHOUT: [Without; 22] = [
    ("functions", Is::Empty, "say `tools` instead"),
    ("function_call", Is::Absent, "say `tool_choice` instead"),
    ("n", Is::Number(1.0), "it gives one choice"),
    ("logprobs", Is::Bool(false), "it gives no log probabilities"),
    (
        "top_logprobs",
        Is::Number(0.0),
        "it gives no log probabilities",
    ),
    ("logit_bias", Is::Empty, "it biases no tokens"),
    ("presence_penalty", Is::Number(0.0), "it has no penalties"),
    ("frequency_penalty", Is::Number(0.0), "it has no penalties"),
    ("seed", Is::Absent, "it samples without a seed"),
    ("audio", Is::Absent, "it answers in text"),
    ("modalities", Is::Only("text"), "it answers in text"),
    ("prediction", Is::Absent, "it takes no predicted output"),
    (
        "reasoning_effort",
        Is::Absent,
        "its thinking is no matter of these levels",
    ),
    ("verbosity", Is::Words(&["medium"]), "it has no such level"),
    (
        "web_search_options",
        Is::Absent,
        "the router runs no searches",
    ),
    ("moderation", Is::Absent, "it moderates by its own rules"),
    ("metadata", Is::Empty, "it stores no answers"),
    ("store", Is::Bool(false), "it stores no answers"),
    (
        "service_tier",
        Is::Words(&["auto", "default"]),
        "its tiers are others",
    ),
    (
        "prompt_cache_key",
        Is::Absent,
        "its cache is not directed by keys",
    ),
    (
        "prompt_cache_retention",
        Is::Absent,
        "its cache has lifetimes of its own",
    ),
    (
        "prompt_cache_options",
        Is::Absent,
        "its cache is directed otherwise",
    ),
];

/// The request of a client of OpenAI's dialect, for Anthropic.
///
/// # Errors
/// 400, naming the parameter, for what is of the wrong type, unknown, or
/// without a counterpart.
pub fn request(body: &[u8], target: &Target<'_>) -> Result<Vec<u8>, Refusal> {
    let mut fields = Fields::root(body)?;
    fields.text("model")?;
    // The router decided by them, and says so in the target.
    fields.count("max_tokens")?;
    fields.count("max_completion_tokens")?;
    let stream = fields.flag("stream")?.unwrap_or(false);
    stream_options(&mut fields)?;
    let conversation = messages::read(&fields.require("messages")?)?;
    let (answer, output_config) = match format::read(&mut fields)? {
        Wanted::Text => (None, None),
        Wanted::Object(tool) => (Some(tool), None),
        Wanted::Schema(config) => (None, Some(config)),
    };
    let (tools, tool_choice) = tools::read(&mut fields, answer)?;
    let stop_sequences = stop(&mut fields)?;
    let temperature = temperature(&mut fields)?;
    let top_p = not_one(&mut fields, "top_p")?.map(|(_, raw)| raw);
    let metadata = user(&mut fields)?.map(|user_id| Metadata { user_id });
    for without in WITHOUT {
        fields.without(without)?;
    }
    fields.end()?;
    write::body(&Request {
        model: target.model,
        max_tokens: target.max_tokens,
        system: conversation.system,
        messages: conversation.turns,
        tools,
        tool_choice,
        stop_sequences,
        temperature,
        top_p,
        metadata,
        output_config,
        stream,
    })
}

/// Whether usage is asked for is the stream's matter. The padding of chunks
/// against listeners, `include_obfuscation`, is a default that the client can
/// do nothing with: its absence changes no answer.
fn stream_options(fields: &mut Fields<'_>) -> Result<(), Refusal> {
    let Some(options) = fields.take("stream_options") else {
        return Ok(());
    };
    let mut options = options.fields()?;
    options.flag("include_usage")?;
    options.flag("include_obfuscation")?;
    options.end()
}

/// Anthropic stops at no white space ("OpenAI SDK compatibility").
fn stop<'a>(fields: &mut Fields<'a>) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let items = match fields.take("stop") {
        None => Vec::new(),
        Some(stop) if stop.is_text() => vec![stop],
        Some(stop) if stop.raw.get().starts_with('[') => stop.list()?,
        Some(stop) => return Err(stop.wrong_type("a string or an array of strings")),
    };
    let text = |item: &Node<'a>| match item.text()? {
        text if text.trim().is_empty() => Err(item.unsupported("it stops at no white space")),
        text => Ok(text),
    };
    items.iter().map(text).collect()
}

/// A number, unless it is one, which is the default of both sides. Anthropic's
/// newer models refuse a request that states both temperature and `top_p`, and
/// many clients always state both.
fn not_one<'a>(
    fields: &mut Fields<'a>,
    name: &str,
) -> Result<Option<(f64, &'a RawValue)>, Refusal> {
    let number = fields.number(name)?;
    Ok(number
        .filter(|(value, _)| *value != 1.0)
        .map(|(value, node)| (value, node.raw)))
}

fn temperature<'a>(fields: &mut Fields<'a>) -> Result<Option<&'a RawValue>, Refusal> {
    match not_one(fields, "temperature")? {
        Some((value, _)) if value > 1.0 => Err(unsupported(
            "temperature",
            "it knows temperatures from 0 to 1",
        )),
        temperature => Ok(temperature.map(|(_, raw)| raw)),
    }
}

/// `safety_identifier` is the newer name of what `user` was for.
fn user<'a>(fields: &mut Fields<'a>) -> Result<Option<Cow<'a, str>>, Refusal> {
    let (user, newer) = (fields.text("user")?, fields.text("safety_identifier")?);
    match (user, newer) {
        (Some(user), Some(newer)) if user != newer => Err(unsupported(
            "user",
            "it takes one identifier, and `safety_identifier` is another",
        )),
        (user, newer) => Ok(newer.or(user)),
    }
}
