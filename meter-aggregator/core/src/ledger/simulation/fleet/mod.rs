//! The same world with a fleet: one to four replicas on one ledger, each with the shards
//! that its heartbeat tells it, and a stream with a lane for each shard. Replicas die, stop
//! and come; they stand still between any two calls and go on when others have their
//! shards; their clocks differ, and the store's is set. Redis loses answers, its group and
//! what it did last.

mod lane;
mod replica;

use std::collections::{BTreeMap, BTreeSet};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use self::{
    lane::Lane,
    replica::{Replica, Step},
};
use super::{HOUR_MS, Mutant, Named, World};
use crate::lease::{Member, Scope, Shard, Terms};

/// Which stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Redis,
    Kafka,
}

/// All there is.
struct Fleet {
    /// The ledger, Stripe and what tenants use; its `process` is whoever works just now.
    world: World,
    kind: Kind,
    lanes: Vec<Lane>,
    /// How much of what came to the stream is in its lanes.
    arrived: usize,
    /// The shards that have tenants.
    shards: Vec<Shard>,
    replicas: Vec<Option<Replica>>,
    /// When each may come again.
    restart_ms: Vec<i64>,
    /// How many there were.
    births: usize,
    /// How often a call of the stream's is not answered, permille.
    breaks: i64,
    /// How often a replica stands still, permille of the time's steps.
    freezes: i64,
    /// What zombies were kept from, and how often.
    fenced: BTreeMap<Step, usize>,
}

impl Fleet {
    fn new(seed: u64, mutant: Mutant) -> Self {
        let mut world = World::new(seed, mutant);
        world.memory.is_sharded = true;
        world.traffic.booked = Some(Vec::new());
        world.actor.survives = 500;
        world.actor.is_unchecked = mutant == Mutant::NoCheck;
        world.table.keeps_epoch = mutant == Mutant::SameEpoch;
        let random = &mut world.random;
        let kind = match mutant {
            Mutant::OffsetFirst => Kind::Kafka,
            Mutant::AckFirst | Mutant::TrimFar | Mutant::GroupAtEnd | Mutant::NoClaim => {
                Kind::Redis
            }
            _ => random.pick(&[Kind::Redis, Kind::Redis, Kind::Kafka]),
        };
        let count = random.pick(&[1, 2, 2, 3, 3, 4]);
        let (breaks, freezes) = (random.pick(&[0, 50, 200]), random.pick(&[20, 200, 500]));
        let shards: BTreeSet<Shard> = world.traffic.tenants().map(Shard::of).collect();
        Self {
            world,
            kind,
            lanes: vec![Lane::default(); 16],
            arrived: 0,
            shards: shards.into_iter().collect(),
            replicas: (0..count).map(|_| None).collect(),
            restart_ms: vec![0; count],
            births: 0,
            breaks,
            freezes,
            fenced: BTreeMap::new(),
        }
    }

    /// A replica of another id than all before.
    fn start(&mut self, n: usize) {
        self.births += 1;
        self.replicas[n] = Some(Replica {
            me: Member {
                id: format!("{}", self.births),
                version: 1,
                wants_all: false,
            },
            frozen_until_ms: 0,
            skew_ms: self.world.random.within(-120_000, 120_000),
            works: BTreeMap::new(),
        });
        self.beat(n);
    }

    fn is_awake(&self, n: usize) -> bool {
        let now_ms = self.world.now_ms;
        self.replicas[n]
            .as_ref()
            .is_some_and(|r| r.frozen_until_ms <= now_ms)
    }

    /// Time goes on, in which whoever is awake has beaten; mostly.
    fn wait(&mut self, ms: i64) {
        self.world.now_ms += ms;
        self.world.table.now_ms += ms;
        for n in 0..self.replicas.len() {
            let is_late = self.breaks > 0 && self.world.random.chance(50);
            if let (true, false, Some(replica)) = (self.is_awake(n), is_late, &self.replicas[n]) {
                let table = &mut self.world.table;
                if let Some(row) = table.replicas.get_mut(&replica.me.id) {
                    row.until_ms = table.now_ms + Terms::default().ttl_ms;
                }
            }
        }
    }

    /// What came to the stream goes to its tenants' lanes, some of it twice: a producer
    /// that was not answered sends it again.
    fn arrive(&mut self) {
        let world = &mut self.world;
        world.traffic.arrive(&mut world.random, world.now_ms);
        for (_, claim) in &world.traffic.stream[self.arrived..] {
            let shard = Shard::of(world.traffic.event(*claim).0);
            let lane = &mut self.lanes[usize::from(shard.number())];
            for _ in 0..1 + i64::from(world.random.chance(self.breaks)) {
                lane.append(*claim);
            }
        }
        self.arrived = world.traffic.stream.len();
    }

    /// What befalls the fleet.
    fn befall(&mut self) {
        let random = &mut self.world.random;
        if random.chance(15) {
            self.world.stripe.down_until_ms = self.world.now_ms + random.pause_ms(i64::MAX);
            self.world.stripe.takes_while_down = random.chance(500);
        }
        if random.chance(20) {
            let most_ms = random.pick(&[10_000, HOUR_MS]);
            self.world.table.now_ms += random.within(-most_ms, most_ms);
        }
        if random.chance(self.freezes) {
            let n = random.below(self.replicas.len());
            let until_ms = self.world.now_ms + random.pause_ms(i64::MAX);
            if let Some(replica) = &mut self.replicas[n] {
                replica.frozen_until_ms = until_ms;
            }
        }
        if self.breaks > 0 && random.chance(40) {
            let what = random.within(0, 3);
            let lanes = self.lanes.iter_mut();
            match what {
                0 => lanes.for_each(|lane| lane.group = None),
                1 => lanes.for_each(Lane::fork),
                _ => lanes.for_each(Lane::fail_over),
            }
        }
        if self.world.random.chance(self.world.deaths / 4) {
            let n = self.world.random.below(self.replicas.len());
            match self.world.random.chance(500) {
                true => self.kill(n),
                false if self.is_awake(n) => self.stop(n),
                false => {}
            }
        }
    }

    /// Transactions under way keep some shards from being claimed.
    fn beat_among_others(&mut self, n: usize) {
        let random = &mut self.world.random;
        let locked = Shard::all().filter(|_| random.chance(100));
        self.world.table.locked = locked.collect();
        self.beat(n);
        self.world.table.locked.clear();
    }

    /// The operator says something, to whichever shard that is about.
    fn hear(&mut self, says: impl FnOnce(&mut World)) {
        let (survives, deaths) = (self.world.actor.survives, self.world.deaths);
        let shard = self.world.random.pick(&self.shards);
        self.world.actor.scope = Scope::Asked(shard);
        // Whose process it is that hears him, and dies of it, is no matter.
        (self.world.actor.survives, self.world.deaths) = (1_000, deaths);
        says(&mut self.world);
        self.world.actor.survives = survives;
        self.world.actor.scope = Scope::Whole;
    }

    /// Some of what the replicas do, in whatever order.
    fn live(&mut self) {
        for n in 0..self.replicas.len() {
            if self.replicas[n].is_none() && self.restart_ms[n] <= self.world.now_ms {
                self.start(n);
            }
        }
        for _ in 0..self.world.random.within(1, 24) {
            if self.world.random.chance(self.world.meddling) {
                self.hear(World::meddle);
                continue;
            }
            let n = self.world.random.below(self.replicas.len());
            if !self.is_awake(n) {
                continue;
            }
            if self.world.random.chance(100) {
                self.beat_among_others(n);
                continue;
            }
            let Some(shard) = self.held(n) else { continue };
            // Mostly it does more than one thing in a row.
            for _ in 0..self.world.random.within(1, 6) {
                let step = self.world.random.pick(&Step::ALL);
                self.step(n, shard, step);
            }
        }
    }

    /// A shard with tenants of those that a replica was told to hold.
    fn held(&mut self, n: usize) -> Option<Shard> {
        let works = &self.replicas[n].as_ref()?.works;
        let held = self.shards.iter().filter(|s| works.contains_key(s));
        let held: Vec<Shard> = held.copied().collect();
        (!held.is_empty()).then(|| self.world.random.pick(&held))
    }

    /// Days on which everything may happen.
    fn worsen(&mut self) {
        let until_ms = self.world.now_ms + self.world.random.within(4, 40) * HOUR_MS;
        let mut steps = 0;
        while self.world.now_ms < until_ms && steps < 120 {
            steps += 1;
            let ms = match self.world.random.chance(500) {
                true => self.world.random.within(1, 8_000),
                false => self.world.random.pause_ms(i64::MAX),
            };
            self.wait(ms);
            self.befall();
            self.arrive();
            self.live();
        }
    }

    /// Nothing fails any more. Whoever stood still goes on as if nothing had happened, and
    /// then the shards settle and all that is left is done.
    fn settle(&mut self) {
        self.world.calm();
        self.arrive();
        self.breaks = 0;
        self.world.meddling = 0;
        for replica in self.replicas.iter_mut().flatten() {
            replica.frozen_until_ms = 0;
        }
        self.live();
        for n in 0..self.replicas.len() {
            self.kill(n);
        }
        let alive = 1 + self.world.random.below(self.replicas.len());
        for n in 0..alive {
            self.start(n);
        }
        // The dead are gone then, though the clock was set back.
        self.wait(20 * Terms::default().ttl_ms);
        for _ in 0..5 {
            (0..alive).for_each(|n| self.beat(n));
        }
        self.judge_shares(alive);
        for _ in 0..600 {
            (0..alive).for_each(|n| self.work(n));
            if self.world.is_settled() {
                return;
            }
            self.hear(World::decide_all);
            self.wait(7 * 60_000 + HOUR_MS / 10);
            (0..alive).for_each(|n| self.beat(n));
        }
        self.world.complain();
    }

    /// Each shard has a holder, and all have as many.
    fn judge_shares(&self, alive: usize) {
        let replicas = self.replicas.iter().flatten();
        let counts: Vec<usize> = replicas.map(|replica| replica.works.len()).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        let is_even = most.unwrap() - least.unwrap() <= 1;
        assert_eq!(counts.len(), alive);
        assert_eq!(counts.iter().sum::<usize>(), 16, "{counts:?}");
        assert!(is_even, "{counts:?}");
    }

    /// Beside what holds of every world: all that came was booked, and Redis holds nothing
    /// any more.
    fn judge(&self) {
        self.world.judge();
        let traffic = &self.world.traffic;
        let came: BTreeSet<usize> = traffic.stream.iter().map(|(_, claim)| *claim).collect();
        let booked: BTreeSet<usize> = traffic.booked.iter().flatten().copied().collect();
        assert_eq!(came, booked, "not all that came was booked");
        let is_kept = self.kind == Kind::Kafka;
        assert!(
            is_kept || self.lanes.iter().all(Lane::is_empty),
            "not trimmed"
        );
    }
}

/// Runs one world from its beginning to its end.
fn run(seed: u64, mutant: Mutant) -> Fleet {
    let mut fleet = Fleet::new(seed, mutant);
    fleet.worsen();
    fleet.settle();
    fleet.judge();
    fleet
}

#[track_caller]
fn check(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let _named = Named(seed);
        run(seed, Mutant::None);
    }
}

#[test]
fn a_fleet_bills_what_was_used() {
    check(0..200);
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use super::*;

    #[test]
    fn a_fleet_bills_what_was_used_in_some_thousand_worlds() {
        check(200..3_000);
    }

    #[test]
    #[ignore = "ten minutes and more"]
    fn a_fleet_bills_what_was_used_in_many_worlds() {
        check(3_000..200_000);
    }

    /// Zombies are usual in these worlds, whatever they were about to do.
    #[test]
    fn zombies_are_kept_from_all_there_is() {
        let mut fenced: BTreeMap<Step, usize> = BTreeMap::new();
        for seed in 0..400 {
            for (step, count) in run(seed, Mutant::None).fenced {
                *fenced.entry(step).or_default() += count;
            }
        }
        println!("{fenced:?}");
        assert_eq!(fenced.len(), 8, "{fenced:?}");
        assert!(fenced.values().sum::<usize>() > 400, "{fenced:?}");
    }

    /// The world tells right from wrong: each of these is found, by so many seeds.
    #[test]
    fn what_is_broken_in_a_fleet_is_found() {
        let mutants = [
            (Mutant::NoCheck, 50),
            (Mutant::SameEpoch, 50),
            (Mutant::OldSender, 200),
            (Mutant::AckFirst, 50),
            (Mutant::TrimFar, 200),
            (Mutant::GroupAtEnd, 200),
            (Mutant::NoClaim, 200),
            (Mutant::OffsetFirst, 50),
            (Mutant::Asleep, 2_000),
        ];
        super::super::each_is_found(&mutants, run);
    }
}
