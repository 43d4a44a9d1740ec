//! What holds whatever comes and goes.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Enter(usize, u64),
    Leave(usize, u64),
    Abandon(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5_usize, 0..50_u64).prop_map(|(tenant, cost)| Step::Enter(tenant, cost)),
        4 => (any::<usize>(), 0..90_u64).prop_map(|(which, cost)| Step::Leave(which, cost)),
        1 => any::<usize>().prop_map(Step::Abandon),
    ]
}

/// What a caller knows of its tickets.
#[derive(Default)]
struct Books {
    running: BTreeSet<Ticket>,
    /// By tenant, in the order in which they came.
    waiting: HashMap<usize, VecDeque<Ticket>>,
}

impl Books {
    fn started(&mut self, started: &[Started]) -> Result<(), TestCaseError> {
        for started in started {
            let mut firsts = self.waiting.values_mut();
            let first = firsts.find(|w| w.front() == Some(&started.ticket));
            prop_assert!(
                first.is_some(),
                "{:?} was not the first of a tenant",
                started
            );
            first.unwrap().pop_front();
            prop_assert!(self.running.insert(started.ticket));
        }
        Ok(())
    }

    fn forget(&mut self, ticket: Ticket) {
        for waiting in self.waiting.values_mut() {
            waiting.retain(|t| *t != ticket);
        }
    }

    fn nth(&self, which: usize) -> Option<Ticket> {
        let all: Vec<Ticket> = self.running.iter().copied().collect();
        all.get(which.checked_rem(all.len())?).copied()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No ticket is lost or runs twice, each tenant's run in order, no place is idle
    /// while somebody waits, and nothing grows beyond its bound.
    #[test]
    fn every_ticket_has_one_fate(
        steps in prop::collection::vec(step(), 1..200),
        (capacity, most) in (1..4_u32, 0..8_u32),
        weights in prop::collection::vec(0..5_u32, 5),
    ) {
        let mut queue = queue(capacity, most);
        let mut books = Books::default();
        let tenants: Vec<TenantId> = (0..5).map(|i| id(&format!("t{i}"))).collect();
        for (now_ms, step) in (0_u64..).zip(steps) {
            match step {
                Step::Enter(tenant, cost) => match queue.enter(&tenants[tenant], weights[tenant], cost, now_ms) {
                    Entered::Run(ticket) => prop_assert!(books.running.insert(ticket)),
                    Entered::Wait { ticket, displaced } => {
                        if let Some(displaced) = displaced {
                            let mut owners = books.waiting.values();
                            let owner = owners.find(|w| w.back() == Some(&displaced.ticket));
                            prop_assert!(owner.is_some_and(|w| w.len() > 1));
                            books.forget(displaced.ticket);
                        }
                        books.waiting.entry(tenant).or_default().push_back(ticket);
                    }
                    Entered::Full { retry_after_ms } => {
                        prop_assert!((RETRY_MIN_MS..=RETRY_MAX_MS).contains(&retry_after_ms));
                        prop_assert_eq!(queue.waiting(), most as usize);
                    }
                },
                Step::Leave(which, cost) => {
                    if let Some(ticket) = books.nth(which) {
                        books.running.remove(&ticket);
                        books.started(&queue.leave(ticket, cost, now_ms))?;
                    }
                }
                Step::Abandon(which) => {
                    let ticket = Ticket(which as u64 % (queue.last.0 + 2));
                    books.forget(ticket);
                    books.running.remove(&ticket);
                    books.started(&queue.abandon(ticket, now_ms))?;
                }
            }
            let waiting: usize = books.waiting.values().map(VecDeque::len).sum();
            prop_assert_eq!((queue.running(), queue.waiting()), (books.running.len(), waiting));
            prop_assert!(waiting <= most as usize && queue.running() <= capacity as usize);
            prop_assert!(waiting == 0 || queue.running() == capacity as usize);
            let idle = queue.flows.values().filter(|f| f.is_idle()).count();
            prop_assert!(idle <= 5);
        }
        while let Some(ticket) = books.nth(0) {
            books.running.remove(&ticket);
            books.started(&queue.leave(ticket, 1, 1_000))?;
        }
        prop_assert_eq!((queue.running(), queue.waiting(), queue.flows.len()), (0, 0, 0));
    }

    /// Two tenants that always have something waiting differ in the cost that they
    /// began, each for its weight, by one request of each at the most (theorem 1 of
    /// Goyal, Vin and Cheng).
    #[test]
    fn each_gets_its_share_of_the_cost(
        weights in prop::collection::vec(1..10_u32, 3),
        costs in prop::collection::vec((1..=MOST, 0..3_usize, any::<usize>()), 300),
        (capacity, early) in (1..5_u32, 0..4_usize),
    ) {
        let mut load = Load::new(capacity, &weights);
        // One is there before the others, and some have more waiting.
        for (cost, ..) in costs.iter().take(early) {
            load.enter(0, *cost);
        }
        for (cost, tenant, _) in costs.iter().take(30) {
            load.enter(*tenant, *cost);
        }
        for tenant in 0..3 {
            for _ in 0..10 {
                load.enter(tenant, 50);
            }
        }
        // From here on each has something waiting, whatever ran before.
        let mut began = [0_u64; 3];
        for (cost, _, which) in costs {
            for (tenant, served) in load.end(which) {
                began[tenant] += served;
                load.enter(tenant, cost);
            }
            for (i, j) in [(0, 1), (0, 2), (1, 2)] {
                let (wi, wj) = (u64::from(weights[i]), u64::from(weights[j]));
                // For each its weight: both sides times both weights.
                let lag = (began[i] * wj).abs_diff(began[j] * wi);
                let bound = MOST * (wi + wj);
                prop_assert!(lag <= bound, "{lag} > {bound} for {began:?} at {weights:?}");
            }
        }
    }
}

/// The dearest request.
const MOST: u64 = 100;

/// Three tenants, and what each of their requests comes to.
struct Load {
    queue: FairQueue,
    tenants: Vec<(TenantId, u32)>,
    requests: HashMap<Ticket, (usize, u64)>,
    running: Vec<Ticket>,
}

impl Load {
    fn new(capacity: u32, weights: &[u32]) -> Self {
        let tenants = weights.iter().zip(0..);
        Self {
            queue: queue(capacity, 1_000),
            tenants: tenants.map(|(w, i)| (id(&format!("t{i}")), *w)).collect(),
            requests: HashMap::new(),
            running: Vec::new(),
        }
    }

    fn enter(&mut self, tenant: usize, cost: u64) {
        let (name, weight) = &self.tenants[tenant];
        let ticket = match self.queue.enter(name, *weight, cost, 0) {
            Entered::Run(ticket) => {
                self.running.push(ticket);
                ticket
            }
            Entered::Wait { ticket, .. } => ticket,
            Entered::Full { .. } => panic!("it is not full"),
        };
        self.requests.insert(ticket, (tenant, cost));
    }

    /// Ends one of those that run; gives whose began, and of what cost.
    fn end(&mut self, which: usize) -> Vec<(usize, u64)> {
        let over = self.running.swap_remove(which % self.running.len());
        let started = self.queue.leave(over, self.requests[&over].1, 0);
        self.running.extend(started.iter().map(|s| s.ticket));
        started.iter().map(|s| self.requests[&s.ticket]).collect()
    }
}
