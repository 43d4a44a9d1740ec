//! What all requests of a VM share: where their events go.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};

use proxy_wasm::types::{Bytes, LogLevel};
use weir_plugin_host::{
    callout::Service,
    clock, config,
    metrics::{Counter, Gauge},
    property,
    turn::Tick,
};
use weir_usage_events_core::{Config, Outbox, Producer, config::TOKEN_ENVIRONMENT};
use weir_wire::{host::HostKind, proto::usage::UsageEvent, usage::PUBLISH_PATH};

use crate::NAME;

/// Envoy's access log has it as `%FILTER_STATE(wasm.weir.usage:PLAIN)%`.
const PROPERTY: &str = "weir.usage";

thread_local! {
    /// The configurations of this VM, the newest last.
    static ALL: RefCell<Vec<Weak<State>>> = const { RefCell::new(Vec::new()) };
}

/// What stands under [`crate::root::Root`] once it has its configuration.
pub struct State {
    pub config: Config,
    pub tick: Tick,
    authorization: String,
    producer: RefCell<Producer>,
    outbox: RefCell<Outbox>,
    counters: Counters,
    /// What this configuration added to the gauge.
    told_bytes: Cell<i64>,
    /// The host wants to end this configuration.
    stopping: Cell<bool>,
}

struct Counters {
    taken: Counter,
    acknowledged: Counter,
    logged: Counter,
    failed: Counter,
    waiting: Option<Gauge>,
}

impl Counters {
    fn define(host: HostKind) -> Self {
        let waiting = || Gauge::define("weir_usage_waiting_bytes");
        Self {
            taken: Counter::define("weir_usage_events_taken"),
            acknowledged: Counter::define("weir_usage_events_acknowledged"),
            logged: Counter::define("weir_usage_events_logged"),
            failed: Counter::define("weir_usage_batches_failed"),
            waiting: (host == HostKind::Envoy).then(waiting),
        }
    }
}

impl State {
    /// Reads the plugin's configuration and its token.
    ///
    /// # Errors
    /// A message for the log.
    pub fn load(configuration: Option<Bytes>) -> Result<Rc<Self>, String> {
        let state = Rc::new(Self::read(configuration)?);
        ALL.with_borrow_mut(|all| {
            all.retain(|other| other.strong_count() > 0);
            all.push(Rc::downgrade(&state));
        });
        Ok(state)
    }

    fn read(configuration: Option<Bytes>) -> Result<Self, String> {
        let config: Config = config::parse(NAME, configuration.as_deref())?;
        config.validate().map_err(|e| format!("{NAME}: {e}"))?;
        let token = config::environment(NAME, TOKEN_ENVIRONMENT)?;
        let run = clock::random().ok_or_else(|| format!("{NAME}: the host has no randomness"))?;
        Ok(Self {
            authorization: format!("Bearer {token}"),
            tick: Tick::default(),
            producer: RefCell::new(Producer::new(run, &token)),
            outbox: RefCell::new(Outbox::new(config.max_waiting_bytes, config.batch_bytes)),
            counters: Counters::define(config.host),
            told_bytes: Cell::new(0),
            stopping: Cell::new(false),
            config,
        })
    }

    /// Takes the event of the request whose `on_log` the host is in.
    pub fn take(&self, event: UsageEvent) {
        self.counters.taken.increment();
        let event = self.producer.borrow_mut().encode(event);
        let is_in_access_log = self.config.access_log && {
            let line = self.producer.borrow().line(&event);
            property::set(PROPERTY, &line)
        };
        let left = match self.config.cluster {
            Some(_) => self.outbox.borrow_mut().push(event).err(),
            None => (!is_in_access_log).then_some(event),
        };
        match left {
            // The access log has it.
            Some(_) if is_in_access_log => self.counters.logged.increment(),
            Some(event) => self.log(&event),
            None => {}
        }
        // No call can be made from here on Kong, and in Envoy none whose answer
        // would come to the root context: it makes one in its next tick.
        if self.config.host == HostKind::Envoy && self.outbox.borrow().is_full() {
            self.tick.every(1);
        }
    }

    /// Sends what waits, where a batch is due; from the root context.
    pub fn flush(&self) {
        let Some(cluster) = &self.config.cluster else {
            return;
        };
        let now_ms = clock::monotonic_ms();
        let batch = self.outbox.borrow_mut().next_batch(now_ms);
        if let Some(body) = batch {
            let service = Service {
                cluster,
                authority: self.config.authority(),
                authorization: &self.authorization,
                timeout_ms: self.config.timeout_ms,
            };
            if service.post(PUBLISH_PATH, &body).is_none() {
                self.settle(None);
            }
        }
        self.tell();
    }

    /// The batch under way came to `status`, or to none.
    pub fn settle(&self, status: Option<u32>) {
        let now_ms = clock::monotonic_ms();
        let settled = self.outbox.borrow_mut().settle(status, now_ms);
        self.counters.acknowledged.add(settled.acknowledged);
        if settled.acknowledged == 0 {
            self.counters.failed.increment();
            let fate = match settled.refused {
                Some(_) => "its one event goes to this log",
                None => "its events are kept",
            };
            let status = status.unwrap_or(0);
            config::log(
                LogLevel::Warn,
                &format!("{NAME}: the aggregator answered a batch with status {status}; {fate}"),
            );
        }
        if let Some(event) = settled.refused {
            self.log(&event);
        }
    }

    /// The last resort for an event: a line that `meter-aggregator replay` finds in
    /// the host's log. It holds no secret, and of what a tenant sent the model's name.
    fn log(&self, event: &[u8]) {
        self.counters.logged.increment();
        self.write(LogLevel::Error, event);
    }

    fn write(&self, level: LogLevel, event: &[u8]) {
        let line = self.producer.borrow().line(event);
        config::log(level, &format!("{NAME}: {line}"));
    }

    /// The host wants to end this configuration. What waits goes to the one that
    /// takes its place in this VM. The rest is written to the host's log as well, unless
    /// the access log has it: a host that stops, or drops the module, calls nothing
    /// after `on_done`, whatever that answers; where it goes on, what is delivered and
    /// what is replayed are the same events.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.hand_over();
        if !self.config.access_log {
            for event in self.outbox.borrow().waiting() {
                self.write(LogLevel::Warn, event);
            }
        }
    }

    /// Whether this configuration has nothing more to do.
    pub fn is_done(&self) -> bool {
        if self.stopping.get() {
            self.hand_over();
        }
        self.stopping.get() && self.outbox.borrow().is_empty()
    }

    /// Gives what is not under way to the newest configuration of this VM that sends to
    /// the same aggregator. A configuration that comes again while its last life is not
    /// over ends that in Envoy, which knows them by their text.
    fn hand_over(&self) {
        let newest = ALL.with_borrow(|all| {
            let mut others = all.iter().rev().filter_map(Weak::upgrade);
            others.find(|other| {
                !other.stopping.get()
                    && other.config.cluster == self.config.cluster
                    && other.config.authority() == self.config.authority()
            })
        });
        if let Some(newest) = newest {
            for event in self.outbox.borrow_mut().take_unsent() {
                if let Err(event) = newest.outbox.borrow_mut().push(event) {
                    self.log(&event);
                }
            }
            self.tell();
        }
    }

    fn tell(&self) {
        let Some(gauge) = self.counters.waiting else {
            return;
        };
        let bytes = i64::try_from(self.outbox.borrow().waiting_bytes()).unwrap_or(i64::MAX);
        gauge.add(bytes.saturating_sub(self.told_bytes.replace(bytes)));
    }
}
