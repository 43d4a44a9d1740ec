//! What a plan, or a tenant in its place, allows beside numbers of requests: money
//! in a month, tokens in a minute, requests under way; and what is left of the
//! money does to a request.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};
use weir_pricing::{Charge, Dollars, Markup, Prices, upper_bound};
use weir_wire::usage::TOKENS_MAX;

use crate::budget::{Bounds, Ceiling};

/// The most percent.
const PERCENT_MAX: u8 = 100;

/// What happens once a month's money is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtCeiling {
    /// Models of the tier self-hosted take every other's place.
    #[default]
    SelfHostedOnly,
    /// Requests are refused with 402 until the month is over.
    Reject,
    /// Requests are served, and what they come to beyond the ceiling is overage.
    AllowOverage,
}

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// What the tenant pays.
    #[default]
    Price,
    /// What the providers charge us.
    Cost,
}

impl Counts {
    /// That one of the two, in micro-dollars.
    #[must_use]
    pub fn of(self, charge: Charge) -> u64 {
        match self {
            Self::Price => charge.price,
            Self::Cost => charge.cost,
        }
    }
}

/// How far a tenant's money reaches just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Purse {
    /// There is enough, or no budget: nothing changes.
    #[default]
    Far,
    /// The last part of the budget: premium models make way for fast ones.
    Near,
    /// Nothing is left: only self-hosted models are served.
    Spent,
}

/// Money for a calendar month, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The most that may be spent in a month: the ceiling.
    pub monthly_usd: Dollars,
    /// What happens there.
    #[serde(default)]
    pub at_ceiling: AtCeiling,
    /// In the last so many percent, 0 to 100, premium models make way for fast
    /// ones.
    #[serde(default = "default_downgrade_percent")]
    pub downgrade_percent: u8,
    /// What is spent: the price to the tenant, or our cost.
    #[serde(default)]
    pub counts: Counts,
}

fn default_downgrade_percent() -> u8 {
    10
}

impl Budget {
    /// So much, and all else as where nothing is said.
    #[must_use]
    pub fn new(monthly_usd: Dollars) -> Self {
        Self {
            monthly_usd,
            at_ceiling: AtCeiling::default(),
            downgrade_percent: default_downgrade_percent(),
            counts: Counts::default(),
        }
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// A message that names the field within the budget, what was found and what is
    /// allowed.
    pub fn validate(&self) -> Result<(), String> {
        if self.downgrade_percent > PERCENT_MAX {
            return Err(format!(
                "downgrade_percent: must be 0 to {PERCENT_MAX}, found {}",
                self.downgrade_percent
            ));
        }
        Ok(())
    }

    /// As the store of holds is told of it.
    #[must_use]
    pub fn ceiling(&self) -> Ceiling {
        Ceiling {
            micros: self.monthly_usd.micros(),
            overage: self.at_ceiling == AtCeiling::AllowOverage,
        }
    }

    /// The spend from which on [`Purse::Near`] holds, in micro-dollars: the ceiling
    /// but for the last `downgrade_percent`, rounded up.
    #[must_use]
    pub fn near_from(&self) -> u64 {
        let kept = PERCENT_MAX.saturating_sub(self.downgrade_percent);
        // At most 10^15 × 100.
        let hundredfold = self.monthly_usd.micros().saturating_mul(kept.into());
        hundredfold.div_ceil(PERCENT_MAX.into())
    }

    /// How far the money reaches where so many micro-dollars of it are spent. Where
    /// overage is allowed it is never spent.
    #[must_use]
    pub fn purse(&self, spend_micros: u64) -> Purse {
        let ceiling = self.ceiling();
        if spend_micros >= ceiling.micros && !ceiling.overage {
            Purse::Spent
        } else if spend_micros >= self.near_from() {
            Purse::Near
        } else {
            Purse::Far
        }
    }
}

/// Bounds of a plan, or of one tenant: a bound that is absent is the plan's for a
/// tenant, and none for a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// Money for a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Tokens, input and output, in any sixty seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Requests under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<NonZeroU32>,
}

impl Allowance {
    /// Whether nothing is bounded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        match &self.budget {
            Some(budget) => budget.validate().map_err(|m| format!("budget.{m}")),
            None => Ok(()),
        }
        .and_then(|()| match self.tokens_per_minute {
            Some(tokens) if tokens.get() > TOKENS_MAX => Err(format!(
                "tokens_per_minute: must be 1 to {TOKENS_MAX}, found {tokens}"
            )),
            _ => Ok(()),
        })
    }

    /// These bounds, and the plan's where one is absent.
    #[must_use]
    pub fn or(self, plan: Self) -> Self {
        Self {
            budget: self.budget.or(plan.budget),
            tokens_per_minute: self.tokens_per_minute.or(plan.tokens_per_minute),
            in_flight: self.in_flight.or(plan.in_flight),
        }
    }

    /// As the store of holds is told of them.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            ceiling: self.budget.as_ref().map(Budget::ceiling),
            tokens_per_minute: self.tokens_per_minute.map(NonZeroU64::get),
            in_flight: self.in_flight.map(NonZeroU32::get),
        }
    }
}

/// How many tokens of output the rest of a budget, in micro-dollars, still covers
/// beside the input; 0 where not even the input, [`u64::MAX`] where any number.
#[must_use]
pub fn affordable_output(
    prices: &Prices,
    markup: Markup,
    counts: Counts,
    input_tokens: u64,
    remaining_micros: u64,
) -> u64 {
    most(|output| {
        let charge = upper_bound(prices, markup, input_tokens, output);
        counts.of(charge) <= remaining_micros
    })
}

/// The largest number of tokens that `is_covered`, which holds up to some number and
/// never after it: by the pricing function alone, so that no rounding of its own can
/// disagree with a hold.
fn most(is_covered: impl Fn(u64) -> bool) -> u64 {
    if is_covered(TOKENS_MAX) {
        return u64::MAX;
    }
    let (mut covered, mut not) = (0_u64, TOKENS_MAX);
    while not.saturating_sub(covered) > 1 {
        let middle = covered.midpoint(not);
        if is_covered(middle) {
            covered = middle;
        } else {
            not = middle;
        }
    }
    covered
}

#[cfg(test)]
mod tests;
