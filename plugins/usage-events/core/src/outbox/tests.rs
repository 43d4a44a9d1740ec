//! What leaves, when, and what stays.

use proptest::prelude::*;
use prost::Message as _;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_wire::proto::usage::{PublishRequest, UsageEvent};

use super::*;

fn event(n: usize) -> Vec<u8> {
    UsageEvent {
        event_id: format!("{n}"),
        ..UsageEvent::default()
    }
    .encode_to_vec()
}

fn id(event: &[u8]) -> usize {
    UsageEvent::decode(event).unwrap().event_id.parse().unwrap()
}

fn ids(body: &[u8]) -> Vec<usize> {
    let request = PublishRequest::decode(body).unwrap();
    let ids = request.events.into_iter().map(|e| e.event_id.parse());
    ids.collect::<Result<_, _>>().unwrap()
}

fn outbox(events: usize) -> Outbox {
    let mut outbox = Outbox::new(1_000_000, 1_000_000);
    for n in 0..events {
        outbox.push(event(n)).unwrap();
    }
    outbox
}

#[test]
fn a_batch_is_sent_until_it_is_acknowledged() {
    for failure in [None, Some(401), Some(404), Some(429), Some(503)] {
        let mut outbox = outbox(1);
        assert_eq!(ids(&outbox.next_batch(0).unwrap()), [0]);
        outbox.push(event(1)).unwrap();
        assert_eq!(outbox.next_batch(0), None, "one is under way");
        assert_eq!(outbox.settle(failure, 0), Settled::default());
        assert_eq!(outbox.next_batch(99), None, "the pause is not over");
        assert_eq!(ids(&outbox.next_batch(100).unwrap()), [0, 1]);
        assert_eq!(outbox.settle(Some(202), 100).acknowledged, 2);
        assert!(outbox.is_empty());
        assert_eq!(outbox.waiting_bytes(), 0);
        assert_eq!(outbox.next_batch(200), None);
    }
}

#[test]
fn the_pause_doubles_up_to_its_bound() {
    let mut outbox = outbox(1);
    let mut now = 0;
    for pause in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
        outbox.next_batch(now).unwrap();
        outbox.settle(None, now);
        assert!(!outbox.is_full());
        assert_eq!(outbox.next_batch(now + pause - 1), None, "{pause}");
        now += pause;
    }
}

#[test]
fn the_bound_is_on_bytes_and_gives_the_event_back() {
    let mut outbox = Outbox::new(event(1).len() * 2, 1_000);
    outbox.push(event(1)).unwrap();
    outbox.push(event(2)).unwrap();
    assert_eq!(outbox.push(event(3)), Err(event(3)));
    outbox.next_batch(0).unwrap();
    outbox.settle(Some(200), 0);
    outbox.push(event(3)).unwrap();
    assert_eq!(outbox.waiting().collect::<Vec<_>>(), [event(3)]);
}

#[test]
fn what_is_not_under_way_can_be_taken_over() {
    let mut old = outbox(2);
    old.next_batch(0).unwrap();
    old.push(event(2)).unwrap();
    assert_eq!(old.take_unsent(), [event(2)]);
    assert_eq!(old.waiting_bytes(), event(0).len() * 2);
    assert_eq!(old.settle(Some(400), 0), Settled::default());
    assert_eq!(old.take_unsent(), [event(0), event(1)]);
    assert!(old.is_empty() && old.waiting_bytes() == 0);
    old.push(event(3)).unwrap();
    assert_eq!(ids(&old.next_batch(0).unwrap()), [3]);
}

#[test]
fn a_batch_is_bounded_in_events_and_in_bytes() {
    let mut many = outbox(BATCH_EVENTS - 1);
    assert!(!many.is_full());
    many.push(event(0)).unwrap();
    many.push(event(0)).unwrap();
    assert!(many.is_full());
    assert_eq!(ids(&many.next_batch(0).unwrap()).len(), BATCH_EVENTS);
    assert!(!many.is_full(), "one is under way");

    let mut large = Outbox::new(1_000_000, event(1).len() * 2 + 2);
    for n in [1, 2, 3] {
        assert!(!large.is_full());
        large.push(event(n)).unwrap();
    }
    assert!(large.is_full());
    assert_eq!(ids(&large.next_batch(0).unwrap()), [1, 2]);
    // One that is larger than a batch goes alone.
    let mut huge = Outbox::new(1_000_000, 1);
    huge.push(event(1)).unwrap();
    assert_eq!(ids(&huge.next_batch(0).unwrap()), [1]);
}

/// Sends all to an aggregator that answers 400 to batches that hold one of `bad`,
/// and 413 to those of more than `most` events. Says who was taken and who was
/// given back, and how many batches it took.
fn deliver(outbox: &mut Outbox, bad: &[usize], most: usize) -> (Vec<usize>, Vec<usize>, usize) {
    let (mut taken, mut refused, mut batches) = (Vec::new(), Vec::new(), 0);
    while let Some(batch) = outbox.next_batch(0) {
        batches += 1;
        let ids = ids(&batch);
        let status = match ids.len() > most {
            true => 413,
            false if ids.iter().any(|id| bad.contains(id)) => 400,
            false => 202,
        };
        let settled = outbox.settle(Some(status), 0);
        refused.extend(settled.refused.as_deref().map(id));
        if status == 202 {
            assert_eq!(settled.acknowledged, ids.len());
            taken.extend(ids);
        }
    }
    (taken, refused, batches)
}

#[test]
fn one_event_that_is_refused_costs_no_other() {
    for bad in [0, 1, 255, 256, 511] {
        let mut outbox = outbox(512);
        let (taken, refused, batches) = deliver(&mut outbox, &[bad], usize::MAX);
        assert_eq!(refused, [bad]);
        assert_eq!(taken.len(), 511);
        assert!(batches < 64, "{batches} batches");
    }
    // A batch that is too large is halved.
    let (taken, refused, _) = deliver(&mut outbox(512), &[], 100);
    assert_eq!((taken.len(), refused.len()), (512, 0));
    let (taken, refused, _) = deliver(&mut outbox(5), &[], 0);
    assert_eq!((taken.len(), refused.len()), (0, 5));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_leaves_once_and_in_order(
        steps in prop::collection::vec(0u8..5, 1..200),
        bad in prop::collection::vec(0usize..100, 0..5),
    ) {
        let mut outbox = Outbox::new(1_000_000, 50);
        let (mut pushed, mut left, mut now) = (0usize, Vec::new(), 0u64);
        for step in steps {
            now += 20_000;
            let sent = outbox.next_batch(now).map(|b| ids(&b));
            match (step, sent) {
                (0 | 1, _) => { outbox.push(event(pushed)).unwrap(); pushed += 1; }
                (_, None) => {}
                (2, Some(_)) => { outbox.settle(Some(503), now); }
                (3, Some(_)) => { outbox.settle(None, now); }
                (_, Some(sent)) => {
                    let refuse = sent.iter().any(|id| bad.contains(id));
                    let settled = outbox.settle(Some(if refuse { 400 } else { 200 }), now);
                    left.extend(&sent[..settled.acknowledged]);
                    left.extend(settled.refused.as_deref().map(id));
                }
            }
            // What a step above left under way fails.
            outbox.settle(None, 0);
        }
        now += 20_000;
        while let Some(batch) = outbox.next_batch(now) {
            let sent = ids(&batch);
            let refuse = sent.iter().any(|id| bad.contains(id));
            let settled = outbox.settle(Some(if refuse { 400 } else { 200 }), now);
            left.extend(&sent[..settled.acknowledged]);
            left.extend(settled.refused.as_deref().map(id));
        }
        prop_assert_eq!(left, (0..pushed).collect::<Vec<_>>());
        prop_assert_eq!(outbox.waiting_bytes(), 0);
    }
}
