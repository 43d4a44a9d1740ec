//! Several replicas deal with one tenant's events: each stands still and dies between any
//! two steps, others take the lease over meanwhile, and what was sent to the router comes
//! when it comes.

use std::collections::VecDeque;

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::{
    dunning::{OnPaymentFailed, OnUncollectible},
    stripe::InvoiceStatus,
};

const INVOICES: usize = 2;

/// How long a call may be on its way, once it was sent.
const WAY_MS: i64 = DOUBT_MS / 3;

/// What a replica does now, and knows of it.
#[derive(Debug, Clone)]
enum Stage {
    Idle,
    Took(Event),
    Fetched(Event, Option<Invoice>),
    Looked(Event, Option<Invoice>, View),
    Asked(Event, Option<Invoice>, View, Seen),
    /// Decided at that time; not sent yet.
    Tells(Event, Call, i64),
    /// Waits for the router's answer.
    Waits(Event, Call),
    /// Has it.
    Told(Event, Call, Seen),
}

/// What there is to be dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Invoice(usize),
    Call(Action),
}

struct Replica {
    epoch: u64,
    /// That as whose holder it does what it does.
    begun: u64,
    stage: Stage,
}

/// On its way to the router: until when it comes, and whose it is.
struct Wire {
    action: Action,
    until_ms: i64,
    caller: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mutant {
    None,
    /// Nobody is fenced.
    NoFence,
    /// Whoever lost the lease says nothing of what it told.
    NoWord,
    /// A call that may come is written down by nobody.
    NoDoubt,
}

/// The store, Stripe and the router.
struct World {
    mutant: Mutant,
    now_ms: i64,
    epoch: u64,
    account: Account,
    calls: BTreeMap<Action, (i64, i64)>,
    invoices: Vec<Invoice>,
    events: VecDeque<usize>,
    suspended: bool,
    wires: Vec<Wire>,
    replicas: Vec<Replica>,
}

impl Accounts for World {
    type Error = std::convert::Infallible;

    fn account(&mut self, _: &str) -> Result<Account, Self::Error> {
        Ok(self.account.clone())
    }

    fn set_due(&mut self, _: &str, invoice: &str, is_due: bool) -> Result<(), Self::Error> {
        match is_due {
            true => self.account.due.insert(invoice.to_owned()),
            false => self.account.due.remove(invoice),
        };
        Ok(())
    }

    fn set_hold(&mut self, _: &str, hold: Hold, _: i64) -> Result<(), Self::Error> {
        self.account.hold = hold;
        Ok(())
    }

    fn calls(&mut self, _: &str) -> Result<BTreeMap<Action, i64>, Self::Error> {
        Ok(self
            .calls
            .iter()
            .map(|(a, (stamp, _))| (*a, *stamp))
            .collect())
    }

    fn put_call(
        &mut self,
        _: &str,
        action: Action,
        now_ms: i64,
        look_ms: i64,
    ) -> Result<i64, Self::Error> {
        let before = self.calls.get(&action);
        let stamp = before.map_or(now_ms, |(stamp, _)| now_ms.max(stamp + 1));
        if self.mutant != Mutant::NoDoubt {
            self.calls.insert(action, (stamp, look_ms));
        }
        Ok(stamp)
    }

    fn drop_call(&mut self, _: &str, action: Action) -> Result<(), Self::Error> {
        self.calls.remove(&action);
        Ok(())
    }
}

/// Something that happens.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// A payment of that invoice fails.
    Fail(usize),
    Becomes(usize, InvoiceStatus),
    /// A replica does its next step.
    Step(usize),
    /// All that there is to be done, and nothing between.
    Work(usize),
    /// It has the lease from now on.
    TakeOver(usize),
    /// Another process comes in its place.
    Die(usize),
    /// A call comes to the router.
    Comes(usize),
    /// Whoever waits for that call gives up.
    GiveUp(usize),
    Clock(i64),
}

impl World {
    fn new(mutant: Mutant, suspended: bool) -> Self {
        let invoice = |n: usize| Invoice {
            id: format!("in_{n}"),
            customer: None,
            status: Some(InvoiceStatus::Open),
            attempt_count: 0,
            period_start: 0,
            period_end: 1,
        };
        let replica = |epoch| Replica {
            epoch,
            begun: epoch,
            stage: Stage::Idle,
        };
        Self {
            mutant,
            now_ms: 1_000_000,
            epoch: 1,
            account: Account::default(),
            calls: BTreeMap::new(),
            invoices: (0..INVOICES).map(invoice).collect(),
            events: VecDeque::new(),
            suspended,
            wires: Vec::new(),
            replicas: vec![replica(1), replica(0), replica(0)],
        }
    }

    fn policy() -> Policy {
        Policy {
            on_payment_failed: OnPaymentFailed::Suspend,
            after_attempts: 1.try_into().unwrap(),
            on_uncollectible: OnUncollectible::Keep,
        }
    }

    fn seen(&self) -> Seen {
        match self.suspended {
            true => Seen::Suspended,
            false => Seen::Active,
        }
    }

    fn owes(&self) -> bool {
        let policy = Self::policy();
        self.invoices.iter().any(|invoice| policy.is_due(invoice))
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Fail(n) => {
                self.invoices[n].attempt_count += 1;
                self.events.push_back(n);
            }
            Act::Becomes(n, status) => {
                self.invoices[n].status = Some(status);
                self.events.push_back(n);
            }
            Act::Step(n) => self.step(n),
            Act::Work(n) => self.work(n),
            Act::TakeOver(n) => {
                self.epoch += 1;
                self.replicas[n].epoch = self.epoch;
            }
            Act::Die(n) => {
                self.replicas[n].stage = Stage::Idle;
                self.replicas[n].epoch = 0;
                self.let_go(n);
            }
            Act::Comes(n) if n < self.wires.len() => self.comes(n),
            Act::Comes(_) => {}
            Act::GiveUp(n) => {
                if let Stage::Waits(_, call) = self.replicas[n].stage.clone() {
                    self.replicas[n].stage = Stage::Idle;
                    self.let_go(n);
                    self.word(call.action, DOUBT_MS);
                }
            }
            Act::Clock(ms) => self.clock(ms),
        }
    }

    /// Nobody waits for its calls any more.
    fn let_go(&mut self, n: usize) {
        for wire in self.wires.iter_mut().filter(|w| w.caller == Some(n)) {
            wire.caller = None;
        }
    }

    /// Time goes on, in which calls come.
    fn clock(&mut self, ms: i64) {
        self.now_ms += ms;
        while let Some(n) = self.wires.iter().position(|w| w.until_ms <= self.now_ms) {
            self.comes(n);
        }
    }

    fn comes(&mut self, n: usize) {
        let wire = self.wires.remove(n);
        self.suspended = wire.action == Action::Suspend;
        let Some(caller) = wire.caller else { return };
        let stage = &mut self.replicas[caller].stage;
        if let Stage::Waits(event, call) = stage.clone() {
            let seen = match wire.action {
                Action::Suspend => Seen::Suspended,
                Action::Resume => Seen::Active,
            };
            *stage = Stage::Told(event, call, seen);
        }
    }

    fn word(&mut self, action: Action, in_ms: i64) {
        if self.mutant != Mutant::NoWord {
            let (now_ms, look_ms) = (self.now_ms, self.now_ms + in_ms);
            let Ok(()) = doubt(self, "acme", action, now_ms, look_ms);
        }
    }

    fn is_fenced(&self, n: usize) -> bool {
        self.mutant != Mutant::NoFence && self.replicas[n].begun != self.epoch
    }

    /// The event that is due, the oldest call first.
    fn next(&self) -> Option<Event> {
        let due = |(_, (_, look_ms)): &(&Action, &(i64, i64))| *look_ms <= self.now_ms;
        let call = self.calls.iter().find(due).map(|(a, _)| Event::Call(*a));
        call.or_else(|| self.events.front().map(|n| Event::Invoice(*n)))
    }

    fn finish(&mut self, event: Event) {
        if let Event::Invoice(n) = event
            && let Some(place) = self.events.iter().position(|e| *e == n)
        {
            self.events.remove(place);
        }
    }

    /// As the server does it.
    fn step(&mut self, n: usize) {
        use Stage::{Asked, Fetched, Idle, Looked, Told, Took, Waits};
        let stage = std::mem::replace(&mut self.replicas[n].stage, Idle);
        self.replicas[n].stage = match stage {
            // Who holds nothing begins nothing.
            Idle if self.replicas[n].epoch == 0 => Idle,
            Idle => {
                self.replicas[n].begun = self.replicas[n].epoch;
                self.next().map_or(Idle, Took)
            }
            Took(event) => {
                let invoice = match event {
                    Event::Invoice(n) => Some(self.invoices[n].clone()),
                    Event::Call(_) => None,
                };
                Fetched(event, invoice)
            }
            // Who is fenced drops it all.
            Fetched(..) | Asked(..) if self.is_fenced(n) => Idle,
            Fetched(event, invoice) => {
                let Ok(view) = look(self, "acme");
                let policy = Self::policy();
                if view.concerns_router(why(event, invoice.as_ref(), &policy)) {
                    Looked(event, invoice, view)
                } else {
                    self.finish(event);
                    Idle
                }
            }
            Looked(event, invoice, view) => Asked(event, invoice, view, self.seen()),
            Asked(event, invoice, view, seen) => self.decide(event, invoice, &view, seen),
            Stage::Tells(event, call, at_ms) => self.tell(n, event, call, at_ms),
            Waits(event, call) => Waits(event, call),
            Told(event, call, seen) => {
                self.told(n, event, &call, seen);
                Idle
            }
        };
    }

    fn decide(&mut self, event: Event, invoice: Option<Invoice>, view: &View, seen: Seen) -> Stage {
        let (policy, now_ms) = (Self::policy(), self.now_ms);
        let why = why(event, invoice.as_ref(), &policy);
        let Ok(decision) = decide(self, "acme", view, why, seen, now_ms);
        match decision {
            Decision::Changed => Stage::Fetched(event, invoice),
            Decision::Agreed(_) => {
                self.finish(event);
                Stage::Idle
            }
            Decision::Tell(call) => Stage::Tells(event, call, now_ms),
        }
    }

    fn tell(&mut self, n: usize, event: Event, call: Call, at_ms: i64) -> Stage {
        let wire = Wire {
            action: call.action,
            until_ms: self.now_ms + WAY_MS,
            caller: Some(n),
        };
        if self.now_ms - at_ms <= WAY_MS {
            self.wires.push(wire);
            return Stage::Waits(event, call);
        }
        // It stood still after it had looked at the clock, and sends: that it dies then,
        // too, before it can say so, is too much.
        self.suspended = wire.action == Action::Suspend;
        let seen = self.seen();
        self.told(n, event, &call, seen);
        Stage::Idle
    }

    fn told(&mut self, n: usize, event: Event, call: &Call, seen: Seen) {
        if self.is_fenced(n) {
            self.word(call.action, 0);
            return;
        }
        let now_ms = self.now_ms;
        let Ok(_) = done(self, "acme", call, seen, now_ms);
        self.finish(event);
    }

    /// One replica does all there is, the router answers at once.
    fn work(&mut self, n: usize) {
        for _ in 0..200 {
            self.step(n);
            if let Some(wire) = self.wires.iter().position(|w| w.caller == Some(n)) {
                self.comes(wire);
            }
            if matches!(self.replicas[n].stage, Stage::Idle) && self.next().is_none() {
                return;
            }
        }
    }

    /// Whoever stood still goes on, and then one replica does what is left.
    fn settle(&mut self) {
        for n in 0..self.replicas.len() {
            for _ in 0..8 {
                self.step(n);
            }
            self.clock(WAY_MS);
            self.step(n);
        }
        self.act(Act::TakeOver(0));
        for _ in 0..10 {
            self.work(0);
            self.clock(DOUBT_MS);
        }
    }
}

fn why<'a>(event: Event, invoice: Option<&'a Invoice>, policy: &'a Policy) -> Why<'a> {
    match (event, invoice) {
        (Event::Call(action), _) => Why::Doubt(action),
        (Event::Invoice(_), invoice) => Why::Invoice(policy, invoice.unwrap()),
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    use InvoiceStatus::{Open, Paid, Uncollectible, Void};
    let status = prop_oneof![
        Just(Paid),
        Just(Paid),
        Just(Void),
        Just(Uncollectible),
        Just(Open)
    ];
    let clock = prop_oneof![0..DOUBT_MS / 4, 0..3 * DOUBT_MS];
    let act = prop_oneof![
        3 => (0..INVOICES).prop_map(Act::Fail),
        3 => (0..INVOICES, status).prop_map(|(n, s)| Act::Becomes(n, s)),
        12 => (0_usize..3).prop_map(Act::Step),
        4 => (0_usize..3).prop_map(Act::Work),
        3 => (0_usize..3).prop_map(Act::TakeOver),
        1 => (0_usize..3).prop_map(Act::Die),
        2 => (0_usize..3).prop_map(Act::Comes),
        1 => (0_usize..3).prop_map(Act::GiveUp),
        2 => clock.prop_map(Act::Clock),
    ];
    prop::collection::vec(act, 0..120)
}

fn play(mutant: Mutant, suspended: bool, acts: &[Act]) -> World {
    let mut world = World::new(mutant, suspended);
    for act in acts {
        world.act(*act);
    }
    world.settle();
    world
}

/// What has to be in the end.
fn is_right(world: &World) -> bool {
    let hold = match world.owes() {
        true => Hold::Ours,
        false => Hold::None,
    };
    let due = world.invoices.iter().filter(|i| World::policy().is_due(i));
    let due: Vec<&String> = due.map(|i| &i.id).collect();
    let is_over = world.events.is_empty() && world.calls.is_empty();
    is_over
        && world.suspended == world.owes()
        && world.account.hold == hold
        && world.account.due.iter().eq(due)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

    /// Whoever stands still, dies and takes over: in the end a tenant is suspended if and
    /// only if an invoice is due, and the account says so.
    #[test]
    fn whoever_does_it_who_owes_is_suspended_and_who_paid_is_not(acts in acts()) {
        let world = play(Mutant::None, false, &acts);
        prop_assert!(is_right(&world), "{:?} {:?} {}", world.account, world.invoices, world.suspended);
    }

    /// Whom an operator suspended, nobody else resumes.
    #[test]
    fn whoever_does_it_an_operators_suspension_stays(acts in acts()) {
        let world = play(Mutant::None, true, &acts);
        prop_assert!(world.suspended);
    }
}

/// Steps of two replicas: A decides, and B does all there is before A goes on.
fn overtaken(first: &[Act], steps: usize, meanwhile: &[Act]) -> World {
    let mut world = World::new(Mutant::None, false);
    let steps = vec![Act::Step(0); steps];
    let after = [Act::Step(0), Act::Comes(0), Act::Step(0), Act::Step(0)];
    let acts = [
        first,
        &steps,
        &[Act::TakeOver(1)],
        meanwhile,
        &[Act::Work(1)],
        &after,
    ];
    for act in acts.concat() {
        world.act(act);
    }
    world
}

#[test]
fn a_replica_that_is_overtaken_at_any_step_leaves_no_debt_and_no_wrong() {
    use InvoiceStatus::Paid;
    let fails = [Act::Fail(0)];
    let was_suspended = [Act::Fail(0), Act::Work(0), Act::Becomes(0, Paid)];
    let cases: [(&[Act], &[Act]); 4] = [
        (&fails, &[Act::Becomes(0, Paid)]),
        (&fails, &[Act::Fail(1), Act::Becomes(0, Paid)]),
        (&was_suspended, &[Act::Fail(1)]),
        (&was_suspended, &[]),
    ];
    for (n, (first, meanwhile)) in cases.into_iter().enumerate() {
        for steps in 0..9 {
            let mut world = overtaken(first, steps, meanwhile);
            world.settle();
            assert!(is_right(&world), "case {n}, {steps} steps");
        }
    }
}

/// The tests tell right from wrong: each of these is found.
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn what_is_broken_is_found() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    for (n, mutant) in [Mutant::NoFence, Mutant::NoWord, Mutant::NoDoubt]
        .into_iter()
        .enumerate()
    {
        let mut runner = TestRunner::deterministic();
        let found = (0..40_000).any(|_| {
            let acts = acts().new_tree(&mut runner).unwrap().current();
            !is_right(&play(mutant, false, &acts))
        });
        assert!(found, "mutant {n}");
    }
}
