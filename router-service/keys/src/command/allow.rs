//! What a tenant is allowed, as people write it.

use std::num::{NonZeroU32, NonZeroU64};

use clap::ValueEnum;
use weir_pricing::Dollars;
use weir_router_core::{
    allowance::{AtCeiling, Budget, Counts},
    directory::change::Allow,
};

/// Amounts of a tenant's own.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub struct Amounts {
    /// So many dollars in a calendar month, such as 12.50. Replaces the whole budget.
    #[arg(long)]
    monthly_usd: Option<Dollars>,
    /// What happens once they are spent; self-hosted-only where absent.
    #[arg(long, value_enum, requires = "monthly_usd")]
    at_ceiling: Option<Ceiling>,
    /// In the last so many percent premium models make way for fast ones; 10 where
    /// absent.
    #[arg(long, requires = "monthly_usd")]
    downgrade_percent: Option<u8>,
    /// What is spent; price where absent.
    #[arg(long, value_enum, requires = "monthly_usd")]
    counts: Option<Counted>,
    /// So many tokens, input and output, in any sixty seconds.
    #[arg(long)]
    tokens_per_minute: Option<NonZeroU64>,
    /// So many requests under way at once.
    #[arg(long)]
    in_flight: Option<NonZeroU32>,
    /// What is the plan's again; several with commas between.
    #[arg(long, value_enum, value_delimiter = ',')]
    of_plan: Vec<Bound>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ceiling {
    /// Models of the tier self-hosted take every other's place.
    SelfHostedOnly,
    /// Requests are refused until the month is over.
    Reject,
    /// Requests are served, and counted as overage.
    AllowOverage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Counted {
    /// What the tenant pays.
    Price,
    /// What the providers charge us.
    Cost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bound {
    Budget,
    TokensPerMinute,
    InFlight,
}

impl Amounts {
    /// What changes.
    pub fn allow(self) -> anyhow::Result<Allow> {
        Ok(Allow {
            budget: self.either("monthly-usd", self.budget(), Bound::Budget)?,
            tokens_per_minute: self.either(
                "tokens-per-minute",
                self.tokens_per_minute,
                Bound::TokensPerMinute,
            )?,
            in_flight: self.either("in-flight", self.in_flight, Bound::InFlight)?,
        })
    }

    fn either<T>(
        &self,
        argument: &str,
        amount: Option<T>,
        bound: Bound,
    ) -> anyhow::Result<Option<Option<T>>> {
        match (amount, self.of_plan.contains(&bound)) {
            (Some(_), true) => anyhow::bail!("{argument}: is of the plan too; say one of both"),
            (Some(amount), false) => Ok(Some(Some(amount))),
            (None, true) => Ok(Some(None)),
            (None, false) => Ok(None),
        }
    }

    fn budget(&self) -> Option<Budget> {
        let mut budget = Budget::new(self.monthly_usd?);
        budget.at_ceiling = match self.at_ceiling {
            None | Some(Ceiling::SelfHostedOnly) => AtCeiling::SelfHostedOnly,
            Some(Ceiling::Reject) => AtCeiling::Reject,
            Some(Ceiling::AllowOverage) => AtCeiling::AllowOverage,
        };
        budget.counts = match self.counts {
            None | Some(Counted::Price) => Counts::Price,
            Some(Counted::Cost) => Counts::Cost,
        };
        if let Some(percent) = self.downgrade_percent {
            budget.downgrade_percent = percent;
        }
        Some(budget)
    }
}
