//! What a plan has: models, time, tokens, features and limits.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use weir_pricing::Markup;

use crate::{
    allowance::{Allowance, Budget},
    catalogue::{Catalogue, Model, Tier},
    quota::Limits,
};

/// The longest time-out, and the longest stream: a day, in seconds.
const TIME_MAX_S: u32 = 86_400;

/// The greatest weight.
const WEIGHT_MAX: u32 = 1_000;

/// What a request may use beside text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Definitions of tools.
    Tools,
    /// Images among the messages.
    Images,
    /// Documents of the tenant's own.
    Rag,
}

impl Feature {
    /// As in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Images => "images",
            Self::Rag => "rag",
        }
    }
}

/// One plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The tiers whose models it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
    /// Models that it has whatever their tier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Names by which its tenants may ask for models of the plan. One that is a
    /// model's own name leads to the other model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, String>,
    /// The model of the plan that takes the place of one that it lacks; such a
    /// request is refused where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_model: Option<String>,
    /// How long an answer may take, in seconds: to the first token of a stream,
    /// to its end otherwise. 1 to a day.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u32,
    /// How long a stream may take to its end, in seconds, from the request on.
    #[serde(default = "default_stream_total_s")]
    pub stream_total_s: u32,
    /// The most tokens of one answer; the model's own most where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// What its requests may use; everything where absent.
    #[serde(default = "all_features")]
    pub features: BTreeSet<Feature>,
    /// How many requests each of its tenants may make; any number where absent.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// What each of its tenants may spend in a month; any amount where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// What its tenants pay for each dollar that a provider charges.
    #[serde(default)]
    pub markup: Markup,
    /// How many tokens, input and output, each of its tenants may use in any sixty
    /// seconds; any number where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// How many requests of each of its tenants may be under way at once; any number
    /// where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<NonZeroU32>,
    /// The share of each of its tenants where tenants wait for one backend, against
    /// the weight of others: 1 to 1000.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// Whether other models take the place of one that fails: its fallbacks, as far
    /// as the plan has them, and any that is self-hosted.
    #[serde(default = "default_fallback")]
    pub fallback: bool,
    /// After so many milliseconds without a first token a second attempt starts, 1 to
    /// `timeout_s`; never where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge_ms: Option<u32>,
}

fn default_weight() -> u32 {
    1
}

fn default_fallback() -> bool {
    true
}

fn default_timeout_s() -> u32 {
    120
}

fn default_stream_total_s() -> u32 {
    600
}

fn all_features() -> BTreeSet<Feature> {
    [Feature::Tools, Feature::Images, Feature::Rag].into()
}

impl Plan {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// A message that names the field within the plan, what was found and what is
    /// allowed.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=TIME_MAX_S).contains(&self.timeout_s) {
            return Err(format!(
                "timeout_s: must be 1 to {TIME_MAX_S}, found {}",
                self.timeout_s
            ));
        }
        if !(self.timeout_s..=TIME_MAX_S).contains(&self.stream_total_s) {
            return Err(format!(
                "stream_total_s: must be timeout_s, {}, to {TIME_MAX_S}, found {}",
                self.timeout_s, self.stream_total_s
            ));
        }
        if self.max_tokens == Some(0) {
            return Err("max_tokens: must be at least 1, found 0".to_owned());
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return Err(format!(
                "weight: must be 1 to {WEIGHT_MAX}, found {}",
                self.weight
            ));
        }
        let timeout_ms = self.timeout_s.saturating_mul(1_000);
        if let Some(hedge_ms) = self.hedge_ms
            && !(1..=timeout_ms).contains(&hedge_ms)
        {
            return Err(format!(
                "hedge_ms: must be 1 to timeout_s, {timeout_ms} ms, found {hedge_ms}"
            ));
        }
        self.allowance().validate()?;
        self.limits.validate()
    }

    /// Checks it against the models that there are.
    ///
    /// # Errors
    /// A message that names the field within the plan.
    pub fn validate_models(&self, catalogue: &Catalogue) -> Result<(), String> {
        for (i, name) in self.models.iter().enumerate() {
            if catalogue.find(name).is_none() {
                return Err(format!("models[{i}]: the catalogue has no {name}"));
            }
        }
        let in_plan = |field: &str, name: &str| match catalogue.find(name) {
            Some(model) if self.has(model) => Ok(()),
            Some(_) => Err(format!(
                "{field}: must be a model of the plan, found {name}"
            )),
            None => Err(format!("{field}: the catalogue has no {name}")),
        };
        for (alias, name) in &self.aliases {
            if alias.is_empty() || !alias.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(format!(
                    "aliases: must be visible ASCII without spaces, found {alias:?}"
                ));
            }
            in_plan(&format!("aliases.{alias}"), name)?;
        }
        match &self.default_model {
            Some(name) => in_plan("default_model", name),
            None => Ok(()),
        }
    }

    /// Whether it has that model.
    #[must_use]
    pub fn has(&self, model: &Model) -> bool {
        self.tiers.contains(&model.tier) || self.models.contains(&model.name)
    }

    /// What it allows each of its tenants.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        Allowance {
            budget: self.budget,
            tokens_per_minute: self.tokens_per_minute,
            in_flight: self.in_flight,
        }
    }

    /// What it allows a tenant that has some bounds of its own.
    #[must_use]
    pub fn allowance_of(&self, own: Option<&Allowance>) -> Allowance {
        own.copied().unwrap_or_default().or(self.allowance())
    }

    /// See [`Plan::timeout_s`].
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s.into())
    }

    /// See [`Plan::stream_total_s`].
    #[must_use]
    pub fn stream_total(&self) -> Duration {
        Duration::from_secs(self.stream_total_s.into())
    }
}
