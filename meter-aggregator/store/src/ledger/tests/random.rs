//! Whatever is done in whatever order, the sums hold.

use proptest::prelude::*;
use weir_meter_core::ledger::{expire, operator, reconcile};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Book(u8, bool, bool, u8, bool),
    BookWaiting,
    Plan(bool),
    Start,
    Finish(u8, u8),
    Answer(u8, i8),
    Expire,
    Operator(u8, u8),
    Adjust(u8, bool),
    Pass(u8),
    DropOld,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_u8, any::<bool>(), any::<bool>(), 0..9_u8, any::<bool>())
            .prop_map(|(n, router, sure, input, late)| Step::Book(n, router, sure, input, late)),
        1 => Just(Step::BookWaiting),
        3 => any::<bool>().prop_map(Step::Plan),
        4 => Just(Step::Start),
        5 => (any::<u8>(), 0..6_u8).prop_map(|(id, answer)| Step::Finish(id, answer)),
        3 => (any::<u8>(), -2..3_i8).prop_map(|(id, off)| Step::Answer(id, off)),
        1 => Just(Step::Expire),
        2 => (any::<u8>(), 0..3_u8).prop_map(|(id, what)| Step::Operator(id, what)),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(id, yes)| Step::Adjust(id, yes)),
        3 => (0..5_u8).prop_map(Step::Pass),
        1 => Just(Step::DropOld),
        1 => Just(Step::Reopen),
    ]
}

/// Pauses: a second, ten minutes, an hour, a day, forty days.
const PASS_MS: [i64; 5] = [1_000, 600_000, 3_600_000, 86_400_000, 40 * 86_400_000];

/// A database of Postgres' own is dear.
const CASES: u32 = match Fixture::IS_SHARED {
    true => 12,
    false => 48,
};

struct Run {
    f: Fixture,
    now_ms: i64,
}

impl Run {
    fn newest(&self) -> i64 {
        self.f.number("SELECT COALESCE(MAX(id), 0) FROM intent")
    }

    /// One of the ids that there are.
    fn id(&self, any: u8) -> i64 {
        i64::from(any) % self.newest().max(1) + 1
    }

    /// A transaction of whose it is, of the rows of that table.
    fn of<T, E: From<LedgerError>>(
        &mut self,
        (table, id): (&str, i64),
        work: impl FnOnce(&mut Change<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let tenant = match table {
            "intent" => self.f.ledger.tenant_of_intent(id),
            _ => self.f.ledger.tenant_of_adjustment(id),
        };
        let scope = match tenant.unwrap() {
            Some(tenant) if self.f.ledger.is_shared() => Scope::Asked(Shard::of(&tenant)),
            _ => self.f.acme(),
        };
        self.f.ledger.transaction(scope, work)
    }

    fn step(&mut self, step: &Step) {
        let (now_ms, policy) = (self.now_ms, self.f.policy.clone());
        match *step {
            Step::Book(n, is_router, is_sure, input, is_late) => {
                let witness = [Witness::Gateway, Witness::Router][usize::from(is_router)];
                let source = [UsageSource::Estimated, UsageSource::Reported][usize::from(is_sure)];
                let mut event = event(n, witness, source, input.into());
                event.tenant = ["acme", "solo"][usize::from(n) % 2].into();
                // Of today, or of a day that ingest just still takes.
                let day_ms = 86_400_000;
                let days = (now_ms - NOW_MS) / day_ms - 34 * i64::from(is_late);
                event.request_id = id(n, NOW_MS + days.max(0) * day_ms).to_string();
                self.f.book_at(&[event], now_ms);
            }
            Step::BookWaiting => {
                self.f.book_waiting(now_ms, false);
            }
            Step::Plan(all) => {
                self.f.plan(now_ms / 1_000, all);
            }
            Step::Start => {
                self.f.start(now_ms);
            }
            Step::Finish(id, answer) => {
                let attempt = match answer {
                    0 => Attempt::Unanswered,
                    1 => answered(500),
                    2 => answered(429),
                    3 => answered(402),
                    _ => answered(200),
                };
                let id = self.id(id);
                let found: Result<_, LedgerError> = self.of(("intent", id), |c| c.intent(id));
                if let Some(intent) = found.unwrap() {
                    self.f.finish(&intent, &attempt, now_ms);
                }
            }
            Step::Answer(id, off) => self.answer(self.id(id), off.into(), &policy),
            Step::Expire => {
                self.f.each(|c| expire::expire(c, &policy, now_ms, 100));
            }
            Step::Operator(id, what) => {
                let id = self.id(id);
                // Refused is as good as done: nothing may have changed.
                let _ = self.of(("intent", id), |c| match what {
                    0 => operator::retry(c, id, "a", &policy, now_ms),
                    1 => operator::cancel(c, id, "no"),
                    _ => operator::accept(c, id, "yes"),
                });
            }
            Step::Adjust(id, yes) => {
                let id = i64::from(id % 6) + 1;
                let _ = self.of(("adjustment", id), |c| match yes {
                    true => operator::approve(c, id, "a", &policy, now_ms),
                    false => operator::reject(c, id, "no", "a", now_ms),
                });
            }
            Step::Pass(which) => self.now_ms += PASS_MS[usize::from(which)],
            Step::DropOld => {
                self.f.drop_old(now_ms);
            }
            Step::Reopen => self.f.reopen(),
        }
        self.f.check();
    }

    /// Stripe's sum of an intent's hour, which is what it was sent, or a little off.
    fn answer(&mut self, id: i64, off: i64, policy: &Policy) {
        let now_ms = self.now_ms;
        let answered = self.of(("intent", id), |change| {
            let Some(intent) = change.intent(id)? else {
                return Ok(());
            };
            let (key, hour) = (&intent.bucket, intent.stamp_hour());
            let sent = change.intents_at(&key.tenant, &key.meter, hour)?;
            let sent = sent.iter().filter(|i| i.state.is_at_stripe());
            let sum = sent.map(|i| i.delta).sum::<i64>() + off;
            let of = (&key.tenant, &key.meter, hour);
            reconcile::answer(change, of, sum, "a", policy, now_ms)
        });
        answered.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn sums_hold_whatever_is_done(
        steps in prop::collection::vec(step(), 1..60),
        two_witnesses in any::<bool>(),
    ) {
        let mut run = Run { f: Fixture::new(), now_ms: NOW_MS };
        run.f.policy.two_witnesses = two_witnesses;
        for step in &steps {
            run.step(step);
        }
        let proof = Proof {
            tenant: tenant("acme"),
            meter: meter("input_tokens"),
            from: Hour(0),
            to: Hour(i64::MAX),
        };
        let proved = run.f.ledger.prove(&proof, |_| (), |_, _| ()).unwrap();
        prop_assert_eq!(proved.problems, Vec::<String>::new());
    }
}
