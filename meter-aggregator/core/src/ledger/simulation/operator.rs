//! The operator: now and then he interferes, and in the end he decides what waits for
//! him. What he says of Stripe is true: he looked.

use weir_wire::ids::TenantId;

use super::World;
use crate::{
    intent::State,
    lease::{Scope, Shard},
    ledger::{
        Adjustment, AdjustmentState, Intent,
        memory::{Crash, Transaction},
        operator::{self, Failed},
        reconcile,
    },
};

/// A refusal is nothing that happens to the process.
fn heard<T>(result: Result<T, Failed<Crash>>) -> Result<Option<T>, Crash> {
    match result {
        Ok(said) => Ok(Some(said)),
        Err(Failed::Refused(_)) => Ok(None),
        Err(Failed::Store(crash)) => Err(crash),
    }
}

impl World {
    /// He does something, sensible or not.
    pub fn meddle(&mut self) {
        match self.random.within(0, 8) {
            0 => {
                self.book_waiting(true);
                self.plan(true);
            }
            1 => self.recheck(),
            2 | 3 => {
                for proposal in self.proposed() {
                    match self.random.within(0, 4) {
                        0 => self.reject(proposal.id),
                        1 => {}
                        _ => self.approve(proposal.id),
                    }
                }
            }
            _ => {
                let intents = self.memory.disk.intents.iter();
                let open: Vec<Intent> = intents.filter(|i| i.state.is_open()).cloned().collect();
                if !open.is_empty() {
                    let n = self.random.below(open.len());
                    self.decide(&open[n]);
                }
            }
        }
    }

    /// He decides all that waits for him, and cancels nothing.
    pub fn decide_all(&mut self) {
        for proposal in self.proposed() {
            self.approve(proposal.id);
        }
        for intent in self.memory.disk.intents.clone() {
            match intent.state {
                State::Quarantined if self.stripe.count(intent.id) > 0 => self.accept(intent.id),
                State::Held | State::Quarantined => self.retry(intent.id),
                _ => {}
            }
        }
    }

    fn proposed(&self) -> Vec<Adjustment> {
        let is = |a: &&Adjustment| a.state == AdjustmentState::Proposed;
        self.memory
            .disk
            .adjustments
            .iter()
            .filter(is)
            .cloned()
            .collect()
    }

    fn decide(&mut self, intent: &Intent) {
        let is_there = self.stripe.count(intent.id) > 0;
        match self.random.within(0, 3) {
            0 if is_there => self.accept(intent.id),
            1 if intent.state != State::Quarantined || !is_there => self.cancel(intent.id),
            _ if intent.state != State::Quarantined || !is_there => self.retry(intent.id),
            _ => {}
        }
    }

    /// Says something of an intent, or of an adjustment.
    fn say<T>(
        &mut self,
        tenant: Option<TenantId>,
        word: impl FnOnce(&mut Transaction<'_>, &super::Setup) -> Result<T, Failed<Crash>>,
    ) {
        if let (Some(tenant), Scope::Asked(_)) = (tenant, self.actor.scope) {
            self.actor.scope = Scope::Asked(Shard::of(&tenant));
        }
        self.transaction(|books, setup| heard(word(books, setup)));
    }

    fn whose_intent(&self, id: i64) -> Option<TenantId> {
        let intent = self.memory.disk.intents.iter().find(|i| i.id == id)?;
        Some(intent.bucket.tenant.clone())
    }

    fn whose_adjustment(&self, id: i64) -> Option<TenantId> {
        let adjustment = self.memory.disk.adjustments.iter().find(|a| a.id == id)?;
        Some(adjustment.bucket.tenant.clone())
    }

    fn retry(&mut self, id: i64) {
        let now_ms = self.now_ms;
        self.retried.insert(id);
        let whose = self.whose_intent(id);
        self.say(whose, |books, setup| {
            operator::retry(books, id, "acct", &setup.policy, now_ms)
        });
    }

    fn cancel(&mut self, id: i64) {
        self.cancelled.insert(id);
        let whose = self.whose_intent(id);
        self.say(whose, |books, _| operator::cancel(books, id, "no"));
    }

    fn accept(&mut self, id: i64) {
        let whose = self.whose_intent(id);
        self.say(whose, |books, _| operator::accept(books, id, "it is there"));
    }

    fn approve(&mut self, id: i64) {
        let now_ms = self.now_ms;
        let whose = self.whose_adjustment(id);
        self.say(whose, |books, setup| {
            operator::approve(books, id, "acct", &setup.policy, now_ms)
        });
    }

    fn reject(&mut self, id: i64) {
        let now_ms = self.now_ms;
        let whose = self.whose_adjustment(id);
        self.say(whose, |books, _| {
            operator::reject(books, id, "no", "acct", now_ms)
        });
    }

    /// Stripe's webhook says that something is wrong with a meter.
    fn recheck(&mut self) {
        let meter = self
            .memory
            .disk
            .buckets
            .keys()
            .next()
            .map(|k| k.meter.clone());
        if let Some(meter) = meter {
            self.transaction(|books, _| reconcile::recheck(books, &meter, (0, i64::MAX)));
        }
    }
}
