//! What is billed: dimensions, and their meters by tier of model.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What is counted of a tenant's use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// Requests that were served.
    ApiCalls,
    /// Input tokens that no cache served, those that were written to one included.
    InputTokens,
    /// Input tokens that a provider's cache served.
    CachedInputTokens,
    /// Output tokens, reasoning included.
    OutputTokens,
    /// What was stored, in megabyte-hours.
    StorageMbHours,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ApiCalls,
        Self::InputTokens,
        Self::CachedInputTokens,
        Self::OutputTokens,
        Self::StorageMbHours,
    ];

    /// Its name in the ledger and in the config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiCalls => "api_calls",
            Self::InputTokens => "input_tokens",
            Self::CachedInputTokens => "cached_input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::StorageMbHours => "storage_mb_hours",
        }
    }

    /// The dimension of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.as_str() == name)
    }
}

/// The name of a group of models that are billed alike, such as `premium`: 1 to 32
/// of `a-z 0-9 _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tier(Arc<str>);

/// The longest name of a tier, in bytes.
pub const TIER_MAX_BYTES: usize = 32;

/// Why a text names no meter or tier.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MeterError {
    /// There is no such dimension.
    #[error(
        "must be one of api_calls, input_tokens, cached_input_tokens, output_tokens, \
         storage_mb_hours, each alone or with `.` and a tier, found {0:?}"
    )]
    Dimension(String),
    /// Not the name of a tier.
    #[error("a tier must be 1 to {TIER_MAX_BYTES} of a-z 0-9 _ -, found {0:?}")]
    Tier(String),
}

impl Tier {
    /// Takes a name.
    ///
    /// # Errors
    /// [`MeterError::Tier`] where it is none.
    pub fn new(name: &str) -> Result<Self, MeterError> {
        let is_name = (1..=TIER_MAX_BYTES).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        is_name
            .then(|| Self(name.into()))
            .ok_or_else(|| MeterError::Tier(name.chars().take(64).collect()))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What Stripe has a meter for: a dimension, of all models or of those of a tier.
/// Written `input_tokens` or `input_tokens.premium`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Meter {
    /// What is counted.
    pub dimension: Dimension,
    /// Of which models; `None` for those without a meter of their own.
    pub tier: Option<Tier>,
}

impl Meter {
    /// The meter of all models.
    #[must_use]
    pub fn of(dimension: Dimension) -> Self {
        Self {
            dimension,
            tier: None,
        }
    }

    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// [`MeterError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, MeterError> {
        let (dimension, tier) = match text.split_once('.') {
            Some((dimension, tier)) => (dimension, Some(Tier::new(tier)?)),
            None => (text, None),
        };
        let dimension = Dimension::parse(dimension)
            .ok_or_else(|| MeterError::Dimension(text.chars().take(64).collect()))?;
        Ok(Self { dimension, tier })
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dimension.as_str())?;
        match &self.tier {
            Some(tier) => write!(f, ".{}", tier.as_str()),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for Meter {
    type Error = MeterError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Meter> for String {
    fn from(meter: Meter) -> Self {
        meter.to_string()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for dimension in Dimension::ALL {
            let plain = Meter::of(dimension);
            assert_eq!(Meter::parse(&plain.to_string()), Ok(plain.clone()));
            let tier = Some(Tier::new("premium").unwrap());
            let tiered = Meter { tier, ..plain };
            assert_eq!(Meter::parse(&tiered.to_string()), Ok(tiered));
        }
        for wrong in [
            "",
            "x",
            "input_tokens.",
            "input_tokens.A",
            "input_tokens.a.b",
        ] {
            assert!(Meter::parse(wrong).is_err(), "{wrong}");
        }
    }
}
