//! What is called after what.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const YES: Admission = Admission::Yes;
const PROBE: Admission = Admission::Probe;
const NO: Admission = Admission::No { until_ms: 7_000 };
const LATER: Admission = Admission::No { until_ms: 9_000 };

/// The longest back-off that may come of a step.
const LONGEST: u64 = u64::MAX;

fn call(candidate: usize, after_ms: u64) -> Next {
    Next::Call {
        candidate,
        after_ms,
    }
}

fn give_up(why: GaveUp, retry_after_ms: u64) -> Next {
    Next::GiveUp {
        why,
        retry_after_ms,
    }
}

/// At each step what the breakers say and what comes next; where that is a call, it
/// fails so. All at the time 5,000, of a request that has until 60,000.
#[track_caller]
fn check(candidates: usize, steps: &[(&[Admission], Next, Fault)]) {
    let config = RetryConfig::default();
    let mut budget = RetryBudget::new(&config);
    let mut attempts = Attempts::new(config, candidates, 60_000);
    for (i, (admissions, expected, fault)) in steps.iter().enumerate() {
        let next = attempts.next(admissions, 5_000, &mut budget, LONGEST);
        assert_eq!(next, *expected, "step {i}");
        if let Next::Call { candidate, .. } = next {
            attempts.failed(candidate, *fault);
        }
    }
}

const SERVER: Fault = Fault::Server;
const UNREACHABLE: Fault = Fault::Unreachable;
const SLOW: Fault = Fault::TimedOut;

#[test]
fn the_next_candidate_comes_at_once() {
    let all: &[Admission] = &[YES, YES, YES];
    check(
        3,
        &[
            (all, call(0, 0), SERVER),
            (all, call(1, 0), SLOW),
            (all, call(2, 0), UNREACHABLE),
            // All have failed: the first one of those that may do better.
            (all, call(0, 100), SERVER),
            (all, give_up(GaveUp::Attempts, 2_000), SERVER),
        ],
    );
    check(
        3,
        &[
            (&[NO, PROBE, YES], call(1, 0), SERVER),
            (&[NO, NO, YES], call(2, 0), SERVER),
            // One that was closed is open now.
            (&[YES, NO, YES], call(0, 0), SERVER),
        ],
    );
}

#[test]
fn the_same_comes_again_only_where_no_other_does() {
    let one: &[Admission] = &[YES, NO];
    check(
        2,
        &[
            (one, call(0, 0), SERVER),
            (one, call(0, 100), SERVER),
            (one, call(0, 200), SERVER),
            (&[YES, YES], call(1, 0), SERVER),
        ],
    );
    check(
        1,
        &[
            (&[YES], call(0, 0), UNREACHABLE),
            (&[YES], call(0, 0), UNREACHABLE),
            (&[YES], call(0, 200), UNREACHABLE),
            (&[YES], call(0, 400), UNREACHABLE),
            (&[YES], give_up(GaveUp::Attempts, 2_000), UNREACHABLE),
        ],
    );
    check(
        1,
        &[
            (&[YES], call(0, 0), SLOW),
            (&[YES], give_up(GaveUp::Hopeless, 2_000), SLOW),
        ],
    );
}

#[test]
fn where_all_are_closed_the_first_to_open_is_told() {
    let closed = give_up(GaveUp::Closed, 2_000);
    check(2, &[(&[LATER, NO], closed, SERVER)]);
    check(
        2,
        &[
            (&[YES, LATER], call(0, 0), SERVER),
            (&[NO, LATER], closed, SERVER),
        ],
    );
    check(0, &[(&[], give_up(GaveUp::Closed, 2_000), SERVER)]);
    // What nothing is said of is closed.
    check(2, &[(&[LATER], give_up(GaveUp::Closed, 4_000), SERVER)]);
}

#[test]
fn time_ends_it() {
    let config = RetryConfig::default();
    let mut budget = RetryBudget::new(&config);
    let mut attempts = Attempts::new(config, 2, 1_000);
    let mut next = |attempts: &mut Attempts, now_ms, random| {
        attempts.next(&[YES, NO], now_ms, &mut budget, random)
    };
    assert_eq!(next(&mut attempts, 900, 0), call(0, 0));
    attempts.failed(0, SERVER);
    // A back-off that would end after the request does.
    let late = next(&mut attempts, 900, LONGEST);
    assert_eq!(late, give_up(GaveUp::Deadline, 2_000));
    assert_eq!(next(&mut attempts, 900, 0), call(0, 0));
    attempts.failed(0, SERVER);
    let over = next(&mut attempts, 1_000, 0);
    assert_eq!(over, give_up(GaveUp::Deadline, 2_000));
}

#[test]
fn only_a_repeated_call_takes_from_the_budget() {
    let config = RetryConfig {
        budget_min: 1,
        budget_percent: 0,
        ..RetryConfig::default()
    };
    let mut budget = RetryBudget::new(&config);
    let begin = || Attempts::new(config, 2, 60_000);
    let all = [YES, YES];
    // Failing over takes nothing, however often.
    for _ in 0..10 {
        let mut attempts = begin();
        for candidate in 0..2 {
            let next = attempts.next(&all, 0, &mut budget, 0);
            assert_eq!(next, call(candidate, 0));
            attempts.failed(candidate, SERVER);
        }
    }
    let mut attempts = begin();
    for expected in [call(0, 0), call(1, 0), call(0, 0)] {
        assert_eq!(attempts.next(&all, 0, &mut budget, 0), expected);
        for candidate in 0..2 {
            attempts.failed(candidate, SERVER);
        }
    }
    let next = attempts.next(&all, 0, &mut budget, 0);
    assert_eq!(next, give_up(GaveUp::Budget, 2_000));
    // Neither is a hedge for nothing.
    assert_eq!(begin().hedge(&all, 0, &mut budget), None);
}

#[test]
fn a_hedge_is_another_candidate_that_is_well() {
    let config = RetryConfig::default();
    let mut budget = RetryBudget::new(&config);
    let mut attempts = Attempts::new(config, 4, 60_000);
    let all = [YES, PROBE, YES, YES];
    assert_eq!(attempts.next(&all, 0, &mut budget, 0), call(0, 0));
    assert_eq!(attempts.hedge(&all, 0, &mut budget), Some(2));
    // The first one fails: what is under way is not called beside itself.
    attempts.failed(0, SLOW);
    let next = attempts.next(&[YES, NO, YES, NO], 0, &mut budget, 0);
    assert_eq!(next, give_up(GaveUp::Hopeless, 2_000));
    assert_eq!(attempts.next(&all, 0, &mut budget, 0), call(1, 0));
    assert_eq!(attempts.hedge(&all, 0, &mut budget), Some(3));
    assert_eq!(attempts.made(), 4);
    assert_eq!(attempts.hedge(&all, 0, &mut budget), None);
}

#[test]
fn a_call_that_did_not_begin_counts_for_nothing() {
    let config = RetryConfig {
        max_attempts: 1,
        ..RetryConfig::default()
    };
    let mut budget = RetryBudget::new(&config);
    let mut attempts = Attempts::new(config, 2, 60_000);
    let all = [PROBE, YES];
    assert_eq!(attempts.next(&all, 0, &mut budget, 0), call(0, 0));
    attempts.lost(0);
    assert_eq!(attempts.made(), 0);
    assert_eq!(attempts.next(&all, 0, &mut budget, 0), call(1, 0));
    let next = attempts.next(&all, 0, &mut budget, 0);
    assert_eq!(next, give_up(GaveUp::Attempts, 2_000));
}

#[test]
fn what_is_wrong_with_a_config_is_named() {
    RetryConfig::default().validate().unwrap();
    let config: RetryConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(config, RetryConfig::default());
    for (json, names) in [
        (r#"{"max_attempt":1}"#, "max_attempt"),
        (r#"{"max_attempts":0}"#, "max_attempts: must be 1 to 20"),
        (r#"{"max_attempts":21}"#, "max_attempts"),
        (r#"{"budget_percent":101}"#, "budget_percent"),
        (r#"{"budget_window_ms":0}"#, "budget_window_ms"),
        (r#"{"backoff_max_ms":600001}"#, "backoff_max_ms"),
    ] {
        let config = serde_json::from_str::<RetryConfig>(json).map_err(|e| e.to_string());
        let error = config.and_then(|c| c.validate()).unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }
}

fn admission() -> impl Strategy<Value = Admission> {
    prop::sample::select(vec![YES, YES, YES, PROBE, NO, LATER])
}

fn fault() -> impl Strategy<Value = Fault> {
    let limited = Fault::RateLimited {
        retry_after_ms: None,
    };
    prop::sample::select(vec![
        SERVER,
        UNREACHABLE,
        SLOW,
        Fault::BrokenStream,
        limited,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever breakers say and calls come to: it ends, with no more calls than may
    /// be, none of a candidate that is closed, none after the deadline, each waiting
    /// no longer than the longest back-off.
    #[test]
    fn every_request_ends(
        steps in prop::collection::vec(
            (prop::collection::vec(admission(), 4), fault(), any::<u64>(), 0..300_u64, any::<bool>(), any::<bool>()),
            200,
        ),
        (candidates, max_attempts, budget_min) in (0..5_usize, 1..8_u32, 0..4_u32),
        deadline_ms in 0..3_000_u64,
    ) {
        let config = RetryConfig { max_attempts, budget_min, ..RetryConfig::default() };
        let mut budget = RetryBudget::new(&config);
        let mut attempts = Attempts::new(config, candidates, deadline_ms);
        let (mut now_ms, mut calls, mut repeated) = (0, vec![0; candidates], 0);
        let mut ended = false;
        for (admissions, fault, random, takes_ms, begins, hedges) in steps {
            if hedges && let Some(candidate) = attempts.hedge(&admissions, now_ms, &mut budget) {
                prop_assert_eq!((admissions[candidate], calls[candidate]), (YES, 0));
                calls[candidate] += 1;
                repeated += 1;
                attempts.failed(candidate, fault);
            }
            match attempts.next(&admissions, now_ms, &mut budget, random) {
                Next::Call { candidate, after_ms } => {
                    prop_assert!(admissions[candidate].is_admitted());
                    prop_assert!(now_ms + after_ms < deadline_ms && after_ms <= 2_000);
                    now_ms += after_ms + takes_ms;
                    if !begins {
                        attempts.lost(candidate);
                        continue;
                    }
                    repeated += u32::from(calls[candidate] > 0);
                    calls[candidate] += 1;
                    attempts.failed(candidate, fault);
                }
                Next::GiveUp { why, retry_after_ms } => {
                    let left = admissions.iter().take(candidates);
                    let none_is_open = !left.clone().any(|a| a.is_admitted());
                    prop_assert!(retry_after_ms <= 9_000);
                    if why == GaveUp::Closed && none_is_open && candidates > 0 {
                        prop_assert_eq!(retry_after_ms, left.map(|a| match a {
                            Admission::No { until_ms } => until_ms.saturating_sub(now_ms),
                            _ => u64::MAX,
                        }).min().unwrap());
                    }
                    ended = true;
                    break;
                }
            }
            prop_assert!(attempts.made() <= max_attempts);
        }
        prop_assert!(ended);
        prop_assert_eq!(calls.iter().sum::<u32>(), attempts.made());
        prop_assert!(repeated <= budget_min);
    }
}

#[test]
fn another_provider_comes_before_another_model_of_the_same() {
    let config = RetryConfig::default();
    let mut budget = RetryBudget::new(&config);
    // Premium at one, premium at the other, then their fast ones, then the last.
    let mut attempts = Attempts::new(config, 5, 60_000).of_providers([0, 1, 0, 1, 2]);
    let admissions = [Admission::Yes; 5];
    let mut order = Vec::new();
    while let Next::Call { candidate, .. } = attempts.next(&admissions, 0, &mut budget, 0) {
        order.push(candidate);
        attempts.failed(candidate, Fault::Server);
    }
    assert_eq!(order, [0, 1, 4, 2]);
}
