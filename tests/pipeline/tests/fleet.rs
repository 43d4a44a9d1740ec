//! Several aggregators: three on one Postgres and one Redis, of which everything is killed
//! and stopped and cut off in turn; some that come and go; two on one folder, of which one
//! waits. What Stripe and the ledger have is what was used.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;
use weir_harness::{
    aggregators::free_address, client, parts::Service, postgres::Postgres, process::Process,
    proxy::Proxy, redis::Redis,
};
use weir_pipeline_tests::{
    PATIENCE,
    books::{Replica, World, members},
    load::{Log, Way, seed, under_load},
    made_up::{MADE, METERS, Random, Truth},
};

const KILLS: usize = 100;

/// Of eleven shards.
const TENANTS: [&str; 16] = [
    "acme",
    "solo",
    "globex",
    "initech",
    "umbrella",
    "hooli",
    "stark",
    "wayne",
    "tyrell",
    "cyberdyne",
    "soylent",
    "wonka",
    "oscorp",
    "massive",
    "aperture",
    "mesa",
];

/// The shortest that is allowed, seconds.
const LEASE_S: u64 = 3;

/// One that ends long after the others, which look each third of it, have seen that a
/// replica went.
const LONG_LEASE_S: u64 = 24;

/// Aggregators that share a Postgres and a Redis.
struct Fleet {
    world: World,
    lease_s: u64,
    postgres: Postgres,
    redis: Redis,
    log: Arc<Log>,
    redis_url: String,
    replicas: Vec<Member>,
    addresses: Vec<String>,
}

struct Member {
    name: String,
    data: String,
    database: String,
    proxy: Proxy,
    service: Option<Service>,
    begun: Instant,
    /// It is stopped or cut off, and not to be killed.
    is_spared: bool,
}

impl Fleet {
    fn new(count: usize, lease_s: u64) -> Self {
        let world = World::new(&TENANTS);
        let postgres = Postgres::start(world.folder.path()).unwrap();
        let redis = Redis::durable(world.folder.path()).unwrap();
        let replicas = (1..=count).map(|n| {
            let proxy = Proxy::start(postgres.address().parse().unwrap()).unwrap();
            Member {
                name: format!("aggregator-{n}"),
                data: format!("data-{n}"),
                database: postgres.url_at(&proxy.address()),
                proxy,
                service: None,
                begun: Instant::now(),
                is_spared: false,
            }
        });
        Self {
            replicas: replicas.collect(),
            addresses: (0..count).map(|_| free_address().unwrap()).collect(),
            redis_url: redis.url(),
            log: Arc::new(Log::new(world.folder.path().join("usage.log"))),
            world,
            lease_s,
            postgres,
            redis,
        }
    }

    /// Does something with how a replica is started.
    fn with<T>(&self, n: usize, work: impl FnOnce(&Replica<'_>) -> T) -> T {
        let member = &self.replicas[n];
        let mut all = members();
        all["ledger"] =
            json!({"postgres": {"url_env": "WEIR_DATABASE_URL", "lease_s": self.lease_s}});
        all["stream"] = json!({"redis": {"url_env": "WEIR_REDIS_URL"}});
        work(&Replica {
            name: &member.name,
            data: &member.data,
            listen: &self.addresses[n],
            // One follows it.
            access_log: (n == 0).then_some(self.log.path.as_path()),
            members: all,
            variables: &[
                ("WEIR_DATABASE_URL", &member.database),
                ("WEIR_REDIS_URL", &self.redis_url),
            ],
        })
    }

    fn start(&mut self, n: usize) {
        let service = self.with(n, |replica| self.world.start(replica));
        self.replicas[n].service = Some(service);
        self.replicas[n].begun = Instant::now();
    }

    /// Starts those that have ended again, as a supervisor does: without waiting, and not
    /// at once.
    fn supervise(&mut self) {
        for n in 0..self.replicas.len() {
            let member = &mut self.replicas[n];
            let rested = member.begun.elapsed() > Duration::from_millis(300);
            let Some(service) = &mut member.service else {
                continue;
            };
            if !service.process.is_running() && rested {
                let service = self.with(n, |replica| self.world.begin(replica));
                self.replicas[n].service = Some(service);
                self.replicas[n].begun = Instant::now();
            }
        }
    }

    fn rest(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.supervise();
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn process(&mut self, n: usize) -> &mut Process {
        &mut self.replicas[n].service.as_mut().unwrap().process
    }

    /// How many shards each replica holds, the most first.
    fn shares(&self) -> Vec<u64> {
        let sql = "SELECT count(*) FROM lease WHERE holder IS NOT NULL \
                   GROUP BY holder ORDER BY 1 DESC";
        let counts = self.postgres.ask(sql).unwrap();
        counts.lines().map(|n| n.parse().unwrap()).collect()
    }

    fn wait_for_shares(&self, expected: &[u64], within: Duration) {
        let begun = Instant::now();
        while self.shares() != expected {
            let found = self.shares();
            assert!(begun.elapsed() < within, "{found:?}, not {expected:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the ledger has.
    fn in_ledger(&self) -> Truth {
        let sql = "SELECT tenant, meter, hour, total FROM bucket WHERE total <> 0";
        let rows = self.postgres.ask(sql).unwrap();
        let rows = rows.lines().map(|row| {
            let [tenant, meter, hour, total] = row.split('|').collect::<Vec<_>>()[..] else {
                panic!("{row}");
            };
            let meter = METERS.into_iter().find(|m| *m == meter).unwrap();
            let key = (tenant.to_owned(), meter, hour.parse().unwrap());
            (key, total.parse().unwrap())
        });
        rows.collect()
    }
}

/// What happens beside the kills, after how many of them.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// Redis is killed and comes back with its append-only file.
    Redis,
    /// Postgres is killed and recovers.
    Postgres,
    /// Postgres is restarted in order.
    Maintenance,
    /// Nothing passes between a replica and Postgres for ten seconds.
    Network,
    /// A replica is stopped for longer than its lease, and goes on as if nothing was.
    Zombie,
    /// The gateway's log is rotated.
    Rotate,
}

const TROUBLES: [(usize, Trouble); 10] = [
    (8, Trouble::Rotate),
    (15, Trouble::Redis),
    (25, Trouble::Postgres),
    (35, Trouble::Network),
    (50, Trouble::Rotate),
    (55, Trouble::Zombie),
    (70, Trouble::Redis),
    (75, Trouble::Maintenance),
    (85, Trouble::Zombie),
    (92, Trouble::Postgres),
];

/// What ends a trouble.
enum Repair {
    Redis,
    Postgres,
    Network(usize),
    Continue(usize),
}

impl Fleet {
    /// Begins it; gives how long it lasts and what ends it.
    fn suffer(&mut self, trouble: Trouble, random: &mut Random) -> Option<(Instant, Repair)> {
        let free: Vec<usize> = (0..self.replicas.len())
            .filter(|n| !self.replicas[*n].is_spared)
            .collect();
        let (ms, repair) = match trouble {
            Trouble::Rotate => {
                self.log.rotate();
                return None;
            }
            Trouble::Maintenance => {
                self.postgres.restart().unwrap();
                return None;
            }
            Trouble::Redis => {
                self.redis.kill9();
                (800, Repair::Redis)
            }
            Trouble::Postgres => {
                self.postgres.kill9().unwrap();
                (800, Repair::Postgres)
            }
            Trouble::Network => {
                let n = *random.of(&free);
                self.replicas[n].is_spared = true;
                self.replicas[n].proxy.stall();
                (10_000, Repair::Network(n))
            }
            Trouble::Zombie => {
                let n = *random.of(&free);
                self.replicas[n].is_spared = true;
                self.process(n).signal(Signal::SIGSTOP);
                (self.lease_s * 1_000 + 3_000, Repair::Continue(n))
            }
        };
        Some((Instant::now() + Duration::from_millis(ms), repair))
    }

    fn repair(&mut self, repair: &Repair) {
        match *repair {
            Repair::Redis => self.redis.restart().unwrap(),
            Repair::Postgres => self.postgres.restart().unwrap(),
            Repair::Network(n) => {
                self.replicas[n].proxy.resume();
                self.replicas[n].is_spared = false;
            }
            Repair::Continue(n) => {
                self.process(n).signal(Signal::SIGCONT);
                self.replicas[n].is_spared = false;
            }
        }
    }

    /// Kills replicas at random, with everything else.
    fn torment(&mut self, random: &mut Random) {
        let mut repairs: Vec<(Instant, Repair)> = Vec::new();
        let mut troubles = TROUBLES.into_iter().peekable();
        for killed in 0..KILLS {
            while let Some((_, trouble)) = troubles.next_if(|(at, _)| *at <= killed) {
                repairs.extend(self.suffer(trouble, random));
            }
            self.world.misbehave(random);
            // Mostly faster than a lease ends; then long enough for the others to take over
            // and to book and send for a while.
            let calm = if killed % 10 == 9 { 4_000 } else { 0 };
            let pause = Instant::now() + Duration::from_millis(calm + 30 + random.below(500));
            loop {
                let now = Instant::now();
                while let Some(due) = repairs.iter().position(|(at, _)| *at <= now) {
                    let (_, repair) = repairs.swap_remove(due);
                    self.repair(&repair);
                }
                self.supervise();
                let may: Vec<usize> = (0..self.replicas.len())
                    .filter(|n| !self.replicas[*n].is_spared && self.process(*n).is_running())
                    .collect();
                if now >= pause && !may.is_empty() {
                    self.process(*random.of(&may)).kill();
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        for (at, repair) in repairs {
            self.rest(at.saturating_duration_since(Instant::now()));
            self.repair(&repair);
        }
        self.world.heal();
        self.rest(Duration::from_secs(2));
    }
}

#[test]
fn of_three_killed_a_hundred_times_nothing_is_lost_and_nothing_billed_twice() {
    let seed = seed();
    let mut fleet = Fleet::new(3, LEASE_S);
    (0..3).for_each(|n| fleet.start(n));
    let (addresses, log) = (fleet.addresses.clone(), Arc::clone(&fleet.log));
    let way = Way {
        tenants: &TENANTS,
        addresses: &addresses,
        log: Some(&log),
        hours: 5,
        pause: Duration::from_millis(30),
    };
    let mut random = Random::new(seed, 100);
    let begun = Instant::now();
    let (truth, ()) = under_load(seed, 4, &way, || fleet.torment(&mut random));
    println!("{} events in {:?}", MADE.load(Relaxed), begun.elapsed());
    let shares = [6, 5, 5];
    fleet.wait_for_shares(&shares, PATIENCE);
    fleet.with(1, |replica| fleet.world.check_adds_up(replica, &truth));
    assert_eq!(fleet.in_ledger(), truth);
    let moved = fleet.postgres.ask("SELECT sum(epoch) FROM lease").unwrap();
    let moved: usize = moved.parse().unwrap();
    println!(
        "{} sums, leases taken {moved} times, {:?}",
        truth.len(),
        begun.elapsed()
    );
    assert!(moved > KILLS, "the shards stayed where they were: {moved}");
}

#[test]
fn replicas_come_and_go_under_load() {
    let mut fleet = Fleet::new(3, LONG_LEASE_S);
    let (addresses, patience) = (fleet.addresses.clone(), 2 * PATIENCE);
    // The log's follower is one that goes.
    let way = Way {
        tenants: &TENANTS,
        addresses: &addresses,
        log: None,
        hours: 5,
        pause: Duration::from_millis(30),
    };
    // The first comes before its ledger, and waits for it.
    fleet.postgres.kill9().unwrap();
    fleet.replicas[0].service = Some(fleet.with(0, |replica| fleet.world.begin(replica)));
    thread::sleep(Duration::from_secs(2));
    assert!(fleet.process(0).is_running(), "it does not wait");
    fleet.postgres.restart().unwrap();
    let begun = Instant::now();
    while fleet.postgres.ask("SELECT 1 FROM lease LIMIT 1").is_err() {
        assert!(begun.elapsed() < patience, "it waits for ever");
        thread::sleep(Duration::from_millis(100));
    }
    fleet.wait_for_shares(&[16], patience);
    let (truth, ()) = under_load(seed(), 3, &way, || {
        fleet.start(1);
        fleet.wait_for_shares(&[8, 8], patience);
        fleet.start(2);
        fleet.wait_for_shares(&[6, 5, 5], patience);
        for (n, shares) in [(0, &[8, 8][..]), (1, &[16])] {
            assert!(fleet.process(n).stop(), "it had to be killed");
            fleet.replicas[n].service = None;
            // Sooner than its leases would have ended, which it may have renewed a third
            // of their life ago.
            fleet.wait_for_shares(shares, Duration::from_secs(LONG_LEASE_S * 2 / 3));
        }
    });
    // Nobody runs any more: commands take the place of replicas, one after the other.
    assert!(fleet.process(2).stop(), "it had to be killed");
    fleet.with(2, |replica| fleet.world.check_adds_up(replica, &truth));
    assert_eq!(fleet.in_ledger(), truth);
    assert!(fleet.shares().is_empty(), "a command kept its leases");
}

#[test]
fn of_two_on_one_folder_the_second_takes_over() {
    let world = World::new(&TENANTS);
    let listen = free_address().unwrap();
    let replica = |name: &'static str| Replica {
        name,
        data: "data",
        listen: &listen,
        access_log: None,
        members: members(),
        variables: &[],
    };
    let mut working = world.start(&replica("aggregator-1"));
    let mut waiting = world.begin(&replica("aggregator-2"));
    let addresses = [listen.clone()];
    let way = Way {
        tenants: &TENANTS,
        addresses: &addresses,
        log: None,
        hours: 5,
        pause: Duration::from_millis(30),
    };
    let (truth, ()) = under_load(seed(), 3, &way, || {
        for _ in 0..4 {
            thread::sleep(Duration::from_millis(700));
            assert!(waiting.process.is_running(), "it does not wait");
            working.process.kill();
            let is_first = working.process.name == "aggregator-1";
            // The other one listens; the one that was killed comes back and waits.
            let health = format!("http://{listen}/healthz");
            let http = client::client();
            let killed = Instant::now();
            while !http
                .get(&health)
                .send()
                .is_ok_and(|a| a.status().is_success())
            {
                assert!(killed.elapsed() < PATIENCE, "nobody takes over");
                thread::sleep(Duration::from_millis(10));
            }
            println!("taken over in {:?}", killed.elapsed());
            let name = ["aggregator-2", "aggregator-1"][usize::from(is_first)];
            working = std::mem::replace(&mut waiting, world.begin(&replica(name)));
        }
    });
    world.check_adds_up(&replica("aggregator-1"), &truth);
}
