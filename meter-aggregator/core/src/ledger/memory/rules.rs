//! What must hold of a ledger at any time, and where an intent may go.

use std::collections::{BTreeMap, BTreeSet};

use super::{BucketKey, Intent, Memory, RequestKey, bucket_of};
use crate::{intent::State, journal::Walk, lease::Shard, ledger::AdjustmentState};

impl Memory {
    /// Checks what must hold between any two transactions.
    #[track_caller]
    pub fn check(&self) {
        let disk = &self.disk;
        let mut walks: BTreeMap<Option<Shard>, Walk> = BTreeMap::new();
        let mut journal: BTreeMap<BucketKey, i64> = BTreeMap::new();
        for entry in &disk.journal {
            let (line, hash) = &**entry;
            let chain = self.is_sharded.then(|| Shard::of(&line.tenant));
            let walk = walks.entry(chain).or_default();
            walk.next(line, hash).unwrap();
            let key = RequestKey {
                id: line.request_id,
                tenant: line.tenant.clone(),
            };
            for (meter, delta) in &line.deltas {
                assert_ne!(*delta, 0);
                *journal.entry(bucket_of(&key, meter)).or_default() += delta;
            }
        }
        let mut posted: BTreeMap<BucketKey, i64> = BTreeMap::new();
        for (key, row) in &disk.requests {
            assert!(row.due_ms.is_none() || row.posted.is_empty(), "{key:?}");
            for (meter, quantity) in &row.posted {
                *posted.entry(bucket_of(key, meter)).or_default() += quantity;
            }
        }
        let mut planned: BTreeMap<BucketKey, i64> = BTreeMap::new();
        let mut revisions: BTreeMap<BucketKey, i64> = BTreeMap::new();
        let mut open = BTreeSet::new();
        for intent in &disk.intents {
            let key = &intent.bucket;
            if intent.state != State::Expired {
                *planned.entry(key.clone()).or_default() += intent.delta;
            }
            *revisions.entry(key.clone()).or_default() += 1;
            assert_eq!(intent.revision, revisions[key], "a revision is left out");
            if intent.state.is_open() {
                assert!(open.insert(key.clone()), "two are open: {key:?}");
            }
            assert_eq!(disk.identifiers[&intent.identifier], intent.id);
        }
        for (key, bucket) in &disk.buckets {
            let sum = |sums: &BTreeMap<BucketKey, i64>| sums.get(key).copied().unwrap_or(0);
            assert_eq!(bucket.total, sum(&journal), "journal: {key:?}");
            assert_eq!(bucket.total, sum(&posted), "postings: {key:?}");
            assert_eq!(bucket.planned, sum(&planned), "intents: {key:?}");
            assert_eq!(bucket.revision, sum(&revisions), "revisions: {key:?}");
        }
        for sums in [journal, posted, planned] {
            for (key, sum) in sums {
                assert!(sum == 0 || disk.buckets.contains_key(&key), "{key:?}");
            }
        }
        let mut proposed = BTreeSet::new();
        for adjustment in &disk.adjustments {
            if adjustment.state == AdjustmentState::Proposed {
                assert!(proposed.insert(adjustment.bucket.clone()), "two proposals");
            }
        }
    }
}

/// Where an intent may go from where it stands, beside staying there.
pub(super) fn may_become(before: &Intent, after: &Intent) -> bool {
    use State::{
        Accepted, Cancelled, Confirmed, Expired, Held, Planned, Quarantined, Reconcile, Sending,
    };
    let is_anew = after.generation == before.generation + 1;
    match (before.state, after.state) {
        (Expired, _) => false,
        (Sending | Reconcile | Quarantined, Planned) => is_anew,
        (Held, Planned) => true,
        _ if is_anew => false,
        (Planned, Sending | Reconcile | Cancelled)
        | (Sending, Accepted | Reconcile | Held)
        | (Accepted, Confirmed | Quarantined)
        | (Confirmed, Accepted)
        | (Reconcile, Confirmed | Expired | Quarantined)
        | (Held, Reconcile | Confirmed | Cancelled)
        | (Quarantined, Cancelled | Confirmed) => true,
        // Surely not at Stripe.
        (Planned | Sending | Held, Expired) => before.unknown == 0,
        (same, other) => same == other,
    }
}
