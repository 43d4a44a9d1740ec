//! What the host's statistics show of the filter.

use weir_plugin_host::metrics::Counter;

/// The counters of one worker; Envoy adds those of all workers up.
#[derive(Debug)]
pub struct Metrics {
    /// Requests that passed by what is leased or counted.
    pub admitted: Counter,
    /// Requests that were refused because a limit is reached.
    pub refused: Counter,
    /// Requests that the policy decided on, because the quota service could not
    /// be asked.
    pub degraded: Counter,
    /// Requests that would have been refused but for the shadow mode.
    pub shadow: Counter,
    /// Requests that waited for an answer of the service.
    pub waited: Counter,
    /// Calls to the service.
    pub calls: Counter,
    /// Those that were not answered.
    pub calls_failed: Counter,
    /// Leases that were granted.
    pub leases: Counter,
    /// Requests that were granted by all of them: divided by their number, the
    /// size of a lease.
    pub leased: Counter,
    /// Leases that came too late or for which there was no place, and reports of
    /// closed ones that were dropped.
    pub strays: Counter,
    /// Requests that were taken from a lease too late to be made.
    pub burnt: Counter,
}

impl Metrics {
    /// Defines them.
    #[must_use]
    pub fn define() -> Self {
        let counter = |name: &str| Counter::define(&format!("weir_rate_limit_{name}"));
        Self {
            admitted: counter("admitted"),
            refused: counter("refused"),
            degraded: counter("degraded"),
            shadow: counter("shadow"),
            waited: counter("waited"),
            calls: counter("calls"),
            calls_failed: counter("calls_failed"),
            leases: counter("leases"),
            leased: counter("leased"),
            strays: counter("strays"),
            burnt: counter("burnt"),
        }
    }
}
