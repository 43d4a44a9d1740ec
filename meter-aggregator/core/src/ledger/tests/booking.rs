//! Witnesses, and what they come to.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::ledger::DiscrepancyKind;
use UsageSource::{Estimated, Reported};
use Witness::{Gateway, Router};

const METERS: [&str; 4] = [
    "api_calls",
    "input_tokens",
    "output_tokens",
    "storage_mb_hours",
];

/// What is listed, and whether it is open.
fn listed(desk: &Desk) -> Vec<(DiscrepancyKind, bool)> {
    let notes = desk.memory.disk.notes.iter();
    notes.map(|(key, note)| (key.0, note.is_open)).collect()
}

/// API calls, input and output tokens that are booked.
#[track_caller]
fn check(desk: &Desk, expected: [i64; 3], notes: &[(DiscrepancyKind, bool)]) {
    let found = ["api_calls", "input_tokens", "output_tokens"].map(|name| desk.total(name));
    assert_eq!(found, expected);
    assert_eq!(listed(desk), notes);
}

fn storage(n: u8, mb_hours: u64) -> UsageEvent {
    UsageEvent {
        kind: Kind::Storage.into(),
        storage_mb_hours: mb_hours,
        usage: Vec::new(),
        ..event(n, Witness::Service, Reported, 0)
    }
}

#[test]
fn both_witnesses_are_booked_at_once() {
    let mut desk = Desk::new(&METERS);
    desk.book([
        event(1, Gateway, Estimated, 9),
        event(1, Router, Reported, 5),
    ]);
    check(&desk, [1, 5, 10], &[]);
    let line = &desk.memory.disk.journal[0].0;
    let row = desk.memory.disk.requests.values().next().unwrap();
    assert_eq!(
        line.event,
        book::event_hash(&row.events[1]),
        "by the router's"
    );
}

#[test]
fn one_witness_waits_and_is_booked_and_listed() {
    let single = DiscrepancyKind::SingleWitness;
    for (first, second) in [(Gateway, Router), (Router, Gateway)] {
        let mut desk = Desk::new(&METERS);
        desk.book([event(1, first, Reported, 5)]);
        check(&desk, [0; 3], &[]);
        desk.play(&[Do::Wait(15 * MINUTE_MS - 1), Do::BookWaiting]);
        check(&desk, [0; 3], &[]);
        desk.play(&[Do::Wait(1), Do::BookWaiting]);
        check(&desk, [1, 5, 10], &[(single, true)]);
        let note = desk.memory.disk.notes.values().next().unwrap();
        let absent = if second == Router {
            "router"
        } else {
            "gateway"
        };
        assert_eq!(note.detail, format!("the {absent} did not tell of it"));
        desk.book([event(1, second, Reported, 5)]);
        check(&desk, [1, 5, 10], &[(single, false)]);
    }
}

#[test]
fn the_first_word_says_until_when_it_waits() {
    let mut desk = Desk::new(&METERS);
    desk.book([event(1, Gateway, Estimated, 5)]);
    desk.play(&[Do::Wait(14 * MINUTE_MS)]);
    desk.book([event(1, Gateway, Reported, 7)]);
    check(&desk, [0; 3], &[]);
    desk.play(&[Do::Wait(MINUTE_MS), Do::BookWaiting]);
    check(&desk, [1, 7, 14], &[(DiscrepancyKind::SingleWitness, true)]);
}

#[test]
fn what_has_one_witness_or_bills_nothing_does_not_wait() {
    let mut desk = Desk::new(&METERS);
    let rejected = UsageEvent {
        outcome: Outcome::Rejected.into(),
        ..event(2, Gateway, Reported, 5)
    };
    desk.book([storage(1, 7), rejected]);
    assert_eq!(desk.total("storage_mb_hours"), 7);
    check(&desk, [0; 3], &[]);
    assert!(
        desk.memory
            .disk
            .requests
            .values()
            .all(|row| row.due_ms.is_none())
    );
    desk.policy.two_witnesses = false;
    desk.book([event(3, Gateway, Reported, 5)]);
    check(&desk, [1, 5, 10], &[]);
}

#[test]
fn a_better_witness_amends_up_and_down_by_the_next_revision() {
    let mut desk = Desk::new(&["input_tokens"]);
    desk.book([
        event(1, Gateway, Estimated, 9),
        event(1, Router, Estimated, 8),
    ]);
    let sent = [Do::Plan, Do::Start, Do::Finish(1, Said::Status(200))];
    desk.play(&sent);
    desk.book([event(1, Gateway, Reported, 5)]);
    desk.play(&[Do::Plan, Do::Start, Do::Finish(2, Said::Status(200))]);
    desk.book([event(1, Router, Reported, 6)]);
    desk.play(&[Do::Plan]);
    let deltas: Vec<_> = desk
        .memory
        .disk
        .intents
        .iter()
        .map(|i| (i.revision, i.delta))
        .collect();
    assert_eq!(deltas, [(1, 8), (2, -3), (3, 1)]);
    assert_eq!(listed(&desk), [(DiscrepancyKind::WitnessesDiffer, true)]);
}

#[test]
fn a_second_word_as_good_and_not_the_same_is_listed() {
    let mut desk = Desk::new(&METERS);
    let other = event(1, Router, Reported, 6);
    desk.book([
        event(1, Gateway, Reported, 5),
        event(1, Router, Reported, 5),
    ]);
    for _ in 0..2 {
        desk.book([other.clone()]);
        check(&desk, [1, 5, 10], &[(DiscrepancyKind::Conflict, true)]);
    }
    let note = desk.memory.disk.notes.values().next().unwrap();
    let kept = note.event.as_ref().unwrap();
    assert_eq!(
        (kept.usage[0].input_tokens, kept.tenant_context.as_str()),
        (6, "")
    );
    // Less to be believed is nothing.
    desk.book([event(1, Router, Estimated, 7)]);
    check(&desk, [1, 5, 10], &[(DiscrepancyKind::Conflict, true)]);
}

#[test]
fn tiers_have_meters_of_their_own() {
    let mut desk = Desk::new(&["input_tokens", "input_tokens.premium", "output_tokens"]);
    desk.book([
        event(1, Gateway, Reported, 5),
        event(1, Router, Reported, 5),
    ]);
    check(&desk, [1, 0, 10], &[]);
    assert_eq!(desk.total("input_tokens.premium"), 5);
    // What has no meter is counted and not planned.
    desk.play(&[Do::Plan]);
    assert_eq!(desk.intents().len(), 2);
}

#[test]
fn a_batch_that_comes_again_is_passed_over() {
    let mut desk = Desk::new(&METERS);
    let events = [
        event(1, Gateway, Reported, 5),
        event(1, Router, Reported, 5),
    ];
    let batch: Vec<_> = (3..).step_by(2).zip(events.clone()).collect();
    desk.book_numbered(batch.clone());
    let once = desk.memory.disk.clone();
    desk.book_numbered(batch.clone());
    desk.book_numbered(batch[..1].to_vec());
    desk.book_numbered(Vec::new());
    assert!(desk.memory.disk.is_same(&once));
    // The same under other numbers moves the number alone.
    desk.book_numbered((3..).zip(events.iter().cloned().cycle().take(5)).collect());
    assert_eq!(desk.memory.disk.progress[book::STREAM], 7);
    assert_eq!(desk.memory.disk.journal, once.journal);
    assert!(desk.memory.disk.notes.is_empty());
}

#[test]
fn what_has_no_ids_is_passed_over() {
    let mut desk = Desk::new(&METERS);
    let nameless = UsageEvent {
        tenant: String::new(),
        ..event(1, Gateway, Reported, 5)
    };
    let no_id = UsageEvent {
        request_id: "x".into(),
        ..event(1, Gateway, Reported, 5)
    };
    desk.book([nameless, no_id]);
    assert!(desk.memory.disk.requests.is_empty());
    assert_eq!(desk.memory.disk.progress[book::STREAM], 2);
}

/// A crash at any call of a booking, and after its commit, changes nothing of its end.
#[test]
fn a_crash_books_nothing_and_nothing_twice() {
    let first = [
        event(1, Gateway, Estimated, 9),
        event(2, Router, Reported, 1),
    ];
    let batch: Vec<_> = (10..)
        .zip([
            event(1, Router, Reported, 5),
            event(2, Router, Reported, 2),
            event(3, Gateway, Reported, 7),
            event(3, Router, Reported, 7),
        ])
        .collect();
    let fresh = || {
        let mut desk = Desk::new(&METERS);
        desk.book(first.clone());
        desk.play(&[Do::Wait(15 * MINUTE_MS), Do::BookWaiting]);
        desk
    };
    let run = |desk: &mut Desk, fault| {
        let rules = Rules {
            tariff: &desk.tariff,
            policy: &desk.policy,
        };
        let (now_ms, batch) = (desk.now_ms, batch.clone());
        let result = desk
            .memory
            .transaction(fault, |b| book::book_numbered(b, batch, &rules, now_ms));
        desk.memory.check();
        result
    };
    let mut whole = fresh();
    let start = whole.memory.disk.clone();
    assert_eq!(run(&mut whole, Fault::None), Ok(()));
    check(&whole, [3, 13, 26], &listed(&whole));
    for call in 0..=whole.memory.calls {
        let mut desk = fresh();
        assert_eq!(run(&mut desk, Fault::At(call)), Err(Crash));
        assert!(desk.memory.disk.is_same(&start));
        assert_eq!(run(&mut desk, Fault::None), Ok(()));
        assert!(desk.memory.disk.is_same(&whole.memory.disk));
    }
    let mut desk = fresh();
    assert_eq!(run(&mut desk, Fault::Committed), Err(Crash));
    assert_eq!(run(&mut desk, Fault::None), Ok(()));
    assert!(desk.memory.disk.is_same(&whole.memory.disk));
}

#[test]
fn a_crash_while_what_waited_is_booked_changes_nothing() {
    let fresh = || {
        let mut desk = Desk::new(&METERS);
        desk.book([
            event(1, Gateway, Reported, 5),
            event(2, Router, Reported, 5),
        ]);
        desk.play(&[Do::Wait(15 * MINUTE_MS)]);
        desk
    };
    let mut whole = fresh();
    whole.play(&[Do::BookWaiting]);
    check(&whole, [2, 10, 20], &listed(&whole));
    for fault in (0..=whole.memory.calls)
        .map(Fault::At)
        .chain([Fault::Committed])
    {
        let mut desk = fresh();
        desk.fault = fault;
        assert_eq!(desk.act(Do::BookWaiting), Err(Crash));
        desk.fault = Fault::None;
        desk.play(&[Do::BookWaiting]);
        assert!(desk.memory.disk.is_same(&whole.memory.disk), "{fault:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Where nobody contradicts himself, neither order nor batches nor copies matter.
    #[test]
    fn the_order_does_not_matter(
        told in prop::collection::vec((1_u8..6, any::<bool>(), any::<bool>()), 1..24),
        shuffled in any::<prop::sample::Index>(),
        batch in 1_usize..8,
    ) {
        let events: Vec<UsageEvent> = told
            .iter()
            .map(|(n, is_router, is_reported)| {
                let witness = if *is_router { Router } else { Gateway };
                let source = if *is_reported { Reported } else { Estimated };
                event(*n, witness, source, u64::from(*n) + u64::from(*is_reported))
            })
            .collect();
        let end = |events: &[UsageEvent], batch: usize| {
            let mut desk = Desk::new(&METERS);
            for events in events.chunks(batch) {
                desk.book(events.iter().cloned());
            }
            desk.play(&[Do::Wait(HOUR_MS), Do::BookWaiting]);
            (desk.memory.disk.buckets, desk.memory.disk.requests)
        };
        let expected = end(&events, events.len());
        let mut other = events.clone();
        other.rotate_left(shuffled.index(events.len()));
        other.extend(events.iter().rev().cloned());
        prop_assert_eq!(end(&other, batch), expected);
    }
}
