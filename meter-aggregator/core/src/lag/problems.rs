//! Why nothing can be sent: what Stripe does with every call, and what keeps single shards
//! from calling.

use std::collections::BTreeMap;

use crate::lease::{Scope, Shard};

/// What came of a round of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// There was nothing to be sent just now.
    Idle,
    /// Calls were made, and Stripe answered one, whatever it said of the event.
    Answered,
    /// Calls were made, and none was answered.
    Unanswered,
}

/// What is wrong now. One thing that Stripe does stands until it does otherwise: between two
/// tries there are rounds in which nothing is due.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    stripe: Option<String>,
    scopes: BTreeMap<Option<Shard>, String>,
}

impl Problems {
    /// A round of a scope came to its end.
    pub fn ended(&mut self, scope: Scope, round: Round) {
        self.scopes.remove(&scope.shard());
        match round {
            Round::Idle => {}
            Round::Answered => self.stripe = None,
            Round::Unanswered => self.stripe = Some("Stripe does not answer".to_owned()),
        }
    }

    /// Stripe refused a call for something that is wrong with all of them.
    pub fn refused(&mut self, why: String) {
        self.stripe = Some(why);
    }

    /// A round of a scope failed before it called, or in the ledger.
    pub fn failed(&mut self, scope: Scope, why: String) {
        self.scopes.insert(scope.shard(), why);
    }

    /// Only these are sent of by now; what was wrong with others is others'.
    pub fn held(&mut self, scopes: &[Scope]) {
        self.scopes
            .retain(|shard, _| scopes.iter().any(|scope| scope.shard() == *shard));
        if scopes.is_empty() {
            self.stripe = None;
        }
    }

    /// Nothing is left that would have to be sent.
    pub fn nothing_is_left(&mut self) {
        self.stripe = None;
    }

    /// Whether Stripe takes nothing of all.
    #[must_use]
    pub fn is_stripes(&self) -> bool {
        self.stripe.is_some()
    }

    /// One of them, in words.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        let all = self.stripe.iter().chain(self.scopes.values());
        all.map(String::as_str).next()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::lease::Lease;

    fn scope(number: usize) -> Scope {
        let shard = Shard::all().nth(number).unwrap();
        Scope::Held(Lease { shard, epoch: 1 })
    }

    #[test]
    fn what_stripe_does_stands_until_it_does_otherwise() {
        let mut problems = Problems::default();
        problems.refused("401: revoked".to_owned());
        // Other shards have nothing to send, and the same has nothing that is due.
        problems.ended(scope(1), Round::Idle);
        problems.ended(scope(0), Round::Idle);
        assert_eq!(problems.first(), Some("401: revoked"));
        problems.ended(scope(1), Round::Unanswered);
        assert_eq!(problems.first(), Some("Stripe does not answer"));
        problems.ended(scope(2), Round::Answered);
        assert_eq!(problems.first(), None);
    }

    #[test]
    fn what_nobody_would_call_for_is_no_problem() {
        let mut problems = Problems::default();
        problems.refused("401".to_owned());
        assert!(problems.is_stripes());
        problems.nothing_is_left();
        assert_eq!(problems.first(), None);
        problems.refused("401".to_owned());
        problems.held(&[scope(3)]);
        assert_eq!(problems.first(), Some("401"));
        problems.held(&[]);
        assert_eq!(problems.first(), None);
    }

    #[test]
    fn what_keeps_a_shard_from_calling_goes_with_the_shard() {
        let mut problems = Problems::default();
        problems.failed(scope(0), "the meters can't be checked".to_owned());
        problems.failed(scope(1), "the ledger is away".to_owned());
        problems.ended(scope(0), Round::Idle);
        assert_eq!(problems.first(), Some("the ledger is away"));
        problems.held(&[scope(0)]);
        assert_eq!(problems.first(), None);
        problems.failed(Scope::Whole, "away".to_owned());
        problems.held(&[Scope::Whole]);
        assert_eq!(problems.first(), Some("away"));
    }
}
