//! Each transition of an intent, and that a crash at any call of it, or after its
//! commit, changes nothing: who runs it again is where he would have been.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// Plays a story whose last act is the transition, and looks at intent `id`.
#[track_caller]
fn check(id: i64, (from, to): (State, State), generation: i64, story: &[Do]) {
    let (last, before) = story.split_last().unwrap();
    let mut whole = Desk::of_calls(before);
    assert_eq!(whole.intent(id).state, from, "{story:?}");
    let start = whole.memory.disk.clone();
    whole.play(&[*last]);
    let found = (whole.intent(id).state, whole.intent(id).generation);
    assert_eq!(found, (to, generation), "{story:?}");
    let calls = whole.memory.calls;
    assert!(calls > 0);
    for fault in (0..=calls).map(Fault::At) {
        let mut desk = Desk::of_calls(before);
        desk.fault = fault;
        assert_eq!(desk.act(*last), Err(Crash), "{fault:?}");
        assert!(desk.memory.disk.is_same(&start), "{story:?} {fault:?}");
        desk.fault = Fault::None;
        desk.play(&[*last]);
        assert!(desk.memory.disk.is_same(&whole.memory.disk), "{fault:?}");
    }
    let mut desk = Desk::of_calls(before);
    desk.fault = Fault::Committed;
    assert_eq!(desk.act(*last), Err(Crash));
    assert!(desk.memory.disk.is_same(&whole.memory.disk), "{story:?}");
    desk.fault = Fault::None;
    desk.play(&[*last]);
    // Another reading of the same sum may be noted, and no more.
    let (again, once) = (&desk.memory.disk, &whole.memory.disk);
    assert_eq!(desk.intents(), whole.intents(), "again: {story:?}");
    assert_eq!(again.buckets, once.buckets, "again: {story:?}");
    assert_eq!(again.adjustments, once.adjustments, "again: {story:?}");
    if !matches!(last, Sum(_)) {
        assert!(again.is_same(once), "again: {story:?}");
    }
}

use Do::*;
use Said::{Exists, Never, Nothing, Status};
use State::{
    Accepted, Cancelled, Confirmed, Expired, Held, Planned, Quarantined, Reconcile, Sending,
};

/// One request, its hour planned.
const PLANNED: [Do; 2] = [Use, Plan];

/// After a planned one.
fn story(acts: &[Do]) -> Vec<Do> {
    PLANNED.iter().chain(acts).copied().collect()
}

#[test]
fn an_attempt_is_in_the_ledger_before_it_is_made() {
    check(1, (Planned, Sending), 0, &story(&[Start]));
    let unanswered = [Start, Finish(1, Nothing), Wait(MINUTE_MS), Start];
    check(1, (Sending, Sending), 0, &story(&unanswered));
    // Who died before he knew tries again, too.
    check(
        1,
        (Sending, Sending),
        0,
        &story(&[Start, Wait(MINUTE_MS), Start]),
    );
}

#[test]
fn an_answer_decides() {
    for (said, to) in [
        (Status(200), Accepted),
        (Exists, Accepted),
        (Nothing, Sending),
        (Status(409), Sending),
        (Status(429), Sending),
        (Status(500), Sending),
        (Never(500), Reconcile),
        (Status(400), Held),
        (Never(429), Held),
    ] {
        check(1, (Sending, to), 0, &story(&[Start, Finish(1, said)]));
    }
    check(1, (Sending, Held), 0, &story(&[Start, Hold(1)]));
}

#[test]
fn after_twenty_hours_the_summaries_are_asked() {
    let long = [Start, Wait(20 * HOUR_MS)];
    check(
        1,
        (Sending, Reconcile),
        0,
        &story(&[&long[..], &[Start]].concat()),
    );
    let tried = [Start, Wait(20 * HOUR_MS - 1), Start, Wait(MINUTE_MS)];
    let unanswered = [&tried[..], &[Finish(1, Nothing)]].concat();
    check(1, (Sending, Reconcile), 0, &story(&unanswered));
    // Surely not taken: at once under another name.
    let busy = [Start, Finish(1, Status(429)), Wait(20 * HOUR_MS - 1), Start];
    let busy = [&busy[..], &[Wait(MINUTE_MS), Finish(1, Status(429))]].concat();
    check(1, (Sending, Planned), 1, &story(&busy));
}

#[test]
fn sums_confirm_what_was_accepted() {
    let accepted = [Start, Finish(1, Status(200)), Wait(HOUR_MS)];
    let then = |acts: &[Do]| story(&[&accepted[..], acts].concat());
    check(1, (Accepted, Confirmed), 0, &then(&[Sum(1)]));
    check(1, (Accepted, Accepted), 0, &then(&[Sum(0)]));
    let again = [Sum(0), Wait(10 * MINUTE_MS), Sum(0)];
    check(1, (Accepted, Quarantined), 0, &then(&again));
    check(1, (Confirmed, Accepted), 0, &then(&[Sum(1), Recheck]));
}

/// Intent 1 is to reconcile, and may be asked about.
const UNKNOWN: [Do; 4] = [Start, Wait(20 * HOUR_MS), Start, Wait(HOUR_MS)];

#[test]
fn sums_decide_about_what_was_not_answered() {
    let then = |acts: &[Do]| story(&[&UNKNOWN[..], acts].concat());
    let twice = |sum| [Sum(sum), Wait(10 * MINUTE_MS), Sum(sum)];
    check(1, (Reconcile, Reconcile), 0, &then(&[Sum(1)]));
    check(1, (Reconcile, Confirmed), 0, &then(&twice(1)));
    check(1, (Reconcile, Planned), 1, &then(&twice(0)));
    check(1, (Reconcile, Quarantined), 0, &then(&twice(7)));
    let old = [&[Wait(34 * DAY_MS)], &twice(0)[..]].concat();
    check(1, (Reconcile, Expired), 0, &then(&old));
}

#[test]
fn what_nobody_can_tell_is_the_operators() {
    // Two of one call each, of which Stripe counts one.
    let two = [Start, Finish(1, Status(200)), Use, Plan, Start];
    let asked = [
        Wait(20 * HOUR_MS),
        Start,
        Sum(1),
        Wait(10 * MINUTE_MS),
        Sum(1),
    ];
    let story = story(&[&two[..], &asked].concat());
    check(2, (Reconcile, Quarantined), 0, &story);
    let then = |acts: &[Do]| [&story[..], acts].concat();
    check(2, (Quarantined, Planned), 1, &then(&[Retry(2)]));
    check(2, (Quarantined, Cancelled), 0, &then(&[Cancel(2)]));
    check(2, (Quarantined, Confirmed), 0, &then(&[Accept(2)]));
    // Its sums were late.
    let late = [Sum(2), Wait(10 * MINUTE_MS), Sum(2)];
    check(2, (Quarantined, Confirmed), 0, &then(&late));
}

#[test]
fn what_stripe_refused_is_the_operators() {
    let held = [Start, Finish(1, Status(400))];
    let then = |acts: &[Do]| story(&[&held[..], acts].concat());
    check(1, (Held, Planned), 0, &then(&[Retry(1)]));
    check(
        1,
        (Held, Planned),
        1,
        &then(&[Wait(20 * HOUR_MS), Retry(1)]),
    );
    check(1, (Held, Cancelled), 0, &then(&[Cancel(1)]));
    check(1, (Held, Confirmed), 0, &then(&[Accept(1)]));
    check(1, (Planned, Cancelled), 0, &story(&[Cancel(1)]));
    // An earlier attempt was not answered: after a day the sums have to tell.
    let maybe = [Start, Wait(MINUTE_MS), Start, Finish(1, Status(400))];
    let maybe = [&maybe[..], &[Wait(20 * HOUR_MS), Retry(1)]].concat();
    check(1, (Held, Reconcile), 0, &story(&maybe));
}

#[test]
fn what_is_too_old_expires_unless_stripe_may_have_it() {
    let old = [Wait(34 * DAY_MS), Expire];
    let after = |acts: &[Do]| story(&[acts, &old].concat());
    check(1, (Planned, Expired), 0, &after(&[]));
    check(
        1,
        (Held, Expired),
        0,
        &after(&[Start, Finish(1, Status(400))]),
    );
    check(
        1,
        (Sending, Expired),
        0,
        &after(&[Start, Finish(1, Status(429))]),
    );
    check(1, (Sending, Reconcile), 0, &after(&[Start]));
    let maybe = [
        Start,
        Wait(MINUTE_MS),
        Start,
        Finish(1, Status(400)),
        Retry(1),
    ];
    check(1, (Planned, Reconcile), 0, &after(&maybe));
    check(1, (Held, Reconcile), 0, &after(&maybe[..4]));
}

#[test]
fn an_adjustment_becomes_an_intent() {
    let late = [Start, Finish(1, Status(200)), Wait(4 * DAY_MS), Use, Plan];
    for (word, state) in [(Approve(1), Planned), (Reject(1), Cancelled)] {
        let story = story(&[&late[..], &[word]].concat());
        let (_, before) = story.split_last().unwrap();
        assert_eq!(
            Desk::of_calls(before).intents().len(),
            1,
            "not proposed only"
        );
        let desk = Desk::of_calls(&story);
        assert_eq!(desk.intents()[1], (state, 0, 1));
        check(1, (Accepted, Accepted), 0, &story);
    }
}

#[test]
fn a_use_is_planned_once() {
    let accepted = [Start, Finish(1, Status(200)), Use, Plan];
    check(1, (Accepted, Accepted), 0, &story(&accepted));
    assert_eq!(Desk::of_calls(&story(&accepted)).intents().len(), 2);
    // Not while one is open.
    let open = [Start, Finish(1, Nothing), Use, Plan];
    check(1, (Sending, Sending), 0, &story(&open));
    assert_eq!(Desk::of_calls(&story(&open)).intents().len(), 1);
    let late = [Start, Finish(1, Status(200)), Wait(4 * DAY_MS), Use, Plan];
    check(1, (Accepted, Accepted), 0, &story(&late));
    assert_eq!(Desk::of_calls(&story(&late)).intents().len(), 1);
}
