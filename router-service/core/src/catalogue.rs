//! The models that the router can serve, what they can and what they cost.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use weir_dialects::routes::Endpoint;
use weir_pricing::Prices;
use weir_wire::{
    error::Dialect,
    usage::{MODEL_MAX_BYTES, TOKENS_MAX},
};

/// The highest price, in micro-dollars for a million tokens: 10,000 dollars.
const PRICE_MAX: u64 = 10_000_000_000;

/// How much a model can and costs; plans are granted tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The best and dearest.
    Premium,
    /// Quick and cheap.
    Fast,
    /// On machines of one's own.
    SelfHosted,
}

impl Tier {
    /// As in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Premium => "premium",
            Self::Fast => "fast",
            Self::SelfHosted => "self-hosted",
        }
    }
}

/// What a model can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Turns of a conversation: `chat/completions` and `messages`, whichever the
    /// client speaks.
    Chat,
    /// `completions`, at a provider that has it.
    Completion,
    /// `responses`, at a provider that has it.
    Responses,
    /// `embeddings`.
    Embedding,
    /// Calls tools.
    Tools,
    /// Sees images.
    Images,
    /// Answers in JSON by a schema, where it is asked to.
    Json,
    /// Answers in any JSON object, where it is asked to.
    JsonObject,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// As clients ask for it.
    pub name: String,
    /// The name of a provider in the router's config.
    pub provider: String,
    /// As the provider knows it; `name` where absent.
    pub upstream: Option<String>,
    /// Which plans have it.
    pub tier: Tier,
    /// What it can.
    pub capabilities: BTreeSet<Capability>,
    /// The most tokens of input and output together.
    pub context_tokens: u64,
    /// The most tokens of output; 0 for one that only embeds.
    #[serde(default)]
    pub max_output_tokens: u64,
    /// What it costs.
    pub prices: Prices,
    /// Models that may take its place, the best first.
    #[serde(default)]
    pub fallbacks: Vec<String>,
}

impl Model {
    /// As its provider knows it.
    #[must_use]
    pub fn upstream(&self) -> &str {
        self.upstream.as_deref().unwrap_or(&self.name)
    }

    /// Whether it can that.
    #[must_use]
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// Whether it answers that call; `spoken` is its provider's dialect. What a
    /// conversation is asked in is translated, nothing else is.
    #[must_use]
    pub fn serves(&self, endpoint: Endpoint, spoken: Dialect) -> bool {
        let native = endpoint.dialect() == spoken;
        match endpoint {
            Endpoint::ChatCompletions | Endpoint::Messages => self.can(Capability::Chat),
            Endpoint::CountTokens => native && self.can(Capability::Chat),
            Endpoint::Completions => native && self.can(Capability::Completion),
            Endpoint::Responses => native && self.can(Capability::Responses),
            Endpoint::Embeddings => native && self.can(Capability::Embedding),
            Endpoint::Models => true,
        }
    }

    fn validate(&self) -> Result<(), String> {
        for (field, name) in [("name", self.name.as_str()), ("upstream", self.upstream())] {
            if name.is_empty() || name.len() > MODEL_MAX_BYTES {
                return Err(format!(
                    "{field}: must have 1 to {MODEL_MAX_BYTES} bytes, found {name:?}"
                ));
            }
            // It goes to clients in a header.
            if !name.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(format!(
                    "{field}: must be visible ASCII without spaces, found {name:?}"
                ));
            }
        }
        if self.capabilities.is_empty() {
            return Err("capabilities: must list at least one".to_owned());
        }
        if !(1..=TOKENS_MAX).contains(&self.context_tokens) {
            return Err(format!(
                "context_tokens: must be 1 to {TOKENS_MAX}, found {}",
                self.context_tokens
            ));
        }
        let writes = [
            Capability::Chat,
            Capability::Completion,
            Capability::Responses,
        ];
        let least = u64::from(writes.iter().any(|c| self.can(*c)));
        if !(least..=self.context_tokens).contains(&self.max_output_tokens) {
            return Err(format!(
                "max_output_tokens: must be {least} to context_tokens, {}, found {}",
                self.context_tokens, self.max_output_tokens
            ));
        }
        let prices = [
            ("input", Some(self.prices.input)),
            ("cached_input", self.prices.cached_input),
            ("cache_write", self.prices.cache_write),
            ("output", Some(self.prices.output)),
        ];
        match prices.iter().find(|(_, price)| *price > Some(PRICE_MAX)) {
            None => Ok(()),
            Some((field, price)) => Err(format!(
                "prices.{field}: must be 0 to {PRICE_MAX} micro-dollars for a million tokens, found {}",
                price.unwrap_or_default()
            )),
        }
    }
}

/// All models, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The day that the prices are of, `2026-11-01`.
    pub prices_as_of: String,
    /// The models.
    pub models: Vec<Model>,
}

impl Catalogue {
    /// Checks the whole against the names of the providers there are.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self, providers: &[&str]) -> Result<(), String> {
        if !is_day(&self.prices_as_of) {
            return Err(format!(
                "prices_as_of: must be a day such as 2026-11-01, found {:?}",
                self.prices_as_of
            ));
        }
        if self.models.is_empty() {
            return Err("models: must list at least one model".to_owned());
        }
        let mut names = BTreeSet::new();
        for (i, model) in self.models.iter().enumerate() {
            model
                .validate()
                .map_err(|message| format!("models[{i}].{message}"))?;
            if !names.insert(model.name.as_str()) {
                return Err(format!("models[{i}].name: {} comes twice", model.name));
            }
            if !providers.contains(&model.provider.as_str()) {
                return Err(format!(
                    "models[{i}].provider: must be one of {}, found {}",
                    providers.join(", "),
                    model.provider
                ));
            }
        }
        for (i, model) in self.models.iter().enumerate() {
            for (j, fallback) in model.fallbacks.iter().enumerate() {
                let earlier = model.fallbacks.iter().take(j).any(|f| f == fallback);
                if *fallback == model.name || earlier || !names.contains(fallback.as_str()) {
                    return Err(format!(
                        "models[{i}].fallbacks[{j}]: must be another model of this file, each once, found {fallback}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The model of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|m| m.name == name)
    }
}

/// Whether a text is a day of the calendar, roughly: prices are dated for people.
fn is_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let in_range = |part: &str, length: usize, least: u32, most: u32| {
        part.len() == length && part.parse().is_ok_and(|n| (least..=most).contains(&n))
    };
    matches!(parts.as_slice(), [year, month, day]
        if in_range(year, 4, 2000, 9999) && in_range(month, 2, 1, 12) && in_range(day, 2, 1, 31))
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const MODEL: &str = r#"{"name":"m","provider":"openai","tier":"fast","capabilities":["chat"],
        "context_tokens":100,"max_output_tokens":10,"prices":{"input":1,"output":2}}"#;

    fn read(models: &str) -> Result<Catalogue, String> {
        let text = format!(r#"{{"prices_as_of":"2026-11-01","models":[{models}]}}"#);
        let catalogue: Catalogue = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        catalogue.validate(&["openai"]).map(|()| catalogue)
    }

    #[track_caller]
    fn check_refused(models: &str, names: &str) {
        let error = read(models).unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        read(MODEL).unwrap();
        check_refused("", "models");
        check_refused(&format!("{MODEL},{MODEL}"), "models[1].name");
        for (right, wrong, names) in [
            ("openai", "azure", "models[0].provider"),
            ("fast", "slow", "slow"),
            ("tier", "teir", "teir"),
            ("\"m\"", "\"\"", "models[0].name"),
            ("\"m\"", "\"a b\"", "models[0].name"),
            ("[\"chat\"]", "[]", "models[0].capabilities"),
            ("chat", "chats", "chats"),
            ("100", "0", "models[0].context_tokens"),
            (":10,", ":101,", "models[0].max_output_tokens"),
            (":10,", ":0,", "models[0].max_output_tokens"),
            (":2}", ":10000000001}", "models[0].prices.output"),
            (":2}", ":2,\"cache\":1}", "cache"),
            (":2}", ":2},\"fallbacks\":[\"m\"]", "models[0].fallbacks[0]"),
            (":2}", ":2},\"fallbacks\":[\"x\"]", "models[0].fallbacks[0]"),
        ] {
            check_refused(&MODEL.replacen(right, wrong, 1), names);
        }
        for day in ["", "2026-13-01", "2026-1-01", "yesterday", "2026-11-01-01"] {
            assert!(!is_day(day), "{day}");
        }
    }

    #[test]
    fn a_conversation_is_served_in_either_dialect_and_nothing_else_is() {
        let mut model = read(MODEL).unwrap().models.remove(0);
        model.capabilities.insert(Capability::Completion);
        let served = |spoken| -> Vec<&str> {
            let all = Endpoint::ALL.iter();
            all.filter(|e| model.serves(**e, spoken))
                .map(|e| e.path())
                .collect()
        };
        let openai = ["chat/completions", "completions", "messages", "models"];
        assert_eq!(served(Dialect::OpenAi), openai);
        let anthropic = [
            "chat/completions",
            "messages",
            "messages/count_tokens",
            "models",
        ];
        assert_eq!(served(Dialect::Anthropic), anthropic);
    }
}
