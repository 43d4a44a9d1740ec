//! What requests find in a record, and what calls come of it.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use weir_wire::quota::EPOCH_TOLD_MS;

use super::*;

/// One record of a gateway, and what its workers were told.
#[derive(Default)]
struct Gateway {
    record: Option<Vec<u8>>,
    random: u8,
    asking: Option<Asking>,
}

impl Gateway {
    fn take(&mut self, now_ms: u64) -> Taken {
        self.take_as(now_ms, false)
    }

    /// Once more by a request that has waited.
    fn take_again(&mut self, now_ms: u64) -> Taken {
        self.take_as(now_ms, true)
    }

    fn take_as(&mut self, now_ms: u64, is_again: bool) -> Taken {
        self.random += 1;
        let asking = Asking {
            now_ms,
            random: [self.random; 16],
            is_again,
            ..self.asking.unwrap_or(Asking {
                now_ms,
                random: [0; 16],
                timeout_ms: 250,
                is_available: true,
                may_call: true,
                own_call: false,
                is_again: false,
            })
        };
        let (taken, write) = take(self.record.as_deref(), &asking);
        self.record = write.or(self.record.take());
        taken
    }

    fn answer(&mut self, call: &Call, answer: &AcquireResponse, now_ms: u64) -> Vec<Closed> {
        let (closed, write) = answered(self.record.as_deref(), call, answer, now_ms);
        self.record = write.or(self.record.take());
        closed
    }

    fn fail(&mut self, call: &Call) {
        let ((), write) = failed(self.record.as_deref(), call);
        self.record = write.or(self.record.take());
    }

    fn sweep(&mut self, now_ms: u64) -> (Vec<Closed>, Option<u64>) {
        let (swept, write) = sweep(self.record.as_deref(), now_ms);
        self.record = write.or(self.record.take());
        (swept.closed, swept.next_ms)
    }

    /// A gateway that holds a lease of so many, first sent at `now_ms`.
    fn holding(granted: u32, now_ms: u64) -> Self {
        let mut gateway = Self::default();
        let call = gateway.take(now_ms).call.unwrap();
        assert!(gateway.answer(&call, &lease(granted), now_ms).is_empty());
        gateway
    }
}

fn lease(granted: u32) -> AcquireResponse {
    AcquireResponse {
        outcome: Outcome::Granted.into(),
        granted,
        life_ms: 2_000,
        epoch: "e1".to_owned(),
        limits: vec![LimitState {
            requests: 100,
            window_s: 60,
            class: String::new(),
            remaining: 90,
            reset_ms: 62_000,
        }],
        ..Default::default()
    }
}

fn told(outcome: Outcome, life_ms: u32, retry_after_ms: u64) -> AcquireResponse {
    AcquireResponse {
        outcome: outcome.into(),
        life_ms,
        retry_after_ms,
        ..Default::default()
    }
}

fn admits(taken: &Taken) -> bool {
    matches!(taken.step, Step::Admit { .. })
}

#[test]
fn the_first_request_calls_and_others_wait_for_the_same_answer() {
    let mut gateway = Gateway::default();
    let first = gateway.take(1_000);
    let call = first.call.unwrap();
    assert_eq!(
        (first.step, call.wanted, call.life_ms),
        (Step::Wait, 1, 250)
    );
    let second = gateway.take(1_001);
    assert_eq!((second.step, second.call), (Step::Wait, None));
    assert!(!is_settled(gateway.record.as_deref(), 1_002));
    assert!(
        is_settled(gateway.record.as_deref(), 2_000),
        "its worker is gone"
    );
    assert!(gateway.answer(&call, &lease(1), 1_003).is_empty());
    assert!(is_settled(gateway.record.as_deref(), 1_003));
    let taken = gateway.take_again(1_003);
    assert!(admits(&taken));
    // The last one of it: the lease is given back at once, the next is due.
    assert_eq!((taken.closed.len(), taken.closed[0].spent), (1, 1));
    assert_eq!(taken.closed[0].age_ms(1_003), 3 + SLACK_MS);
    assert!(taken.call.is_some_and(|call| call.wanted > 1));
}

#[test]
fn a_lease_is_spent_one_by_one_and_never_beyond_its_end() {
    let mut gateway = Gateway::holding(3, 1_000);
    let taken = gateway.take(1_010);
    // 0.998 of two seconds, less five milliseconds.
    let until = |taken: &Taken| match taken.step {
        Step::Admit { before_ms } => before_ms,
        _ => 0,
    };
    assert_eq!(until(&taken), 1_010 + SLACK_MS);
    assert_eq!(
        (taken.limits[0].remaining, taken.limits[0].reset_at_ms),
        (92, 63_000)
    );
    assert_eq!(until(&gateway.take(2_989)), 2_991);
    let late = gateway.take(2_991);
    assert_eq!(late.step, Step::Wait);
    assert_eq!(
        (late.closed[0].spent, late.closed[0].age_ms(9_000)),
        (2, 1_991)
    );
}

#[test]
fn the_next_lease_is_asked_for_ahead_and_once() {
    let mut gateway = Gateway::holding(8, 1_000);
    let calls: Vec<Option<Call>> = (0..7).map(|n| gateway.take(1_001 + n).call).collect();
    let ahead: Vec<usize> = (0..7).filter(|n| calls[*n].is_some()).collect();
    assert_eq!(ahead, [5], "with two of eight left");
    let call = calls[5].clone().unwrap();
    assert_eq!((call.wanted, call.life_ms), (8, 2_000));
    gateway.answer(&call, &lease(20), 1_009);
    let taken = gateway.take(1_010);
    assert!(admits(&taken) && taken.call.is_none());
    assert_eq!(taken.closed.len(), 1, "the first is spent");
    assert!(admits(&gateway.take(1_011)));
}

#[test]
fn a_tenant_that_rarely_asks_gets_nothing_ahead() {
    let mut gateway = Gateway::default();
    for n in 0..5 {
        let now_ms = 10_000 * (n + 1);
        let call = gateway.take(now_ms).call.unwrap();
        assert_eq!((call.wanted, call.life_ms), (1, 250));
        gateway.answer(&call, &lease(1), now_ms);
        let taken = gateway.take_again(now_ms);
        assert!(admits(&taken) && taken.call.is_none());
    }
}

#[test]
fn a_denial_holds_until_its_time_without_a_write() {
    let mut gateway = Gateway::default();
    let call = gateway.take(1_000).call.unwrap();
    gateway.answer(&call, &told(Outcome::Denied, 1_000, 30_000), 1_004);
    let record = gateway.record.clone();
    let refused = Step::Refuse {
        retry_at_ms: 31_004,
    };
    for now_ms in [1_004, 1_500, 2_003] {
        let taken = gateway.take(now_ms);
        assert_eq!((taken.step, taken.call), (refused, None));
    }
    assert_eq!(gateway.record, record);
    let asks = gateway.take(2_004);
    assert!(asks.step == Step::Wait && asks.call.is_some());
}

#[test]
fn a_denial_does_not_stop_a_lease_that_is_held_nor_is_it_asked_about_again() {
    let mut gateway = Gateway::holding(4, 1_000);
    let ahead = (0..3).find_map(|n| gateway.take(1_001 + n).call).unwrap();
    gateway.answer(&ahead, &told(Outcome::Denied, 1_000, 5_000), 1_005);
    let last = gateway.take(1_006);
    assert!(admits(&last) && last.call.is_none());
    assert!(matches!(gateway.take(1_007).step, Step::Refuse { .. }));
}

#[test]
fn no_limit_and_no_plan_stand_for_a_while() {
    for (outcome, step) in [
        (Outcome::Unlimited, Step::Unlimited),
        (Outcome::UnknownPlan, Step::UnknownPlan),
        (
            Outcome::Fenced,
            Step::Unavailable {
                retry_at_ms: Some(9_000),
            },
        ),
    ] {
        let mut gateway = Gateway::default();
        let call = gateway.take(1_000).call.unwrap();
        gateway.answer(&call, &told(outcome, 500, 8_000), 1_000);
        let taken = gateway.take(1_050);
        assert_eq!((taken.step, taken.call), (step, None));
        assert_eq!(gateway.take(1_499).step, step);
        assert_eq!(gateway.take(2_500).step, Step::Wait);
    }
}

#[test]
fn where_nothing_limits_it_is_asked_again_ahead_and_nobody_waits() {
    let mut gateway = Gateway::default();
    let call = gateway.take(1_000).call.unwrap();
    gateway.answer(&call, &told(Outcome::Unlimited, 2_000, 0), 1_000);
    assert_eq!(gateway.take(2_600).call, None);
    let ahead = gateway.take(2_601);
    let call = ahead.call.unwrap();
    assert_eq!(ahead.step, Step::Unlimited);
    assert_eq!(gateway.take(2_602).call, None, "it is under way");
    gateway.answer(&call, &told(Outcome::Unlimited, 2_000, 0), 2_605);
    assert_eq!(gateway.take(3_500).step, Step::Unlimited);
}

#[test]
fn a_fence_leaves_what_is_leased() {
    let mut gateway = Gateway::holding(4, 1_000);
    let ahead = (0..3).find_map(|n| gateway.take(1_001 + n).call).unwrap();
    gateway.answer(&ahead, &told(Outcome::Fenced, 500, 60_000), 1_005);
    assert!(admits(&gateway.take(1_006)));
    let after = gateway.take(1_007);
    assert_eq!(
        after.step,
        Step::Unavailable {
            retry_at_ms: Some(61_005)
        }
    );
    assert_eq!(after.call, None);
}

#[test]
fn a_call_without_an_answer_is_made_again_by_its_name_until_that_is_stale() {
    let mut gateway = Gateway::default();
    let call = gateway.take(1_000).call.unwrap();
    gateway.fail(&call);
    let again = gateway.take(1_100).call.unwrap();
    assert_eq!((again.id, again.first_sent_ms), (call.id, 1_000));
    gateway.fail(&again);
    let anew = gateway.take(2_000);
    let next = anew.call.unwrap();
    assert_ne!(next.id, call.id);
    assert_eq!((anew.closed[0].id, anew.closed[0].spent), (call.id, 0));
    // A worker that dies with its call: others take over.
    assert_eq!(gateway.take(2_499).call, None);
    assert!(gateway.take(2_500).call.is_some());
}

#[test]
fn an_answer_that_comes_late_is_given_back() {
    let mut gateway = Gateway::default();
    let call = gateway.take(1_000).call.unwrap();
    let closed = gateway.answer(&call, &lease(5), 2_991);
    assert_eq!((closed[0].id, closed[0].spent), (call.id, 0));
    assert!(!admits(&gateway.take(2_991)));
}

/// Two workers asked by the same name, because the first was held up so long that
/// the second took it for gone: that is one lease.
#[test]
fn the_same_lease_is_not_held_twice() {
    let mut gateway = Gateway::holding(100, 1_000);
    let call = Call {
        is_own: false,
        ..gateway.take(2_995).call.unwrap()
    };
    gateway.fail(&call);
    let again = gateway.take(3_100).call.unwrap();
    assert_eq!(again.id, call.id);
    assert!(gateway.answer(&call, &lease(7), 3_101).is_empty());
    assert!(gateway.answer(&again, &lease(7), 3_102).is_empty());
    let admitted = (0..20).filter(|n| admits(&gateway.take(3_103 + n))).count();
    assert_eq!(admitted, 7);
}

/// What was given up is refunded: it must not be spent as well.
#[test]
fn what_was_given_up_is_not_held() {
    let mut gateway = Gateway::default();
    let call = gateway.take(1_000).call.unwrap();
    gateway.fail(&call);
    let anew = gateway.take(2_000);
    assert_eq!((anew.closed[0].id, anew.closed[0].spent), (call.id, 0));
    assert!(gateway.answer(&call, &lease(5), 2_001).is_empty());
    assert_eq!(gateway.take(2_002).step, Step::Wait);
    let next = anew.call.unwrap();
    gateway.answer(&next, &lease(1), 2_003);
    assert!(admits(&gateway.take(2_004)));
}

#[test]
fn an_answer_that_says_nothing_is_none_and_none_holds_for_ever() {
    let nothing = AcquireResponse::default();
    assert!(!is_usable(&nothing));
    assert!(!is_usable(&lease(0)));
    let lifeless = AcquireResponse {
        life_ms: 0,
        ..lease(5)
    };
    assert!(!is_usable(&lifeless) && is_usable(&lease(5)));
    let mut gateway = Gateway::default();
    let call = gateway.take(1_000).call.unwrap();
    let long = AcquireResponse {
        life_ms: u32::MAX,
        ..lease(u32::MAX)
    };
    gateway.answer(&call, &long, 1_000);
    assert!(admits(&gateway.take(1_001)));
    assert!(!admits(&gateway.take(2_991)));
    let mut gateway = Gateway::default();
    let call = gateway.take(1_000).call.unwrap();
    gateway.answer(&call, &told(Outcome::Denied, u32::MAX, u64::MAX), 1_000);
    let refused = Step::Refuse {
        retry_at_ms: 1_000 + RETRY_MAX_MS,
    };
    assert_eq!(gateway.take(1_001).step, refused);
    assert_eq!(gateway.take(11_000).step, Step::Wait);
}

#[test]
fn what_nobody_asks_for_is_swept() {
    let mut gateway = Gateway::holding(3, 1_000);
    assert!(admits(&gateway.take(1_001)));
    assert_eq!(gateway.sweep(2_000), (vec![], Some(2_991)));
    let (closed, next) = gateway.sweep(2_991);
    assert_eq!((closed[0].spent, next), (1, None));
    let mut lost = Gateway::default();
    let call = lost.take(1_000).call.unwrap();
    lost.fail(&call);
    assert_eq!(lost.sweep(1_100), (vec![], Some(1_250)));
    assert_eq!(lost.sweep(1_250).0[0].id, call.id);
}

#[test]
fn while_the_service_is_away_nobody_waits_and_one_asks() {
    let away = Asking {
        now_ms: 0,
        random: [0; 16],
        timeout_ms: 250,
        is_available: false,
        may_call: false,
        own_call: false,
        is_again: false,
    };
    let mut gateway = Gateway::holding(2, 1_000);
    gateway.asking = Some(away);
    assert!(admits(&gateway.take(1_001)), "what is leased is spent");
    assert!(admits(&gateway.take(1_002)));
    let taken = gateway.take(1_003);
    assert_eq!(
        (taken.step, taken.call),
        (Step::Unavailable { retry_at_ms: None }, None)
    );
    gateway.asking = Some(Asking {
        may_call: true,
        ..away
    });
    let probing = gateway.take(1_004);
    assert_eq!(probing.step, Step::Unavailable { retry_at_ms: None });
    assert!(probing.call.is_some());
}

#[test]
fn on_kong_each_waiting_request_calls_for_itself() {
    let mut gateway = Gateway {
        asking: Some(Asking {
            now_ms: 0,
            random: [0; 16],
            timeout_ms: 250,
            is_available: true,
            may_call: true,
            own_call: true,
            is_again: false,
        }),
        ..Gateway::default()
    };
    let calls: Vec<Call> = (0..3)
        .map(|n| gateway.take(1_000 + n).call.unwrap())
        .collect();
    let closed: usize = calls
        .iter()
        .map(|call| gateway.answer(call, &lease(4), 1_010).len())
        .sum();
    assert_eq!(closed, 1, "the third is given back");
    let admitted = (0..20).filter(|n| admits(&gateway.take(1_011 + n))).count();
    assert_eq!(admitted, 8);
}

#[test]
fn the_epoch_is_told_while_it_matters() {
    let mut gateway = Gateway::holding(1, 1_000);
    let taken = gateway.take(1_001);
    assert_eq!(taken.call.unwrap().epoch, "e1");
    assert_eq!(gateway.take(1_000 + EPOCH_TOLD_MS).call.unwrap().epoch, "");
}
