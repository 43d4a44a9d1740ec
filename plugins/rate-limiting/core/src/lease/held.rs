//! What a record holds: how it is spent, what comes of its end, and which call is
//! due.

use weir_wire::quota::{EPOCH_TOLD_MS, LIFE_MAX_MS};

use super::{AHEAD_MS, Asking, Call, Closed, GONE_MS, LIFE_WAITING_MS, Step, Taken};
use crate::record::{Kind, Lease, LeaseId, Pending, Record, Standing, Told};

impl Record {
    /// Whether a request may be made by what is held.
    pub(super) fn holds(&self, now_ms: u64) -> bool {
        let mut leases = self.leases.iter().flatten();
        leases.any(|lease| lease.left > 0 && lease.deadline_ms > now_ms)
    }

    pub(super) fn stand(&self, standing: Standing) -> Taken {
        let retry_at_ms = standing.retry_at_ms;
        Taken {
            step: match standing.kind {
                Kind::Denied => Step::Refuse { retry_at_ms },
                Kind::Fenced => Step::Unavailable {
                    retry_at_ms: Some(retry_at_ms),
                },
                Kind::Unlimited => Step::Unlimited,
                Kind::UnknownPlan => Step::UnknownPlan,
            },
            call: None,
            closed: Vec::new(),
            limits: self.limits.clone(),
        }
    }

    /// Counts a request, in periods as long as a lease lives.
    pub(super) fn count(&mut self, now_ms: u64) {
        let period_ms = u64::from(LIFE_MAX_MS);
        let age_ms = now_ms.saturating_sub(self.rate.start_ms);
        if age_ms >= period_ms {
            let is_next = age_ms < period_ms.saturating_mul(2);
            self.rate.last = if is_next { self.rate.count } else { 0 };
            self.rate.count = 0;
            self.rate.start_ms = now_ms;
        }
        self.rate.count = self.rate.count.saturating_add(1);
    }

    /// Takes out leases that are spent or over.
    pub(super) fn close_ended(&mut self, now_ms: u64) -> Vec<Closed> {
        let mut closed = Vec::new();
        for place in &mut self.leases {
            if let Some(lease) = place.take_if(|l| l.left == 0 || l.deadline_ms <= now_ms) {
                closed.push(close(&lease));
            }
        }
        if self.leases[0].is_none() {
            self.leases.swap(0, 1);
        }
        closed
    }

    /// Takes one from the lease that ends first; says when that one ends.
    pub(super) fn spend(&mut self, closed: &mut Vec<Closed>) -> Option<u64> {
        let place = self.leases.iter_mut().find(|place| place.is_some())?;
        let lease = place.as_mut()?;
        lease.left = lease.left.saturating_sub(1);
        let deadline_ms = lease.deadline_ms;
        if lease.left == 0 {
            closed.push(close(lease));
            *place = None;
            self.leases.swap(0, 1);
        }
        Some(deadline_ms)
    }

    /// Puts a new lease beside the one that is held; gives back one for which
    /// there is no place, or which is over already.
    pub(super) fn hold(&mut self, lease: Lease, now_ms: u64) -> Option<Closed> {
        let place = self.leases.iter_mut().find(|place| place.is_none());
        match place {
            Some(place) if lease.left > 0 && lease.deadline_ms > now_ms => {
                *place = Some(lease);
                None
            }
            _ => Some(close(&lease)),
        }
    }

    /// How many requests to expect in the life of a lease.
    pub(super) fn expected(&self) -> u32 {
        self.rate.count.max(self.rate.last)
    }

    /// The call that is due: because a request waits, or ahead of the next ones.
    pub(super) fn next_call(
        &mut self,
        asking: &Asking,
        step: &Step,
        closed: &mut Vec<Closed>,
    ) -> Option<Call> {
        let now_ms = asking.now_ms;
        let stands = self.standing.is_some_and(|s| s.until_ms > now_ms);
        let is_due = match step {
            Step::Admit { .. } => !stands && self.is_running_out(now_ms),
            // One that asks whether the service is back, while nobody waits.
            Step::Wait | Step::Unavailable { retry_at_ms: None } => !stands,
            // Whether it still is so.
            Step::Unlimited => true,
            _ => false,
        };
        if !is_due || !asking.may_call {
            return None;
        }
        // Kong makes calls for those that wait, and for nobody else.
        if asking.own_call {
            let waits = *step == Step::Wait;
            return waits.then(|| self.call(asking, true, (asking.random, now_ms)));
        }
        if self.pending.is_some_and(|p| p.deadline_ms > now_ms) {
            return None;
        }
        let name = match self.pending.take() {
            // Asked for again, it is the same lease.
            Some(old) if !is_stale(&old, now_ms) => (old.id, old.first_sent_ms),
            Some(old) => {
                closed.push(give_up(&old));
                (asking.random, now_ms)
            }
            None => (asking.random, now_ms),
        };
        let is_ahead = matches!(step, Step::Admit { .. } | Step::Unlimited);
        let call = self.call(asking, !is_ahead, name);
        self.pending = Some(Pending {
            id: call.id,
            first_sent_ms: call.first_sent_ms,
            deadline_ms: now_ms
                .saturating_add(asking.timeout_ms)
                .saturating_add(GONE_MS),
            wanted: call.wanted,
            life_ms: call.life_ms,
        });
        Some(call)
    }

    /// Whether what is held will not last, for a tenant of whom more requests
    /// are expected. Where little is left of a limit nothing is asked for ahead:
    /// it would lie here, and be missed elsewhere.
    pub(super) fn is_running_out(&self, now_ms: u64) -> bool {
        let expected = self.expected();
        let is_scarce = self.limits.iter().any(|limit| limit.remaining < expected);
        if expected < 2 || is_scarce {
            return false;
        }
        match self.leases {
            [None, _] => true,
            [Some(lease), None] => {
                let few = lease.left <= lease.granted / 4;
                let soon = lease.deadline_ms.saturating_sub(now_ms) < AHEAD_MS;
                few || soon
            }
            [Some(_), Some(_)] => false,
        }
    }

    pub(super) fn call(
        &self,
        asking: &Asking,
        waits: bool,
        (id, first_sent_ms): (LeaseId, u64),
    ) -> Call {
        // A quarter more than came lately.
        let expected = self.expected();
        let expected = expected.saturating_add(expected / 4).max(1);
        let (wanted, life_ms) = match waits {
            true => (
                expected.div_ceil(LIFE_MAX_MS / LIFE_WAITING_MS),
                LIFE_WAITING_MS,
            ),
            false => (expected, LIFE_MAX_MS),
        };
        let (epoch, at_ms) = &self.epoch;
        let is_told = asking.now_ms.saturating_sub(*at_ms) < EPOCH_TOLD_MS;
        Call {
            id,
            wanted,
            life_ms,
            first_sent_ms,
            is_own: asking.own_call,
            epoch: match is_told {
                true => String::from_utf8_lossy(epoch).into_owned(),
                false => String::new(),
            },
        }
    }

    /// The limits, with what this gateway holds of them.
    pub(super) fn shown(&self) -> Vec<Told> {
        let held = self.leases.iter().flatten().map(|lease| lease.left);
        let held = held.fold(0, u32::saturating_add);
        let shown = |limit: &Told| Told {
            remaining: limit.remaining.saturating_add(held).min(limit.requests),
            ..*limit
        };
        self.limits.iter().map(shown).collect()
    }
}

pub(super) fn close(lease: &Lease) -> Closed {
    Closed {
        id: lease.id,
        spent: lease.granted.saturating_sub(lease.left),
        first_sent_ms: lease.first_sent_ms,
        deadline_ms: lease.deadline_ms,
    }
}

/// Whether so much of its life is gone that a new one is better.
pub(super) fn is_stale(pending: &Pending, now_ms: u64) -> bool {
    now_ms.saturating_sub(pending.first_sent_ms) >= u64::from(pending.life_ms / 2)
}

/// Gives up an acquire whose answer never came.
pub(super) fn give_up(pending: &Pending) -> Closed {
    Closed {
        id: pending.id,
        spent: 0,
        first_sent_ms: pending.first_sent_ms,
        deadline_ms: pending.first_sent_ms,
    }
}
