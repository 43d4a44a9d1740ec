//! A request's body: read as far as deciding needs it, and rewritten for the
//! provider with every other byte as the client sent it.

pub mod members;
mod rewrite;
mod scan;
mod uses;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use weir_dialects::routes::{Endpoint, RequestClass};

use self::members::Members;
use crate::refusal::Refusal;

pub use self::{rewrite::with_model, uses::Uses};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The call.
    pub endpoint: Endpoint,
    /// The model, by the client's name for it.
    pub model: String,
    /// Whether the answer is to be an event stream.
    pub stream: bool,
    /// Whether the client asked for the usage in the stream. Where it did not,
    /// the router does, and hides what comes of it.
    pub usage_asked: bool,
    /// The most tokens of the answer that it asks for.
    pub max_tokens: Option<u64>,
    /// How many answers it asks for, each of so many tokens; at least 1.
    pub choices: u64,
    /// Of an answer's tokens those that it wants for thinking.
    pub thinking_tokens: Option<u64>,
    /// What it uses beside text.
    pub uses: Uses,
    /// Bytes of the members that hold the input, for estimates.
    pub input_bytes: usize,
}

impl Asked {
    /// A call of which nothing is known.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            model: String::new(),
            stream: false,
            usage_asked: false,
            max_tokens: None,
            choices: 1,
            thinking_tokens: None,
            uses: Uses::default(),
            input_bytes: 0,
        }
    }

    /// What kind of work it asks for: an operator's gateway may call it otherwise.
    #[must_use]
    pub fn class(&self) -> RequestClass {
        match self.endpoint.class() {
            RequestClass::Chat | RequestClass::Responses if self.uses.rag => RequestClass::Rag,
            class => class,
        }
    }
}

/// A body that was read.
#[derive(Debug)]
pub struct Body<'a> {
    bytes: &'a [u8],
    members: Members<'a>,
    /// What it asks for.
    pub asked: Asked,
}

/// Members that hold what the model reads.
const INPUTS: [&str; 8] = [
    "messages",
    "input",
    "prompt",
    "system",
    "instructions",
    "tools",
    "functions",
    "response_format",
];

impl<'a> Body<'a> {
    /// Reads a request's body.
    ///
    /// # Errors
    /// 400, naming the parameter, for what is no JSON object, comes twice, lacks
    /// its model, or has what is looked at in another type; and for what would
    /// reach beyond the tenant's own in the account that all tenants share.
    pub fn read(endpoint: Endpoint, bytes: &'a [u8]) -> Result<Self, Refusal> {
        let members: Members<'_> = serde_json::from_slice(bytes).map_err(|e| {
            Refusal::invalid(
                400,
                "invalid_json",
                format!("We could not parse the JSON body of your request: {e}."),
            )
        })?;
        let model: String = members
            .typed("model", "a string")?
            .ok_or_else(|| missing("model"))?;
        let stream = endpoint.streams()
            && members
                .typed::<bool>("stream", "a boolean")?
                .unwrap_or(false);
        let options: Option<Members<'_>> = members.typed("stream_options", "an object")?;
        let usage_asked = match &options {
            Some(options) => options
                .typed::<bool>("include_usage", "a boolean")?
                .unwrap_or(false),
            None => false,
        };
        match endpoint {
            Endpoint::Responses => check_responses(&members)?,
            Endpoint::Messages => check_messages(&members)?,
            Endpoint::ChatCompletions => check_chat(&members)?,
            Endpoint::Completions => check_completions(&members)?,
            _ => {}
        }
        check_tier(endpoint, &members)?;
        let input_bytes = INPUTS
            .iter()
            .filter_map(|name| members.get(name))
            .fold(0_usize, |sum, value| sum.saturating_add(value.get().len()));
        let asked = Asked {
            endpoint,
            model,
            stream,
            usage_asked,
            max_tokens: max_tokens(endpoint, &members)?,
            choices: choices(endpoint, &members)?,
            thinking_tokens: thinking_tokens(&members)?,
            uses: Uses::of(&members)?,
            input_bytes,
        };
        Ok(Self {
            bytes,
            members,
            asked,
        })
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::invalid(
        400,
        "missing_required_parameter",
        format!("you must provide a {name} parameter"),
    )
    .at(name)
}

/// What members a call bounds its answer by.
fn token_members(endpoint: Endpoint) -> &'static [&'static str] {
    match endpoint {
        Endpoint::ChatCompletions => &["max_completion_tokens", "max_tokens"],
        Endpoint::Completions | Endpoint::Messages => &["max_tokens"],
        Endpoint::Responses => &["max_output_tokens"],
        Endpoint::Embeddings | Endpoint::CountTokens | Endpoint::Models => &[],
    }
}

fn max_tokens(endpoint: Endpoint, members: &Members<'_>) -> Result<Option<u64>, Refusal> {
    let mut found = None;
    for name in token_members(endpoint) {
        let Some(tokens) = members.typed::<u64>(name, "a whole number above 0")? else {
            continue;
        };
        if tokens == 0 {
            let message = format!("Invalid '{name}': must be at least 1, found 0.");
            return Err(Refusal::invalid(400, "invalid_value", message).at(name));
        }
        if found.replace(tokens).is_some() {
            let message = "'max_tokens' and 'max_completion_tokens' cannot both be given.";
            return Err(Refusal::invalid(400, "invalid_value", message).at(name));
        }
    }
    // Anthropic has no default for it.
    if endpoint == Endpoint::Messages && found.is_none() {
        return Err(missing("max_tokens"));
    }
    Ok(found)
}

/// How many answers: `n` or `best_of`, for each of several prompts.
fn choices(endpoint: Endpoint, members: &Members<'_>) -> Result<u64, Refusal> {
    if !matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions) {
        return Ok(1);
    }
    let n = members.typed::<u64>("n", "a whole number above 0")?;
    let best_of = members.typed::<u64>("best_of", "a whole number above 0")?;
    let prompts = match members.get("prompt").map(RawValue::get) {
        Some(text) if text.starts_with('[') => {
            let items: Vec<IgnoredAny> = serde_json::from_str(text).unwrap_or_default();
            // Numbers are one prompt's tokens; lists of them are several prompts.
            let first = text.get(1..).unwrap_or_default().trim_start();
            let is_tokens = first.starts_with(|c: char| c.is_ascii_digit());
            if is_tokens { 1 } else { items.len() }
        }
        _ => 1,
    };
    let prompts = u64::try_from(prompts).unwrap_or(u64::MAX).max(1);
    let each = n.unwrap_or(1).max(best_of.unwrap_or(1)).max(1);
    Ok(each.saturating_mul(prompts))
}

/// Anthropic's `thinking.budget_tokens`, which must leave room for an answer.
fn thinking_tokens(members: &Members<'_>) -> Result<Option<u64>, Refusal> {
    let thinking: Option<Members<'_>> = members.typed("thinking", "an object")?;
    match thinking {
        Some(thinking) => thinking
            .typed("budget_tokens", "a whole number")
            .map_err(|r| r.at("thinking.budget_tokens")),
        None => Ok(None),
    }
}

fn not_here(name: &str, why: &str) -> Refusal {
    let message = format!("'{name}' is not supported here: {why}.");
    Refusal::invalid(400, "unsupported_parameter", message).at(name)
}

/// Why what a provider would do beside answering is refused.
const RUNS_NOTHING: &str = "the provider runs nothing for tenants";

fn check_none(members: &Members<'_>, names: &[&str], why: &str) -> Result<(), Refusal> {
    match names.iter().find(|name| members.has(name)) {
        Some(name) => Err(not_here(name, why)),
        None => Ok(()),
    }
}

fn check_false(members: &Members<'_>, names: &[&str], why: &str) -> Result<(), Refusal> {
    for name in names {
        if members.typed::<bool>(name, "a boolean")? == Some(true) {
            return Err(not_here(name, why));
        }
    }
    Ok(())
}

/// What a provider keeps is kept in the one account of all tenants, where an id
/// is no proof of whose it is.
fn check_responses(members: &Members<'_>) -> Result<(), Refusal> {
    let kept = ["previous_response_id", "conversation", "prompt"];
    check_none(members, &kept, "nothing is kept between requests")?;
    check_false(members, &["store", "background"], "responses are not kept")?;
    check_tools(members, |kind| matches!(kind, "function" | "custom"))
}

fn check_chat(members: &Members<'_>) -> Result<(), Refusal> {
    check_false(members, &["store"], "answers are not kept")?;
    check_none(members, &["web_search_options"], RUNS_NOTHING)?;
    check_none(members, &["audio"], "sound has a price of its own")?;
    check_completions(members)
}

/// llama.cpp's own name for the bound of an answer goes around the plan's.
fn check_completions(members: &Members<'_>) -> Result<(), Refusal> {
    check_none(members, &["n_predict"], "say max_tokens")
}

/// Other tiers of service have other prices.
fn check_tier(endpoint: Endpoint, members: &Members<'_>) -> Result<(), Refusal> {
    let plain: &[&str] = match endpoint {
        Endpoint::Messages => &["auto", "standard_only"],
        _ => &["auto", "default"],
    };
    let tier: Option<String> = members.typed("service_tier", "a string")?;
    match tier.is_some_and(|tier| !plain.contains(&tier.as_str())) {
        true => Err(not_here("service_tier", "it has prices of its own")),
        false => Ok(()),
    }
}

/// Of Anthropic's own kinds of tools these are run by the client.
const RUN_BY_CLIENTS: [&str; 4] = ["bash_", "text_editor_", "computer_", "memory_"];

fn check_messages(members: &Members<'_>) -> Result<(), Refusal> {
    check_none(members, &["mcp_servers", "container"], RUNS_NOTHING)?;
    for (name, plain) in [("speed", "standard"), ("inference_geo", "global")] {
        let value: Option<String> = members.typed(name, "a string")?;
        if value.is_some_and(|value| value != plain) {
            return Err(not_here(name, "it has a price of its own"));
        }
    }
    check_tools(members, |kind| {
        kind == "custom" || RUN_BY_CLIENTS.iter().any(|prefix| kind.starts_with(prefix))
    })
}

/// What a provider runs itself it charges for by other measures than tokens.
fn check_tools(members: &Members<'_>, is_clients: fn(&str) -> bool) -> Result<(), Refusal> {
    let Some(kind) = uses::tool_but(members, is_clients)? else {
        return Ok(());
    };
    let kind: String = kind.chars().take(64).collect();
    let why = format!("tools of type {kind} are run by the provider");
    Err(not_here("tools", &why))
}

#[cfg(test)]
mod tests;
