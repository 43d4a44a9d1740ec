//! When a model is called and when it is left alone.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// In the middle of the jitter, so that times come out as configured.
const EVEN: u64 = u64::MAX / 2;

const RATE_LIMITED: Fault = Fault::RateLimited {
    retry_after_ms: Some(2_000),
};

const OVERLOADED: Fault = Fault::Overloaded {
    retry_after_ms: Some(2_000),
};

fn health() -> Health {
    Health::new(HealthConfig::default())
}

/// One call that ends as it began.
#[track_caller]
fn call(health: &mut Health, outcome: Outcome, now_ms: u64) {
    let begun = health.begin(now_ms).unwrap();
    health.outcome(begun, outcome, now_ms, EVEN);
}

fn fault(health: &mut Health, now_ms: u64) {
    call(health, Outcome::Fault(Fault::Server), now_ms);
}

/// A breaker that opened at 0, for five seconds.
fn opened() -> Health {
    let mut health = health();
    for _ in 0..5 {
        assert_eq!(health.admits(0), Admission::Yes);
        fault(&mut health, 0);
    }
    health
}

#[track_caller]
fn check_closed_until(health: &Health, now_ms: u64, until_ms: u64) {
    assert_eq!(health.admits(now_ms), Admission::No { until_ms });
    assert_eq!(health.clone().begin(now_ms), Err(until_ms));
}

#[test]
fn faults_in_a_row_open_it() {
    let health = opened();
    check_closed_until(&health, 0, 5_000);
    check_closed_until(&health, 4_999, 5_000);
    assert_eq!(health.state(4_999), State::Open);
    assert_eq!(health.admits(5_000), Admission::Probe);
    assert_eq!(health.state(5_000), State::HalfOpen);
}

#[test]
fn every_kind_of_fault_counts_but_a_pause_that_is_told() {
    let silent = [
        Fault::RateLimited {
            retry_after_ms: None,
        },
        Fault::Overloaded {
            retry_after_ms: None,
        },
        Fault::Server,
        Fault::Unreachable,
        Fault::TimedOut,
        Fault::SlowStart,
        Fault::BrokenStream,
    ];
    for fault in silent {
        let mut health = health();
        for _ in 0..5 {
            call(&mut health, Outcome::Fault(fault), 0);
        }
        assert_eq!(health.state(0), State::Open, "{fault:?}");
    }
    let (mut limited, mut overloaded) = (health(), health());
    for i in 0..5 {
        let now_ms = i * 2_000;
        call(&mut limited, Outcome::Fault(RATE_LIMITED), now_ms);
        call(&mut overloaded, Outcome::Fault(OVERLOADED), now_ms);
    }
    assert_eq!(limited.state(9_000), State::Paused);
    assert_eq!(limited.admits(10_000), Admission::Yes);
    assert_eq!(overloaded.state(9_000), State::Open);
}

#[test]
fn what_goes_well_ends_a_row_and_what_tells_nothing_does_not() {
    let mut row = health();
    for _ in 0..8 {
        for _ in 0..4 {
            call(&mut row, Outcome::Well, 0);
        }
        for _ in 0..3 {
            fault(&mut row, 0);
        }
    }
    call(&mut row, Outcome::Neither, 0);
    assert_eq!(row.state(0), State::Closed);
    fault(&mut row, 0);
    call(&mut row, Outcome::Neither, 0);
    fault(&mut row, 0);
    assert_eq!(row.state(0), State::Open);
}

#[test]
fn half_of_the_calls_of_a_window_open_it() {
    let mut health = health();
    for i in 0..4 {
        fault(&mut health, i);
        call(&mut health, Outcome::Well, i);
    }
    call(&mut health, Outcome::Well, 5);
    // Nine calls are too few.
    assert_eq!(health.state(5), State::Closed);
    let mut late = health.clone();
    fault(&mut health, 6);
    assert_eq!(health.state(6), State::Open, "5 of 10");
    // Those before are no longer of the window.
    fault(&mut late, 40_000);
    assert_eq!(late.state(40_000), State::Closed);
    // Four of ten are not half.
    let mut well = self::health();
    for i in 0..40 {
        let failed = matches!(i % 10, 0 | 3 | 5 | 8);
        let outcome = if failed {
            Outcome::Fault(Fault::Server)
        } else {
            Outcome::Well
        };
        call(&mut well, outcome, 100 * i);
    }
    assert_eq!(well.state(4_000), State::Closed);
}

#[test]
fn one_probe_goes_and_closes_it_or_opens_it_for_longer() {
    let mut health = opened();
    let mut now_ms = 5_000;
    for open_ms in [10_000, 20_000, 40_000, 60_000, 60_000] {
        let probe = health.begin(now_ms).unwrap();
        assert!(probe.is_probe);
        // A second one does not go, until the first is given up for lost.
        check_closed_until(&health, now_ms + 10, now_ms + 1_010);
        check_closed_until(&health, now_ms + 59_999, now_ms + 60_000);
        now_ms += 500;
        let failed = Outcome::Fault(Fault::TimedOut);
        health.outcome(probe, failed, now_ms, EVEN);
        check_closed_until(&health, now_ms, now_ms + open_ms);
        now_ms += open_ms;
    }
    let probe = health.begin(now_ms).unwrap();
    health.outcome(probe, Outcome::Well, now_ms, EVEN);
    assert_eq!(health.admits(now_ms), Admission::Yes);
    // All is as in the beginning.
    for _ in 0..4 {
        fault(&mut health, now_ms);
    }
    assert_eq!(health.state(now_ms), State::Closed);
    fault(&mut health, now_ms);
    check_closed_until(&health, now_ms, now_ms + 5_000);
}

#[test]
fn a_probe_that_tells_nothing_or_is_lost_makes_room_for_another() {
    let mut health = opened();
    let probe = health.begin(5_000).unwrap();
    health.outcome(probe, Outcome::Neither, 5_100, EVEN);
    let lost = health.begin(5_100).unwrap();
    assert!(lost.is_probe);
    let next = health.begin(65_100).unwrap();
    // The lost one comes back after all: it is too late.
    health.outcome(lost, Outcome::Well, 65_200, EVEN);
    assert!(!health.admits(65_200).is_admitted());
    health.outcome(next, Outcome::Well, 65_300, EVEN);
    assert_eq!(health.admits(65_300), Admission::Yes);
}

#[test]
fn calls_from_before_say_nothing_about_what_came_after() {
    let mut health = health();
    let early: Vec<Begun> = (0..12).map(|_| health.begin(0).unwrap()).collect();
    for _ in 0..5 {
        fault(&mut health, 0);
    }
    health.outcome(early[0], Outcome::Well, 100, EVEN);
    check_closed_until(&health, 100, 5_000);
    let probe = health.begin(5_000).unwrap();
    health.outcome(probe, Outcome::Well, 5_000, EVEN);
    for begun in &early[1..11] {
        health.outcome(*begun, Outcome::Fault(Fault::Server), 5_100, EVEN);
    }
    assert_eq!(health.admits(5_100), Admission::Yes);
    // How long it wants to be left alone is heeded of everybody.
    health.outcome(early[11], Outcome::Fault(RATE_LIMITED), 5_200, EVEN);
    check_closed_until(&health, 5_200, 7_200);
}

#[test]
fn what_the_provider_wants_is_heeded_at_once_and_not_for_ever() {
    let limited = |ms| {
        Outcome::Fault(Fault::RateLimited {
            retry_after_ms: Some(ms),
        })
    };
    let mut health = health();
    let other = health.begin(0).unwrap();
    call(&mut health, limited(3_000), 0);
    check_closed_until(&health, 2_999, 3_000);
    assert_eq!(health.state(2_999), State::Paused);
    // A shorter word does not end a longer one.
    health.outcome(other, limited(1_000), 100, EVEN);
    check_closed_until(&health, 2_999, 3_000);
    assert_eq!(health.admits(3_000), Admission::Yes);
    call(&mut health, limited(0), 3_000);
    assert_eq!(health.admits(3_000), Admission::Yes);
    call(&mut health, limited(u64::MAX), 3_000);
    check_closed_until(&health, 3_001, 63_000);
    // A probe that is told to wait ends the breaker, and the word holds.
    let mut health = opened();
    let probe = health.begin(5_000).unwrap();
    health.outcome(probe, limited(8_000), 5_000, EVEN);
    check_closed_until(&health, 5_000, 13_000);
    assert_eq!(health.admits(13_000), Admission::Yes);
}

#[test]
fn active_probes_open_and_close_it() {
    let mut health = health();
    health.probed(true, 0, EVEN);
    assert_eq!(health.state(0), State::Closed);
    health.probed(false, 0, EVEN);
    check_closed_until(&health, 0, 5_000);
    // While it is open another one changes nothing; after that it opens for longer.
    health.probed(false, 1_000, EVEN);
    check_closed_until(&health, 1_000, 5_000);
    health.probed(false, 5_000, EVEN);
    check_closed_until(&health, 5_000, 15_000);
    health.probed(true, 6_000, EVEN);
    assert_eq!(health.admits(6_000), Admission::Yes);
}

#[test]
fn the_time_that_it_is_open_is_spread() {
    for (random, until_ms) in [(0, 4_500), (EVEN, 5_000), (u64::MAX, 5_500)] {
        let mut health = health();
        health.probed(false, 0, random);
        check_closed_until(&health, 0, until_ms);
    }
    let most = HealthConfig {
        open_ms: 60_000,
        ..HealthConfig::default()
    };
    let mut health = Health::new(most);
    health.probed(false, 0, u64::MAX);
    check_closed_until(&health, 0, 60_000);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Wait(u64),
    Begin,
    End(usize, Outcome),
    Probed(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop::sample::select(vec![
        Outcome::Well,
        Outcome::Neither,
        Outcome::Fault(Fault::Server),
        Outcome::Fault(Fault::SlowStart),
        Outcome::Fault(RATE_LIMITED),
        Outcome::Fault(OVERLOADED),
    ]);
    prop_oneof![
        3 => (0..30_000_u64).prop_map(Step::Wait),
        6 => Just(Step::Begin),
        6 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::End(which, outcome)),
        1 => any::<bool>().prop_map(Step::Probed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No call goes that is not admitted, no two probes are under way at once, and
    /// nobody is left alone for longer than the config says.
    #[test]
    fn whatever_happens_it_keeps_to_its_word(steps in prop::collection::vec(step(), 1..120), random: u64) {
        let mut health = health();
        let (mut now_ms, mut underway) = (0, Vec::<(Begun, u64)>::new());
        for step in steps {
            match step {
                Step::Wait(ms) => now_ms += ms,
                Step::Begin => {
                    let admission = health.admits(now_ms);
                    let begun = health.begin(now_ms);
                    prop_assert_eq!(begun.is_ok(), admission.is_admitted());
                    if let Ok(begun) = begun {
                        prop_assert_eq!(begun.is_probe, admission == Admission::Probe);
                        underway.push((begun, now_ms));
                    }
                }
                Step::End(which, outcome) => {
                    if !underway.is_empty() {
                        let which = which % underway.len();
                        let (begun, _) = underway.swap_remove(which);
                        health.outcome(begun, outcome, now_ms, random);
                    }
                }
                Step::Probed(well) => health.probed(well, now_ms, random),
            }
            let is_live = |(begun, since): &&(Begun, u64)| {
                begun.is_probe && begun.epoch == health.epoch && now_ms < since + 60_000
            };
            prop_assert!(underway.iter().filter(is_live).count() <= 1);
            if let Admission::No { until_ms } = health.admits(now_ms) {
                prop_assert!(now_ms < until_ms && until_ms <= now_ms + 60_000);
            }
        }
    }
}
