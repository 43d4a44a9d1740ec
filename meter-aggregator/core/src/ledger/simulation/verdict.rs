//! What must have come of it all.

use std::collections::{BTreeMap, BTreeSet};

use weir_wire::proto::usage::Kind;

use super::World;
use crate::{
    hour::Hour,
    intent::State,
    ledger::{AdjustmentState, DiscrepancyKind, Intent, RequestKey, RequestRow, send::Lane},
};

/// Whether nothing more is to come of an intent.
pub fn is_done(intent: &Intent) -> bool {
    matches!(
        intent.state,
        State::Confirmed | State::Expired | State::Cancelled
    )
}

impl World {
    /// The ledger is what was used, and Stripe has it.
    pub fn judge(&self) {
        self.memory.check();
        let disk = &self.memory.disk;
        let mut ledger: BTreeMap<_, _> = disk
            .buckets
            .iter()
            .map(|(k, b)| (k.clone(), b.total))
            .collect();
        ledger.retain(|_, total| *total != 0);
        assert_eq!(
            ledger,
            self.traffic.truth(),
            "the ledger is not what was used"
        );
        self.judge_intents();
        self.judge_stripe();
        self.judge_lists();
    }

    /// Each intent is at Stripe once, or surely not.
    fn judge_intents(&self) {
        let disk = &self.memory.disk;
        let rejected: BTreeSet<i64> = disk
            .adjustments
            .iter()
            .filter(|a| a.state == AdjustmentState::Rejected)
            .filter_map(|a| a.intent)
            .collect();
        for intent in &disk.intents {
            let expected = usize::from(intent.state == State::Confirmed);
            assert_eq!(self.stripe.count(intent.id), expected, "{intent:?}");
            let by_word = self.cancelled.contains(&intent.id) || rejected.contains(&intent.id);
            assert!(intent.state != State::Cancelled || by_word, "{intent:?}");
            if intent.stamp_hour() != intent.bucket.hour {
                let is_late = intent.stamp_hour().start_s() - intent.bucket.hour.last_s()
                    > self.setup.policy.expire_s - 3_600;
                assert!(is_late, "stamped anew before its time: {intent:?}");
                let source = intent
                    .carried_from
                    .map(|id| &disk.intents[usize::try_from(id - 1).unwrap()]);
                let is_named =
                    source.is_none_or(|s| s.bucket == intent.bucket && s.state == State::Expired);
                assert!(is_named, "{intent:?}");
            }
        }
    }

    /// Stripe's sums are the ledger's without what was waived: by hour, and in all where
    /// something was carried forward.
    fn judge_stripe(&self) {
        let disk = &self.memory.disk;
        let carried: BTreeSet<Lane> = disk
            .intents
            .iter()
            .filter(|i| i.stamp_hour() != i.bucket.hour)
            .map(|i| (i.bucket.tenant.clone(), i.bucket.meter.clone()))
            .collect();
        let hour_of = |lane: &Lane, hour| {
            if carried.contains(lane) {
                Hour(0)
            } else {
                hour
            }
        };
        let mut expected: BTreeMap<(Lane, Hour), i64> = BTreeMap::new();
        let mut add = |lane: Lane, hour, n| {
            let hour = hour_of(&lane, hour);
            *expected.entry((lane, hour)).or_default() += n;
        };
        for (key, total) in self.traffic.truth() {
            if self.setup.tariff.has(&key.meter) {
                add((key.tenant, key.meter), key.hour, total);
            }
        }
        for intent in &disk.intents {
            if intent.state == State::Cancelled {
                let key = intent.bucket.clone();
                add((key.tenant, key.meter), key.hour, -intent.delta);
            }
        }
        let mut found: BTreeMap<(Lane, Hour), i64> = BTreeMap::new();
        for taken in self.stripe.taken.iter().filter(|t| t.is_counted) {
            let lane = (taken.tenant.clone(), taken.meter.clone());
            let hour = hour_of(&lane, taken.stamp);
            *found.entry((lane, hour)).or_default() += taken.value;
        }
        expected.retain(|_, n| *n != 0);
        found.retain(|_, n| *n != 0);
        assert_eq!(found, expected, "Stripe has not what the ledger says");
    }

    /// What does not fit is listed: witnesses that were alone or contradicted themselves,
    /// and what Stripe took and did not count.
    fn judge_lists(&self) {
        let disk = &self.memory.disk;
        let listed = |of: DiscrepancyKind| -> BTreeSet<RequestKey> {
            let open = disk
                .notes
                .iter()
                .filter(|(key, note)| key.0 == of && note.is_open);
            open.filter_map(|(key, _)| key.2.clone()).collect()
        };
        let conflicts = listed(DiscrepancyKind::Conflict);
        assert_eq!(conflicts, self.traffic.conflicts(), "conflicts");
        let is_alone = |row: &RequestRow| {
            let is_request = row.events[0].kind() == Kind::Request;
            self.setup.policy.two_witnesses && is_request && row.events.len() == 1
        };
        let alone = disk.requests.iter();
        let alone = alone.filter(|(_, row)| is_alone(row) && !row.posted.is_empty());
        let alone: BTreeSet<RequestKey> = alone.map(|(key, _)| key.clone()).collect();
        assert_eq!(
            listed(DiscrepancyKind::SingleWitness),
            alone,
            "witnesses alone"
        );
        for lost in self
            .stripe
            .taken
            .iter()
            .filter(|t| !t.is_counted && t.is_acknowledged)
        {
            let is_listed = self
                .memory
                .disk
                .notes
                .keys()
                .any(|(kind, tenant, _, bucket)| {
                    let is = bucket
                        .as_ref()
                        .is_some_and(|b| b.meter == lost.meter && b.hour == lost.stamp);
                    *kind == DiscrepancyKind::StripeDiffers && *tenant == lost.tenant && is
                });
            assert!(is_listed, "not listed: {lost:?}");
        }
    }
}
