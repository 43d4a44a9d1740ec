//! Stripe, as its contract has it, on its worse days.

use std::collections::BTreeMap;

use weir_wire::ids::TenantId;

use super::{HOUR_MS, Random};
use crate::{hour::Hour, intent::Attempt, ledger::Intent, meter::Meter};

/// How long it knows an identifier, or an idempotency key, again.
const UNIQUE_MS: i64 = 24 * HOUR_MS;

/// The longest that its sums lag behind.
const LAG_MS: i64 = 1_800_000;

/// A meter event that it took.
#[derive(Debug, Clone)]
pub struct Taken {
    pub intent: i64,
    pub generation: i64,
    pub tenant: TenantId,
    pub meter: Meter,
    pub stamp: Hour,
    pub value: i64,
    /// When its sums have it.
    visible_ms: i64,
    /// Whether they ever do.
    pub is_counted: bool,
    /// Whether the ledger has its word.
    pub is_acknowledged: bool,
}

/// How bad its day is, in permille of its calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mood {
    /// Answers that are lost, and requests.
    pub lost: i64,
    /// 500, before and after it took the event.
    pub broken: i64,
    /// 409 and 429.
    pub busy: i64,
    /// Other 4xx.
    pub refused: i64,
    /// How often it takes an event and never counts it.
    pub uncounted: i64,
}

/// The service.
#[derive(Debug, Default)]
pub struct Stripe {
    pub mood: Mood,
    pub down_until_ms: i64,
    /// While it is down, whether it takes what it does not answer.
    pub takes_while_down: bool,
    pub taken: Vec<Taken>,
    identifiers: BTreeMap<String, i64>,
    keys: BTreeMap<String, (i64, Attempt)>,
}

fn answer(random: &mut Random, status: u16, message: &str) -> Attempt {
    let should_retry = match (status, random.within(0, 10)) {
        (200, _) => None,
        (_, 0) => Some(true),
        (409 | 429 | 500.., 1) => Some(false),
        _ => None,
    };
    Attempt::Answered {
        status,
        message: message.to_owned(),
        should_retry,
        retry_after_ms: (status == 429 && random.chance(500)).then(|| random.within(0, 900_000)),
    }
}

impl Stripe {
    /// A call, and what its caller gets to know.
    pub fn post(&mut self, random: &mut Random, intent: &Intent, now_ms: i64) -> Attempt {
        if now_ms < self.down_until_ms {
            if self.takes_while_down && random.chance(300) {
                self.handle(random, intent, now_ms);
            }
            return if random.chance(500) {
                Attempt::Unanswered
            } else {
                answer(random, 503, "down")
            };
        }
        if random.chance(self.mood.lost) {
            if random.chance(700) {
                self.handle(random, intent, now_ms);
            }
            return Attempt::Unanswered;
        }
        self.handle(random, intent, now_ms)
    }

    /// What it does with a call that it got.
    fn handle(&mut self, random: &mut Random, intent: &Intent, now_ms: i64) -> Attempt {
        if random.chance(self.mood.busy) {
            let status = random.pick(&[409, 429]);
            return answer(random, status, "busy");
        }
        if random.chance(self.mood.refused) {
            let status = random.pick(&[400, 401, 403, 404]);
            return answer(random, status, "no such thing");
        }
        let key = format!("{}-{}", intent.identifier, intent.answers);
        let stored = self.keys.get(&key);
        if let Some((_, stored)) = stored.filter(|(at, _)| now_ms - at < UNIQUE_MS) {
            return stored.clone();
        }
        let is_broken = random.chance(self.mood.broken);
        if is_broken && random.chance(500) {
            let stored = answer(random, 500, "broken");
            self.keys.insert(key, (now_ms, stored.clone()));
            return stored;
        }
        let mut stored = self.take(random, intent, now_ms);
        if is_broken {
            stored = answer(random, 500, "broken");
        }
        self.keys.insert(key, (now_ms, stored.clone()));
        stored
    }

    fn take(&mut self, random: &mut Random, intent: &Intent, now_ms: i64) -> Attempt {
        let now_s = now_ms.div_euclid(1_000);
        let known = self.identifiers.get(&intent.identifier);
        if known.is_some_and(|at| now_ms - at < UNIQUE_MS) {
            let name = &intent.identifier;
            let message = format!("An event already exists with identifier {name}.");
            return answer(random, 400, &message);
        }
        let age_s = now_s - intent.timestamp_s;
        if !(-300..=35 * 24 * 3_600).contains(&age_s) {
            return answer(random, 400, "the timestamp is out of range");
        }
        self.identifiers.insert(intent.identifier.clone(), now_ms);
        self.taken.push(Taken {
            intent: intent.id,
            generation: intent.generation,
            tenant: intent.bucket.tenant.clone(),
            meter: intent.bucket.meter.clone(),
            stamp: intent.stamp_hour(),
            value: intent.delta,
            visible_ms: now_ms + random.within(0, LAG_MS + 1),
            is_counted: !random.chance(self.mood.uncounted),
            is_acknowledged: false,
        });
        answer(random, 200, "")
    }

    /// The ledger has its word that it took an intent.
    pub fn acknowledge(&mut self, intent: &Intent) {
        let name = (intent.id, intent.generation);
        let mut taken = self.taken.iter_mut().rev();
        if let Some(taken) = taken.find(|t| (t.intent, t.generation) == name) {
            taken.is_acknowledged = true;
        }
    }

    /// Its sum; `None` where it does not answer.
    pub fn sum(&self, tenant: &TenantId, meter: &Meter, hour: Hour, now_ms: i64) -> Option<i64> {
        (now_ms >= self.down_until_ms).then(|| {
            let of = |t: &&Taken| (&t.tenant, &t.meter, t.stamp) == (tenant, meter, hour);
            let seen = |t: &&Taken| t.is_counted && t.visible_ms <= now_ms;
            let values = self.taken.iter().filter(of).filter(seen);
            values.map(|t| t.value).sum()
        })
    }

    /// How often it counts an intent, or is about to.
    pub fn count(&self, intent: i64) -> usize {
        let of = |t: &&Taken| t.intent == intent && t.is_counted;
        self.taken.iter().filter(of).count()
    }
}
