//! Spending leases, and when to ask for the next one.
//!
//! Everything here goes from a [`Record`] and the time to the record that stands
//! in its place, so that the host can change it by compare-and-swap. Times are of
//! the host's monotonic clock, in milliseconds.

use weir_wire::{
    proto::quota::{AcquireResponse, LimitState, Outcome},
    quota::LIFE_MAX_MS,
};

mod held;

use held::{give_up, is_stale};

use crate::record::{EPOCH_MAX_BYTES, Kind, Lease, LeaseId, Pending, Record, Standing, Told};

/// The life of a lease that is asked for while a request waits, in milliseconds:
/// so much is soon given back. The one that is asked for ahead lives longer.
const LIFE_WAITING_MS: u32 = 250;

/// How much longer than the call itself others wait for its answer, in
/// milliseconds: then its worker is gone.
const GONE_MS: u64 = 250;

/// How long after it was taken a request may still be made, in milliseconds.
/// Another worker may have closed the lease meanwhile, and says in its report that
/// nothing was made by it later than this after the report.
const SLACK_MS: u64 = 50;

/// The longest that an answer without a lease holds, in milliseconds.
const STANDING_MAX_MS: u64 = 10_000;

/// The longest time to wait that is believed: a day and a lease, in milliseconds.
const RETRY_MAX_MS: u64 = 86_410_000;

/// So long before a lease ends the next one is asked for, in milliseconds.
const AHEAD_MS: u64 = 400;

/// What a request finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It may be made, if the time after the change is still before that; else
    /// what was taken is burnt.
    Admit {
        /// The end of the lease that it was taken from, or of the request's own
        /// moment.
        before_ms: u64,
    },
    /// It may be made; nothing limits it.
    Unlimited,
    /// It may not.
    Refuse {
        /// When one may, at the earliest.
        retry_at_ms: u64,
    },
    /// Nothing is held: the answer to a call decides.
    Wait,
    /// Nothing is held, and the service can't be asked: the policy decides.
    Unavailable {
        /// When it can be asked again, where the store said so.
        retry_at_ms: Option<u64>,
    },
    /// Neither the plan nor the tenant is known.
    UnknownPlan,
}

/// A call to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The lease that is asked for.
    pub id: LeaseId,
    /// At most so many requests.
    pub wanted: u32,
    /// For at most so many milliseconds.
    pub life_ms: u32,
    /// When it was sent first.
    pub first_sent_ms: u64,
    /// The epoch to tell.
    pub epoch: String,
    /// Made by a waiting request for itself (Kong), not for all.
    pub is_own: bool,
}

/// A lease to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Its name.
    pub id: LeaseId,
    /// How many requests were made by it.
    pub spent: u32,
    /// When it was first asked for.
    pub first_sent_ms: u64,
    /// When it ends of itself.
    pub deadline_ms: u64,
}

impl Closed {
    /// Milliseconds from its first sending until no request is made by it any
    /// more, if that is reported now. Never less; the later, the more.
    #[must_use]
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        let end_ms = self.deadline_ms.min(now_ms.saturating_add(SLACK_MS));
        end_ms.saturating_sub(self.first_sent_ms)
    }
}

/// What became of a request, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What the request finds.
    pub step: Step,
    /// A call to make, for this request or ahead of the next ones.
    pub call: Option<Call>,
    /// Leases that came to their end.
    pub closed: Vec<Closed>,
    /// What the client is told of its limits.
    pub limits: Vec<Told>,
}

/// How a worker asks.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// Now.
    pub now_ms: u64,
    /// Names the next lease.
    pub random: LeaseId,
    /// How long a call may take, in milliseconds.
    pub timeout_ms: u64,
    /// Whether the service answers, as far as this worker knows.
    pub is_available: bool,
    /// Whether a call may be made at all just now.
    pub may_call: bool,
    /// Every waiting request makes its own call (Kong).
    pub own_call: bool,
    /// The request has waited, and was counted then.
    pub is_again: bool,
}

/// Takes one request from what is held.
#[must_use]
pub fn take(record: Option<&[u8]>, asking: &Asking) -> (Taken, Option<Vec<u8>>) {
    let mut record = Record::decode(record);
    let now_ms = asking.now_ms;
    if let Some(standing) = record.standing.filter(|s| s.until_ms > now_ms) {
        // A lease that came meanwhile is spent first.
        if !record.holds(now_ms) && standing.kind != Kind::Fenced {
            let mut taken = record.stand(standing);
            let ends = standing.until_ms.saturating_sub(now_ms) < AHEAD_MS;
            if standing.kind == Kind::Unlimited && ends {
                taken.call = record.next_call(asking, &taken.step, &mut taken.closed);
            }
            let write = taken.call.is_some().then(|| record.encode());
            return (taken, write);
        }
    }
    if !asking.is_again {
        record.count(now_ms);
    }
    let mut closed = record.close_ended(now_ms);
    let step = match record.spend(&mut closed) {
        Some(deadline_ms) => Step::Admit {
            before_ms: deadline_ms.min(now_ms.saturating_add(SLACK_MS)),
        },
        None => match record.standing.filter(|s| s.until_ms > now_ms) {
            Some(fenced) => Step::Unavailable {
                retry_at_ms: Some(fenced.retry_at_ms),
            },
            None if asking.is_available => Step::Wait,
            None => Step::Unavailable { retry_at_ms: None },
        },
    };
    let call = record.next_call(asking, &step, &mut closed);
    let limits = record.shown();
    let taken = Taken {
        step,
        call,
        closed,
        limits,
    };
    (taken, Some(record.encode()))
}

/// Whether an answer says what is to be done; one that does not, of a newer service
/// or a broken one, counts as none.
#[must_use]
pub fn is_usable(answer: &AcquireResponse) -> bool {
    match answer.outcome() {
        Outcome::Granted => answer.granted > 0 && answer.life_ms > 0,
        Outcome::Unspecified => false,
        _ => true,
    }
}

/// Takes the answer to a call, which must be [usable](is_usable). One that nobody
/// waits for any more changes nothing: what it brings was given up, or came
/// already to another worker that had asked by the same name.
#[must_use]
pub fn answered(
    record: Option<&[u8]>,
    call: &Call,
    answer: &AcquireResponse,
    now_ms: u64,
) -> (Vec<Closed>, Option<Vec<u8>>) {
    let mut record = Record::decode(record);
    if !call.is_own && record.pending.is_none_or(|pending| pending.id != call.id) {
        return (Vec::new(), None);
    }
    let mut closed = record.close_ended(now_ms);
    if !call.is_own {
        record.pending = None;
    }
    let after = |ms: u64| now_ms.saturating_add(ms);
    let life_ms = u64::from(answer.life_ms);
    let kind = match answer.outcome() {
        Outcome::Granted | Outcome::Unspecified => None,
        Outcome::Denied => Some(Kind::Denied),
        Outcome::Fenced => Some(Kind::Fenced),
        Outcome::Unlimited => Some(Kind::Unlimited),
        Outcome::UnknownPlan => Some(Kind::UnknownPlan),
    };
    record.standing = kind.map(|kind| Standing {
        kind,
        until_ms: after(life_ms.clamp(1, STANDING_MAX_MS)),
        retry_at_ms: after(answer.retry_after_ms.min(RETRY_MAX_MS)),
    });
    record.limits = answer
        .limits
        .iter()
        .map(|limit| told(limit, now_ms))
        .collect();
    if kind.is_none() {
        if answer.epoch.len() <= EPOCH_MAX_BYTES {
            record.epoch = (answer.epoch.clone().into_bytes(), now_ms);
        }
        let life_ms = life_ms.min(u64::from(LIFE_MAX_MS));
        let lease = Lease {
            id: call.id,
            left: answer.granted,
            granted: answer.granted,
            first_sent_ms: call.first_sent_ms,
            deadline_ms: deadline_ms(call.first_sent_ms, life_ms),
        };
        closed.extend(record.hold(lease, now_ms));
    }
    (closed, Some(record.encode()))
}

/// Notes that a call was not answered. Its name is kept: the lease may have been
/// granted, and asking for it again is asking for the same one.
#[must_use]
pub fn failed(record: Option<&[u8]>, call: &Call) -> ((), Option<Vec<u8>>) {
    let mut record = Record::decode(record);
    match &mut record.pending {
        Some(pending) if pending.id == call.id => pending.deadline_ms = 0,
        _ => return ((), None),
    }
    ((), Some(record.encode()))
}

/// What was found to be over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// To be given back.
    pub closed: Vec<Closed>,
    /// When there is something to sweep next; `None` where nothing is held.
    pub next_ms: Option<u64>,
}

/// Closes what has come to its end, where nobody asks any more.
#[must_use]
pub fn sweep(record: Option<&[u8]>, now_ms: u64) -> (Swept, Option<Vec<u8>>) {
    let mut record = Record::decode(record);
    let mut closed = record.close_ended(now_ms);
    let is_lost =
        |pending: &mut Pending| pending.deadline_ms <= now_ms && is_stale(pending, now_ms);
    closed.extend(record.pending.take_if(is_lost).map(|lost| give_up(&lost)));
    let ends = record.leases.iter().flatten().map(|l| l.deadline_ms);
    let lost = record
        .pending
        .map(|p| p.first_sent_ms.saturating_add(u64::from(p.life_ms)));
    let next_ms = ends.chain(lost).min();
    let write = (!closed.is_empty()).then(|| record.encode());
    (Swept { closed, next_ms }, write)
}

/// Whether a request that waits would find something else than a call under way.
#[must_use]
pub fn is_settled(record: Option<&[u8]>, now_ms: u64) -> bool {
    let record = Record::decode(record);
    let is_under_way = record.pending.is_some_and(|p| p.deadline_ms > now_ms);
    let stands = record.standing.is_some_and(|s| s.until_ms > now_ms);
    !is_under_way || stands || record.holds(now_ms)
}

/// The end of a lease on the gateway's clock: clocks may run apart by two
/// thousandths, and what is decided takes a moment to happen.
fn deadline_ms(first_sent_ms: u64, life_ms: u64) -> u64 {
    let drift_ms = life_ms.div_ceil(500);
    let usable_ms = life_ms.saturating_sub(drift_ms).saturating_sub(5);
    first_sent_ms.saturating_add(usable_ms)
}

fn told(limit: &LimitState, now_ms: u64) -> Told {
    Told {
        requests: limit.requests,
        window_s: limit.window_s,
        of_class: !limit.class.is_empty(),
        remaining: limit.remaining,
        reset_at_ms: now_ms.saturating_add(limit.reset_ms.min(RETRY_MAX_MS)),
    }
}

#[cfg(test)]
mod tests;
