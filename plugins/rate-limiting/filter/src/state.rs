//! What one worker of the gateway knows.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use proxy_wasm::types::{Bytes, LogLevel};
use weir_plugin_host::{
    clock::{self, Randomness},
    config,
    shared::{self, Change},
    turn::Tick,
};
use weir_rate_limiting_core::{
    Config,
    breaker::Breaker,
    lease::{self, Asking, Call, Closed, Step, Taken},
    record::Told,
};
use weir_wire::{host::HostKind, quota::TOKEN_ENVIRONMENT};

use crate::{NAME, metrics::Metrics};

/// The most requests of one worker that wait for an answer.
const WAITING_MAX: usize = 10_000;

/// The most reports of closed leases that one worker keeps.
const CLOSED_MAX: usize = 4_096;

/// How often one request takes from a lease, where what it took is too late.
const ATTEMPTS: usize = 3;

/// Between two lines of the log on single requests, in milliseconds.
const SAID_MS: u64 = 1_000;

/// Where in the shared data the gateway's own name is.
const GATEWAY_KEY: &str = "weir/quota/gateway";

/// Whose a request is, as far as limits go.
#[derive(Debug, PartialEq, Eq)]
pub struct Subject {
    pub tenant: String,
    pub plan: String,
    pub class: String,
    /// Of its record in the shared data.
    pub key: String,
}

impl Subject {
    pub fn new(tenant: &str, plan: &str, class: &str) -> Self {
        Self {
            key: format!("weir/lease/1/{class}/{tenant}"),
            tenant: tenant.to_owned(),
            plan: plan.to_owned(),
            class: class.to_owned(),
        }
    }
}

/// A request that waits for an answer.
pub struct Waiting {
    /// Its context.
    pub id: u32,
    pub subject: Rc<Subject>,
    /// Where it finds what its client is told.
    pub shown: Shown,
    /// From then on the policy decides.
    pub until_ms: u64,
}

/// The limits that a client is told of on its answer.
pub type Shown = Rc<RefCell<Vec<Told>>>;

/// A call that is to be made from the root context.
pub struct Queued {
    pub subject: Rc<Subject>,
    pub call: Call,
}

/// Everything but the root context itself.
pub struct State {
    pub config: Config,
    /// `Bearer …`; empty without a quota service.
    pub authorization: String,
    /// The gateway's name, the same for all its workers.
    pub gateway: u64,
    pub metrics: Metrics,
    pub randomness: RefCell<Randomness>,
    pub breaker: Cell<Breaker>,
    pub queue: RefCell<Vec<Queued>>,
    pub waiting: RefCell<Vec<Waiting>>,
    pub closed: RefCell<VecDeque<(String, Closed)>>,
    /// When to look after which record.
    pub sweeps: RefCell<BTreeMap<String, (u64, String)>>,
    pub tick: Tick,
    /// When something was said of requests last, and how often it was not since.
    pub said: Cell<(u64, u64)>,
}

impl State {
    /// Loads the configuration.
    ///
    /// # Errors
    /// A message for the log.
    pub fn load(configuration: Option<Bytes>) -> Result<Self, String> {
        let config: Config = config::parse(NAME, configuration.as_deref())?;
        config.validate().map_err(|e| format!("{NAME}: {e}"))?;
        let authorization = match &config.quota {
            Some(_) => format!("Bearer {}", config::environment(NAME, TOKEN_ENVIRONMENT)?),
            None => String::new(),
        };
        Ok(Self {
            gateway: gateway(config.host)?,
            config,
            authorization,
            metrics: Metrics::define(),
            randomness: RefCell::default(),
            breaker: Cell::default(),
            queue: RefCell::default(),
            waiting: RefCell::default(),
            closed: RefCell::default(),
            sweeps: RefCell::default(),
            tick: Tick::default(),
            said: Cell::new((0, 0)),
        })
    }

    /// How long a call may take, in milliseconds.
    pub fn timeout_ms(&self) -> u64 {
        self.config.quota.as_ref().map_or(0, |q| q.timeout_ms)
    }

    /// Logs what is said of single requests: once a second, with how often it was
    /// to be said.
    pub fn say(&self, level: LogLevel, message: &str) {
        let now_ms = clock::monotonic_ms();
        let (at_ms, left_out) = self.said.get();
        if now_ms.saturating_sub(at_ms) < SAID_MS {
            self.said.set((at_ms, left_out.saturating_add(1)));
            return;
        }
        self.said.set((now_ms, 0));
        let more = match left_out {
            0 => String::new(),
            n => format!(" ({n} more like it before)"),
        };
        config::log(level, &format!("{NAME}: {message}{more}"));
    }

    /// Takes a request from what is held; `None` where the shared data can't be
    /// changed.
    pub fn take(&self, subject: &Rc<Subject>, is_again: bool) -> Option<Taken> {
        let timeout_ms = self.timeout_ms();
        for attempt in 0..ATTEMPTS {
            let now_ms = clock::monotonic_ms();
            let breaker = self.breaker.get();
            let own_call = self.config.host == HostKind::Kong;
            let may_call = breaker.may_call(now_ms);
            let random = self.randomness.borrow_mut().take()?;
            let asking = Asking {
                now_ms,
                random,
                timeout_ms,
                // On Kong the one that asks whether the service is back waits for it.
                is_available: breaker.is_closed() || (own_call && may_call),
                may_call,
                own_call,
                is_again: is_again || attempt > 0,
            };
            let change = shared::change(self.config.host, &subject.key, |record| {
                lease::take(record, &asking)
            });
            let Change::Done(mut taken) = change else {
                return None;
            };
            self.report(&subject.tenant, &taken.closed);
            taken.closed.clear();
            if self.config.host == HostKind::Envoy
                && let Some(call) = taken.call.take()
            {
                self.enqueue(subject, call);
            }
            match taken.step {
                Step::Admit { before_ms } if clock::monotonic_ms() >= before_ms => {
                    self.metrics.burnt.increment();
                }
                _ => return Some(taken),
            }
        }
        None
    }

    /// Notes that a call is made.
    pub fn calls(&self) {
        let mut breaker = self.breaker.get();
        breaker.called();
        self.breaker.set(breaker);
    }

    fn enqueue(&self, subject: &Rc<Subject>, call: Call) {
        self.calls();
        self.queue.borrow_mut().push(Queued {
            subject: subject.clone(),
            call,
        });
        self.tick.every(1);
    }

    /// Lets a request wait; false where too many do.
    pub fn wait(&self, waiting: Waiting) -> bool {
        let mut all = self.waiting.borrow_mut();
        let may = all.len() < WAITING_MAX;
        if may {
            self.metrics.waited.increment();
            all.push(waiting);
        }
        may
    }

    /// Keeps reports of closed leases until they are sent.
    pub fn report(&self, tenant: &str, closed: &[Closed]) {
        let mut reports = self.closed.borrow_mut();
        for one in closed {
            if reports.len() >= CLOSED_MAX {
                reports.pop_front();
                self.metrics.strays.increment();
            }
            reports.push_back((tenant.to_owned(), *one));
        }
    }

    /// Reports of that tenant that go with its next acquire.
    pub fn take_reports(&self, tenant: &str, most: usize) -> Vec<Closed> {
        let mut reports = self.closed.borrow_mut();
        let mut taken = Vec::new();
        reports.retain(|(of, closed)| {
            let takes = of == tenant && taken.len() < most;
            if takes {
                taken.push(*closed);
            }
            !takes
        });
        taken
    }

    /// Looks after a record at that time, at the latest.
    pub fn sweep_at(&self, subject: &Subject, at_ms: u64) {
        let mut sweeps = self.sweeps.borrow_mut();
        sweeps
            .entry(subject.key.clone())
            .or_insert_with(|| (at_ms, subject.tenant.clone()));
    }
}

/// The name that all workers of this gateway share.
fn gateway(host: HostKind) -> Result<u64, String> {
    let random = clock::random::<8>();
    let random = random.ok_or_else(|| format!("{NAME}: the host has no randomness"))?;
    let decided = shared::change(host, GATEWAY_KEY, |found| {
        match found.and_then(|bytes| bytes.first_chunk()) {
            Some(known) => (u64::from_le_bytes(*known), None),
            None => (u64::from_le_bytes(random), Some(random.to_vec())),
        }
    });
    match decided {
        Change::Done(gateway) => Ok(gateway),
        // Counted as two gateways: both get less.
        Change::Contended => Ok(u64::from_le_bytes(random)),
    }
}
