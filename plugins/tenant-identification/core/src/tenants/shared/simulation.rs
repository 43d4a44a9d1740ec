//! Several workers whose board operations interleave, a router that changes and
//! forgets, answers that are late or lost, workers that die and pages that vanish.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{
    fixture::{KEYS, Router, Slots, TENANTS, check_same, directory, hash, next, settings},
    *,
};
use crate::tenants::Found;

struct Worker {
    follower: Follower,
    /// What was asked, and what the router said to it: `None` for gone.
    waiting: Option<(u64, Option<Vec<u8>>)>,
    highest: u64,
    soon: bool,
}

struct World {
    slots: Slots,
    workers: Vec<RefCell<Worker>>,
    router: RefCell<Router>,
    seed: Cell<u64>,
    now: Cell<u64>,
    /// How deep operations are inside each other; nothing interrupts where calm.
    depth: Cell<u32>,
    calm: Cell<bool>,
    fixed: bool,
    /// Pages vanish. Without that every page that is due is found.
    losses: bool,
    /// When polls began.
    polls: RefCell<Vec<u64>>,
}

/// Every operation of a worker may be interrupted by what others do.
impl Board for World {
    fn read(&self, key: &str) -> Option<Vec<u8>> {
        self.interrupt();
        self.slots.get(key).0
    }

    fn change<T>(
        &self,
        key: &str,
        mut decide: impl FnMut(Option<&[u8]>) -> (T, Option<Vec<u8>>),
    ) -> Option<T> {
        for _ in 0..8 {
            self.interrupt();
            let (value, cas) = self.slots.get(key);
            let (outcome, write) = decide(value.as_deref());
            self.interrupt();
            if write.is_none_or(|value| self.slots.set(key, value, cas, self.fixed)) {
                return Some(outcome);
            }
        }
        None
    }
}

impl World {
    fn new(mut seed: u64, workers: usize, fixed: bool, losses: bool) -> Self {
        let router = Router::new(directory(&mut seed, TENANTS));
        Self {
            slots: Slots::default(),
            workers: (0..workers)
                .map(|_| RefCell::new(Self::worker(fixed)))
                .collect(),
            router: RefCell::new(router),
            seed: Cell::new(seed),
            now: Cell::new(5_000),
            depth: Cell::new(0),
            calm: Cell::new(false),
            fixed,
            losses,
            polls: RefCell::default(),
        }
    }

    fn worker(fixed: bool) -> Worker {
        Worker {
            follower: Follower::new(settings(fixed)),
            waiting: None,
            highest: 0,
            soon: false,
        }
    }

    fn random(&self, below: u64) -> u64 {
        let mut seed = self.seed.get();
        let number = next(&mut seed);
        self.seed.set(seed);
        number % below
    }

    fn interrupt(&self) {
        if !self.calm.get() && self.depth.get() < 2 && self.random(10) == 0 {
            self.depth.set(self.depth.get() + 1);
            // Now and then for so long that a lease runs out and areas flip.
            let acts = [1, 1, 1, 1, 1, 1, 4, 60][usize::try_from(self.random(8)).unwrap()];
            (0..acts).for_each(|_| self.act());
            self.depth.set(self.depth.get() - 1);
        }
    }

    fn act(&self) {
        match self.random(100) {
            0..50 => self.with_worker(|world, worker| world.tick(worker)),
            50..80 => {
                self.with_worker(|world, worker| world.deliver(worker, world.random(12) == 0))
            }
            80..82 => self.with_worker(|world, worker| *worker = Self::worker(world.fixed)),
            82..88 => self.change_directory(),
            88..89 => {
                let mut router = self.router.borrow_mut();
                router.known_from = router.states.len() - 1;
            }
            89..90 if self.losses => self.lose_a_page(),
            90..92 => self.now.set(self.now.get() + 2_500),
            _ => self.now.set(self.now.get() + self.random(300)),
        }
    }

    /// One that is not in the middle of something.
    fn with_worker(&self, what: impl FnOnce(&Self, &mut Worker)) {
        let at = usize::try_from(self.random(64)).unwrap() % self.workers.len();
        if let Ok(mut worker) = self.workers[at].try_borrow_mut() {
            what(self, &mut worker);
        }
    }

    fn change_directory(&self) {
        let mut seed = self.random(u64::MAX);
        let whole = directory(&mut seed, TENANTS);
        let mut router = self.router.borrow_mut();
        let mut changed = router.newest().1.clone();
        if self.random(2) == 0 {
            changed = whole;
        } else {
            changed.pop_first();
        }
        router.push(changed);
    }

    fn lose_a_page(&self) {
        let mut slots = self.slots.0.borrow_mut();
        let at = usize::try_from(self.random(64)).unwrap() % slots.len().max(1);
        let key = slots.keys().nth(at).cloned();
        slots.retain(|k, _| k.ends_with(".head") || Some(k) != key.as_ref());
    }

    fn tick(&self, worker: &mut Worker) {
        let now = self.now.get();
        let step = worker.follower.tick(self, now, self.random(u64::MAX));
        if matches!(step, Step::Ask(_)) {
            self.polls.borrow_mut().push(now);
        }
        self.take(worker, step);
    }

    fn deliver(&self, worker: &mut Worker, lost: bool) {
        let Some((ticket, page)) = worker.waiting.take() else {
            return;
        };
        let answer = match &page {
            _ if lost => Answer::Failed,
            Some(page) => Answer::Page(page),
            None => Answer::Gone,
        };
        let step = worker
            .follower
            .answered(self, self.now.get(), ticket, answer);
        self.take(worker, step);
    }

    fn take(&self, worker: &mut Worker, step: Step) {
        let number = worker
            .follower
            .version()
            .map_or(0, |version| version.number);
        assert!(
            number >= worker.highest,
            "from {} to {number}",
            worker.highest
        );
        worker.highest = number;
        worker.soon = step == Step::Behind;
        if let Step::Ask(request) = step {
            let behind = usize::from(!self.calm.get() && self.random(10) == 0);
            let answer = self.router.borrow().answer(&request, behind);
            worker.waiting = Some((request.ticket, answer));
        }
        self.check_head(worker);
    }

    fn check_head(&self, worker: &Worker) {
        let head = Head::decode(self.slots.get(worker.follower.names.head()).0.as_deref());
        let leads = |f: &Follower| f.poll.as_ref().is_some_and(|(_, poll)| poll.owns(&head));
        let others = self
            .workers
            .iter()
            .filter_map(|other| other.try_borrow().ok());
        let others = others.filter(|other| leads(&other.follower)).count();
        assert!(others + usize::from(leads(&worker.follower)) <= 1);
        assert!(self.losses || !head.whole_wanted, "a page was not found");
    }

    /// Nothing goes wrong for so long; the router answers at once.
    fn calm(&self, for_ms: u64) {
        self.calm.set(true);
        let until = self.now.get() + for_ms;
        let mut due = vec![self.now.get(); self.workers.len()];
        while self.now.get() < until {
            for (worker, due) in self.workers.iter().zip(&mut due) {
                let worker = &mut worker.borrow_mut();
                while worker.waiting.is_some() {
                    self.deliver(worker, false);
                }
                if self.now.get() >= *due {
                    self.tick(worker);
                    let every_ms = worker.follower.tick_ms();
                    let wait_ms = if worker.soon {
                        Follower::SOON_MS
                    } else {
                        every_ms
                    };
                    *due = self.now.get() + wait_ms;
                }
            }
            self.now.set(self.now.get() + 10);
        }
    }

    fn check_settled(&self) {
        let router = self.router.borrow();
        let (version, directory) = router.newest();
        for worker in &self.workers {
            let follower = &worker.borrow().follower;
            assert_eq!(follower.store().held(), Some(*version));
            check_same(follower.store(), directory);
            assert!(follower.ready() && follower.age_ms(self.now.get()).unwrap() <= 1_000);
        }
    }

    /// Takes one key away and waits one poll interval.
    fn check_a_revoked_key_goes(&self) {
        let mut changed = self.router.borrow().newest().1.clone();
        let keys = changed.values_mut().map(|tenant| &mut tenant.keys);
        let revoked = keys
            .filter(|keys| !keys.is_empty())
            .last()
            .and_then(Vec::pop);
        self.router.borrow_mut().push(changed);
        self.calm(1_000);
        for worker in &self.workers {
            let worker = worker.borrow();
            let store = worker.follower.store();
            assert!(revoked.is_none_or(|key| store.find(&key.hash, 0) == Found::Unknown));
            let known = |key: &u64| store.find(&hash(*key), 0) != Found::Unknown;
            assert_eq!((0..KEYS).filter(known).count(), store.keys());
        }
    }

    fn check_pace(&self) {
        let mut polls = self.polls.borrow().clone();
        polls.sort_unstable();
        let apart = polls.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(apart.min().is_none_or(|least| least >= 500), "{polls:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn all_workers_come_to_the_routers_newest(
        seed: u64,
        workers in 1usize..6,
        steps in 0usize..800,
        fixed: bool,
        losses: bool,
    ) {
        let world = World::new(seed, workers, fixed && steps < 300, losses);
        (0..steps).for_each(|_| world.act());
        // A lease to run out, a poll, and one more where a page was found lost.
        world.calm(4_000);
        world.check_settled();
        for _ in 0..3 {
            world.check_a_revoked_key_goes();
            world.calm(world.random(700));
        }
        world.calm(1_000);
        world.check_settled();
        world.check_pace();
    }
}
