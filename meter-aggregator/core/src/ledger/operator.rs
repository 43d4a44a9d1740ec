//! What an operator decides: of intents that wait for him, and of adjustments.

use thiserror::Error;

use super::{
    Adjustment, AdjustmentState, Books, Intent,
    plan::{self, Origin},
};
use crate::{hour::Hour, intent::State, policy::Policy};

/// Why an operator's word is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is none of that number.
    #[error("{what} {id}: there is none")]
    Unknown {
        /// `intent` or `adjustment`.
        what: &'static str,
        /// Its number.
        id: i64,
    },
    /// It does not stand where that can be said of it.
    #[error("{what} {id}: is {state}; must be {allowed}")]
    State {
        /// `intent` or `adjustment`.
        what: &'static str,
        /// Its number.
        id: i64,
        /// Where it stands.
        state: &'static str,
        /// Where it would have to stand.
        allowed: &'static str,
    },
    /// Stripe may have it.
    #[error(
        "intent {id}: Stripe may have it, since an attempt was not answered; retry it, and the \
         summaries decide after a day"
    )]
    MayBeThere {
        /// Its number.
        id: i64,
    },
    /// What it was for is no longer so.
    #[error("adjustment {id}: the hour needs no change any more")]
    Nothing {
        /// Its number.
        id: i64,
    },
    /// An intent of the same use is open.
    #[error("adjustment {id}: intent {intent} of the same hour is still open")]
    Open {
        /// The adjustment's number.
        id: i64,
        /// The intent's.
        intent: i64,
    },
}

/// A store's error, or a refusal.
#[derive(Debug)]
pub enum Failed<E> {
    /// The word is not taken; nothing was changed.
    Refused(Refused),
    /// The store failed.
    Store(E),
}

impl<E> From<E> for Failed<E> {
    fn from(error: E) -> Self {
        Self::Store(error)
    }
}

fn intent<B: Books>(books: &mut B, id: i64) -> Result<Intent, Failed<B::Error>> {
    let what = "intent";
    books
        .intent(id)?
        .ok_or(Failed::Refused(Refused::Unknown { what, id }))
}

fn wrong<E>(intent: &Intent, allowed: &'static str) -> Failed<E> {
    Failed::Refused(Refused::State {
        what: "intent",
        id: intent.id,
        state: intent.state.as_str(),
        allowed,
    })
}

/// Sends a held or quarantined intent again: a held one under the same identifier while
/// that is safe, a quarantined one anew, by the operator's word that Stripe does not have
/// it.
///
/// # Errors
/// [`Failed`].
pub fn retry<B: Books>(
    books: &mut B,
    id: i64,
    account: &str,
    policy: &Policy,
    now_ms: i64,
) -> Result<Intent, Failed<B::Error>> {
    let mut intent = intent(books, id)?;
    let ledger = books.identity()?;
    let first = intent.first_attempt_ms.unwrap_or(now_ms);
    let is_safe = now_ms.saturating_sub(first) < policy.same_identifier_ms;
    match intent.state {
        State::Quarantined => plan::begin_anew(&mut intent, account, &ledger),
        State::Held if is_safe => {
            intent.state = State::Planned;
            intent.not_before_ms = 0;
        }
        State::Held if intent.unknown == 0 => plan::begin_anew(&mut intent, account, &ledger),
        State::Held => {
            intent.state = State::Reconcile;
            intent.not_before_ms = 0;
            intent.reading = None;
        }
        // What is on its way is only hurried.
        State::Planned | State::Sending => intent.not_before_ms = 0,
        _ => return Err(wrong(&intent, "held, quarantined, planned or sending")),
    }
    books.update_intent(&intent)?;
    Ok(intent)
}

/// Decides that Stripe is not to have an intent: the use is not billed.
///
/// # Errors
/// [`Failed`].
pub fn cancel<B: Books>(books: &mut B, id: i64, reason: &str) -> Result<Intent, Failed<B::Error>> {
    let mut intent = intent(books, id)?;
    match intent.state {
        State::Quarantined => {}
        State::Planned | State::Held if intent.unknown == 0 => {}
        State::Planned | State::Held => return Err(Failed::Refused(Refused::MayBeThere { id })),
        _ => return Err(wrong(&intent, "planned, held or quarantined")),
    }
    intent.state = State::Cancelled;
    intent.reason = Some(reason.to_owned());
    books.update_intent(&intent)?;
    Ok(intent)
}

/// Takes the operator's word that Stripe has an intent.
///
/// # Errors
/// [`Failed`].
pub fn accept<B: Books>(books: &mut B, id: i64, reason: &str) -> Result<Intent, Failed<B::Error>> {
    let mut intent = intent(books, id)?;
    if !matches!(intent.state, State::Held | State::Quarantined) {
        return Err(wrong(&intent, "held or quarantined"));
    }
    intent.state = State::Confirmed;
    intent.reason = Some(reason.to_owned());
    books.update_intent(&intent)?;
    Ok(intent)
}

/// Bills an adjustment: under its own hour where Stripe still takes that, else forward, in
/// the hour that runs.
///
/// # Errors
/// [`Failed`].
pub fn approve<B: Books>(
    books: &mut B,
    id: i64,
    account: &str,
    policy: &Policy,
    now_ms: i64,
) -> Result<Intent, Failed<B::Error>> {
    let adjustment = proposed(books, id)?;
    let mut intent = insert(books, &adjustment, account, State::Planned, now_ms)?;
    if told_under(&adjustment, policy, now_ms) != adjustment.bucket.hour {
        intent.timestamp_s = now_ms.div_euclid(1_000);
        intent.carried_from = adjustment.source;
        books.update_intent(&intent)?;
    }
    decided(
        books,
        adjustment,
        AdjustmentState::Approved,
        &intent,
        now_ms,
    )?;
    Ok(intent)
}

/// Decides that an adjustment is not billed. It is kept as a cancelled intent.
///
/// # Errors
/// [`Failed`].
pub fn reject<B: Books>(
    books: &mut B,
    id: i64,
    reason: &str,
    account: &str,
    now_ms: i64,
) -> Result<Intent, Failed<B::Error>> {
    let adjustment = proposed(books, id)?;
    let mut intent = insert(books, &adjustment, account, State::Cancelled, now_ms)?;
    intent.reason = Some(reason.to_owned());
    books.update_intent(&intent)?;
    decided(
        books,
        adjustment,
        AdjustmentState::Rejected,
        &intent,
        now_ms,
    )?;
    Ok(intent)
}

fn proposed<B: Books>(books: &mut B, id: i64) -> Result<Adjustment, Failed<B::Error>> {
    let what = "adjustment";
    let adjustment = books
        .adjustment(id)?
        .ok_or(Failed::Refused(Refused::Unknown { what, id }))?;
    if adjustment.state != AdjustmentState::Proposed {
        return Err(Failed::Refused(Refused::State {
            what,
            id,
            state: adjustment.state.as_str(),
            allowed: "proposed",
        }));
    }
    Ok(adjustment)
}

/// Inserts the intent of an adjustment, whose amount is what the bucket lacks now.
fn insert<B: Books>(
    books: &mut B,
    adjustment: &Adjustment,
    account: &str,
    state: State,
    now_ms: i64,
) -> Result<Intent, Failed<B::Error>> {
    let key = &adjustment.bucket;
    let open = books.open_intent(key)?;
    if let Some(open) = open {
        return Err(Failed::Refused(Refused::Open {
            id: adjustment.id,
            intent: open.id,
        }));
    }
    let ledger = books.identity()?;
    let bucket = books.bucket(key)?;
    let origin = Origin {
        account,
        ledger: &ledger,
        now_ms,
    };
    let delta = bucket.total.saturating_sub(bucket.planned);
    if delta == 0 {
        return Err(Failed::Refused(Refused::Nothing { id: adjustment.id }));
    }
    Ok(plan::insert(books, &origin, key, bucket, delta, state)?)
}

fn decided<B: Books>(
    books: &mut B,
    adjustment: Adjustment,
    state: AdjustmentState,
    intent: &Intent,
    now_ms: i64,
) -> Result<(), Failed<B::Error>> {
    books.update_adjustment(&Adjustment {
        delta: intent.delta,
        state,
        intent: Some(intent.id),
        decided_ms: Some(now_ms),
        ..adjustment
    })?;
    Ok(())
}

/// The hour that an adjustment would be told Stripe under, were it approved now.
#[must_use]
pub fn told_under(adjustment: &Adjustment, policy: &Policy, now_ms: i64) -> Hour {
    let now_s = now_ms.div_euclid(1_000);
    if adjustment.bucket.hour.is_over(now_s, policy.expire_s) {
        Hour::of_s(now_s)
    } else {
        adjustment.bucket.hour
    }
}
