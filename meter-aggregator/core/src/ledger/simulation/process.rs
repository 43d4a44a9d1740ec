//! The aggregator: what it does, in any order, and what it forgets when it dies.

use std::{collections::BTreeSet, rc::Rc};

use weir_wire::{ids::RequestId, ids::TenantId};

use super::{HOUR_MS, Mutant, World};
use crate::{
    hour::Hour,
    intent::{Attempt, State},
    ledger::{
        Books as _, Intent,
        book::{self, STREAM},
        expire, plan, reconcile,
        send::{self, Lane},
    },
    meter::Meter,
};

/// A call to Stripe.
#[derive(Debug)]
struct Call {
    intent: Intent,
    answer: Option<Attempt>,
}

/// A sum that was read.
#[derive(Debug)]
struct Read {
    tenant: TenantId,
    meter: Meter,
    hour: Hour,
    sum: i64,
    at_ms: i64,
}

/// What it has in memory alone.
#[derive(Debug, Default)]
pub struct Process {
    calls: Vec<Call>,
    reads: Vec<Read>,
}

fn lane(intent: &Intent) -> Lane {
    (intent.bucket.tenant.clone(), intent.bucket.meter.clone())
}

impl World {
    /// Kills the process: a call that it had begun may still go out.
    pub fn die(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        for call in process.calls {
            let is_late = send::is_late(&call.intent, self.now_ms);
            if call.answer.is_none() && !is_late && self.random.chance(500) {
                self.post(&call.intent);
            }
        }
        self.restart_ms = self.now_ms + self.random.pause_ms(i64::MAX);
    }

    /// Some of what it does, if it is alive, at one time.
    pub fn live(&mut self) {
        if self.process.is_none() {
            if self.now_ms < self.restart_ms {
                return;
            }
            self.process = Some(Process::default());
        }
        for _ in 0..self.random.within(1, 16) {
            if self.process.is_none() {
                return;
            }
            if self.random.chance(self.meddling) {
                self.meddle();
                continue;
            }
            match self.random.within(0, 12) {
                0 | 1 => self.book(),
                2 => self.book_waiting(false),
                3 => self.plan(false),
                4 | 5 => self.send(),
                6 | 7 => self.post_one(),
                8 => self.finish_one(),
                9 => self.ask(),
                10 => self.answer_one(),
                _ => self.expire(),
            }
        }
    }

    /// All of what it does, once, without a fault.
    pub fn work(&mut self) {
        self.process.get_or_insert_default();
        while self.memory.disk.progress.get(STREAM).copied().unwrap_or(0)
            < self.traffic.stream.last().map_or(0, |(seq, _)| *seq)
        {
            self.book();
        }
        self.work_on();
    }

    /// All of what it does with what is booked, once.
    pub fn work_on(&mut self) {
        self.book_waiting(false);
        self.expire();
        self.plan(false);
        for _ in 0..8 {
            self.start();
            while self.calls() > 0 {
                self.post_one();
                self.finish_one();
            }
        }
        self.ask();
        while self.process.as_ref().is_some_and(|p| !p.reads.is_empty()) {
            self.answer_one();
        }
    }

    fn calls(&self) -> usize {
        self.process.as_ref().map_or(0, |p| p.calls.len())
    }

    fn book(&mut self) {
        let upto = self.memory.disk.progress.get(STREAM).copied().unwrap_or(0);
        // It may read again what is booked.
        let from = if self.random.chance(100) { 0 } else { upto };
        let limit = usize::try_from(self.random.within(1, 30)).unwrap();
        let mut events = self.traffic.after(from, limit);
        if self.setup.mutant == Mutant::Duplicates {
            for (seq, event) in &mut events {
                let time_ms = RequestId::parse(&event.request_id).unwrap().time_ms();
                let [.., a, b] = seq.to_be_bytes();
                let id = RequestId::mint(time_ms.unsigned_abs(), [a, b, 0, 0, 0, 0, 0, 0, 0, 0]);
                event.request_id = id.to_string();
            }
        }
        let now_ms = self.now_ms;
        self.transaction(|books, setup| book::book_numbered(books, events, &setup.rules(), now_ms));
    }

    pub fn book_waiting(&mut self, all: bool) {
        let (now_ms, limit) = (self.now_ms, 1 + self.random.below(40));
        self.transaction(|books, setup| {
            book::book_waiting(books, &setup.rules(), now_ms, all, limit)
        });
    }

    pub fn plan(&mut self, all: bool) {
        let now_ms = self.now_ms;
        self.transaction(|books, setup| plan::plan(books, setup, &setup.policy, now_ms, all));
    }

    pub fn expire(&mut self) {
        let now_ms = self.now_ms;
        self.transaction(|books, setup| expire::expire(books, &setup.policy, now_ms, 5));
    }

    pub fn start(&mut self) {
        let Some(process) = &self.process else { return };
        let busy: BTreeSet<Lane> = process.calls.iter().map(|c| lane(&c.intent)).collect();
        let (now_ms, limit) = (self.now_ms, 1 + self.random.below(4));
        let started = self
            .transaction(|books, setup| send::start(books, &busy, limit, &setup.policy, now_ms));
        let (Some(started), Some(process)) = (started, &mut self.process) else {
            return;
        };
        for intent in started {
            let is_free = |call: &Call| lane(&call.intent) != lane(&intent);
            assert!(process.calls.iter().all(is_free), "two calls on one lane");
            let answer = None;
            process.calls.push(Call { intent, answer });
        }
    }

    /// Begins calls and mostly makes them, too.
    fn send(&mut self) {
        self.start();
        for _ in 0..self.random.within(0, 8) {
            self.post_one();
            if self.random.chance(500) {
                self.finish_one();
            }
        }
    }

    /// One of the calls goes out, and its answer comes in.
    pub fn post_one(&mut self) {
        let count = self.calls();
        if count == 0 {
            return;
        }
        let n = self.random.below(count);
        let Some(process) = &self.process else { return };
        let call = &process.calls[n];
        if call.answer.is_some() {
            return;
        }
        let intent = call.intent.clone();
        let is_late = send::is_late(&intent, self.now_ms) && self.setup.mutant != Mutant::Asleep;
        let answer = if is_late {
            Attempt::Unanswered
        } else {
            self.post(&intent)
        };
        if let Some(process) = &mut self.process {
            process.calls[n].answer = Some(answer);
        }
    }

    fn post(&mut self, intent: &Intent) -> Attempt {
        let mut intent = intent.clone();
        self.assert_allowed(&intent);
        if self.setup.mutant == Mutant::FreshIdentifier {
            intent.identifier = format!("{}{}", intent.identifier, self.random.next());
        }
        let true_ms = self.true_ms();
        self.stripe.post(&mut self.random, &intent, true_ms)
    }

    /// What Stripe said to have taken is told it anew by the operator's word alone.
    fn assert_allowed(&self, intent: &Intent) {
        let was_taken = |t: &&super::stripe::Taken| {
            t.intent == intent.id && t.generation < intent.generation && t.is_acknowledged
        };
        let mut taken = self.stripe.taken.iter();
        assert!(
            taken.find(was_taken).is_none() || self.retried.contains(&intent.id),
            "sent anew without the operator's word: {intent:?}"
        );
    }

    /// What came of one of the calls goes to the ledger.
    pub fn finish_one(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(n) = process.calls.iter().position(|c| c.answer.is_some()) else {
            return;
        };
        let Call { intent, answer } = process.calls.swap_remove(n);
        let (now_ms, answer) = (self.now_ms, answer.unwrap_or(Attempt::Unanswered));
        let state = self.transaction(|books, setup| {
            send::finish(books, &intent, &answer, "acct", &setup.policy, now_ms)
        });
        if state == Some(Some(State::Accepted)) {
            self.stripe.acknowledge(&intent);
        }
    }

    /// Asks Stripe for sums.
    pub fn ask(&mut self) {
        let (now_ms, limit) = (self.now_ms, 1 + self.random.below(30));
        let due =
            self.transaction(|books, setup| reconcile::due(books, &setup.policy, now_ms, limit));
        for question in due.unwrap_or_default() {
            let (tenant, meter) = (question.tenant, question.meter);
            for hour in question.hours {
                let sum = self.stripe.sum(&tenant, &meter, hour, self.true_ms());
                let sum = match self.setup.mutant {
                    Mutant::Blind => Some(sum.unwrap_or(0)),
                    _ => sum,
                };
                match (sum, &mut self.process) {
                    (Some(sum), Some(process)) => process.reads.push(Read {
                        tenant: tenant.clone(),
                        meter: meter.clone(),
                        hour,
                        sum,
                        at_ms: now_ms,
                    }),
                    (None, Some(_)) => {
                        self.transaction(|books, setup| {
                            let of = (&tenant, &meter, hour);
                            reconcile::unanswered(books, of, &setup.policy, now_ms)
                        });
                    }
                    (_, None) => return,
                }
            }
        }
    }

    /// One of the sums goes to the ledger, maybe late.
    pub fn answer_one(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.reads.is_empty() {
            return;
        }
        let n = self.random.below(process.reads.len());
        let read = process.reads.swap_remove(n);
        self.transaction(|books, setup| {
            let of = (&read.tenant, &read.meter, read.hour);
            reconcile::answer(books, of, read.sum, "acct", &setup.policy, read.at_ms)
        });
    }

    /// Nothing fails any more, and all that was told has come.
    pub fn calm(&mut self) {
        self.deaths = 0;
        self.stripe.mood = super::Mood::default();
        self.stripe.down_until_ms = 0;
        if let Some(last) = self.traffic.deliveries.first() {
            self.now_ms = self.now_ms.max(last.at_ms);
        }
        let end_ms = (self.traffic.last_hour().start_s() + 3_600 + 300) * 1_000;
        self.now_ms = self.now_ms.max(end_ms);
        self.traffic.arrive(&mut self.random, self.now_ms);
    }

    /// Time goes on without a fault until nothing is left to be done.
    pub fn settle(&mut self) {
        self.die();
        self.calm();
        for _ in 0..600 {
            self.work();
            if self.is_settled() {
                return;
            }
            self.decide_all();
            self.now_ms += 7 * 60_000 + HOUR_MS / 10;
        }
        self.complain();
    }

    /// It does not settle.
    pub fn complain(&self) -> ! {
        let intents = self.memory.disk.intents.iter();
        let open = intents.filter(|i| !super::verdict::is_done(i));
        panic!("it does not settle: {:#?}", open.collect::<Vec<_>>());
    }

    /// Whether nothing is left to be done.
    pub fn is_settled(&mut self) -> bool {
        let setup = Rc::clone(&self.setup);
        let disk = &self.memory.disk;
        let is_waiting = disk.requests.values().any(|row| row.due_ms.is_some());
        let is_open = disk.intents.iter().any(|i| !super::verdict::is_done(i));
        let is_unplanned = |(key, b): (&crate::ledger::BucketKey, &crate::ledger::Bucket)| {
            b.total != b.planned && setup.tariff.has(&key.meter)
        };
        let is_unplanned = disk.buckets.iter().any(is_unplanned);
        let is_proposed = !self.memory.run(|books| books.proposals()).is_empty();
        !(is_waiting || is_open || is_unplanned || is_proposed)
    }
}
