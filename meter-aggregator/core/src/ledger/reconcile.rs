//! Reconciling: what Stripe's own sums say of what it was sent.
//!
//! Stripe has sums of each hour, customer and meter. They are believed an hour after
//! the last attempt. One that is what the accepted intents come to confirms them. Any
//! other is read again; two equal readings ten minutes apart decide, where exactly one
//! set of the undecided intents explains the sum: those in it are confirmed, an
//! unanswered one that is not is sent anew, an accepted one that is not is the
//! operator's. Where none explains it, or several do, what was not answered is the
//! operator's, too. Of what was accepted one after the other is his where several explain
//! it; where none does, Stripe counts what is not ours, which is listed.

use std::collections::BTreeMap;

use weir_wire::ids::TenantId;

use super::{Books, BucketKey, Discrepancy, DiscrepancyKind, Intent, Reading, expire, plan};
use crate::{hour::Hour, intent::State, meter::Meter, policy::Policy};

/// What is to be asked: the sums of a tenant on a meter in these hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Whose.
    pub tenant: TenantId,
    /// On which meter.
    pub meter: Meter,
    /// In which hours, the earliest first.
    pub hours: Vec<Hour>,
}

/// The most undecided intents of an hour of which every set is looked for.
const UNDECIDED_MAX: usize = 12;

/// The most of which it is looked for one or two that are not there.
const LOOK_MAX: usize = 150;

/// How long after a sum that decides nothing it is read again, milliseconds.
const AGAIN_MS: i64 = 3_600_000;

/// The oldest time of a meter event that Stripe takes, seconds: 35 days.
const STRIPE_PAST_S: i64 = 35 * 86_400;

/// The most hours of one question.
const HOURS_MAX: usize = 100;

/// What is to be asked at `now_ms`, of `limit` intents at the most.
///
/// # Errors
/// Where the store fails.
pub fn due<B: Books>(
    books: &mut B,
    policy: &Policy,
    now_ms: i64,
    limit: usize,
) -> Result<Vec<Question>, B::Error> {
    let tried_ms = now_ms.saturating_sub(policy.settle_ms);
    let mut asked: BTreeMap<(TenantId, Meter), Vec<Hour>> = BTreeMap::new();
    for intent in books.unsettled(tried_ms, now_ms, limit)? {
        let hour = intent.stamp_hour();
        let hours = asked
            .entry((intent.bucket.tenant, intent.bucket.meter))
            .or_default();
        if !hours.contains(&hour) && hours.len() < HOURS_MAX {
            hours.push(hour);
        }
    }
    let questions = asked.into_iter().map(|((tenant, meter), mut hours)| {
        hours.sort_unstable();
        Question {
            tenant,
            meter,
            hours,
        }
    });
    Ok(questions.collect())
}

/// Takes Stripe's sum of one hour, read at `now_ms`.
///
/// # Errors
/// Where the store fails.
pub fn answer<B: Books>(
    books: &mut B,
    (tenant, meter, hour): (&TenantId, &Meter, Hour),
    sum: i64,
    account: &str,
    policy: &Policy,
    now_ms: i64,
) -> Result<(), B::Error> {
    let intents = books.intents_at(tenant, meter, hour)?;
    let settled_ms = now_ms.saturating_sub(policy.settle_ms);
    let is_moving = |i: &Intent| match i.state {
        // What was refused after an attempt without an answer, and is tried again, too.
        State::Planned | State::Sending => i.unknown > 0,
        State::Accepted | State::Reconcile => i.last_attempt_ms.is_some_and(|at| at > settled_ms),
        _ => false,
    };
    if intents.iter().any(is_moving) {
        return put_off(books, intents, policy, now_ms);
    }
    let sum_of = |intents: &[&Intent]| {
        intents
            .iter()
            .fold(0, |a: i64, i| a.saturating_add(i.delta))
    };
    let of = |is: fn(&Intent) -> bool| intents.iter().filter(|i| is(i)).collect::<Vec<_>>();
    let confirmed = sum_of(&of(|i| i.state == State::Confirmed));
    let undecided = of(is_undecided);
    let accepted = of(|i| i.state == State::Accepted);
    let left = sum.saturating_sub(confirmed);
    if undecided.len() == accepted.len() && left == sum_of(&accepted) {
        for intent in undecided {
            let mut intent = intent.clone();
            confirm(&mut intent);
            books.update_intent(&intent)?;
        }
        let bucket = bucket(tenant, meter, hour);
        let kind = DiscrepancyKind::StripeDiffers;
        return books.resolve(kind, tenant, None, Some(&bucket), now_ms);
    }
    if !is_read_twice(&undecided, sum, policy, now_ms) {
        return read_once(books, &undecided, sum, policy, now_ms);
    }
    let deltas: Vec<i64> = undecided.iter().map(|i| i.delta).collect();
    let is_accepted = |i: &&Intent| i.state == State::Accepted;
    let sets = match undecided.len() <= UNDECIDED_MAX || undecided.iter().all(is_accepted) {
        true => Sets::of(&deltas, left),
        // Not all sets were seen: too little to send anything again.
        false => Sets::None,
    };
    let lacks = |(n, i): (usize, &&Intent)| i.state == State::Accepted && sets.has(n) != Some(true);
    if !matches!(sets, Sets::One(_)) || undecided.iter().enumerate().any(lacks) {
        let found = differs(&intents, bucket(tenant, meter, hour), sum);
        books.note(&[found], now_ms)?;
    } else if (0..undecided.len()).all(|n| sets.has(n) == Some(true)) {
        let kind = DiscrepancyKind::StripeDiffers;
        let bucket = bucket(tenant, meter, hour);
        books.resolve(kind, tenant, None, Some(&bucket), now_ms)?;
    }
    let undecided: Vec<Intent> = undecided.into_iter().cloned().collect();
    if sets == Sets::Several && undecided.iter().all(|i| i.state == State::Accepted) {
        return set_aside(books, undecided, now_ms);
    }
    for (n, intent) in undecided.into_iter().enumerate() {
        decide(books, intent, sets.has(n), account, policy, now_ms)?;
    }
    Ok(())
}

/// Has an hour asked about again later, because Stripe gave no sum, so that those behind
/// it get their turn.
///
/// # Errors
/// Where the store fails.
pub fn unanswered<B: Books>(
    books: &mut B,
    (tenant, meter, hour): (&TenantId, &Meter, Hour),
    policy: &Policy,
    now_ms: i64,
) -> Result<(), B::Error> {
    let intents = books.intents_at(tenant, meter, hour)?;
    put_off(books, intents, policy, now_ms)
}

fn put_off<B: Books>(
    books: &mut B,
    intents: Vec<Intent>,
    policy: &Policy,
    now_ms: i64,
) -> Result<(), B::Error> {
    let until_ms = now_ms.saturating_add(policy.reread_ms);
    let is_asked = |i: &Intent| {
        matches!(i.state, State::Accepted | State::Reconcile) && i.not_before_ms < until_ms
    };
    for mut intent in intents.into_iter().filter(is_asked) {
        intent.not_before_ms = until_ms;
        books.update_intent(&intent)?;
    }
    Ok(())
}

fn bucket(tenant: &TenantId, meter: &Meter, hour: Hour) -> BucketKey {
    BucketKey {
        hour,
        tenant: tenant.clone(),
        meter: meter.clone(),
    }
}

/// That Stripe's sum is not what it took.
fn differs(intents: &[Intent], bucket: BucketKey, sum: i64) -> Discrepancy {
    let sum_of = |is: fn(&Intent) -> bool| {
        let chosen = intents.iter().filter(|i| is(i));
        chosen.fold(0, |a: i64, i| a.saturating_add(i.delta))
    };
    Discrepancy {
        kind: DiscrepancyKind::StripeDiffers,
        tenant: bucket.tenant.clone(),
        request: None,
        detail: format!(
            "Stripe counts {sum}; {} are confirmed, {} were accepted, {} are undecided",
            sum_of(|i| i.state == State::Confirmed),
            sum_of(|i| i.state == State::Accepted),
            sum_of(is_undecided)
        ),
        bucket: Some(bucket),
        event: None,
    }
}

/// Whether Stripe may have it, and has not been found to.
fn is_undecided(intent: &Intent) -> bool {
    match intent.state {
        State::Accepted | State::Reconcile | State::Quarantined => true,
        State::Held => intent.unknown > 0,
        _ => false,
    }
}

/// Whether the same sum stands there from long enough ago.
fn is_read_twice(undecided: &[&Intent], sum: i64, policy: &Policy, now_ms: i64) -> bool {
    undecided.iter().all(|i| {
        i.reading.is_some_and(|reading| {
            reading.sum == sum && now_ms.saturating_sub(reading.at_ms) >= policy.reread_ms
        })
    })
}

/// Notes a sum, to be read once more.
fn read_once<B: Books>(
    books: &mut B,
    undecided: &[&Intent],
    sum: i64,
    policy: &Policy,
    now_ms: i64,
) -> Result<(), B::Error> {
    for intent in undecided {
        let mut intent = (*intent).clone();
        let known = intent.reading.filter(|reading| reading.sum == sum);
        intent.reading = known.or(Some(Reading { sum, at_ms: now_ms }));
        intent.not_before_ms = now_ms.saturating_add(policy.reread_ms);
        books.update_intent(&intent)?;
    }
    Ok(())
}

fn confirm(intent: &mut Intent) {
    intent.state = State::Confirmed;
    intent.reading = None;
    intent.not_before_ms = 0;
    intent.reason = None;
}

fn quarantine(intent: &mut Intent, reason: &str) {
    intent.state = State::Quarantined;
    intent.reason = Some(reason.to_owned());
    intent.reading = None;
}

/// What follows for one intent from two equal readings: whether Stripe has it, or
/// that they do not tell.
fn decide<B: Books>(
    books: &mut B,
    mut intent: Intent,
    is_there: Option<bool>,
    account: &str,
    policy: &Policy,
    now_ms: i64,
) -> Result<(), B::Error> {
    intent.not_before_ms = now_ms.saturating_add(AGAIN_MS);
    match (intent.state, is_there) {
        (_, Some(true)) => confirm(&mut intent),
        (State::Reconcile, Some(false)) => {
            intent.reading = None;
            if intent
                .stamp_hour()
                .is_over(now_ms.div_euclid(1_000), policy.expire_s)
            {
                return expire::give_back(books, intent, now_ms);
            }
            let ledger = books.identity()?;
            plan::begin_anew(&mut intent, account, &ledger);
        }
        (State::Reconcile, None) => {
            quarantine(&mut intent, "Stripe's sum does not tell whether it has it");
        }
        // No second intent of the same use may be open.
        (State::Accepted, Some(false)) if books.open_intent(&intent.bucket)?.is_none() => {
            quarantine(&mut intent, "Stripe took it, and does not count it");
        }
        // What is held or quarantined stays so; an accepted one is asked about again.
        _ => {}
    }
    books.update_intent(&intent)
}

/// Of accepted intents of which Stripe counts some, and it can't be told which, the
/// operator gets one after the other: until he said what is with it, the others are asked
/// about again.
fn set_aside<B: Books>(books: &mut B, accepted: Vec<Intent>, now_ms: i64) -> Result<(), B::Error> {
    let mut is_aside = false;
    for mut intent in accepted {
        intent.not_before_ms = now_ms.saturating_add(AGAIN_MS);
        if !is_aside && books.open_intent(&intent.bucket)?.is_none() {
            let reason = "Stripe does not count all that it took, maybe not this";
            quarantine(&mut intent, reason);
            is_aside = true;
        }
        books.update_intent(&intent)?;
    }
    Ok(())
}

/// Which sets of the undecided intents explain a sum.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sets {
    /// None: Stripe counts what this ledger did not send, or so many are undecided that
    /// not all sets are looked for.
    None,
    /// This one alone: for each intent whether it is in it.
    One(Vec<bool>),
    /// More than one.
    Several,
}

impl Sets {
    fn of(deltas: &[i64], sum: i64) -> Self {
        let mut found = Self::None;
        let mut take = |is_in: &dyn Fn(usize) -> bool| {
            let chosen = deltas.iter().enumerate().filter(|(n, _)| is_in(*n));
            if chosen.fold(0_i64, |a, (_, delta)| a.saturating_add(*delta)) == sum {
                found = match found {
                    Self::None => Self::One((0..deltas.len()).map(is_in).collect()),
                    Self::One(_) | Self::Several => Self::Several,
                };
            }
        };
        if deltas.len() <= UNDECIDED_MAX {
            for set in 0..1_u32 << deltas.len() {
                take(&|n| set & (1 << n) != 0);
            }
        } else if deltas.len() <= LOOK_MAX {
            // Of many it is looked for one that is not there, or two.
            take(&|_| true);
            for first in 0..deltas.len() {
                for second in first..deltas.len() {
                    take(&|n| n != first && n != second);
                }
            }
        }
        found
    }

    /// Whether that intent is in the one set; `None` where there is no such set.
    fn has(&self, n: usize) -> Option<bool> {
        match self {
            Self::One(set) => set.get(n).copied(),
            Self::None | Self::Several => None,
        }
    }
}

/// Has what was sent to a meter in `[from_ms, to_ms)`, and confirmed, asked about again,
/// because Stripe says that it could not use all of it. Says how many intents. In a ledger
/// with shards it is run in each of them; once more than needed does no harm.
///
/// # Errors
/// Where the store fails.
pub fn recheck<B: Books>(
    books: &mut B,
    meter: &Meter,
    (from_ms, to_ms): (i64, i64),
) -> Result<usize, B::Error> {
    let found = sent(books, meter, (from_ms, to_ms))?;
    ask_again(books, &found)
}

/// As [`recheck`], of that tenant alone.
///
/// # Errors
/// Where the store fails.
pub fn recheck_of<B: Books>(
    books: &mut B,
    tenant: &TenantId,
    meter: &Meter,
    (from_ms, to_ms): (i64, i64),
) -> Result<usize, B::Error> {
    let mut found = sent(books, meter, (from_ms, to_ms))?;
    found.retain(|intent| intent.bucket.tenant == *tenant);
    ask_again(books, &found)
}

/// What was confirmed of what was sent in `[from_ms, to_ms)`.
fn sent<B: Books>(
    books: &mut B,
    meter: &Meter,
    (from_ms, to_ms): (i64, i64),
) -> Result<Vec<Intent>, B::Error> {
    // What is sent may be as old as Stripe takes it.
    let oldest_s = from_ms.div_euclid(1_000).saturating_sub(STRIPE_PAST_S);
    let newest_s = to_ms.div_euclid(1_000).saturating_add(1);
    let was_sent = |i: &Intent| {
        i.last_attempt_ms
            .is_some_and(|at| (from_ms..to_ms).contains(&at))
    };
    let mut found = books.confirmed(meter, oldest_s, newest_s)?;
    found.retain(was_sent);
    Ok(found)
}

fn ask_again<B: Books>(books: &mut B, found: &[Intent]) -> Result<usize, B::Error> {
    for intent in found {
        books.update_intent(&Intent {
            state: State::Accepted,
            not_before_ms: 0,
            reading: None,
            ..intent.clone()
        })?;
    }
    Ok(found.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_sum_decides_where_one_set_explains_it() {
        for (deltas, sum, expected) in [
            (&[5, 7][..], 12, Sets::One(vec![true, true])),
            (&[5, 7], 7, Sets::One(vec![false, true])),
            (&[5, 7], 0, Sets::One(vec![false, false])),
            (&[5, 7], 6, Sets::None),
            (&[5, 5], 5, Sets::Several),
            (&[5, -5], 0, Sets::Several),
            (&[], 0, Sets::One(vec![])),
            (&[], 1, Sets::None),
            (&[1; 13], 13, Sets::One(vec![true; 13])),
            (&[1; 13], 12, Sets::Several),
            (&[1; 13], 10, Sets::None),
            (&[1; 151], 151, Sets::None),
        ] {
            assert_eq!(Sets::of(deltas, sum), expected, "{deltas:?} {sum}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Where the sum is that of a set, that one is found if no other comes to it.
        #[test]
        fn a_set_that_is_found_is_the_one(
            deltas in prop::collection::vec(-9_i64..10, 0..=UNDECIDED_MAX),
            there in any::<u32>(),
        ) {
            let sum_of = |set: u32| -> i64 {
                let chosen = deltas.iter().enumerate().filter(|(n, _)| set & (1 << n) != 0);
                chosen.map(|(_, delta)| delta).sum()
            };
            let there = there & ((1 << deltas.len()) - 1);
            let fitting = (0..1_u32 << deltas.len()).filter(|set| sum_of(*set) == sum_of(there));
            let expected = match fitting.count() {
                1 => Sets::One((0..deltas.len()).map(|n| there & (1 << n) != 0).collect()),
                _ => Sets::Several,
            };
            prop_assert_eq!(Sets::of(&deltas, sum_of(there)), expected);
            let outside: i64 = deltas.iter().map(|delta| delta.abs()).sum::<i64>() + 1;
            prop_assert_eq!(Sets::of(&deltas, outside), Sets::None);
        }

        #[test]
        fn nothing_overflows(deltas in prop::collection::vec(any::<i64>(), 0..14), sum in any::<i64>()) {
            let _ = Sets::of(&deltas, sum);
        }
    }
}
