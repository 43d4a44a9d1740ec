//! The lease protocol as a model: gateways that spend leases, and a store that
//! grants them, by the very code of both, over a network that loses, delays and
//! repeats, with clocks of their own, crashes, and a store that forgets.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
};

use proptest::prelude::*;
use weir_rate_limiting_core::lease::{self, Asking, Call, Closed, Step};
use weir_router_core::quota::{Ask, Closing, Granted, Limit, Memory};
use weir_wire::proto::quota::{AcquireResponse, LimitState, Outcome};

/// How a run goes.
#[derive(Debug, Clone)]
struct Setting {
    seed: u64,
    gateways: usize,
    limit: u32,
    window_s: u32,
    /// Requests offered in a window, in thousandths of the limit.
    offered: u64,
    /// Of a thousand messages: lost, and repeated.
    lost: u64,
    repeated: u64,
    /// The longest delay of a message, in milliseconds.
    delay_ms: u64,
    /// Of a hundred thousand milliseconds: a gateway loses all it holds.
    crashes: u64,
    /// Of a hundred thousand milliseconds: a gateway stands still for up to a second,
    /// and finds requests before answers then.
    pauses: u64,
    /// Of a hundred requests: held up between the change and the look at the clock.
    held_up: u64,
    /// When the store forgets everything, if it does.
    forgets_at_ms: Option<u64>,
}

/// xorshift64*, so that a seed reproduces a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 20) % n.max(1)
    }
}

/// One gateway: its record, and what waits in it.
struct Gateway {
    /// Its clock is the true one plus this, and runs by so many millionths fast.
    offset_ms: u64,
    fast_ppm: i64,
    record: Option<Vec<u8>>,
    waiting: usize,
    closed: Vec<Closed>,
    sweep_at_ms: u64,
    paused_until_ms: u64,
    late: usize,
}

impl Gateway {
    fn now(&self, true_ms: u64) -> u64 {
        let drift = true_ms as i64 * self.fast_ppm / 1_000_000;
        self.offset_ms + true_ms.saturating_add_signed(drift)
    }
}

enum Message {
    /// To the store: an acquire with what goes along, or closings alone.
    Acquire(usize, u64, Call, Vec<Closing>),
    Close(Vec<Closing>),
    /// To a gateway, of that incarnation.
    Answer(usize, u64, Call, Option<AcquireResponse>),
}

struct World {
    setting: Setting,
    random: Random,
    now_ms: u64,
    store: Memory,
    store_start_ms: u64,
    stores: u64,
    gateways: Vec<Gateway>,
    incarnations: Vec<u64>,
    /// Messages by when they arrive.
    network: std::collections::BTreeMap<(u64, u64), Message>,
    sent: u64,
    admitted: Vec<u64>,
    offered: u64,
    timeouts: HashMap<(usize, u64, [u8; 16]), VecDeque<u64>>,
}

const TIMEOUT_MS: u64 = 250;

impl World {
    fn new(setting: Setting) -> Self {
        let mut random = Random(setting.seed | 1);
        let gateways = (0..setting.gateways)
            .map(|_| Gateway {
                offset_ms: random.below(1 << 40),
                fast_ppm: random.below(2_001) as i64 - 1_000,
                record: None,
                waiting: 0,
                closed: Vec::new(),
                sweep_at_ms: 0,
                paused_until_ms: 0,
                late: 0,
            })
            .collect();
        Self {
            store: Memory::new("store-0".to_owned()),
            store_start_ms: 0,
            stores: 0,
            incarnations: vec![0; setting.gateways],
            gateways,
            network: std::collections::BTreeMap::new(),
            random,
            setting,
            now_ms: 0,
            sent: 0,
            admitted: Vec::new(),
            offered: 0,
            timeouts: HashMap::new(),
        }
    }

    fn send(&mut self, message: impl Fn() -> Message, extra_ms: u64) {
        if self.random.below(1_000) < self.setting.lost {
            return;
        }
        let copies = 1 + u64::from(self.random.below(1_000) < self.setting.repeated);
        for _ in 0..copies {
            let delay = self.random.below(self.setting.delay_ms) + extra_ms;
            self.sent += 1;
            self.network
                .insert((self.now_ms + delay, self.sent), message());
        }
    }

    fn request(&mut self, g: usize, is_again: bool) {
        let random = std::array::from_fn(|_| self.random.next() as u8);
        let gateway = &mut self.gateways[g];
        let asking = Asking {
            now_ms: gateway.now(self.now_ms),
            random,
            timeout_ms: TIMEOUT_MS,
            is_available: true,
            may_call: true,
            own_call: false,
            is_again,
        };
        let (taken, write) = lease::take(gateway.record.as_deref(), &asking);
        gateway.record = write.or(gateway.record.take());
        gateway.closed.extend(&taken.closed);
        match taken.step {
            Step::Admit { before_ms } => {
                // The worker may be held up between the change and its look at the
                // clock; what is too late then is burnt.
                let held_up = if self.random.below(100) < self.setting.held_up {
                    self.random.below(80)
                } else {
                    0
                };
                let at = self.now_ms + held_up;
                if self.gateways[g].now(at) < before_ms {
                    self.admitted.push(at);
                }
            }
            Step::Wait => self.gateways[g].waiting += 1,
            _ => {}
        }
        if let Some(call) = taken.call {
            self.acquire(g, call);
        }
    }

    fn acquire(&mut self, g: usize, call: Call) {
        let incarnation = self.incarnations[g];
        let now = self.gateways[g].now(self.now_ms);
        let closing: Vec<Closing> = self.gateways[g]
            .closed
            .drain(..)
            .map(|closed| closing(&closed, now))
            .collect();
        self.timeouts
            .entry((g, incarnation, call.id))
            .or_default()
            .push_back(self.now_ms + TIMEOUT_MS);
        self.send(
            || Message::Acquire(g, incarnation, call.clone(), closing.clone()),
            0,
        );
        // Whatever becomes of it, the gateway stops waiting.
        self.sent += 1;
        self.network.insert(
            (self.now_ms + TIMEOUT_MS, self.sent),
            Message::Answer(g, incarnation, call, None),
        );
    }

    fn deliver(&mut self, message: Message) {
        if let Message::Answer(g, ..) = &message
            && self.gateways[*g].paused_until_ms > self.now_ms
        {
            // Behind the requests that came meanwhile.
            let later = self.gateways[*g].paused_until_ms + 2;
            self.sent += 1;
            self.network.insert((later, self.sent), message);
            return;
        }
        let store_now = self.now_ms - self.store_start_ms;
        match message {
            Message::Acquire(g, incarnation, call, closing) => {
                let limit = Limit {
                    requests: NonZeroU32::new(self.setting.limit).unwrap(),
                    window_s: NonZeroU32::new(self.setting.window_s).unwrap(),
                    class: String::new(),
                };
                let ask = Ask {
                    tenant: "t".to_owned(),
                    limits: vec![limit],
                    id: call.id,
                    wanted: call.wanted,
                    life_ms: u64::from(call.life_ms),
                    gateways: self.setting.gateways as u32,
                    epoch: call.epoch.clone(),
                    closing,
                };
                let answer = self.store.acquire(&ask, store_now);
                let answer = response(&answer, &ask);
                self.send(
                    || Message::Answer(g, incarnation, call.clone(), Some(answer.clone())),
                    0,
                );
            }
            Message::Close(closing) => {
                for one in closing {
                    self.store.close("t", &one, store_now);
                }
            }
            Message::Answer(g, incarnation, call, answer) => {
                if self.incarnations[g] != incarnation {
                    return;
                }
                // Envoy ends a call once, by its answer or by its time-out; two workers
                // may have made one of the same name.
                let calls = self.timeouts.entry((g, incarnation, call.id)).or_default();
                let Some(until) = calls.pop_front() else {
                    return;
                };
                let gateway = &mut self.gateways[g];
                let now = gateway.now(self.now_ms);
                match answer {
                    Some(answer) if self.now_ms < until || self.setting.pauses > 0 => {
                        let record = gateway.record.as_deref();
                        let (closed, write) = lease::answered(record, &call, &answer, now);
                        gateway.record = write.or(gateway.record.take());
                        gateway.closed.extend(closed);
                    }
                    _ => {
                        let ((), write) = lease::failed(gateway.record.as_deref(), &call);
                        gateway.record = write.or(gateway.record.take());
                    }
                }
                for _ in 0..std::mem::take(&mut self.gateways[g].waiting) {
                    self.request(g, true);
                }
            }
        }
    }

    fn tick(&mut self, g: usize) {
        let gateway = &mut self.gateways[g];
        let now = gateway.now(self.now_ms);
        if gateway.sweep_at_ms > self.now_ms {
            return;
        }
        gateway.sweep_at_ms = self.now_ms + 100;
        let (swept, write) = lease::sweep(gateway.record.as_deref(), now);
        gateway.record = write.or(gateway.record.take());
        gateway.closed.extend(swept.closed);
        let closing: Vec<Closing> = gateway.closed.drain(..).map(|c| closing(&c, now)).collect();
        if !closing.is_empty() {
            self.send(|| Message::Close(closing.clone()), 0);
        }
    }

    fn run(&mut self, length_ms: u64) {
        let window_ms = u64::from(self.setting.window_s) * 1_000;
        let in_window = u64::from(self.setting.limit) * self.setting.offered / 1_000;
        let mut due = 0;
        while self.now_ms < length_ms {
            while let Some(entry) = self.network.first_entry() {
                if entry.key().0 > self.now_ms {
                    break;
                }
                let message = entry.remove();
                self.deliver(message);
            }
            if self.setting.forgets_at_ms == Some(self.now_ms) {
                self.stores += 1;
                // As the router does, which knows that its Redis is another one.
                self.store = Memory::new(format!("store-{}", self.stores));
                self.store.lost(0);
                self.store_start_ms = self.now_ms;
            }
            due += in_window;
            while due >= window_ms {
                due -= window_ms;
                self.offered += 1;
                let g = self.random.below(self.setting.gateways as u64) as usize;
                // In the sockets of one that stands still.
                if self.gateways[g].paused_until_ms <= self.now_ms {
                    self.request(g, false);
                } else {
                    self.gateways[g].late += 1;
                }
            }
            for g in 0..self.setting.gateways {
                if self.gateways[g].paused_until_ms <= self.now_ms {
                    for _ in 0..std::mem::take(&mut self.gateways[g].late) {
                        self.request(g, false);
                    }
                }
            }
            for g in 0..self.setting.gateways {
                if self.gateways[g].paused_until_ms > self.now_ms {
                    continue;
                }
                self.tick(g);
                if self.random.below(100_000) < self.setting.pauses {
                    self.gateways[g].paused_until_ms = self.now_ms + self.random.below(1_000);
                }
                if self.random.below(100_000) < self.setting.crashes {
                    // kill -9: a new gateway has nothing of the old one.
                    self.incarnations[g] += 1;
                    self.gateways[g].record = None;
                    self.gateways[g].waiting = 0;
                    self.gateways[g].closed.clear();
                }
            }
            self.now_ms += 1;
        }
    }

    /// The most that were admitted in any window.
    fn most(&self) -> usize {
        let window_ms = u64::from(self.setting.window_s) * 1_000;
        let mut admitted = self.admitted.clone();
        admitted.sort_unstable();
        let mut first = 0;
        let mut most = 0;
        for (last, at) in admitted.iter().enumerate() {
            while at - admitted[first] >= window_ms {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        most
    }
}

fn closing(closed: &Closed, now_ms: u64) -> Closing {
    Closing {
        id: closed.id,
        spent: closed.spent,
        age_ms: closed.age_ms(now_ms),
    }
}

/// As the quota service tells it.
fn response(answer: &weir_router_core::quota::Answer, ask: &Ask) -> AcquireResponse {
    let limits = ask.limits.iter().zip(&answer.limits);
    let mut told = AcquireResponse {
        epoch: answer.epoch.clone(),
        limits: limits
            .map(|(limit, state)| LimitState {
                requests: limit.requests.get(),
                window_s: limit.window_s.get(),
                class: limit.class.clone(),
                remaining: state.remaining as u32,
                reset_ms: state.reset_ms,
            })
            .collect(),
        ..Default::default()
    };
    match answer.granted {
        Granted::Lease { requests, life_ms } => {
            told.set_outcome(Outcome::Granted);
            (told.granted, told.life_ms) = (requests, life_ms as u32);
        }
        Granted::Denied { free_in_ms } => {
            told.set_outcome(Outcome::Denied);
            told.life_ms = free_in_ms.min(1_000) as u32;
            told.retry_after_ms = free_in_ms;
        }
        Granted::Fenced { until_in_ms } => {
            told.set_outcome(Outcome::Fenced);
            told.life_ms = 500;
            told.retry_after_ms = until_in_ms;
        }
    }
    told
}

fn settings() -> impl Strategy<Value = Setting> {
    (
        any::<u64>(),
        prop_oneof![Just(1_usize), Just(2), Just(4)],
        1_u32..60,
        prop_oneof![Just(1_u32), Just(5), Just(10)],
        300_u64..8_000,
        (0_u64..300, 0_u64..200, 1_u64..600),
        (0_u64..40, 0_u64..20, 0_u64..150),
        prop::option::of(1_000_u64..25_000),
    )
        .prop_map(
            |(seed, gateways, limit, window_s, offered, network, trouble, forgets_at_ms)| Setting {
                seed,
                gateways,
                limit,
                window_s,
                offered,
                lost: network.0,
                repeated: network.1,
                delay_ms: network.2,
                crashes: trouble.0,
                held_up: trouble.1,
                pauses: trouble.2,
                forgets_at_ms,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Whatever is lost, late, repeated, killed or held up: never more than the
    /// limit in any window.
    #[test]
    fn no_window_ever_admits_more_than_the_limit(setting in settings()) {
        let mut world = World::new(setting);
        world.run(30_000);
        let most = world.most();
        prop_assert!(most <= world.setting.limit as usize, "{most} of {}", world.setting.limit);
    }
}

#[test]
fn at_twice_the_limit_hardly_less_than_the_limit_is_admitted() {
    for (gateways, limit, offered) in [
        (1, 100, 2_000),
        (2, 100, 2_000),
        (2, 1_000, 2_000),
        (2, 1_000, 18_000),
        (4, 1_000, 4_000),
        (4, 100, 180_000),
    ] {
        let mut world = World::new(Setting {
            seed: 7,
            gateways,
            limit,
            window_s: 60,
            offered,
            lost: 0,
            repeated: 0,
            delay_ms: 5,
            crashes: 0,
            held_up: 0,
            pauses: 0,
            forgets_at_ms: None,
        });
        world.run(1_860_000);
        assert!(world.most() <= limit as usize);
        // How long it takes until each place has come free and been taken again,
        // over half an hour.
        let admitted = &world.admitted;
        let rounds = (admitted.len() - 1) / limit as usize;
        let took_ms = admitted[rounds * limit as usize] - admitted[0];
        let share = rounds as f64 * 60_000.0 / took_ms as f64;
        println!("{gateways} gateways, {limit}, {offered}: {share:.4}");
        assert!(
            share >= 0.97,
            "{gateways} gateways, {limit}, {offered}: {share}"
        );
    }
}
