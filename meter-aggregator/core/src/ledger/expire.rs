//! Expiry: Stripe takes nothing older than 35 days. What has not come to it by then is
//! carried forward, as an adjustment that names its source.

use super::{Adjustment, AdjustmentKind, AdjustmentState, Books, Intent};
use crate::{intent::State, policy::Policy};

/// Expires intents that are too old to be sent under their own time and that Stripe
/// surely does not have; what it may have is left to the summaries. Says how many.
///
/// # Errors
/// Where the store fails.
pub fn expire<B: Books>(
    books: &mut B,
    policy: &Policy,
    now_ms: i64,
    limit: usize,
) -> Result<usize, B::Error> {
    let before_s = now_ms.div_euclid(1_000).saturating_sub(policy.expire_s);
    let mut expired = 0_usize;
    for mut intent in books.aged(before_s, limit)? {
        if intent.unknown == 0 {
            give_back(books, intent, now_ms)?;
            expired = expired.saturating_add(1);
        } else {
            // Held ones, too: they would stand before all others for ever.
            intent.state = State::Reconcile;
            intent.not_before_ms = now_ms;
            intent.reading = None;
            books.update_intent(&intent)?;
        }
    }
    Ok(expired)
}

/// Ends an intent whose amount Stripe does not have, and proposes to tell it so anew.
pub(super) fn give_back<B: Books>(
    books: &mut B,
    mut intent: Intent,
    now_ms: i64,
) -> Result<(), B::Error> {
    intent.state = State::Expired;
    intent.reading = None;
    books.update_intent(&intent)?;
    let key = &intent.bucket;
    let bucket = books.bucket(key)?;
    let planned = bucket.planned.saturating_sub(intent.delta);
    books.set_planned(key, planned, bucket.revision)?;
    let delta = bucket.total.saturating_sub(planned);
    let proposed = Adjustment {
        id: 0,
        bucket: key.clone(),
        delta,
        kind: AdjustmentKind::Carry,
        source: Some(intent.id),
        state: AdjustmentState::Proposed,
        intent: None,
        proposed_ms: now_ms,
        decided_ms: None,
    };
    match books.proposal(key)? {
        Some(known) => books.update_adjustment(&Adjustment {
            id: known.id,
            ..proposed
        }),
        None if delta == 0 => Ok(()),
        None => books.insert_adjustment(&proposed).map(|_| ()),
    }
}
