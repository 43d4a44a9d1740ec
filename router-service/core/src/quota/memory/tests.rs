//! What is granted when, one step at a time and in any order.

use std::num::NonZeroU32;

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn limit(requests: u32, window_s: u32) -> Limit {
    Limit {
        requests: NonZeroU32::new(requests).unwrap(),
        window_s: NonZeroU32::new(window_s).unwrap(),
        class: String::new(),
    }
}

fn ask(id: u8, wanted: u32, limits: &[Limit]) -> Ask {
    Ask {
        tenant: "acme".to_owned(),
        limits: limits.to_vec(),
        id: [id; 16],
        wanted,
        life_ms: 2_000,
        gateways: 1,
        epoch: String::new(),
        closing: Vec::new(),
    }
}

fn store() -> Memory {
    Memory::new("e1".to_owned())
}

fn granted(answer: &Answer) -> u32 {
    match answer.granted {
        Granted::Lease { requests, .. } => requests,
        _ => 0,
    }
}

#[test]
fn a_lease_is_half_of_what_is_free_and_the_last_ones_come_singly() {
    let mut store = store();
    let limits = [limit(10, 60)];
    let taken: Vec<u32> = (1..=8)
        .map(|id| granted(&store.acquire(&ask(id, 100, &limits), 1_000)))
        .collect();
    assert_eq!(taken, [5, 2, 1, 1, 1, 0, 0, 0]);
    let denied = store.acquire(&ask(9, 1, &limits), 1_000);
    // 63 s after the epoch is a slot's end.
    assert_eq!(denied.granted, Granted::Denied { free_in_ms: 62_000 });
    assert_eq!(
        (denied.limits[0].remaining, denied.limits[0].reset_ms),
        (0, 62_000)
    );
    assert_eq!(granted(&store.acquire(&ask(10, 1, &limits), 62_999)), 0);
    assert_eq!(granted(&store.acquire(&ask(11, 1, &limits), 63_000)), 1);
}

#[test]
fn the_same_id_is_one_lease() {
    let mut store = store();
    let limits = [limit(100, 60)];
    let first = store.acquire(&ask(1, 10, &limits), 0);
    let again = store.acquire(&ask(1, 10, &limits), 500);
    assert_eq!((granted(&first), &again.granted), (10, &first.granted));
    assert_eq!(again.limits[0].remaining, 90);
}

#[test]
fn what_is_given_back_may_be_taken_again_and_only_once() {
    let mut store = store();
    let limits = [limit(100, 60)];
    store.acquire(&ask(1, 40, &limits), 0);
    let mut next = ask(2, 1, &limits);
    next.closing = vec![
        Closing {
            id: [1; 16],
            spent: 10,
            age_ms: 100
        };
        2
    ];
    assert_eq!(store.acquire(&next, 200).limits[0].remaining, 89);
    // The ten count until their own end, not the lease's.
    let later = store.acquire(&ask(3, 1, &limits), 60_250);
    assert_eq!(later.limits[0].remaining, 98);
}

#[test]
fn what_was_given_up_before_it_was_asked_for_is_not_granted() {
    let mut store = store();
    let limits = [limit(100, 60)];
    store.acquire(&ask(1, 1, &limits), 0);
    store.close(
        "acme",
        &Closing {
            id: [2; 16],
            spent: 0,
            age_ms: 0,
        },
        0,
    );
    let late = store.acquire(&ask(2, 10, &limits), 10);
    assert_eq!((granted(&late), late.limits[0].remaining), (0, 99));
}

#[test]
fn all_limits_hold_at_once_and_classes_are_apart() {
    let mut store = store();
    let chat = Limit {
        class: "chat".to_owned(),
        ..limit(3, 60)
    };
    let both = [limit(100, 1), chat];
    let taken: u32 = (0..9)
        .map(|id| granted(&store.acquire(&ask(id, 1, &both), 0)))
        .sum();
    assert_eq!(taken, 3);
    let all = store.acquire(&ask(20, 1, &[limit(100, 1)]), 0);
    assert_eq!(all.limits[0].remaining, 96);
}

#[test]
fn a_lowered_limit_waits_until_enough_is_over() {
    let mut store = store();
    for id in 0..10 {
        store.acquire(&ask(id, 1, &[limit(10, 60)]), u64::from(id) * 1_000);
    }
    let lowered = store.acquire(&ask(90, 1, &[limit(4, 60)]), 10_000);
    let Granted::Denied { free_in_ms } = lowered.granted else {
        panic!("{lowered:?}");
    };
    // Seven of the ten must have gone.
    assert_eq!(free_in_ms, 6_000 + 62_000 - 10_000);
}

#[test]
fn a_gateway_that_knew_another_store_fences_the_tenant() {
    let mut store = store();
    let limits = [limit(10, 60)];
    let mut stranger = ask(1, 1, &limits);
    stranger.epoch = "e0".to_owned();
    let fenced = Granted::Fenced {
        until_in_ms: 62_000,
    };
    assert_eq!(store.acquire(&stranger, 5_000).granted, fenced);
    let others = store.acquire(&ask(2, 1, &limits), 66_999);
    assert_eq!(others.granted, Granted::Fenced { until_in_ms: 1 });
    assert_eq!(granted(&store.acquire(&ask(3, 1, &limits), 67_000)), 1);
    // Longer windows go on.
    stranger.tenant = "other".to_owned();
    stranger.limits = vec![limit(10, 121)];
    assert_eq!(granted(&store.acquire(&stranger, 5_000)), 1);
}

#[test]
fn after_a_loss_all_are_fenced() {
    let mut store = Memory::new("e2".to_owned());
    store.lost(5_000);
    store.lost(6_000);
    let fenced = store.acquire(&ask(1, 1, &[limit(10, 60)]), 66_999);
    assert_eq!(fenced.granted, Granted::Fenced { until_in_ms: 1 });
    assert_eq!(
        granted(&store.acquire(&ask(1, 1, &[limit(10, 60)]), 67_000)),
        1
    );
}

#[test]
fn what_is_over_takes_no_memory() {
    let mut store = store();
    for n in 0..1_000_u32 {
        let mut one = ask(0, 1, &[limit(10, 1)]);
        one.tenant = format!("t{n}");
        one.id[..4].copy_from_slice(&n.to_le_bytes());
        store.acquire(&one, u64::from(n) * 100);
    }
    assert!(store.tenants.len() < 500, "{}", store.tenants.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked and given back when, no more is ever used in a window
    /// than the limit, and an idle store admits all of it again.
    #[test]
    fn no_window_holds_more_than_the_limit(
        requests in 1u32..30,
        window_s in prop_oneof![Just(1u32), Just(7), Just(60)],
        steps in prop::collection::vec((0u64..2_500, 1u32..12, 0u32..12, 0u64..2_500), 1..200),
    ) {
        let limits = [limit(requests, window_s)];
        let window_ms = u64::from(window_s) * 1_000;
        let (mut now, mut store, mut used) = (0, store(), Vec::<(u64, u32)>::new());
        let mut open: Vec<(LeaseId, u64, u64, u32)> = Vec::new();
        for (n, (gap, wanted, spend, age)) in steps.into_iter().enumerate() {
            now += gap;
            let mut one = ask(0, wanted, &limits);
            one.id[..8].copy_from_slice(&(n as u64).to_le_bytes());
            for (id, t, life, granted) in open.drain(..) {
                // Spent at the last moment at which it could be.
                let spent = spend.min(granted);
                let age = age.min(life).min(now - t);
                used.push((t + age, spent));
                one.closing.push(Closing { id, spent, age_ms: age });
            }
            if let Granted::Lease { requests, life_ms } = store.acquire(&one, now).granted {
                open.push((one.id, now, life_ms, requests));
            }
        }
        for (start, _) in &used {
            let inside = used.iter().filter(|(t, _)| t >= start && *t < start + window_ms);
            let sum: u32 = inside.map(|(_, n)| n).sum();
            prop_assert!(sum <= requests, "{sum} of {requests} from {start}");
        }
        let idle = store.acquire(&ask(255, 1, &limits), now + window_ms + 3_000);
        prop_assert_eq!(idle.limits[0].remaining, u64::from(requests) - 1);
    }
}
