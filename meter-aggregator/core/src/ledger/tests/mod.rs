//! Each procedure, each state and each transition, one after the other.

mod adjusting;
mod booking;
mod reconciling;
mod refusing;
mod sending;
mod transitions;

use std::collections::{BTreeMap, BTreeSet};

use weir_wire::{
    ids::{RequestId, TenantId},
    proto::usage::{Kind, ModelUsage, Outcome, UsageEvent, UsageSource, Witness},
};

use super::{
    BucketKey, Intent,
    book::{self, Rules},
    expire,
    memory::{Crash, Fault, Memory, Transaction},
    operator::{self, Failed},
    plan::{self, Billable},
    reconcile, send,
};
use crate::{
    hour::Hour,
    intent::{Attempt, State},
    meter::{Dimension, Meter},
    policy::Policy,
    tariff::Tariff,
};

/// The hour that most of it is about.
const HOUR: Hour = Hour(500_000);

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A ledger, and a clock that stands until it is told.
#[derive(Debug)]
struct Desk {
    memory: Memory,
    now_ms: i64,
    policy: Policy,
    tariff: Tariff,
    /// The number of the last event.
    seq: i64,
    fault: Fault,
    /// The last attempt at each intent.
    started: BTreeMap<i64, Intent>,
}

/// Something that happens at a desk.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Do {
    /// Time passes, milliseconds.
    Wait(i64),
    /// Another request of [`HOUR`], told by both witnesses, is booked.
    Use,
    /// Requests without their second witness are booked.
    BookWaiting,
    Plan,
    Start,
    /// What came of the attempt at the intent of that id.
    Finish(i64, Said),
    Hold(i64),
    /// Stripe's sum of [`HOUR`].
    Sum(i64),
    Recheck,
    Expire,
    Retry(i64),
    Cancel(i64),
    Accept(i64),
    Approve(i64),
    Reject(i64),
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Said {
    Nothing,
    Status(u16),
    /// And not to try again.
    Never(u16),
    Exists,
}

impl Said {
    fn attempt(self) -> Attempt {
        let (status, message, should_retry) = match self {
            Self::Nothing => return Attempt::Unanswered,
            Self::Status(status) => (status, "so", None),
            Self::Never(status) => (status, "so", Some(false)),
            Self::Exists => (400, "An event already exists with identifier x.", None),
        };
        Attempt::Answered {
            status,
            message: message.into(),
            should_retry,
            retry_after_ms: None,
        }
    }
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn meter(name: &str) -> Meter {
    Meter::parse(name).unwrap()
}

fn calls() -> BucketKey {
    BucketKey {
        hour: HOUR,
        tenant: tenant(),
        meter: Meter::of(Dimension::ApiCalls),
    }
}

/// The id of the `n`th request of [`HOUR`].
fn request(n: u8) -> RequestId {
    RequestId::mint(HOUR.start_s().unsigned_abs() * 1_000, [n; 10])
}

fn event(n: u8, witness: Witness, source: UsageSource, tokens: u64) -> UsageEvent {
    UsageEvent {
        kind: Kind::Request.into(),
        witness: witness.into(),
        tenant: tenant().to_string(),
        tenant_context: "signed".into(),
        request_id: request(n).to_string(),
        request_class: "chat".into(),
        outcome: Outcome::Completed.into(),
        usage: vec![ModelUsage {
            model_served: "big".into(),
            input_tokens: tokens,
            output_tokens: 2 * tokens,
            source: source.into(),
            ..ModelUsage::default()
        }],
        ..UsageEvent::default()
    }
}

/// All of a tenant's meters but those that no test is about.
struct Customers<'a>(&'a Tariff);

impl Billable for Customers<'_> {
    fn account(&self) -> &str {
        "acct"
    }

    fn is_billable(&self, tenant: &TenantId, meter: &Meter) -> bool {
        tenant.as_str() != "nobody" && self.0.has(meter)
    }
}

impl Desk {
    /// Bills on these meters; its clock stands at the end of [`HOUR`]'s grace.
    fn new(meters: &[&str]) -> Self {
        let premium = crate::meter::Tier::new("premium").unwrap();
        Self {
            memory: Memory::default(),
            now_ms: (HOUR.last_s() + 301) * 1_000,
            policy: Policy::default(),
            tariff: Tariff::new(meters.iter().map(|m| meter(m)), [("big".into(), premium)]),
            seq: 0,
            fault: Fault::None,
            started: BTreeMap::new(),
        }
    }

    /// Of API calls alone, so that a request is an intent of 1.
    fn of_calls(story: &[Do]) -> Self {
        let mut desk = Self::new(&["api_calls"]);
        desk.play(story);
        desk
    }

    #[track_caller]
    fn play(&mut self, story: &[Do]) {
        for what in story {
            self.act(*what).unwrap();
        }
    }

    fn act(&mut self, what: Do) -> Result<(), Crash> {
        let (now_ms, policy) = (self.now_ms, self.policy.clone());
        let (fault, memory) = (self.fault, &mut self.memory);
        let (policy, acct) = (&policy, "acct");
        let rules = Rules {
            tariff: &self.tariff,
            policy,
        };
        let billable = Customers(&self.tariff);
        let mut ask =
            |word: &dyn Fn(&mut Transaction<'_>) -> Result<Intent, Failed<Crash>>| match memory
                .transaction(fault, word)
            {
                Err(Failed::Store(crash)) => Err(crash),
                Ok(_) | Err(Failed::Refused(_)) => Ok(()),
            };
        match what {
            Do::Wait(ms) => self.now_ms += ms,
            Do::Use => {
                let n = u8::try_from(self.seq + 1).unwrap();
                let events = [Witness::Gateway, Witness::Router]
                    .map(|witness| event(n, witness, UsageSource::Reported, 1));
                let events: Vec<_> = (self.seq + 1..).zip(events).collect();
                memory.transaction(fault, |b| book::book_numbered(b, events, &rules, now_ms))?;
                self.seq += 2;
            }
            Do::BookWaiting => {
                memory.transaction(fault, |b| book::book_waiting(b, &rules, now_ms, false, 100))?;
            }
            Do::Plan => {
                memory.transaction(fault, |b| plan::plan(b, &billable, policy, now_ms, false))?;
            }
            Do::Start => {
                let started = memory.transaction(fault, |b| {
                    send::start(b, &BTreeSet::new(), 1, policy, now_ms)
                })?;
                let started = started.into_iter().map(|intent| (intent.id, intent));
                self.started.extend(started);
            }
            Do::Finish(id, said) => {
                let started = &self.started[&id];
                memory.transaction(fault, |b| {
                    send::finish(b, started, &said.attempt(), acct, policy, now_ms)
                })?;
            }
            Do::Hold(id) => memory.transaction(fault, |b| send::hold(b, id, "no customer"))?,
            Do::Sum(sum) => {
                let key = calls();
                let of = (&key.tenant, &key.meter, key.hour);
                memory.transaction(fault, |b| {
                    reconcile::answer(b, of, sum, acct, policy, now_ms)
                })?;
            }
            Do::Recheck => {
                let key = calls();
                memory.transaction(fault, |b| reconcile::recheck(b, &key.meter, (0, i64::MAX)))?;
            }
            Do::Expire => {
                memory.transaction(fault, |b| expire::expire(b, policy, now_ms, 10))?;
            }
            Do::Retry(id) => ask(&|b| operator::retry(b, id, acct, policy, now_ms))?,
            Do::Cancel(id) => ask(&|b| operator::cancel(b, id, "no"))?,
            Do::Accept(id) => ask(&|b| operator::accept(b, id, "it is there"))?,
            Do::Approve(id) => ask(&|b| operator::approve(b, id, acct, policy, now_ms))?,
            Do::Reject(id) => ask(&|b| operator::reject(b, id, "no", acct, now_ms))?,
        }
        self.memory.check();
        Ok(())
    }

    fn intent(&self, id: i64) -> &Intent {
        &self.memory.disk.intents[usize::try_from(id - 1).unwrap()]
    }

    /// State, generation and amount of each intent.
    fn intents(&self) -> Vec<(State, i64, i64)> {
        let intents = self.memory.disk.intents.iter();
        intents.map(|i| (i.state, i.generation, i.delta)).collect()
    }

    /// Books events under the numbers that follow.
    fn book(&mut self, events: impl IntoIterator<Item = UsageEvent>) {
        let events: Vec<_> = (self.seq + 1..).zip(events).collect();
        self.seq = events.last().map_or(self.seq, |(seq, _)| *seq);
        self.book_numbered(events);
    }

    fn book_numbered(&mut self, events: Vec<(i64, UsageEvent)>) {
        let rules = Rules {
            tariff: &self.tariff,
            policy: &self.policy,
        };
        let now_ms = self.now_ms;
        self.memory
            .run(|b| book::book_numbered(b, events, &rules, now_ms));
        self.memory.check();
    }

    fn total(&self, name: &str) -> i64 {
        let key = BucketKey {
            meter: meter(name),
            ..calls()
        };
        self.memory.disk.buckets.get(&key).map_or(0, |b| b.total)
    }
}
