//! A strict fake of Stripe's usage-based billing: meters, events, prices, subscriptions, invoice previews.
//!
//! It keeps its state in memory, has a clock that tests can set, and refuses
//! parameters that it does not implement as if Stripe did not know them: a test
//! that passes here asks Stripe for nothing else. `GET /__fake/state` tells
//! exactly which events were accepted; `POST /__fake/faults` makes calls go wrong;
//! `POST /__fake/invoices` makes an invoice, and `POST /__fake/invoices/{id}` has it paid
//! or not, of which whoever is registered at `POST /__fake/webhooks` is told.

mod api;
mod control;
mod routes;

mod bills;
mod customers;
mod events;
mod invoices;
mod meters;
mod prices;
mod products;
mod subscriptions;
mod summaries;
mod webhooks;

mod bucket;
mod error;
mod faults;
mod form;
mod idempotency;
mod list;
mod money;
mod params;
mod period;
mod store;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use axum::{Router, extract::FromRef, routing::get};
use serde_json::Value;

use crate::{control::Faults, ids};

pub use self::faults::Fault;

/// Seconds since 1970, UTC.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What a fake Stripe accepts.
#[derive(Clone)]
pub struct Config {
    /// Secret keys; any other is refused with 401.
    pub keys: Vec<String>,
    /// How long accepting a meter event takes, in milliseconds. Its customer and
    /// meter are locked meanwhile, and a second event for them gets 429.
    pub event_ms: u64,
    /// How many meter events a second are taken, a second's worth at once; any number
    /// where it is absent. A sandbox of Stripe's takes 25.
    pub events_per_second: Option<u32>,
    /// The time to which the offset is added.
    pub clock: Clock,
    /// Seconds added to the clock; `POST /__fake/clock` sets it.
    pub clock_offset_s: i64,
}

impl Config {
    /// The default for [`Config::event_ms`]: long enough to catch callers that don't wait.
    pub const EVENT_MS: u64 = 2;

    /// The default for [`Config::events_per_second`].
    pub const EVENTS_PER_SECOND: u32 = 25;

    /// The machine's clock and the defaults, under these keys.
    #[must_use]
    pub fn new(keys: Vec<String>) -> Self {
        Self {
            keys,
            event_ms: Self::EVENT_MS,
            events_per_second: Some(Self::EVENTS_PER_SECOND),
            clock: Arc::new(ids::now_s),
            clock_offset_s: 0,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither keys, which are secrets, nor the clock, which has no text.
        f.debug_struct("Config")
            .field("event_ms", &self.event_ms)
            .field("events_per_second", &self.events_per_second)
            .finish_non_exhaustive()
    }
}

/// A fake Stripe; clones share their state.
#[derive(Clone, Debug)]
pub struct Stripe {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    offset_s: AtomicI64,
    bucket: Option<bucket::Bucket>,
    faults: Faults<Fault>,
    store: Mutex<store::Store>,
}

impl FromRef<Stripe> for Faults<Fault> {
    fn from_ref(fake: &Stripe) -> Self {
        fake.shared.faults.clone()
    }
}

impl Stripe {
    /// An empty account.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let offset_s = AtomicI64::new(config.clock_offset_s);
        let shared = Shared {
            bucket: config.events_per_second.and_then(bucket::Bucket::new),
            config,
            offset_s,
            faults: Faults::default(),
            store: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The API, `/__fake/...` and `/healthz`.
    ///
    /// Serve it with [`serve_until`](crate::server::serve_until): under another server, `accept_then_drop`
    /// gives an empty 200 instead.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .merge(control::routes())
            .fallback(api::handle)
            .with_state(self.clone())
    }

    /// Adds a fault behind those that are there; see `POST /__fake/faults`.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// What `GET /__fake/state` tells.
    #[must_use]
    pub fn state(&self) -> Value {
        self.store().snapshot()
    }

    /// Sets the seconds that are added to the clock.
    pub fn set_clock_offset_s(&self, offset_s: i64) {
        self.shared.offset_s.store(offset_s, Ordering::SeqCst);
    }

    /// The fake's time in seconds since 1970, UTC.
    #[must_use]
    pub fn now_s(&self) -> i64 {
        (self.shared.config.clock)().saturating_add(self.shared.offset_s.load(Ordering::SeqCst))
    }

    fn store(&self) -> MutexGuard<'_, store::Store> {
        self.shared
            .store
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
