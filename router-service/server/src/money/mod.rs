//! What requests may come to and what they came to: held before the call, settled
//! after it.

mod accounts;
mod admission;
mod hold;
mod live;
mod options;
mod store;
mod unsettled;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weir_pricing::{Charge, Markup};
use weir_router_core::{
    allowance::{Allowance, Budget, Counts},
    budget::{Ask, Bounds, Held, Refused, Standing},
    plan::Plan,
};
use weir_router_store::{BudgetStore as _, Unavailable};
use weir_wire::{headers, ids::PlanName, proto::usage::ModelUsage};

use self::{
    accounts::Accounts,
    live::{AllLive, Renewal},
    unsettled::Unsettled,
};
pub use self::{
    admission::{Admission, Admitted, most_input},
    hold::{Certain, Hold},
    live::Live,
    options::{Options, Section},
    store::Store,
};
use crate::metrics::{HoldResult, Metrics};

/// The store and what is known of tenants and requests beside it.
pub struct Money {
    store: Store,
    accounts: Accounts,
    live: AllLive,
    renewal: Renewal,
    unsettled: Unsettled,
    metrics: Metrics,
}

/// What a tenant's requests are held by.
#[derive(Debug, Clone)]
pub struct Terms {
    pub plan: PlanName,
    pub budget: Option<Budget>,
    pub bounds: Bounds,
    pub markup: Markup,
    /// The weight of its requests where they wait.
    pub weight: u32,
}

impl Terms {
    /// Of a tenant of that plan, with what it is allowed in the plan's place.
    pub fn new(name: &PlanName, plan: Option<&Plan>, own: Option<&Allowance>) -> Self {
        let allowance = plan.map(|plan| plan.allowance_of(own)).unwrap_or_default();
        Self {
            plan: name.clone(),
            budget: allowance.budget,
            bounds: allowance.bounds(),
            markup: plan.map(|plan| plan.markup).unwrap_or_default(),
            weight: plan.map_or(1, |plan| plan.weight),
        }
    }

    /// Which of price and cost counts.
    pub fn counts(&self) -> Counts {
        self.budget
            .as_ref()
            .map_or_else(Counts::default, |b| b.counts)
    }

    /// What of a charge counts.
    pub fn counted(&self, charge: Charge) -> u64 {
        self.counts().of(charge)
    }

    /// What answers say of where the tenant stands.
    pub fn told(&self, standing: &Standing) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        if let Some(ceiling) = self.bounds.ceiling {
            let used = standing.spend.saturating_add(standing.held);
            let left = ceiling.micros.saturating_sub(used);
            told.push((headers::BUDGET_REMAINING, weir_pricing::dollars(left)));
        }
        if let Some(limit) = self.bounds.tokens_per_minute {
            let left = limit.saturating_sub(standing.tokens);
            told.push((headers::TOKENS_LIMIT, limit.to_string()));
            told.push((headers::TOKENS_REMAINING, left.to_string()));
            let reset = in_words(standing.tokens_reset_ms);
            told.push((headers::TOKENS_RESET, reset));
        }
        told
    }
}

/// A stretch of time as OpenAI's headers say it: `120ms`, `6.5s`, `1m0s`.
fn in_words(ms: u64) -> String {
    let (minutes, rest_ms) = (ms / 60_000, ms % 60_000);
    let seconds = match rest_ms % 1_000 {
        0 => format!("{}s", rest_ms / 1_000),
        part => format!("{}.{part:03}s", rest_ms / 1_000),
    };
    match (minutes, ms) {
        (0, 0..1_000) => format!("{ms}ms"),
        (0, _) => seconds,
        _ => format!("{minutes}m{}s", rest_ms.div_ceil(1_000)),
    }
}

/// What usage comes to: micro-dollars of what counts, and tokens of the attempts
/// that are billed.
pub fn counted(usage: &[ModelUsage], counts: Counts) -> (u64, u64) {
    let micros = usage.iter().fold(0_u64, |sum, used| {
        let counts = match counts {
            Counts::Price => used.price_micros,
            Counts::Cost => used.cost_micros,
        };
        sum.saturating_add(counts.unwrap_or(0))
    });
    let billed = usage.iter().filter(|used| !used.unbilled);
    let tokens = billed
        .flat_map(|used| {
            [
                used.input_tokens,
                used.cached_input_tokens,
                used.cache_write_input_tokens,
                used.output_tokens,
                used.reasoning_tokens,
            ]
        })
        .fold(0_u64, u64::saturating_add);
    (micros, tokens)
}

impl Money {
    pub async fn open(options: Options, metrics: Metrics) -> anyhow::Result<Self> {
        Ok(Self {
            unsettled: Unsettled::open(&options.data)?,
            store: store::open(options.redis, &options.data).await?,
            accounts: Accounts::default(),
            live: AllLive::default(),
            renewal: Renewal {
                life: options.hold_life,
                progress: options.progress,
            },
            metrics,
        })
    }

    /// Asks the store for a hold, and counts what it says.
    async fn hold(&self, ask: Ask) -> Result<(Held, Standing), Unavailable> {
        let answer = self.store.hold(ask).await;
        self.metrics.hold(match &answer {
            Ok((Held::Held | Held::Duplicate, _)) => HoldResult::Held,
            Ok((Held::Refused(Refused::Near), _)) => HoldResult::Near,
            Ok((Held::Refused(_), _)) => HoldResult::Refused,
            Err(_) => HoldResult::Unavailable,
        });
        answer
    }

    /// The store itself.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Renews what is under way, and settles what could not be, until `stopped`.
    pub async fn keep(self: Arc<Self>, stopped: CancellationToken) {
        tokio::join!(
            self.live.keep(&self.store, self.renewal, stopped.clone()),
            self.unsettled.run(&self.store, stopped),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_openai_says_them() {
        for (ms, said) in [
            (0, "0ms"),
            (120, "120ms"),
            (1_000, "1s"),
            (6_500, "6.500s"),
            (60_000, "1m0s"),
            (61_001, "1m2s"),
        ] {
            assert_eq!(in_words(ms), said);
        }
    }

    #[test]
    fn attempts_that_nobody_pays_count_by_cost_alone() {
        let used = |unbilled, price, cost| ModelUsage {
            input_tokens: 3,
            cached_input_tokens: 2,
            output_tokens: 1,
            unbilled,
            price_micros: Some(price),
            cost_micros: Some(cost),
            ..ModelUsage::default()
        };
        let usage = [used(false, 12, 10), used(true, 0, 7)];
        assert_eq!(counted(&usage, Counts::Price), (12, 6));
        assert_eq!(counted(&usage, Counts::Cost), (17, 6));
    }
}
