//! What is final, what an operator makes of it, and what is carried forward.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::ledger::{AdjustmentKind, AdjustmentState, RequestKey};
use AdjustmentKind::{Carry, Late};
use AdjustmentState::{Approved, Proposed, Rejected, Withdrawn};
use Do::*;
use Said::Status;
use State::{Accepted, Cancelled, Expired, Planned};

/// One call was accepted, and its hour became final.
const FINAL: [Do; 5] = [Use, Plan, Start, Finish(1, Status(200)), Wait(72 * HOUR_MS)];

/// Adjustments and intents that a story leaves.
#[track_caller]
fn check(
    parts: &[&[Do]],
    adjustments: &[(AdjustmentKind, AdjustmentState, i64)],
    intents: &[(State, i64)],
) -> Desk {
    let desk = Desk::of_calls(&parts.concat());
    let found = desk.memory.disk.adjustments.iter();
    let found: Vec<_> = found.map(|a| (a.kind, a.state, a.delta)).collect();
    assert_eq!(found, adjustments, "{parts:?}");
    let found = desk.memory.disk.intents.iter();
    let found: Vec<_> = found.map(|i| (i.state, i.delta)).collect();
    assert_eq!(found, intents, "{parts:?}");
    desk
}

#[test]
fn an_hour_is_final_after_three_days() {
    let amended = [Wait(72 * HOUR_MS - 300_000 - 1), Use, Plan];
    check(
        &[&FINAL[..4], &amended],
        &[],
        &[(Accepted, 1), (Planned, 1)],
    );
    check(
        &[&FINAL, &[Use, Plan]],
        &[(Late, Proposed, 1)],
        &[(Accepted, 1)],
    );
}

#[test]
fn a_proposal_follows_what_is_used() {
    let more = [Use, Plan, Use, Plan, Plan];
    check(&[&FINAL, &more], &[(Late, Proposed, 2)], &[(Accepted, 1)]);
    // What was used since it was proposed is approved with it.
    let word = [Use, Plan, Use, Approve(1)];
    let desk = check(
        &[&FINAL, &word],
        &[(Late, Approved, 2)],
        &[(Accepted, 1), (Planned, 2)],
    );
    assert_eq!(desk.memory.disk.adjustments[0].intent, Some(2));
    assert_eq!(desk.intent(2).stamp_hour(), HOUR, "under its own hour");
    assert_eq!(desk.intent(2).carried_from, None);
}

#[test]
fn what_is_no_longer_so_is_withdrawn() {
    let mut desk = Desk::new(&["input_tokens"]);
    desk.play(&FINAL);
    desk.book([event(9, Witness::Gateway, UsageSource::Estimated, 3)]);
    desk.play(&[Wait(HOUR_MS), BookWaiting, Plan]);
    assert_eq!(desk.memory.disk.adjustments[0].state, Proposed);
    desk.book([event(9, Witness::Router, UsageSource::Reported, 0)]);
    desk.play(&[Plan]);
    assert_eq!(desk.memory.disk.adjustments[0].state, Withdrawn);
    assert_eq!(desk.intents().len(), 1);
}

#[test]
fn what_is_rejected_is_not_billed_and_not_proposed_again() {
    let word = [Use, Plan, Reject(1), Plan];
    let cancelled = [(Accepted, 1), (Cancelled, 1)];
    let desk = check(&[&FINAL, &word], &[(Late, Rejected, 1)], &cancelled);
    assert_eq!(desk.intent(2).reason.as_deref(), Some("no"));
    let both = [(Late, Rejected, 1), (Late, Proposed, 1)];
    check(&[&FINAL, &word, &[Use, Plan]], &both, &cancelled);
}

#[test]
fn what_is_cancelled_is_not_planned_again() {
    check(&[&[Use, Plan, Cancel(1), Plan]], &[], &[(Cancelled, 1)]);
    let more = [Use, Plan, Cancel(1), Use, Plan];
    check(&[&more], &[], &[(Cancelled, 1), (Planned, 1)]);
}

/// One call was refused until it was too old.
const OLD: [Do; 6] = [
    Use,
    Plan,
    Start,
    Finish(1, Status(400)),
    Wait(34 * DAY_MS),
    Expire,
];

#[test]
fn what_is_too_old_is_carried_forward_by_name() {
    check(&[&OLD, &[Plan]], &[(Carry, Proposed, 1)], &[(Expired, 1)]);
    let desk = check(
        &[&OLD, &[Approve(1)]],
        &[(Carry, Approved, 1)],
        &[(Expired, 1), (Planned, 1)],
    );
    let carried = desk.intent(2);
    assert_eq!(carried.carried_from, Some(1));
    assert_eq!(
        carried.timestamp_s * 1_000,
        desk.now_ms,
        "in the hour that runs"
    );
    assert_eq!(carried.bucket.hour, HOUR, "of the hour that it was used in");
    assert_ne!(carried.identifier, desk.intent(1).identifier);
    let rejected = [(Carry, Rejected, 1)];
    check(
        &[&OLD, &[Reject(1), Plan]],
        &rejected,
        &[(Expired, 1), (Cancelled, 1)],
    );
}

#[test]
fn what_was_carried_may_grow_too_old_again() {
    let again = [Approve(1), Wait(35 * DAY_MS), Expire, Approve(2)];
    let carries = [(Carry, Approved, 1), (Carry, Approved, 1)];
    let intents = [(Expired, 1), (Expired, 1), (Planned, 1)];
    let desk = check(&[&OLD, &again], &carries, &intents);
    assert_eq!(desk.intent(3).carried_from, Some(2));
}

#[test]
fn what_is_proposed_already_is_carried_with_it() {
    let late = [
        Use,
        Plan,
        Wait(4 * DAY_MS),
        Use,
        Plan,
        Wait(30 * DAY_MS),
        Expire,
    ];
    // Nothing is proposed while an intent is open.
    check(&[&late[..5]], &[], &[(Planned, 1)]);
    check(&[&late, &[Plan]], &[(Carry, Proposed, 2)], &[(Expired, 1)]);
}

#[test]
fn what_comes_later_than_stripe_takes_is_told_under_the_hour_that_runs() {
    let desk = Desk::of_calls(&[Wait(34 * DAY_MS + HOUR_MS), Use, Plan]);
    let proposal = desk.memory.disk.adjustments[0].clone();
    let running = Hour::of_ms(desk.now_ms);
    let told = |now_ms| operator::told_under(&proposal, &desk.policy, now_ms);
    assert_eq!(told(desk.now_ms), running);
    assert_eq!(told(desk.now_ms - DAY_MS), HOUR);
    let desk = Desk::of_calls(&[Wait(34 * DAY_MS + HOUR_MS), Use, Plan, Approve(1)]);
    assert_eq!(desk.intent(1).stamp_hour(), running);
}

#[test]
fn hours_are_planned_when_they_are_over_or_closed() {
    let plan = |now_s: i64, all| {
        let mut desk = Desk::of_calls(&[Use]);
        let billable = Customers(&desk.tariff);
        let (policy, now_ms) = (desk.policy.clone(), now_s * 1_000);
        let planned = desk
            .memory
            .run(|b| plan::plan(b, &billable, &policy, now_ms, all));
        let stamps: Vec<i64> = desk
            .memory
            .disk
            .intents
            .iter()
            .map(|i| i.timestamp_s)
            .collect();
        assert_eq!(planned, stamps.len());
        stamps
    };
    assert_eq!(plan(HOUR.last_s() + 300, false), [0; 0]);
    assert_eq!(plan(HOUR.last_s() + 301, false), [HOUR.last_s()]);
    assert_eq!(plan(HOUR.start_s() + 7, true), [HOUR.start_s() + 7]);
    // An id may be five minutes ahead.
    assert_eq!(plan(HOUR.start_s() - 7, true), [HOUR.start_s()]);
}

#[test]
fn who_has_no_customer_waits() {
    let mut desk = Desk::new(&["api_calls"]);
    let nobody = |event: UsageEvent| UsageEvent {
        tenant: "nobody".into(),
        ..event
    };
    let told = [Witness::Gateway, Witness::Router];
    desk.book(told.map(|w| nobody(event(1, w, UsageSource::Reported, 1))));
    desk.play(&[Plan]);
    assert!(desk.intents().is_empty());
    let key = desk.memory.disk.requests.keys().next().unwrap();
    let expected = RequestKey {
        id: request(1),
        tenant: TenantId::new("nobody").unwrap(),
    };
    assert_eq!(*key, expected);
}
