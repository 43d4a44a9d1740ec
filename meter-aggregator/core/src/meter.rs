//! What is billed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A billable dimension. Each has a meter of its own in Stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Requests that were served.
    ApiCalls,
    /// Input tokens, cached ones included.
    InputTokens,
    /// Output tokens, reasoning included.
    OutputTokens,
}

impl Meter {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ApiCalls, Self::InputTokens, Self::OutputTokens];

    /// Its name in the ledger and in the config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiCalls => "api_calls",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
        }
    }

    /// The meter of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.as_str() == name)
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
