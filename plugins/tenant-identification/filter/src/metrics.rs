//! What the host's statistics show of the filter.

use std::{cell::RefCell, collections::BTreeMap};

use weir_plugin_host::metrics::{Counter, Gauge};
use weir_tenant_identification_core::sources::Kind;

/// The counters and gauges of one worker; Envoy adds those of all workers up.
#[derive(Debug)]
pub struct Metrics {
    identified: BTreeMap<Kind, Counter>,
    open: Counter,
    /// Defined when it first happens: there are many reasons.
    refused: RefCell<BTreeMap<&'static str, Counter>>,
    hits: Counter,
    misses: Counter,
    counted: RefCell<(u64, u64)>,
    /// Milliseconds since the directory was last heard of.
    pub directory_age_ms: Gauge,
    /// The number of the directory's version.
    pub directory_version: Gauge,
    /// Tenants that are known.
    pub directory_tenants: Gauge,
    /// Workers that have loaded it; Envoy's main thread counts as one.
    pub directory_loaded: Counter,
    /// Directory calls that brought nothing.
    pub directory_failed: Counter,
    /// Fetches of keys that brought nothing.
    pub jwks_failed: Counter,
    /// Milliseconds since each issuer's keys were fetched.
    pub jwks_age_ms: Vec<Gauge>,
}

impl Metrics {
    /// Defines those that are always there.
    #[must_use]
    pub fn define(issuers: usize) -> Self {
        let identified =
            |kind: Kind| Counter::define(&format!("weir_tenant_identified_{}", kind.as_str()));
        Self {
            identified: Kind::ALL.map(|kind| (kind, identified(kind))).into(),
            open: Counter::define("weir_tenant_open"),
            refused: RefCell::default(),
            hits: Counter::define("weir_token_cache_hits"),
            misses: Counter::define("weir_token_cache_misses"),
            counted: RefCell::default(),
            directory_age_ms: Gauge::define("weir_directory_age_ms"),
            directory_version: Gauge::define("weir_directory_version"),
            directory_tenants: Gauge::define("weir_directory_tenants"),
            directory_loaded: Counter::define("weir_directory_loaded"),
            directory_failed: Counter::define("weir_directory_failed"),
            jwks_failed: Counter::define("weir_jwks_failed"),
            jwks_age_ms: (0..issuers)
                .map(|i| Gauge::define(&format!("weir_jwks_age_ms_{i}")))
                .collect(),
        }
    }

    /// A request goes on as a tenant's.
    pub fn identified(&self, source: Kind) {
        if let Some(counter) = self.identified.get(&source) {
            counter.increment();
        }
    }

    /// A request goes on as nobody's.
    pub fn open(&self) {
        self.open.increment();
    }

    /// A request was refused.
    pub fn refused(&self, reason: &'static str) {
        self.refused
            .borrow_mut()
            .entry(reason)
            .or_insert_with(|| Counter::define(&format!("weir_tenant_refused_{reason}")))
            .increment();
    }

    /// Brings the cache's counts up to date.
    pub fn cache(&self, (hits, misses): (u64, u64)) {
        let mut counted = self.counted.borrow_mut();
        let more = |now: u64, then: u64| usize::try_from(now.saturating_sub(then)).unwrap_or(0);
        for (counter, count) in [
            (self.hits, more(hits, counted.0)),
            (self.misses, more(misses, counted.1)),
        ] {
            if count > 0 {
                counter.add(count);
            }
        }
        *counted = (hits, misses);
    }
}
