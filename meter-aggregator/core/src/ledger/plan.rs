//! Planning: where more or less was used than Stripe is to have, an intent for the
//! difference; where the hour is final, an adjustment that an operator approves.

use weir_wire::ids::TenantId;

use super::{Adjustment, AdjustmentKind, AdjustmentState, Books, Bucket, BucketKey, Intent};
use crate::{
    hour::Hour,
    intent::{self, State},
    meter::Meter,
    policy::Policy,
};

/// What can be billed at all.
pub trait Billable {
    /// The Stripe account, as the operator names it.
    fn account(&self) -> &str;

    /// Whether the tenant has a customer, and the meter a counterpart. What has none
    /// waits until it has.
    fn is_billable(&self, tenant: &TenantId, meter: &Meter) -> bool;
}

/// Plans the hours that are over, or all there are where an operator closes the
/// books. Says how many intents that made.
///
/// # Errors
/// Where the store fails.
pub fn plan<B: Books>(
    books: &mut B,
    billable: &impl Billable,
    policy: &Policy,
    now_ms: i64,
    all: bool,
) -> Result<usize, B::Error> {
    let now_s = now_ms.div_euclid(1_000);
    let upto = if all {
        Hour(i64::MAX)
    } else {
        last_over(policy, now_s)
    };
    let ledger = books.identity()?;
    withdraw(books, now_ms)?;
    let mut planned = 0_usize;
    for (key, bucket) in books.unplanned(upto)? {
        if !billable.is_billable(&key.tenant, &key.meter) {
            continue;
        }
        // What would expire at once is final, too.
        if key.hour.is_over(now_s, policy.final_s.min(policy.expire_s)) {
            propose(books, &key, bucket, now_ms)?;
            continue;
        }
        let origin = Origin {
            account: billable.account(),
            ledger: &ledger,
            now_ms,
        };
        let delta = bucket.total.saturating_sub(bucket.planned);
        insert(books, &origin, &key, bucket, delta, State::Planned)?;
        planned = planned.saturating_add(1);
    }
    Ok(planned)
}

/// The last hour whose grace is over.
fn last_over(policy: &Policy, now_s: i64) -> Hour {
    let running = Hour::of_s(now_s.saturating_sub(policy.grace_s));
    Hour(running.0.saturating_sub(1))
}

/// Takes back proposals of hours that need no change any more.
fn withdraw<B: Books>(books: &mut B, now_ms: i64) -> Result<(), B::Error> {
    for proposal in books.proposals()? {
        let bucket = books.bucket(&proposal.bucket)?;
        if bucket.total == bucket.planned {
            books.update_adjustment(&Adjustment {
                state: AdjustmentState::Withdrawn,
                decided_ms: Some(now_ms),
                ..proposal
            })?;
        }
    }
    Ok(())
}

/// Lists what a final hour is to change by.
fn propose<B: Books>(
    books: &mut B,
    key: &BucketKey,
    bucket: Bucket,
    now_ms: i64,
) -> Result<(), B::Error> {
    let delta = bucket.total.saturating_sub(bucket.planned);
    match books.proposal(key)? {
        Some(known) if known.delta == delta => Ok(()),
        Some(known) => books.update_adjustment(&Adjustment { delta, ..known }),
        None => {
            books.insert_adjustment(&Adjustment {
                id: 0,
                bucket: key.clone(),
                delta,
                kind: AdjustmentKind::Late,
                source: None,
                state: AdjustmentState::Proposed,
                intent: None,
                proposed_ms: now_ms,
                decided_ms: None,
            })?;
            Ok(())
        }
    }
}

/// What an intent's identifier is made of beside its bucket.
pub(super) struct Origin<'a> {
    pub(super) account: &'a str,
    pub(super) ledger: &'a str,
    pub(super) now_ms: i64,
}

/// Inserts a bucket's next intent and plans its amount. Gives the intent.
pub(super) fn insert<B: Books>(
    books: &mut B,
    origin: &Origin<'_>,
    key: &BucketKey,
    bucket: Bucket,
    delta: i64,
    state: State,
) -> Result<Intent, B::Error> {
    let revision = bucket.revision.saturating_add(1);
    let now_s = origin.now_ms.div_euclid(1_000);
    let mut intent = Intent {
        id: 0,
        bucket: key.clone(),
        revision,
        generation: 0,
        delta,
        identifier: String::new(),
        timestamp_s: key.hour.clamp_s(now_s),
        state,
        first_attempt_ms: None,
        last_attempt_ms: None,
        answers: 0,
        unknown: 0,
        not_before_ms: 0,
        reading: None,
        reason: None,
        carried_from: None,
    };
    name(&mut intent, origin.account, origin.ledger);
    intent.id = books.insert_intent(&intent)?;
    let planned = bucket.planned.saturating_add(delta);
    books.set_planned(key, planned, revision)?;
    Ok(intent)
}

/// Gives an intent the identifier of its generation.
pub(super) fn name(intent: &mut Intent, account: &str, ledger: &str) {
    intent.identifier = intent::identifier(&intent::Key {
        account,
        ledger,
        tenant: intent.bucket.tenant.as_str(),
        meter: &intent.bucket.meter,
        hour: intent.bucket.hour,
        revision: intent.revision,
        generation: intent.generation,
    });
}

/// Begins an intent anew: under another identifier, as if it had never been sent. Only
/// for what Stripe surely does not have.
pub(super) fn begin_anew(intent: &mut Intent, account: &str, ledger: &str) {
    intent.generation = intent.generation.saturating_add(1);
    name(intent, account, ledger);
    intent.state = State::Planned;
    intent.first_attempt_ms = None;
    intent.last_attempt_ms = None;
    intent.answers = 0;
    intent.unknown = 0;
    intent.not_before_ms = 0;
    intent.reading = None;
}
