//! What sums decide where several intents are behind one.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::ledger::DiscrepancyKind;
use Do::*;
use Said::Status;
use State::{Accepted, Confirmed, Held, Planned, Quarantined, Reconcile, Sending};

/// Intent 1 was accepted.
const ONE: [Do; 4] = [Use, Plan, Start, Finish(1, Status(200))];

/// Intent 2 of the same hour was not answered, and then refused.
const MAYBE: [Do; 7] = [
    Use,
    Plan,
    Start,
    Wait(MINUTE_MS),
    Start,
    Finish(2, Status(400)),
    Wait(HOUR_MS),
];

#[track_caller]
fn check(parts: &[&[Do]], expected: &[State]) -> Desk {
    let desk = Desk::of_calls(&parts.concat());
    let states: Vec<State> = desk.memory.disk.intents.iter().map(|i| i.state).collect();
    assert_eq!(states, expected, "{parts:?}");
    desk
}

/// Whether it is listed that Stripe's sum differs, and still open.
fn differs(desk: &Desk) -> Option<bool> {
    let mut notes = desk.memory.disk.notes.iter();
    let (_, note) = notes.find(|(key, _)| key.0 == DiscrepancyKind::StripeDiffers)?;
    Some(note.is_open)
}

#[test]
fn nothing_is_decided_while_something_is_on_its_way() {
    let two = [Use, Plan, Start];
    check(
        &[&ONE, &two, &[Wait(HOUR_MS), Sum(2)]],
        &[Accepted, Sending],
    );
    let soon = [Finish(2, Status(200)), Wait(HOUR_MS - 1), Sum(2)];
    check(&[&ONE, &two, &soon], &[Accepted, Accepted]);
    check(
        &[&ONE, &two, &soon, &[Wait(1), Sum(2)]],
        &[Confirmed, Confirmed],
    );
}

#[test]
fn what_waits_to_be_tried_again_may_be_in_the_sum() {
    let retried = [Retry(2), Sum(1)];
    check(&[&ONE, &MAYBE, &retried], &[Accepted, Planned]);
    check(&[&ONE, &MAYBE, &[Sum(1)]], &[Accepted, Held]);
}

#[test]
fn a_reading_is_of_one_attempt() {
    let again = [
        Retry(2),
        Start,
        Finish(2, Status(200)),
        Wait(HOUR_MS),
        Sum(1),
    ];
    let story = [&ONE[..], &MAYBE, &[Sum(1)], &again];
    check(&story, &[Accepted, Accepted]);
    let twice = [Wait(10 * MINUTE_MS), Sum(1)];
    let story = [&story[..], &[&twice]].concat();
    check(&story, &[Quarantined, Accepted]);
    // He found that Stripe has it: then it lacks the other.
    let other = [
        Accept(1),
        Wait(HOUR_MS),
        Sum(1),
        Wait(10 * MINUTE_MS),
        Sum(1),
    ];
    check(&[&story[..], &[&other]].concat(), &[Confirmed, Quarantined]);
}

#[test]
fn what_stripe_lacks_is_listed_until_it_has_it() {
    let lost = [Wait(HOUR_MS), Sum(0)];
    assert_eq!(differs(&check(&[&ONE, &lost], &[Accepted])), None);
    let again = [Wait(10 * MINUTE_MS), Sum(0)];
    let desk = check(&[&ONE, &lost, &again], &[Quarantined]);
    assert_eq!(differs(&desk), Some(true));
    let sent = [
        Retry(1),
        Start,
        Finish(1, Status(200)),
        Wait(HOUR_MS),
        Sum(1),
    ];
    let desk = check(&[&ONE, &lost, &again, &sent], &[Confirmed]);
    assert_eq!(differs(&desk), Some(false));
}

#[test]
fn sums_that_were_late_close_what_was_listed() {
    let two = [Use, Plan, Start, Wait(20 * HOUR_MS), Start];
    let once = [Sum(1), Wait(10 * MINUTE_MS), Sum(1)];
    let desk = check(&[&ONE, &two, &once], &[Accepted, Quarantined]);
    assert_eq!(differs(&desk), Some(true));
    let both = [Wait(HOUR_MS), Sum(2), Wait(10 * MINUTE_MS), Sum(2)];
    let desk = check(&[&ONE, &two, &once, &both], &[Confirmed, Confirmed]);
    assert_eq!(differs(&desk), Some(false));
}

#[test]
fn a_sum_that_changes_is_read_anew() {
    let unknown = [Use, Plan, Start, Wait(20 * HOUR_MS), Start];
    let changing = [
        Sum(0),
        Wait(10 * MINUTE_MS),
        Sum(1),
        Wait(10 * MINUTE_MS),
        Sum(0),
    ];
    check(&[&unknown, &changing], &[Reconcile]);
    let soon = [Sum(1), Wait(10 * MINUTE_MS - 1), Sum(1)];
    check(&[&unknown, &soon], &[Reconcile]);
    check(&[&unknown, &soon, &[Wait(1), Sum(1)]], &[Confirmed]);
}

#[test]
fn what_tells_nothing_is_asked_about_later() {
    let at = |desk: &Desk| desk.intent(1).not_before_ms - desk.now_ms;
    let two = [Use, Plan, Start, Wait(HOUR_MS)];
    let desk = check(&[&ONE, &two, &[Sum(1)]], &[Accepted, Sending]);
    assert_eq!(at(&desk), 10 * MINUTE_MS);
    let mut desk = check(&[&ONE, &[Wait(HOUR_MS)]], &[Accepted]);
    let (key, policy, now_ms) = (calls(), desk.policy.clone(), desk.now_ms);
    let of = (&key.tenant, &key.meter, key.hour);
    desk.memory
        .run(|b| reconcile::unanswered(b, of, &policy, now_ms));
    assert_eq!(at(&desk), 10 * MINUTE_MS);
}

#[test]
fn each_hour_is_asked_about_once() {
    let desk = Desk::of_calls(&[&ONE[..], &[Use, Plan, Start, Finish(2, Status(200))]].concat());
    let ask = |now_ms| {
        let mut memory = Memory {
            disk: desk.memory.disk.clone(),
            ..Memory::default()
        };
        memory.run(|b| reconcile::due(b, &desk.policy, now_ms, 10))
    };
    assert_eq!(ask(desk.now_ms + HOUR_MS - 1), []);
    let key = calls();
    let expected = reconcile::Question {
        tenant: key.tenant,
        meter: key.meter,
        hours: vec![HOUR],
    };
    assert_eq!(ask(desk.now_ms + HOUR_MS), [expected]);
}
