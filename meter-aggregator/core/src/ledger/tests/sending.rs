//! Which attempts are begun, and when again.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use Do::*;
use Said::{Nothing, Status};

/// Begins attempts at what is due; gives the intents' ids.
fn start(desk: &mut Desk, busy: &BTreeSet<send::Lane>, limit: usize) -> Vec<i64> {
    let (policy, now_ms) = (desk.policy.clone(), desk.now_ms);
    let started = desk
        .memory
        .run(|b| send::start(b, busy, limit, &policy, now_ms));
    started.into_iter().map(|i| i.id).collect()
}

#[test]
fn one_call_at_a_time_is_on_a_lane() {
    let mut desk = Desk::new(&["api_calls", "input_tokens", "output_tokens"]);
    desk.play(&[Use, Plan]);
    let busy = BTreeSet::from([(tenant(), meter("input_tokens"))]);
    let mut other = desk.memory.disk.clone();
    assert_eq!(start(&mut desk, &busy, 9), [1, 3]);
    // Two hours of one meter go one after the other.
    for intent in &mut other.intents {
        intent.bucket.meter = meter("api_calls");
        intent.bucket.hour = Hour(HOUR.0 + intent.id);
    }
    desk.memory.disk = other;
    assert_eq!(start(&mut desk, &BTreeSet::new(), 9), [1]);
    assert_eq!(start(&mut desk, &BTreeSet::new(), 9), [2]);
}

#[test]
fn pauses_grow_with_what_was_tried() {
    let mut desk = Desk::of_calls(&[Use, Plan]);
    for (waited, pause) in [
        (0, 1_000),
        (1_000, 1_000),
        (9_000, 10_000),
        (600_000, 300_000),
    ] {
        desk.play(&[Wait(waited), Start, Finish(1, Nothing)]);
        let at = desk.intent(1).not_before_ms;
        assert_eq!(at, desk.now_ms + pause);
        desk.now_ms = at - 1;
        assert_eq!(start(&mut desk, &BTreeSet::new(), 1), [0; 0]);
        desk.now_ms = at - pause;
    }
}

#[test]
fn stripes_own_pause_is_kept_up_to_five_minutes() {
    for (said_ms, pause) in [(5_000, 5_000), (3_600_000, 300_000), (-1, 1_000)] {
        let mut desk = Desk::of_calls(&[Use, Plan, Start]);
        let attempt = Attempt::Answered {
            status: 429,
            message: String::new(),
            should_retry: None,
            retry_after_ms: Some(said_ms),
        };
        let (started, policy, now_ms) =
            (desk.started[&1].clone(), desk.policy.clone(), desk.now_ms);
        desk.memory
            .run(|b| send::finish(b, &started, &attempt, "acct", &policy, now_ms));
        assert_eq!(desk.intent(1).not_before_ms, now_ms + pause);
    }
}

#[test]
fn an_answer_counts_once_and_for_its_own_attempt() {
    let busy = Finish(1, Status(429));
    let desk = Desk::of_calls(&[Use, Plan, Start, Wait(MINUTE_MS), Start, busy, busy]);
    assert_eq!((desk.intent(1).unknown, desk.intent(1).answers), (1, 1));
    let mut desk = Desk::of_calls(&[Use, Plan, Start]);
    let first = desk.started[&1].clone();
    desk.play(&[Wait(MINUTE_MS), Start]);
    desk.started.insert(1, first);
    desk.play(&[busy]);
    assert_eq!((desk.intent(1).unknown, desk.intent(1).answers), (2, 0));
}

#[test]
fn who_slept_over_an_attempt_does_not_make_it() {
    let desk = Desk::of_calls(&[Use, Plan, Start]);
    let (started, now_ms) = (&desk.started[&1], desk.now_ms);
    assert!(!send::is_late(started, now_ms + 10 * MINUTE_MS - 1));
    assert!(send::is_late(started, now_ms + 10 * MINUTE_MS));
}

#[test]
fn the_identifier_is_the_same_until_it_is_begun_anew() {
    let tried = [Use, Plan, Start, Finish(1, Nothing), Wait(MINUTE_MS), Start];
    let first = Desk::of_calls(&tried[..2]).intent(1).identifier.clone();
    assert_eq!(Desk::of_calls(&tried).intent(1).identifier, first);
    let lost = [
        Wait(20 * HOUR_MS),
        Start,
        Wait(HOUR_MS),
        Sum(0),
        Wait(10 * MINUTE_MS),
        Sum(0),
    ];
    let anew = Desk::of_calls(&[&tried[..], &lost].concat());
    assert_ne!(anew.intent(1).identifier, first);
    assert_eq!(anew.intent(1).timestamp_s, HOUR.last_s());
}
