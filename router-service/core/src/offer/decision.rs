//! What was decided for a request.

use std::time::Duration;

use weir_dialects::routes::Endpoint;
use weir_pricing::Prices;

use crate::{catalogue::Tier, provider::ProviderKind};

/// What was decided for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The model, by its name in the catalogue.
    pub model: String,
    /// As its provider knows it.
    pub upstream: String,
    /// The model's tier.
    pub tier: Tier,
    /// The name of its provider.
    pub provider: String,
    /// What that is.
    pub kind: ProviderKind,
    /// What is called of it.
    pub endpoint: Endpoint,
    /// Whether the model is another than was asked for, and why.
    pub instead: Option<Instead>,
    /// The most tokens of the answer; `None` where the call has no such bound.
    pub max_tokens: Option<u64>,
    /// Whether the client asked for more tokens, or left them open, so that
    /// `max_tokens` is the router's word.
    pub bounded: bool,
    /// What the model costs.
    pub prices: Prices,
    /// The most tokens of input and output together that it takes.
    pub context_tokens: u64,
    /// The most tokens of one answer that it gives.
    pub max_output_tokens: u64,
    /// See [`Plan::timeout_s`].
    pub timeout: Duration,
    /// See [`Plan::stream_total_s`].
    pub stream_total: Duration,
}

impl Decision {
    /// The most tokens, where that is the router's word.
    #[must_use]
    pub fn bound(&self) -> Option<u64> {
        self.max_tokens.filter(|_| self.bounded)
    }

    /// The most tokens of so many answers together, at least of one; 0 for a call
    /// that writes none.
    #[must_use]
    pub fn upper_output_tokens(&self, choices: u64) -> u64 {
        if !self.endpoint.streams() {
            return 0;
        }
        let each = self.max_tokens.unwrap_or(self.max_output_tokens);
        each.saturating_mul(choices.max(1))
    }
}

/// Why a model takes another's place. Of several reasons the last: a model that the
/// plan has another name for and that makes way for the budget's sake made way for
/// the budget's sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// The plan has this name for it.
    Alias,
    /// The plan lacks the one that was asked for.
    NotInPlan,
    /// The last part of the month's budget goes to cheaper models.
    BudgetLow,
    /// The month's budget is spent.
    BudgetSpent,
    /// The one before it failed.
    Failover,
}

impl Instead {
    /// In a word, as answers say it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alias => "alias",
            Self::NotInPlan => "not-in-plan",
            Self::BudgetLow => "budget-low",
            Self::BudgetSpent => "budget-spent",
            Self::Failover => "failover",
        }
    }
}
