//! What an operator may not say, and what he is told then.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use Do::*;
use Said::{Nothing, Status};

/// An operator's word after a story is refused so, and changes nothing.
#[track_caller]
fn check(story: &[Do], word: Do, expected: &str) {
    let mut desk = Desk::of_calls(story);
    let before = desk.memory.disk.clone();
    let (policy, now_ms, acct) = (desk.policy.clone(), desk.now_ms, "acct");
    let said: Result<Intent, Failed<Crash>> =
        desk.memory.transaction(Fault::None, |b| match word {
            Retry(id) => operator::retry(b, id, acct, &policy, now_ms),
            Cancel(id) => operator::cancel(b, id, "no"),
            Accept(id) => operator::accept(b, id, "it is there"),
            Approve(id) => operator::approve(b, id, acct, &policy, now_ms),
            Reject(id) => operator::reject(b, id, "no", acct, now_ms),
            other => panic!("no word of an operator's: {other:?}"),
        });
    match said {
        Err(Failed::Refused(refused)) => assert_eq!(refused.to_string(), expected),
        other => panic!("{word:?} after {story:?}: {other:?}"),
    }
    assert!(desk.memory.disk.is_same(&before));
}

#[test]
fn what_is_not_there_is_not_known() {
    for word in [Retry(7), Cancel(7), Accept(7)] {
        check(&[Use, Plan], word, "intent 7: there is none");
    }
    for word in [Approve(7), Reject(7)] {
        check(&[Use, Plan], word, "adjustment 7: there is none");
    }
}

#[test]
fn what_stripe_has_or_may_have_is_not_decided() {
    let sent = [Use, Plan, Start];
    let accepted = [&sent[..], &[Finish(1, Status(200))]].concat();
    let unknown = [&sent[..], &[Wait(20 * HOUR_MS), Finish(1, Nothing)]].concat();
    let maybe = [&sent[..], &[Wait(MINUTE_MS), Start, Finish(1, Status(400))]].concat();
    let retried = [&maybe[..], &[Retry(1)]].concat();
    let to_retry = "must be held, quarantined, planned or sending";
    let to_cancel = "must be planned, held or quarantined";
    let may_be_there = "intent 1: Stripe may have it, since an attempt was not answered; retry it, \
                        and the summaries decide after a day";
    check(
        &accepted,
        Retry(1),
        &format!("intent 1: is accepted; {to_retry}"),
    );
    check(
        &unknown,
        Retry(1),
        &format!("intent 1: is reconcile; {to_retry}"),
    );
    check(
        &sent,
        Cancel(1),
        &format!("intent 1: is sending; {to_cancel}"),
    );
    check(
        &unknown,
        Cancel(1),
        &format!("intent 1: is reconcile; {to_cancel}"),
    );
    check(
        &accepted,
        Cancel(1),
        &format!("intent 1: is accepted; {to_cancel}"),
    );
    check(&maybe, Cancel(1), may_be_there);
    check(&retried, Cancel(1), may_be_there);
    let expected = "intent 1: is sending; must be held or quarantined";
    check(&sent, Accept(1), expected);
}

#[test]
fn what_is_decided_stays_so() {
    let cancelled = [Use, Plan, Cancel(1)];
    for (word, allowed) in [
        (Retry(1), "held, quarantined, planned or sending"),
        (Cancel(1), "planned, held or quarantined"),
        (Accept(1), "held or quarantined"),
    ] {
        let expected = format!("intent 1: is cancelled; must be {allowed}");
        check(&cancelled, word, &expected);
    }
    let late = [
        Use,
        Plan,
        Start,
        Finish(1, Status(200)),
        Wait(4 * DAY_MS),
        Use,
        Plan,
    ];
    for (decided, state) in [(Approve(1), "approved"), (Reject(1), "rejected")] {
        let story = [&late[..], &[decided]].concat();
        let expected = format!("adjustment 1: is {state}; must be proposed");
        check(&story, Approve(1), &expected);
        check(&story, Reject(1), &expected);
    }
}

#[test]
fn an_adjustment_waits_for_what_is_open() {
    let late = [
        Use,
        Plan,
        Start,
        Finish(1, Status(200)),
        Wait(4 * DAY_MS),
        Use,
        Plan,
    ];
    let lost = [Sum(0), Wait(10 * MINUTE_MS), Sum(0)];
    let story = [&late[..], &lost].concat();
    let expected = "adjustment 1: intent 1 of the same hour is still open";
    check(&story, Approve(1), expected);
    check(&story, Reject(1), expected);
}

#[test]
fn an_adjustment_of_nothing_is_refused() {
    let mut desk = Desk::new(&["input_tokens"]);
    let told = |witness, tokens| event(1, witness, UsageSource::Reported, tokens);
    desk.play(&[Wait(4 * DAY_MS)]);
    desk.book([told(Witness::Gateway, 3)]);
    desk.play(&[Wait(HOUR_MS), BookWaiting, Plan]);
    // The better witness says that it was nothing, and no plan was made since.
    desk.book([told(Witness::Router, 0)]);
    let (policy, now_ms) = (desk.policy.clone(), desk.now_ms);
    let said = desk.memory.transaction(Fault::None, |b| {
        operator::approve(b, 1, "acct", &policy, now_ms)
    });
    let Err(Failed::<Crash>::Refused(refused)) = said else {
        panic!("{said:?}");
    };
    let expected = "adjustment 1: the hour needs no change any more";
    assert_eq!(refused.to_string(), expected);
}
