//! From the witnesses of one request to what it is billed.
//!
//! | outcome | API calls | tokens |
//! |---|---|---|
//! | completed | 1 | as witnessed |
//! | client_disconnected | 1 | as witnessed |
//! | upstream_error | 0 | as witnessed: those that came before the error |
//! | rejected | 0 | 0 |
//!
//! Requests of the classes `models` and `count_tokens` bill nothing, and no request
//! those of its attempts that say so themselves (`unbilled`).

use weir_dialects::routes::RequestClass;
use weir_wire::{
    proto::usage::{ModelUsage, Outcome, UsageEvent, Witness},
    usage::rank,
};

use crate::meter::Meter;

/// What one request comes to, by meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Billed {
    /// Requests.
    pub api_calls: i64,
    /// Tokens.
    pub input_tokens: i64,
    /// Tokens.
    pub output_tokens: i64,
}

impl Billed {
    /// The quantity on one meter.
    #[must_use]
    pub fn on(&self, meter: Meter) -> i64 {
        match meter {
            Meter::ApiCalls => self.api_calls,
            Meter::InputTokens => self.input_tokens,
            Meter::OutputTokens => self.output_tokens,
        }
    }
}

/// What becomes of a second event by a witness that spoke before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It takes the first one's place.
    Replace,
    /// It changes nothing: the same again, or less to be believed.
    Ignore,
    /// As much to be believed and different: the first stays, and it is listed.
    Conflict,
}

/// Decides about an event after another one by the same witness, by their
/// ranks and hashes.
#[must_use]
pub fn arrival(first: (u8, &[u8]), second: (u8, &[u8])) -> Arrival {
    if second.1 == first.1 {
        Arrival::Ignore
    } else {
        match second.0.cmp(&first.0) {
            std::cmp::Ordering::Greater => Arrival::Replace,
            std::cmp::Ordering::Less => Arrival::Ignore,
            std::cmp::Ordering::Equal => Arrival::Conflict,
        }
    }
}

/// Folds all witnesses of one request. The order does not matter: the one of
/// the highest rank decides, the router's before the gateway's.
#[must_use]
pub fn fold(witnesses: &[UsageEvent]) -> Billed {
    decisive(witnesses).map(billed).unwrap_or_default()
}

/// The witness whose word is billed.
#[must_use]
pub fn decisive(witnesses: &[UsageEvent]) -> Option<&UsageEvent> {
    witnesses
        .iter()
        .max_by_key(|e| (rank(e), e.witness() == Witness::Router))
}

fn billed(event: &UsageEvent) -> Billed {
    if RequestClass::parse(&event.request_class).is_some_and(|class| !class.is_billed()) {
        return Billed::default();
    }
    let api_calls = match event.outcome() {
        Outcome::Completed | Outcome::ClientDisconnected => 1,
        Outcome::UpstreamError => 0,
        Outcome::Rejected | Outcome::Unspecified => return Billed::default(),
    };
    let sum = |of: fn(&ModelUsage) -> [u64; 4]| {
        let billed = event.usage.iter().filter(|u| !u.unbilled);
        let counts = billed.flat_map(of);
        counts.fold(0_i64, |sum, n| sum.saturating_add_unsigned(n))
    };
    Billed {
        api_calls,
        input_tokens: sum(|u| {
            [
                u.input_tokens,
                u.cached_input_tokens,
                u.cache_write_input_tokens,
                u.audio_input_tokens,
            ]
        }),
        output_tokens: sum(|u| {
            [
                u.output_tokens,
                u.reasoning_tokens,
                u.audio_output_tokens,
                0,
            ]
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;
    use weir_wire::proto::usage::UsageSource;

    use super::*;

    fn event(witness: Witness, outcome: Outcome, source: UsageSource, tokens: u64) -> UsageEvent {
        UsageEvent {
            witness: witness.into(),
            outcome: outcome.into(),
            request_class: "chat".into(),
            usage: vec![ModelUsage {
                input_tokens: tokens,
                cached_input_tokens: 1,
                output_tokens: tokens * 2,
                reasoning_tokens: 3,
                source: source.into(),
                ..ModelUsage::default()
            }],
            ..UsageEvent::default()
        }
    }

    #[track_caller]
    fn check(events: &[UsageEvent], expected: [i64; 3]) {
        let found = fold(events);
        assert_eq!(Meter::ALL.map(|m| found.on(m)), expected);
        let reversed: Vec<UsageEvent> = events.iter().rev().cloned().collect();
        assert_eq!(fold(&reversed), found, "the order decides");
    }

    #[test]
    fn outcomes_bill_as_the_table_says() {
        let (router, reported) = (Witness::Router, UsageSource::Reported);
        for (outcome, expected) in [
            (Outcome::Completed, [1, 11, 23]),
            (Outcome::ClientDisconnected, [1, 11, 23]),
            (Outcome::UpstreamError, [0, 11, 23]),
            (Outcome::Rejected, [0, 0, 0]),
        ] {
            check(&[event(router, outcome, reported, 10)], expected);
        }
        check(&[], [0, 0, 0]);
        let mut models = event(router, Outcome::Completed, reported, 10);
        models.request_class = "models".into();
        check(&[models], [0, 0, 0]);
    }

    #[test]
    fn the_better_witness_decides() {
        let done = Outcome::Completed;
        let gateway = event(Witness::Gateway, done, UsageSource::Reported, 10);
        let router = event(Witness::Router, done, UsageSource::Reported, 20);
        let guess = event(Witness::Router, done, UsageSource::Estimated, 30);
        check(&[gateway.clone(), router], [1, 21, 43]);
        check(&[gateway.clone(), guess], [1, 11, 23]);
        let gone = event(
            Witness::Gateway,
            Outcome::ClientDisconnected,
            UsageSource::None,
            0,
        );
        let silent = event(Witness::Router, Outcome::Rejected, UsageSource::None, 0);
        check(&[gone, silent], [0, 0, 0]);
    }

    #[test]
    fn attempts_that_nobody_pays_for_are_not_billed() {
        let done = Outcome::Completed;
        let mut router = event(Witness::Router, done, UsageSource::Reported, 10);
        let mut lost = router.usage[0].clone();
        lost.source = UsageSource::Estimated.into();
        lost.unbilled = true;
        router.usage.push(lost.clone());
        check(&[router.clone()], [1, 11, 23]);
        // Its guess at what is not billed leaves it the better witness.
        let gateway = event(Witness::Gateway, done, UsageSource::Reported, 20);
        check(&[router.clone(), gateway], [1, 11, 23]);
        // Two that are billed add up: one failed after some content.
        lost.unbilled = false;
        router.usage[1] = lost;
        check(&[router], [1, 22, 46]);
    }

    #[test]
    fn a_second_event_replaces_only_by_rank() {
        assert_eq!(arrival((4, b"a"), (5, b"b")), Arrival::Replace);
        assert_eq!(arrival((5, b"a"), (4, b"b")), Arrival::Ignore);
        assert_eq!(arrival((5, b"a"), (5, b"a")), Arrival::Ignore);
        assert_eq!(arrival((5, b"a"), (5, b"b")), Arrival::Conflict);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_overflows(tokens in any::<u64>()) {
            let usage = ModelUsage { input_tokens: tokens, output_tokens: tokens, ..ModelUsage::default() };
            let big = UsageEvent {
                outcome: Outcome::Completed.into(),
                usage: vec![usage; 32],
                ..UsageEvent::default()
            };
            prop_assert!(fold(&[big]).input_tokens >= 0);
        }
    }
}
