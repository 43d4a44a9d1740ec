//! Counters and gauges in the host's statistics.

use proxy_wasm::{hostcalls, types::MetricType};

/// A counter of the host.
#[derive(Debug, Clone, Copy)]
pub struct Counter(Option<u32>);

impl Counter {
    /// Defines it, or finds the one of that name.
    #[must_use]
    pub fn define(name: &str) -> Self {
        Self(hostcalls::define_metric(MetricType::Counter, name).ok())
    }

    /// Adds one.
    pub fn increment(self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(self, count: usize) {
        if let (Some(id), Ok(offset)) = (self.0, i64::try_from(count)) {
            let _ = hostcalls::increment_metric(id, offset);
        }
    }
}

/// A number of the host that goes up and down; all workers write the same one.
#[derive(Debug, Clone, Copy)]
pub struct Gauge(Option<u32>);

impl Gauge {
    /// Defines it, or finds the one of that name.
    #[must_use]
    pub fn define(name: &str) -> Self {
        Self(hostcalls::define_metric(MetricType::Gauge, name).ok())
    }

    /// Sets it.
    pub fn set(self, value: u64) {
        if let Some(id) = self.0 {
            let _ = hostcalls::record_metric(id, value);
        }
    }

    /// Adds to it, so that it is the sum of what all workers have. Envoy only.
    pub fn add(self, difference: i64) {
        if let (Some(id), true) = (self.0, difference != 0) {
            let _ = hostcalls::increment_metric(id, difference);
        }
    }
}
