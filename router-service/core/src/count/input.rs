//! What a request's body puts before the model, counted when it is asked for.

use std::{borrow::Cow, sync::OnceLock};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use weir_dialects::routes::Endpoint;

use super::{
    Tokenizer,
    sample::{Sampler, WHOLE_BYTES},
    tools,
};

/// What each message takes beside its text, and what primes the answer (OpenAI
/// Cookbook, "How to count tokens with tiktoken").
const PER_MESSAGE: u64 = 3;
const PRIMING: u64 = 3;

/// A name in a message, there.
const PER_NAME: u64 = 1;

/// An image as OpenAI counts one of 1024 × 1024 in full detail, and in low
/// ("Images and vision"); what it really is only its provider says.
const IMAGE: u64 = 765;
const IMAGE_LOW: u64 = 85;

/// An image as Anthropic counts the largest that it does not shrink ("Vision").
const ANTHROPIC_IMAGE: u64 = 1_600;

/// The input of a call, as it was sent to its provider.
#[derive(Debug, Clone)]
pub struct Input {
    endpoint: Endpoint,
    body: Bytes,
    counted: OnceLock<(Tokenizer, u64)>,
}

impl Input {
    /// The body of a call of that endpoint. Costs nothing until it is counted.
    #[must_use]
    pub fn new(endpoint: Endpoint, body: Bytes) -> Self {
        Self {
            endpoint,
            body,
            counted: OnceLock::new(),
        }
    }

    /// Its tokens, by that tokenizer; counted once.
    #[must_use]
    pub fn tokens(&self, tokenizer: Tokenizer) -> u64 {
        let counted = self
            .counted
            .get_or_init(|| (tokenizer, self.count(tokenizer)));
        match counted {
            (by, tokens) if *by == tokenizer => *tokens,
            // The model that served is another than was asked for.
            _ => self.count(tokenizer),
        }
    }

    fn count(&self, tokenizer: Tokenizer) -> u64 {
        let Ok(body) = serde_json::from_slice::<Body<'_>>(&self.body) else {
            return 0;
        };
        // A long body is gone through twice, to know how much of it is text.
        let mut total = self.body.len();
        if total > WHOLE_BYTES {
            total = 0;
            let mut measure = |text: &str| total = total.saturating_add(text.len());
            Walk::new(self.endpoint, &mut measure).body(&body);
        }
        let mut sampler = Sampler::new(tokenizer, total);
        let mut count = |text: &str| sampler.add(text);
        let mut walk = Walk::new(self.endpoint, &mut count);
        walk.body(&body);
        let fixed = walk.fixed;
        sampler.finish().saturating_add(fixed)
    }
}

type Raw<'a> = Option<&'a RawValue>;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    messages: Raw<'a>,
    #[serde(borrow)]
    system: Raw<'a>,
    #[serde(borrow)]
    input: Raw<'a>,
    #[serde(borrow)]
    instructions: Raw<'a>,
    #[serde(borrow)]
    prompt: Raw<'a>,
    #[serde(borrow)]
    suffix: Raw<'a>,
    #[serde(borrow)]
    tools: Raw<'a>,
    #[serde(borrow)]
    functions: Raw<'a>,
    #[serde(borrow)]
    response_format: Raw<'a>,
}

/// A message, a part of one, or an item of `responses`: what of each has text.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    role: Raw<'a>,
    #[serde(borrow)]
    name: Raw<'a>,
    #[serde(borrow)]
    content: Raw<'a>,
    #[serde(borrow)]
    text: Raw<'a>,
    #[serde(borrow)]
    thinking: Raw<'a>,
    #[serde(borrow)]
    refusal: Raw<'a>,
    #[serde(borrow)]
    reasoning_content: Raw<'a>,
    #[serde(borrow)]
    summary: Raw<'a>,
    #[serde(borrow)]
    output: Raw<'a>,
    #[serde(borrow)]
    arguments: Raw<'a>,
    /// Of a tool's use: an object.
    #[serde(borrow)]
    input: Raw<'a>,
    #[serde(borrow)]
    tool_calls: Raw<'a>,
    #[serde(borrow)]
    function: Raw<'a>,
    #[serde(borrow)]
    function_call: Raw<'a>,
    #[serde(borrow)]
    image_url: Raw<'a>,
    #[serde(borrow)]
    detail: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct ImageUrl<'a> {
    #[serde(borrow)]
    detail: Option<Cow<'a, str>>,
}

/// Goes through a body and hands over each text.
struct Walk<'t> {
    endpoint: Endpoint,
    text: &'t mut dyn FnMut(&str),
    /// Tokens that are no text.
    fixed: u64,
    /// How many lists and items it is within.
    depth: usize,
}

/// A message, its parts, a tool's result among them, and that one's parts are six.
/// What lies deeper is taken as it stands: each level is read anew.
const DEPTH_MAX: usize = 10;

impl<'t> Walk<'t> {
    fn new(endpoint: Endpoint, text: &'t mut dyn FnMut(&str)) -> Self {
        Self {
            endpoint,
            text,
            fixed: 0,
            depth: 0,
        }
    }

    fn body(&mut self, body: &Body<'_>) {
        for raw in [body.system, body.instructions].into_iter().flatten() {
            self.fix(PER_MESSAGE);
            self.any(raw);
        }
        for raw in [body.messages, body.input, body.prompt, body.suffix] {
            raw.into_iter().for_each(|raw| self.any(raw));
        }
        for raw in [body.tools, body.functions].into_iter().flatten() {
            let fixed = tools::walk(raw, self.endpoint, self.text);
            self.fix(fixed);
        }
        // Of a schema the text is shown to the model.
        if let Some(raw) = body.response_format
            && raw.get().len() > 64
        {
            (self.text)(raw.get());
        }
        if body.messages.is_some() || self.endpoint == Endpoint::Responses {
            self.fix(PRIMING);
        }
    }

    fn fix(&mut self, tokens: u64) {
        self.fixed = self.fixed.saturating_add(tokens);
    }

    /// A text, a list, a list of tokens, or an item.
    fn any(&mut self, raw: &RawValue) {
        let json = raw.get();
        if self.depth >= DEPTH_MAX {
            return (self.text)(json);
        }
        self.depth = self.depth.saturating_add(1);
        match json.as_bytes().first() {
            Some(b'"') => self.string(json),
            Some(b'[') => {
                for item in serde_json::from_str::<Vec<&RawValue>>(json).unwrap_or_default() {
                    self.any(item);
                }
            }
            Some(b'{') => {
                if let Ok(item) = serde_json::from_str::<Item<'_>>(json) {
                    self.item(&item);
                }
            }
            // A prompt may be given as tokens.
            Some(b'0'..=b'9') => self.fix(1),
            _ => {}
        }
        self.depth = self.depth.saturating_sub(1);
    }

    fn string(&mut self, json: &str) {
        let inner = json.strip_prefix('"').and_then(|s| s.strip_suffix('"'));
        match inner {
            Some(inner) if memchr::memchr(b'\\', inner.as_bytes()).is_none() => (self.text)(inner),
            _ => {
                if let Ok(text) = serde_json::from_str::<String>(json) {
                    (self.text)(&text);
                }
            }
        }
    }

    fn item(&mut self, item: &Item<'_>) {
        let kind = item.kind.as_deref().unwrap_or_default();
        if matches!(kind, "image_url" | "input_image" | "image") {
            return self.image(item);
        }
        if let Some(role) = item.role {
            self.fix(PER_MESSAGE);
            self.any(role);
            if item.name.is_some() {
                self.fix(PER_NAME);
            }
        }
        let texts = [
            item.name,
            item.content,
            item.text,
            item.thinking,
            item.refusal,
            item.reasoning_content,
            item.summary,
            item.output,
            item.arguments,
            item.tool_calls,
            item.function,
            item.function_call,
        ];
        texts.into_iter().flatten().for_each(|raw| self.any(raw));
        if let Some(input) = item.input {
            (self.text)(input.get());
        }
    }

    fn image(&mut self, item: &Item<'_>) {
        if self.endpoint == Endpoint::Messages {
            return self.fix(ANTHROPIC_IMAGE);
        }
        let within = item.image_url.map(RawValue::get).unwrap_or_default();
        let within = serde_json::from_str::<ImageUrl<'_>>(within).ok();
        let detail = within.and_then(|url| url.detail).or(item.detail.clone());
        self.fix(match detail.as_deref() {
            Some("low") => IMAGE_LOW,
            _ => IMAGE,
        });
    }
}
