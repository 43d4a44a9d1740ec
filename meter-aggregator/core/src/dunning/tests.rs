//! The policy, case by case, and over histories in which everything goes wrong.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn invoice(id: &str, status: InvoiceStatus, attempt_count: u32) -> Invoice {
    Invoice {
        id: id.to_owned(),
        customer: Some("cus_1".to_owned()),
        status: Some(status),
        attempt_count,
        period_start: 0,
        period_end: 1,
    }
}

fn policy(after_attempts: u32) -> Policy {
    Policy {
        on_payment_failed: OnPaymentFailed::Suspend,
        after_attempts: NonZeroU32::new(after_attempts).unwrap(),
        on_uncollectible: OnUncollectible::Keep,
    }
}

#[test]
fn an_invoice_is_due_by_the_policy() {
    use InvoiceStatus::{Draft, Open, Paid, Uncollectible, Unknown, Void};
    let check = |policy: Policy, status: InvoiceStatus, attempts: u32, wanted: bool| {
        let found = policy.is_due(&invoice("in_1", status, attempts));
        assert_eq!(found, wanted, "{policy:?} {status:?} {attempts}");
    };
    check(policy(1), Open, 0, false);
    check(policy(1), Open, 1, true);
    check(policy(3), Open, 2, false);
    check(policy(3), Open, 3, true);
    for status in [Draft, Paid, Void, Unknown] {
        check(policy(1), status, 9, false);
    }
    check(policy(1), Uncollectible, 1, true);
    check(policy(1), Uncollectible, 0, false);
    let resume = Policy {
        on_uncollectible: OnUncollectible::Resume,
        ..policy(1)
    };
    check(resume, Uncollectible, 1, false);
    let ignore = Policy {
        on_payment_failed: OnPaymentFailed::Ignore,
        ..policy(1)
    };
    check(ignore, Open, 9, false);
}

#[test]
fn each_state_has_its_answer() {
    use Hold::{Lifted, None, Operators, Ours, Resuming, Suspending, Unknown};
    const SUSPEND: Option<Action> = Some(Action::Suspend);
    const RESUME: Option<Action> = Some(Action::Resume);
    const NOTHING: Option<Action> = Option::None;
    let check =
        |hold: Hold, due: &[&str], newly: bool, seen: Seen, wanted: (Hold, Option<Action>)| {
            let account = Account {
                hold,
                due: due.iter().map(|id| (*id).to_owned()).collect(),
            };
            let (account, action) = account.decide(newly, seen);
            assert_eq!(
                (account.hold, action),
                wanted,
                "{hold} {due:?} {newly} {seen:?}"
            );
        };
    let one = &["in_1"][..];
    // A tenant that owes.
    check(None, one, true, Seen::Active, (Suspending, SUSPEND));
    check(None, one, true, Seen::Suspended, (Operators, NOTHING));
    check(None, one, true, Seen::Unknown, (Unknown, NOTHING));
    check(Unknown, one, false, Seen::Active, (Suspending, SUSPEND));
    check(Suspending, one, false, Seen::Active, (Suspending, SUSPEND));
    check(
        Suspending,
        one,
        false,
        Seen::Suspended,
        (Suspending, SUSPEND),
    );
    check(Ours, one, true, Seen::Suspended, (Ours, NOTHING));
    check(Resuming, one, true, Seen::Suspended, (Ours, NOTHING));
    check(Resuming, one, true, Seen::Active, (Suspending, SUSPEND));
    // An operator let it go on: only another invoice suspends it again.
    check(Ours, one, false, Seen::Active, (Lifted, NOTHING));
    check(Lifted, one, false, Seen::Active, (Lifted, NOTHING));
    check(Lifted, one, true, Seen::Active, (Suspending, SUSPEND));
    check(Lifted, one, true, Seen::Suspended, (Operators, NOTHING));
    check(Operators, one, true, Seen::Suspended, (Operators, NOTHING));
    check(Operators, one, false, Seen::Active, (Lifted, NOTHING));
    // A tenant that owes nothing: only what we did is undone.
    check(Ours, &[], false, Seen::Suspended, (Resuming, RESUME));
    check(Suspending, &[], false, Seen::Suspended, (Resuming, RESUME));
    check(Resuming, &[], false, Seen::Suspended, (Resuming, RESUME));
    for hold in Hold::ALL {
        check(hold, &[], false, Seen::Active, (None, NOTHING));
        check(hold, &[], false, Seen::Unknown, (None, NOTHING));
    }
    for hold in [None, Operators, Lifted, Unknown] {
        check(hold, &[], false, Seen::Suspended, (None, NOTHING));
    }
}

#[test]
fn holds_keep_their_names() {
    for hold in Hold::ALL {
        assert_eq!(Hold::parse(hold.as_str()), Some(hold));
    }
    assert_eq!(Hold::parse("x"), None);
}

/// Where a handler dies.
#[derive(Debug, Clone, Copy)]
enum Crash {
    Nowhere,
    BeforeRouter,
    AfterRouter,
}

#[derive(Debug, Clone)]
enum Step {
    /// A payment of that invoice fails.
    Fail(usize),
    /// It becomes that.
    Becomes(usize, InvoiceStatus),
    /// The event at that place of the queue is delivered, and perhaps kept.
    Deliver(usize, bool, Crash),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop_oneof![
        Just(InvoiceStatus::Paid),
        Just(InvoiceStatus::Void),
        Just(InvoiceStatus::Uncollectible),
        Just(InvoiceStatus::Open),
    ];
    let crash = prop_oneof![
        Just(Crash::Nowhere),
        Just(Crash::BeforeRouter),
        Just(Crash::AfterRouter)
    ];
    let step = prop_oneof![
        (0_usize..3).prop_map(Step::Fail),
        (0_usize..3, status).prop_map(|(i, s)| Step::Becomes(i, s)),
        (any::<usize>(), any::<bool>(), crash).prop_map(|(i, keep, c)| Step::Deliver(i, keep, c)),
    ];
    prop::collection::vec(step, 0..60)
}

/// Stripe, the router and the ledger.
struct World {
    policy: Policy,
    invoices: Vec<Invoice>,
    queue: Vec<usize>,
    suspended: bool,
    account: Account,
    resumes: usize,
}

impl World {
    fn new(policy: Policy, suspended: bool) -> Self {
        let open = |id: &str| invoice(id, InvoiceStatus::Open, 0);
        Self {
            policy,
            invoices: ["in_0", "in_1", "in_2"].map(open).to_vec(),
            queue: Vec::new(),
            suspended,
            account: Account::default(),
            resumes: 0,
        }
    }

    fn change(&mut self, step: &Step) {
        match *step {
            Step::Fail(i) => self.invoices[i].attempt_count += 1,
            Step::Becomes(i, status) => self.invoices[i].status = Some(status),
            Step::Deliver(place, keep, crash) => {
                if self.queue.is_empty() {
                    return;
                }
                let place = place % self.queue.len();
                let i = self.queue[place];
                let handled = self.handle(i, crash);
                if handled && !keep {
                    self.queue.remove(place);
                }
                return;
            }
        }
        let (Step::Fail(i) | Step::Becomes(i, _)) = *step else {
            return;
        };
        self.queue.push(i);
    }

    /// As the server does it; says whether the event is done with.
    fn handle(&mut self, i: usize, crash: Crash) -> bool {
        let (account, newly) = self.account.clone().with(&self.policy, &self.invoices[i]);
        if !account.concerns_router() {
            self.account = account;
            return true;
        }
        let seen = if self.suspended {
            Seen::Suspended
        } else {
            Seen::Active
        };
        let (account, action) = account.decide(newly, seen);
        self.account = account;
        let Some(action) = action else { return true };
        if matches!(crash, Crash::BeforeRouter) {
            return false;
        }
        self.suspended = action == Action::Suspend;
        self.resumes += usize::from(action == Action::Resume);
        if matches!(crash, Crash::AfterRouter) {
            return false;
        }
        self.account = self.account.clone().done(action);
        true
    }

    fn drain(&mut self) {
        while let Some(i) = self.queue.pop() {
            assert!(self.handle(i, Crash::Nowhere));
        }
    }

    fn owes(&self) -> bool {
        self.invoices.iter().any(|i| self.policy.is_due(i))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes twice, late, in the wrong order or with a crash: in the end a
    /// tenant is suspended if and only if an invoice is due.
    #[test]
    fn who_owes_is_suspended_and_who_paid_is_not(after in 1_u32..4, steps in steps()) {
        let mut world = World::new(policy(after), false);
        for step in &steps {
            world.change(step);
        }
        world.drain();
        prop_assert_eq!(world.suspended, world.owes());
        let hold = if world.owes() { Hold::Ours } else { Hold::None };
        prop_assert_eq!(world.account.hold, hold);
    }

    /// Whom an operator suspended, nobody else resumes.
    #[test]
    fn an_operators_suspension_stays(after in 1_u32..4, steps in steps()) {
        let mut world = World::new(policy(after), true);
        for step in &steps {
            world.change(step);
        }
        world.drain();
        prop_assert!(world.suspended);
        prop_assert_eq!(world.resumes, 0);
    }
}
