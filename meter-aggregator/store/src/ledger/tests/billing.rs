//! From buckets to intents and Stripe.

use weir_meter_core::ledger::{DiscrepancyKind, expire, operator, reconcile};

use super::*;

#[test]
fn an_hour_is_planned_when_over_or_when_asked() {
    let mut f = Fixture::new();
    f.book(&[router(1, 10)]);
    assert_eq!(f.plan(NOW_S, false), 0);
    assert_eq!(f.plan(NOW_S + 3_600 + 300, false), 3);
    assert_eq!(f.plan(NOW_S + 99_999, true), 0);
    assert_eq!(f.ledger.open_intents().unwrap(), 3);
    let sent = f.send(&answered(200), NOW_MS);
    assert_eq!(sent.len(), 3);
    let hour = Hour::of_s(NOW_S);
    assert!(sent.iter().all(|i| i.stamp_hour() == hour));
    assert_eq!(f.input(), (10, 10));
    // What is whole is not listed any more, but in the hours that are asked for.
    assert_eq!(f.ledger.summary(hour.0 + 1).unwrap(), []);
    assert_eq!(f.ledger.summary(hour.0).unwrap().len(), 3);
}

#[test]
fn later_use_is_the_next_revision_by_its_difference() {
    let mut f = Fixture::new();
    f.book(&[event(1, Witness::Router, UsageSource::Estimated, 10)]);
    f.plan(NOW_S, true);
    let first = f.send(&answered(200), 0);
    f.book(&[router(1, 4), router(2, 1)]);
    f.plan(NOW_S, true);
    let second = f.send(&answered(200), 0);
    let of = |sent: &[Intent]| {
        let intent = sent.iter().find(|i| i.bucket == bucket("input_tokens"));
        let intent = intent.unwrap();
        (intent.delta, intent.identifier.clone())
    };
    assert_eq!((of(&first).0, of(&second).0), (10, -5));
    assert_ne!(of(&first).1, of(&second).1);
    assert_eq!(f.input(), (5, 5));
}

#[test]
fn an_attempt_without_an_answer_keeps_its_identifier() {
    let mut f = Fixture::new();
    f.book(&[router(1, 10)]);
    f.plan(NOW_S, true);
    let first = f.start(NOW_MS);
    // The process dies here: the attempts are in the ledger already.
    f.reopen();
    assert_eq!(f.start(NOW_MS + 500), []);
    f.ledger.hurry(f.acme()).unwrap();
    let again = f.start(NOW_MS + 500);
    let names = |sent: &[Intent]| {
        sent.iter()
            .map(|i| i.identifier.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&again), names(&first));
    assert!(
        again
            .iter()
            .all(|i| i.first_attempt_ms == Some(NOW_MS) && i.unknown == 2)
    );
    let state = f.finish(&again[0], &Attempt::Unanswered, NOW_MS + 600);
    assert_eq!(state, Some(State::Sending));
    assert_eq!(f.start(NOW_MS + 1_000), []);
    assert_eq!(f.start(NOW_MS + 1_600).len(), 3);
    f.check();
}

#[test]
fn what_is_held_blocks_its_hour_and_is_counted() {
    let mut f = Fixture::new();
    f.book(&[router(1, 10)]);
    f.plan(NOW_S, true);
    f.send(&answered(400), 0);
    f.book(&[router(2, 5)]);
    assert_eq!(f.plan(NOW_S, true), 0);
    assert_eq!(f.input(), (15, 0));
    let counts = f.ledger.intent_counts().unwrap();
    let held = Count {
        state: "held".into(),
        count: 3,
    };
    assert_eq!(counts, [held]);
    let stuck = f.ledger.stuck().unwrap();
    assert_eq!((stuck.len(), &*stuck[0].state), (3, "held"));
    assert_eq!(stuck[0].reason.as_deref(), Some("400: "));
    // The operator waives one: then its line is whole as far as it was planned.
    f.transaction(|change| operator::cancel(change, stuck[0].id, "a gift"))
        .unwrap();
    f.check();
    assert_eq!(f.plan(NOW_S, true), 1);
}

#[test]
fn a_tenant_without_a_customer_waits_and_a_new_ledger_gives_new_names() {
    let plan = |billable: &Tenants| {
        let mut f = Fixture::new();
        f.book(&[router(1, 10)]);
        let planned = f.plan_for(billable, NOW_S, true);
        (planned, f.send(&answered(200), 0))
    };
    assert_eq!(plan(&Tenants(&[])), (0, vec![]));
    let ((_, one), (_, two)) = (plan(&TENANTS), plan(&TENANTS));
    assert_eq!((one.len(), two.len()), (3, 3));
    for intent in one {
        assert!(two.iter().all(|i| i.identifier != intent.identifier));
    }
}

#[test]
fn stripes_sums_confirm_or_differ() {
    let mut f = Fixture::new();
    f.book(&[router(1, 10)]);
    f.plan(NOW_S, true);
    f.send(&answered(200), NOW_MS);
    let policy = f.policy.clone();
    let ask = |f: &mut Fixture, sum: i64, now_ms: i64| {
        let key = bucket("input_tokens");
        let of = (&key.tenant, &key.meter, key.hour);
        f.transaction(|change| reconcile::answer(change, of, sum, "a", &policy, now_ms))
            .unwrap();
        f.check();
        let filter = IntentFilter {
            limit: 10,
            ..IntentFilter::default()
        };
        let found = f.ledger.intents(&filter).unwrap();
        let intent = found.into_iter().find(|i| i.meter == "input_tokens");
        intent.unwrap().state
    };
    let due = |f: &mut Fixture, now_ms: i64| {
        f.transaction(|change| reconcile::due(change, &policy, now_ms, 100))
            .unwrap()
            .len()
    };
    let hour_ms = 3_600_000;
    assert_eq!(due(&mut f, NOW_MS + hour_ms - 1), 0);
    assert_eq!(due(&mut f, NOW_MS + hour_ms), 3);
    assert_eq!(ask(&mut f, 3, NOW_MS + hour_ms), "accepted");
    assert_eq!(ask(&mut f, 3, NOW_MS + hour_ms + 600_000), "accepted");
    let wanted = DiscrepancyFilter {
        kind: Some(DiscrepancyKind::StripeDiffers),
        limit: 10,
        ..DiscrepancyFilter::default()
    };
    let found = f.ledger.discrepancies(&wanted).unwrap();
    assert_eq!(
        (found.len(), found[0].meter.as_deref()),
        (1, Some("input_tokens"))
    );
    assert_eq!(ask(&mut f, 10, NOW_MS + 3 * hour_ms), "confirmed");
    assert_eq!(f.ledger.discrepancies(&wanted).unwrap(), []);
    let sent = (NOW_MS, NOW_MS + 1);
    let rechecked = f.transaction(|change| reconcile::recheck(change, &bucket("input_tokens").meter, sent));
    assert_eq!(rechecked.unwrap(), 1);
    f.check();
    assert_eq!(f.input(), (10, 10));
}

#[test]
fn what_is_too_old_is_carried_forward_by_an_adjustment() {
    let mut f = Fixture::new();
    f.book(&[router(1, 10)]);
    f.plan(NOW_S, true);
    let later_ms = NOW_MS + 35 * 86_400_000;
    let policy = f.policy.clone();
    let expired = f.transaction(|change| expire::expire(change, &policy, later_ms, 100));
    assert_eq!(expired.unwrap(), 3);
    f.check();
    assert_eq!(f.ledger.proposed().unwrap(), 3);
    let filter = AdjustmentFilter {
        limit: 10,
        ..AdjustmentFilter::default()
    };
    let proposed = f.ledger.adjustments(&filter).unwrap();
    for adjustment in &proposed {
        f.transaction(|change| operator::approve(change, adjustment.id, "a", &policy, later_ms))
            .unwrap();
        f.check();
    }
    let sent = f.send(&answered(200), later_ms);
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|i| i.timestamp_s * 1_000 == later_ms));
    assert_eq!(f.input(), (10, 10));
    let waiting = AdjustmentFilter {
        state: Some(weir_meter_core::ledger::AdjustmentState::Proposed),
        ..filter
    };
    assert_eq!(f.ledger.adjustments(&waiting).unwrap(), []);
}

#[test]
fn a_final_hour_changes_by_an_operators_word() {
    let mut f = Fixture::new();
    f.book(&[router(1, 10)]);
    let later_s = NOW_S + 80 * 3_600;
    assert_eq!(f.plan(later_s, false), 0);
    assert_eq!(f.ledger.proposed().unwrap(), 3);
    assert_eq!(f.plan(later_s, false), 0);
    assert_eq!(f.ledger.proposed().unwrap(), 3);
    f.transaction(|change| operator::reject(change, 1, "too late", "a", later_s * 1_000))
        .unwrap();
    f.check();
    assert_eq!(f.ledger.summary(Hour::of_s(later_s).0).unwrap().len(), 2);
}
