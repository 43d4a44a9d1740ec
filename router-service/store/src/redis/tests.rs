//! The scripts under a clock of the test's.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use proptest::prelude::*;
use tokio::time::Instant;
use weir_router_core::quota::{Answer, Ask, Closing, Granted, Limit, Memory};

use super::{
    RedisQuota, RedisSettings,
    clock::Bounds,
    link::{Connection, Identity},
    script::{Acquire, Reply, Script, Scripts, marker_key, write_close},
};
use crate::QuotaStore as _;

#[path = "../../tests/it/server.rs"]
#[allow(dead_code)] // these never stop it
pub(crate) mod server;
use server::Server;

const TIME: &str = "redis.call('TIME')";

/// The scripts where TIME comes from elsewhere.
fn with_time(time: &str) -> Scripts {
    let common = include_str!("common.lua").replace(TIME, time);
    let script = |text: &str| Script::new(format!("{common}{text}"));
    Scripts {
        acquire: script(include_str!("acquire.lua")),
        close: script(include_str!("close.lua")),
        time: Script::new(include_str!("time.lua").replace(TIME, time)),
        ..Scripts::new()
    }
}

fn limit(class: &str, requests: u32, window_s: u32) -> Limit {
    Limit {
        requests: NonZeroU32::new(requests).unwrap(),
        window_s: NonZeroU32::new(window_s).unwrap(),
        class: class.to_owned(),
    }
}

fn ask(tenant: &str, n: u64, limits: &[Limit]) -> Ask {
    Ask {
        tenant: tenant.to_owned(),
        limits: limits.to_vec(),
        id: u128::from(n).to_be_bytes(),
        wanted: 1,
        life_ms: 2_000,
        gateways: 1,
        epoch: String::new(),
        closing: Vec::new(),
    }
}

/// What one step asks of both stores.
#[derive(Debug, Clone)]
struct Step {
    gap_ms: i64,
    limits: Vec<Limit>,
    wanted: u32,
    gateways: u32,
    life_ms: u64,
    /// Of the asks before, counted back: by which name to ask, 0 for a new one.
    again: usize,
    /// Of the asks before, counted back; how much of it was spent; when.
    closing: Vec<(usize, u32, u64)>,
    /// Closes alone, without asking.
    is_close: bool,
    epoch: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let window = prop::sample::select(vec![1_u32, 2, 7, 60, 121, 3_600]);
    let class = prop::sample::select(vec!["", "chat"]);
    let limit = (class, 1_u32..40, window).prop_map(|(class, n, s)| limit(class, n, s));
    let limits = prop::collection::vec(limit, 0..4).prop_map(|mut limits: Vec<Limit>| {
        limits.sort_by(|a, b| (&a.class, a.window_s).cmp(&(&b.class, b.window_s)));
        limits.dedup_by(|a, b| (&a.class, a.window_s) == (&b.class, b.window_s));
        limits
    });
    let gap = prop_oneof![
        6 => 0_i64..60,
        3 => 0_i64..2_500,
        // What is given back in a short window's last moments.
        2 => 960_i64..1_060,
        1 => -900_i64..0,
        1 => 2_500_i64..130_000,
    ];
    let age = prop_oneof![0_u64..70, 0_u64..3_000];
    let closing = prop::collection::vec((0_usize..6, 0_u32..12, age), 0..4);
    let step = (
        (gap, limits, 1_u32..12, 0_u32..4, 1_u64..2_500),
        (prop_oneof![6 => Just(0_usize), 1 => 1_usize..5], closing),
        (
            prop::bool::weighted(0.2),
            prop_oneof![5 => Just(0_u8), 5 => Just(1), 1 => Just(2)],
        ),
    );
    let step = step.prop_map(|(a, b, c)| Step {
        gap_ms: a.0,
        limits: a.1,
        wanted: a.2,
        gateways: a.3,
        life_ms: a.4,
        again: b.0,
        closing: b.1,
        is_close: c.0,
        epoch: c.1,
    });
    prop::collection::vec(step, 1..120)
}

/// Both stores, and the clock that they are shown.
struct Both {
    memory: Memory,
    connection: Connection,
    scripts: Scripts,
    tenant: String,
    now_ms: u64,
    seen_ms: u64,
    /// Names, and when they were last given.
    asked: Vec<(u64, u64)>,
    memory_epoch: String,
    redis_epoch: String,
}

impl Both {
    fn closing(&self, next: u64, step: &Step) -> Vec<Closing> {
        let one = |(back, spent, age_ms): &(usize, u32, u64)| {
            let at = self.asked.len().checked_sub(*back);
            // One may be asked for later, or never; what memory forgot is left out.
            let next = (next, self.now_ms);
            let (n, t_ms) = at.and_then(|at| self.asked.get(at)).unwrap_or(&next);
            (t_ms + 25_000 > self.now_ms).then(|| Closing {
                id: u128::from(*n).to_be_bytes(),
                spent: *spent,
                age_ms: *age_ms,
            })
        };
        step.closing.iter().filter_map(one).collect()
    }

    async fn step(&mut self, n: u64, step: &Step) -> Result<(), TestCaseError> {
        // Back by a little alone: more is a leap, which memory's clock never makes.
        let now_ms = self.now_ms.saturating_add_signed(step.gap_ms);
        self.now_ms = now_ms.max(self.seen_ms.saturating_sub(1_000));
        self.seen_ms = self.seen_ms.max(self.now_ms);
        let (seconds, micros) = (self.now_ms / 1_000, self.now_ms % 1_000 * 1_000);
        let key = marker_key(&self.tenant);
        let closing = self.closing(n, step);
        if step.is_close && !self.asked.is_empty() {
            for closing in &closing {
                self.memory.close(&self.tenant, closing, self.now_ms);
            }
            let run = self.scripts.close.run(&self.connection, &key, |command| {
                write_close(command, &closing);
                command.arg(seconds).arg(micros);
            });
            run.await.unwrap();
            return Ok(());
        }
        let again = self.asked.len().checked_sub(step.again.max(1));
        let again = again.and_then(|at| self.asked.get(at)).copied();
        let again = again.filter(|(_, t)| step.again > 0 && t + 25_000 > self.now_ms);
        let name = again.unwrap_or((n, self.now_ms));
        self.asked.push(name);
        let epoch = |own: &str| match step.epoch {
            0 => String::new(),
            1 => own.to_owned(),
            _ => "of another store".to_owned(),
        };
        let mut ask = Ask {
            wanted: step.wanted,
            life_ms: step.life_ms,
            gateways: step.gateways,
            epoch: epoch(&self.memory_epoch),
            closing,
            ..ask(&self.tenant, name.0, &step.limits)
        };
        let expected = self.memory.acquire(&ask, self.now_ms);
        ask.epoch = epoch(&self.redis_epoch);
        let acquire = Acquire {
            ask: &ask,
            identity: &Identity {
                server: "run:line".to_owned(),
                leap: 0,
            },
            epoch: &format!("e{n}"),
            bounds: Bounds {
                low_ms: 0,
                high_ms: 1 << 53,
            },
        };
        let run = self.scripts.acquire.run(&self.connection, &key, |command| {
            acquire.write(command);
            command.arg(seconds).arg(micros);
        });
        let Reply::Decided(answer, time_ms) = Reply::read(&run.await.unwrap()).unwrap() else {
            return Err(TestCaseError::fail("not decided"));
        };
        prop_assert_eq!(u64::try_from(time_ms).unwrap(), self.now_ms);
        prop_assert_eq!(&answer.granted, &expected.granted);
        prop_assert_eq!(&answer.limits, &expected.limits);
        if matches!(answer.granted, Granted::Lease { .. }) {
            self.memory_epoch = expected.epoch;
            self.redis_epoch = answer.epoch;
        }
        Ok(())
    }
}

static TENANTS: AtomicU64 = AtomicU64::new(0);

/// What histories are tried on that a script and its model are to answer alike.
pub(crate) struct Histories {
    /// Stops as it is dropped.
    pub(crate) server: Server,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) connection: Connection,
    pub(crate) config: ProptestConfig,
}

impl Histories {
    /// So many, or as `WEIR_CASES` says.
    pub(crate) fn new(cases: u32) -> Self {
        let server = Server::start();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let connection = runtime.block_on(async {
            let client = redis::Client::open(server.url()).unwrap();
            let connection = client.get_multiplexed_async_connection().await;
            Connection::Single(connection.unwrap())
        });
        let cases = std::env::var("WEIR_CASES").map_or(cases, |n| n.parse().unwrap());
        let config = ProptestConfig {
            cases,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        Self {
            server,
            runtime,
            connection,
            config,
        }
    }
}

/// Whatever is asked and given back when: both stores answer the same.
/// `WEIR_CASES` says how many histories are tried.
#[test]
fn lua_answers_as_memory_does() {
    let Histories {
        server: _server,
        runtime,
        connection,
        config,
    } = Histories::new(64);
    proptest!(config, |(steps in steps())| {
        let tenant = TENANTS.fetch_add(1, Ordering::Relaxed);
        let mut both = Both {
            memory: Memory::new("memory".to_owned()),
            connection: connection.clone(),
            scripts: with_time("{ARGV[#ARGV - 1], ARGV[#ARGV]}"),
            tenant: format!("t{tenant}"),
            now_ms: 1_795_000_000_000,
            seen_ms: 0,
            asked: Vec::new(),
            memory_epoch: String::new(),
            redis_epoch: String::new(),
        };
        for (n, step) in (1_u64..).zip(&steps) {
            runtime.block_on(both.step(n, step))?;
        }
    });
}

/// TIME, and what the test adds to it, in milliseconds.
const SHIFTED: &str = "(function()
  local time = redis.call('TIME')
  return { time[1], time[2] + 1000 * (tonumber(redis.call('GET', 'weir:shift')) or 0) }
end)()";

struct Shifted {
    server: Server,
    routers: [RedisQuota; 2],
    asked: u64,
}

impl Shifted {
    fn start() -> Self {
        let server = Server::start();
        Self {
            routers: Self::routers(&server),
            server,
            asked: 0,
        }
    }

    fn routers(server: &Server) -> [RedisQuota; 2] {
        [0, 1].map(|_| {
            let settings = RedisSettings {
                url: server.url(),
                cluster: false,
                timeout: Duration::from_millis(2_000),
            };
            RedisQuota::with_scripts(&settings, with_time(SHIFTED)).unwrap()
        })
    }

    fn shift(&self, ms: i64) {
        self.server
            .run::<()>(&["SET", "weir:shift", &ms.to_string()]);
    }

    fn leaps(&self) -> u64 {
        let leaps: Option<u64> = self.server.run(&["GET", "weir:quota:leap"]);
        leaps.unwrap_or(0)
    }

    async fn ask(&mut self, router: usize, tenant: &str) -> Answer {
        self.asked += 1;
        let limits = [limit("", 1_000, 1), limit("chat", 1_000, 121)];
        let ask = ask(tenant, self.asked, &limits);
        self.routers[router].acquire(ask).await.unwrap()
    }
}

/// One leap is counted once, fences all tenants once, and then it is over; `false` where
/// the machine stood still, and a call took so long that its router could not tell.
async fn is_fenced_once(ms: i64) -> bool {
    let told_within = Duration::from_millis(80);
    let mut shifted = Shifted::start();
    for tenant in ["a", "b"] {
        for router in [0, 1] {
            let asked = Instant::now();
            let before = shifted.ask(router, tenant).await;
            // What it knows of Redis's clock is as narrow as its last call was short.
            if tenant == "b" && asked.elapsed() > told_within {
                return false;
            }
            assert!(
                matches!(before.granted, Granted::Lease { .. }),
                "{before:?}"
            );
        }
    }
    assert_eq!(shifted.leaps(), 0);
    shifted.shift(ms);
    let start = Instant::now();
    let first = shifted.ask(0, "a").await;
    if start.elapsed() > told_within {
        return false;
    }
    // What tells the router of it may be this call, which is then refused as any.
    let is_granted = matches!(first.granted, Granted::Lease { .. });
    assert!(!is_granted, "{first:?}");
    let mut fenced = 0;
    // A fence lasts a second and a lease's longest life, three seconds, from that call on.
    while start.elapsed() < Duration::from_millis(2_700) {
        for router in [0, 1] {
            for tenant in ["a", "b"] {
                let answer = shifted.ask(router, tenant).await;
                let is_granted = matches!(answer.granted, Granted::Lease { .. });
                let is_late = start.elapsed() > Duration::from_millis(2_900);
                assert!(!is_granted || is_late, "{answer:?}");
                fenced += u32::from(matches!(answer.granted, Granted::Fenced { .. }));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if fenced <= 40 {
        return false;
    }
    for router in [0, 1] {
        for tenant in ["a", "b"] {
            let answer = loop {
                let answer = shifted.ask(router, tenant).await;
                if matches!(answer.granted, Granted::Lease { .. }) {
                    break answer;
                }
                assert!(start.elapsed() < Duration::from_secs(23), "{answer:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert!(answer.limits[0].remaining >= 998, "{answer:?}");
        }
    }
    // Neither router began another fence.
    assert_eq!(shifted.leaps(), 1);
    true
}

/// The same, and again where the machine stood still.
async fn check_leap(ms: i64) {
    for _ in 0..5 {
        if is_fenced_once(ms).await {
            return;
        }
    }
    panic!("too few calls were fenced in time, five times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leap_ahead_fences_all_once() {
    check_leap(3_600_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leap_back_fences_all_once() {
    check_leap(-3_600_000).await;
}

/// Less than a call may take: the script can't tell, the router can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_leap_ahead_fences_all_once() {
    check_leap(200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leap_that_no_router_saw_is_found_where_time_went_back() {
    let mut shifted = Shifted::start();
    shifted.shift(100_000);
    shifted.ask(0, "a").await;
    shifted.shift(0);
    // Those that saw it are gone; new ones expect nothing.
    shifted.routers = Shifted::routers(&shifted.server);
    let answer = shifted.ask(0, "a").await;
    assert!(matches!(answer.granted, Granted::Fenced { until_in_ms } if until_in_ms <= 3_000));
    assert!(matches!(
        shifted.ask(0, "b").await.granted,
        Granted::Lease { .. }
    ));
    assert_eq!(shifted.leaps(), 0);
}

/// The number of leaps may be lost while what was written by it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_number_of_leaps_is_found_again() {
    let mut shifted = Shifted::start();
    shifted.server.run::<()>(&["SET", "weir:quota:leap", "7"]);
    shifted.ask(0, "a").await;
    shifted.server.run::<()>(&["DEL", "weir:quota:leap"]);
    // The other router connects now, and knows of none.
    let answer = shifted.ask(1, "a").await;
    assert!(
        matches!(answer.granted, Granted::Lease { .. }),
        "{answer:?}"
    );
    assert_eq!(shifted.leaps(), 7);
}
