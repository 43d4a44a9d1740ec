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

use std::collections::BTreeMap;

use weir_dialects::routes::RequestClass;
use weir_wire::{
    proto::usage::{Kind, ModelUsage, Outcome, UsageEvent, Witness},
    usage::rank,
};

use crate::{
    meter::{Dimension, Meter},
    tariff::Tariff,
};

/// What something comes to, by meter; none is 0.
pub type Quantities = BTreeMap<Meter, i64>;

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

/// Decides about an event after another one by the same witness.
#[must_use]
pub fn arrival(first: &UsageEvent, second: &UsageEvent) -> Arrival {
    if second == first {
        return Arrival::Ignore;
    }
    match rank(second).cmp(&rank(first)) {
        std::cmp::Ordering::Greater => Arrival::Replace,
        std::cmp::Ordering::Less => Arrival::Ignore,
        std::cmp::Ordering::Equal => Arrival::Conflict,
    }
}

/// Folds all witnesses of one request, and of one measure of storage. The order does
/// not matter: of a request the one of the highest rank decides, the router's before the
/// gateway's. A service that names its measure as a request is named is billed beside it.
#[must_use]
pub fn fold(witnesses: &[UsageEvent], tariff: &Tariff) -> Quantities {
    let mut quantities = Quantities::new();
    for is_storage in [false, true] {
        if let Some(event) = decisive_of(witnesses, is_storage) {
            bill(event, tariff, &mut quantities);
        }
    }
    quantities.retain(|_, quantity| *quantity != 0);
    quantities
}

/// The witness whose word is billed; of a request before that of storage.
#[must_use]
pub fn decisive(witnesses: &[UsageEvent]) -> Option<&UsageEvent> {
    decisive_of(witnesses, false).or_else(|| decisive_of(witnesses, true))
}

fn decisive_of(witnesses: &[UsageEvent], is_storage: bool) -> Option<&UsageEvent> {
    witnesses
        .iter()
        .filter(|e| (e.kind() == Kind::Storage) == is_storage)
        .max_by_key(|e| (rank(e), e.witness() == Witness::Router))
}

fn bill(event: &UsageEvent, tariff: &Tariff, quantities: &mut Quantities) {
    let mut add = |dimension: Dimension, model: &str, count: u64| {
        let counted = quantities
            .entry(tariff.meter(dimension, model))
            .or_default();
        *counted = counted.saturating_add_unsigned(count);
    };
    if event.kind() == Kind::Storage {
        add(Dimension::StorageMbHours, "", event.storage_mb_hours);
        return;
    }
    if RequestClass::parse(&event.request_class).is_some_and(|class| !class.is_billed()) {
        return;
    }
    let api_calls = match event.outcome() {
        Outcome::Completed | Outcome::ClientDisconnected => 1,
        Outcome::UpstreamError => 0,
        Outcome::Rejected | Outcome::Unspecified => return,
    };
    let paid = || event.usage.iter().filter(|u: &&ModelUsage| !u.unbilled);
    // The call is of the model that answered.
    let model = paid().next_back().map_or("", |u| &u.model_served);
    add(Dimension::ApiCalls, model, api_calls);
    for u in paid() {
        let model = &u.model_served;
        add(Dimension::InputTokens, model, uncached_input(u));
        add(Dimension::CachedInputTokens, model, u.cached_input_tokens);
        add(Dimension::OutputTokens, model, output(u));
    }
}

/// Input tokens that no cache served.
pub(crate) fn uncached_input(u: &ModelUsage) -> u64 {
    u.input_tokens
        .saturating_add(u.cache_write_input_tokens)
        .saturating_add(u.audio_input_tokens)
}

/// Output tokens, reasoning included.
pub(crate) fn output(u: &ModelUsage) -> u64 {
    u.output_tokens
        .saturating_add(u.reasoning_tokens)
        .saturating_add(u.audio_output_tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;
    use weir_wire::proto::usage::UsageSource;

    use super::*;
    use crate::meter::Tier;

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

    fn tariff(names: &[&str]) -> Tariff {
        let meters: Vec<Meter> = names.iter().map(|n| Meter::parse(n).unwrap()).collect();
        Tariff::new(meters, [("big".to_owned(), Tier::new("premium").unwrap())])
    }

    #[track_caller]
    fn check(events: &[UsageEvent], expected: [i64; 3]) {
        let names = ["api_calls", "input_tokens", "output_tokens"];
        let found = fold(events, &tariff(&names));
        let on = |name: &str| {
            found
                .get(&Meter::parse(name).unwrap())
                .copied()
                .unwrap_or(0)
        };
        assert_eq!(names.map(on), expected);
        let reversed: Vec<UsageEvent> = events.iter().rev().cloned().collect();
        assert_eq!(fold(&reversed, &tariff(&names)), found, "the order decides");
    }

    #[test]
    fn caches_and_tiers_are_apart_where_they_have_meters() {
        let done = Outcome::Completed;
        let mut router = event(Witness::Router, done, UsageSource::Reported, 10);
        let mut second = router.usage[0].clone();
        second.model_served = "big".into();
        router.usage.push(second);
        let meters = [
            "api_calls",
            "api_calls.premium",
            "input_tokens",
            "input_tokens.premium",
            "cached_input_tokens",
            "output_tokens",
        ];
        let found = fold(&[router], &tariff(&meters));
        let found: Vec<(String, i64)> = found.iter().map(|(m, n)| (m.to_string(), *n)).collect();
        let expected = [
            ("api_calls.premium", 1),
            ("input_tokens", 10),
            ("input_tokens.premium", 10),
            ("cached_input_tokens", 2),
            ("output_tokens", 46),
        ];
        assert_eq!(found, expected.map(|(m, n)| (m.to_owned(), n)));
    }

    #[test]
    fn storage_is_billed_by_what_its_service_says() {
        let stored = UsageEvent {
            kind: Kind::Storage.into(),
            witness: Witness::Service.into(),
            storage_mb_hours: 7,
            ..UsageEvent::default()
        };
        let meter = Meter::of(Dimension::StorageMbHours);
        assert_eq!(
            fold(std::slice::from_ref(&stored), &tariff(&[])),
            Quantities::from([(meter.clone(), 7)])
        );
        // A service may name its measure as the request is named.
        let router = event(
            Witness::Router,
            Outcome::Completed,
            UsageSource::Reported,
            10,
        );
        for events in [[stored.clone(), router.clone()], [router, stored]] {
            let found = fold(&events, &tariff(&["input_tokens"]));
            let input = Meter::of(Dimension::InputTokens);
            assert_eq!((found[&meter], found[&input]), (7, 11));
            assert_eq!(decisive(&events).unwrap().witness(), Witness::Router);
        }
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
        let of = |source, tokens| event(Witness::Router, Outcome::Completed, source, tokens);
        let (reported, guessed) = (UsageSource::Reported, UsageSource::Estimated);
        for (first, second, expected) in [
            (of(guessed, 1), of(reported, 2), Arrival::Replace),
            (of(reported, 1), of(guessed, 2), Arrival::Ignore),
            (of(reported, 1), of(reported, 1), Arrival::Ignore),
            (of(reported, 1), of(reported, 2), Arrival::Conflict),
        ] {
            assert_eq!(arrival(&first, &second), expected);
        }
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
            prop_assert!(fold(&[big], &Tariff::default()).values().all(|n| *n >= 0));
        }
    }
}
