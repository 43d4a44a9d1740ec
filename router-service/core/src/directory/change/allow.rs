//! Other amounts for one tenant than its plan allows.

use std::num::{NonZeroU32, NonZeroU64};

use super::{Action, ChangeError, Done, Fact, Tenant};
use crate::allowance::{Allowance, Budget};

/// New bounds, each `Some(None)` to be the plan's again, and as it is where absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allow {
    /// See [`Allowance::budget`].
    pub budget: Option<Option<Budget>>,
    /// See [`Allowance::tokens_per_minute`].
    pub tokens_per_minute: Option<Option<NonZeroU64>>,
    /// See [`Allowance::in_flight`].
    pub in_flight: Option<Option<NonZeroU32>>,
}

impl Allow {
    pub(super) fn apply(self, tenant: &mut Tenant) -> Result<Done, ChangeError> {
        let before = tenant.allowance;
        let after = Allowance {
            budget: self.budget.unwrap_or(before.budget),
            tokens_per_minute: self.tokens_per_minute.unwrap_or(before.tokens_per_minute),
            in_flight: self.in_flight.unwrap_or(before.in_flight),
        };
        after.validate().map_err(|message| {
            let (field, message) = message.split_once(": ").unwrap_or(("budget", &message));
            ChangeError::invalid(field, message)
        })?;
        let id = &tenant.id;
        let what = said(&after);
        if after == before {
            return Ok(Done::new(
                id,
                Vec::new(),
                format!("{id} has {what} already"),
            ));
        }
        let fact = Fact {
            allowance: Some(after),
            ..Fact::new(Action::TenantAllowance, id)
        };
        let done = Done::new(id, vec![fact], format!("{id} has {what}"));
        tenant.allowance = after;
        Ok(done)
    }
}

/// For people.
fn said(allowance: &Allowance) -> String {
    let parts = [
        allowance
            .budget
            .map(|budget| format!("{} dollars a month", budget.monthly_usd)),
        allowance
            .tokens_per_minute
            .map(|tokens| format!("{tokens} tokens a minute")),
        allowance
            .in_flight
            .map(|requests| format!("{requests} requests in flight")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        "what its plan allows".to_owned()
    } else {
        format!("{} of its own", parts.join(", "))
    }
}
