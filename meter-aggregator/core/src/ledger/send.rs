//! Sending: each attempt is in the ledger before it is made, and what came of it after.

use std::collections::BTreeSet;

use weir_wire::ids::TenantId;

use super::{Books, Intent, plan};
use crate::{
    intent::{Attempt, Next, State, after},
    meter::Meter,
    policy::Policy,
};

/// One call at a time is under way for each of these: Stripe's rule for a customer and
/// a meter.
pub type Lane = (TenantId, Meter);

/// The shortest pause between two attempts at an intent, milliseconds.
const PAUSE_MIN_MS: i64 = 1_000;

/// The longest pause between two attempts at an intent, milliseconds.
pub const PAUSE_MAX_MS: i64 = 300_000;

/// How long after its beginning an attempt may be made, milliseconds.
const LATE_MS: i64 = 600_000;

/// How many due intents are looked at for each that is wanted: those of lanes that are
/// busy are passed over.
const LOOK: usize = 16;

/// Begins attempts at intents that are due, `limit` at the most, and no two of a lane,
/// nor one of a lane that is `busy`. Once this is committed they must be made, or count
/// as made without an answer.
///
/// # Errors
/// Where the store fails.
pub fn start<B: Books>(
    books: &mut B,
    busy: &BTreeSet<Lane>,
    limit: usize,
    policy: &Policy,
    now_ms: i64,
) -> Result<Vec<Intent>, B::Error> {
    let look = limit.saturating_add(busy.len()).saturating_mul(LOOK);
    let mut taken: BTreeSet<Lane> = BTreeSet::new();
    let mut started = Vec::new();
    for mut intent in books.sendable(now_ms, look)? {
        if started.len() >= limit {
            break;
        }
        let lane = (intent.bucket.tenant.clone(), intent.bucket.meter.clone());
        if busy.contains(&lane) || taken.contains(&lane) {
            continue;
        }
        if is_used_up(&intent, policy, now_ms) {
            // Between two attempts the time ran out, such as over a long stop.
            give_up(&mut intent, now_ms);
            books.update_intent(&intent)?;
            continue;
        }
        taken.insert(lane);
        intent.state = State::Sending;
        intent.first_attempt_ms = intent.first_attempt_ms.or(Some(now_ms));
        intent.last_attempt_ms = Some(now_ms);
        // What was read before says nothing of this attempt.
        intent.reading = None;
        intent.unknown = intent.unknown.saturating_add(1);
        // Whoever dies now tries it again after this.
        intent.not_before_ms = now_ms.saturating_add(pause_ms(&intent, now_ms));
        books.update_intent(&intent)?;
        started.push(intent);
    }
    Ok(started)
}

/// Writes down what came of an attempt that [`start`] began, once: nothing where that is
/// written already, or the intent was begun again or is not being sent any more.
///
/// # Errors
/// Where the store fails.
pub fn finish<B: Books>(
    books: &mut B,
    started: &Intent,
    attempt: &Attempt,
    account: &str,
    policy: &Policy,
    now_ms: i64,
) -> Result<Option<State>, B::Error> {
    // An answer that counted twice would make what may be there surely not there.
    let is_this = |i: &Intent| {
        i.state == State::Sending
            && (i.generation, i.answers) == (started.generation, started.answers)
            && i.last_attempt_ms == started.last_attempt_ms
    };
    let Some(mut intent) = books.intent(started.id)?.filter(is_this) else {
        return Ok(None);
    };
    let mut pause = pause_ms(&intent, now_ms);
    if let Attempt::Answered { retry_after_ms, .. } = attempt {
        intent.answers = intent.answers.saturating_add(1);
        pause = pause.max(retry_after_ms.unwrap_or(0).min(PAUSE_MAX_MS));
    }
    intent.not_before_ms = now_ms.saturating_add(pause);
    match after(attempt) {
        Next::Accepted => {
            intent.state = State::Accepted;
            intent.not_before_ms = 0;
            intent.reason = None;
        }
        Next::Unknown => {}
        Next::NotYet => intent.unknown = intent.unknown.saturating_sub(1),
        Next::Reconcile => give_up(&mut intent, now_ms),
        Next::Held(reason) => {
            intent.unknown = intent.unknown.saturating_sub(1);
            intent.state = State::Held;
            intent.reason = Some(reason);
        }
    }
    if intent.state == State::Sending && is_used_up(&intent, policy, now_ms) {
        if intent.unknown == 0 {
            let ledger = books.identity()?;
            plan::begin_anew(&mut intent, account, &ledger);
            intent.not_before_ms = now_ms.saturating_add(pause);
        } else {
            give_up(&mut intent, now_ms);
        }
    }
    books.update_intent(&intent)?;
    Ok(Some(intent.state))
}

/// Holds an intent that can't be sent, such as of a tenant whose customer was taken out
/// of the configuration.
///
/// # Errors
/// Where the store fails.
pub fn hold<B: Books>(books: &mut B, id: i64, reason: &str) -> Result<(), B::Error> {
    if let Some(mut intent) = books.intent(id)?.filter(|i| i.state == State::Sending) {
        intent.unknown = intent.unknown.saturating_sub(1);
        intent.state = State::Held;
        intent.reason = Some(reason.to_owned());
        books.update_intent(&intent)?;
    }
    Ok(())
}

/// Whether an attempt that was begun is not to be made any more: whoever was suspended
/// between both could else send an identifier that Stripe forgot meanwhile. It counts as
/// made without an answer.
#[must_use]
pub fn is_late(started: &Intent, now_ms: i64) -> bool {
    started
        .last_attempt_ms
        .is_some_and(|at| now_ms.saturating_sub(at) >= LATE_MS)
}

/// Whether the identifier is not safe to be sent again.
fn is_used_up(intent: &Intent, policy: &Policy, now_ms: i64) -> bool {
    intent
        .first_attempt_ms
        .is_some_and(|first| now_ms.saturating_sub(first) >= policy.same_identifier_ms)
}

/// The summaries have to say.
fn give_up(intent: &mut Intent, now_ms: i64) {
    intent.state = State::Reconcile;
    intent.not_before_ms = now_ms;
    intent.reading = None;
}

/// As long as it was tried already, from a second to five minutes.
fn pause_ms(intent: &Intent, now_ms: i64) -> i64 {
    let since = now_ms.saturating_sub(intent.first_attempt_ms.unwrap_or(now_ms));
    since.clamp(PAUSE_MIN_MS, PAUSE_MAX_MS)
}
