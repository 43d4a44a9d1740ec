//! Keeps a service that does not answer out of the way of requests.

/// Failures in a row after which no request waits for an answer.
const FAILURES: u32 = 2;

/// How long nothing is asked then, in milliseconds, and half of it again by chance.
const OPEN_MS: u64 = 1_000;

/// One worker's view of the service. Times are of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    failures: u32,
    open_until_ms: u64,
    is_probing: bool,
}

impl Breaker {
    /// Whether answers may be waited for.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.failures < FAILURES
    }

    /// Whether a call may be made: any while closed, one at a time after a pause
    /// otherwise.
    #[must_use]
    pub fn may_call(&self, now_ms: u64) -> bool {
        self.is_closed() || (!self.is_probing && now_ms >= self.open_until_ms)
    }

    /// A call is made.
    pub fn called(&mut self) {
        self.is_probing = !self.is_closed();
    }

    /// It was answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It was not. `random` spreads the next attempts of many gateways.
    pub fn failed(&mut self, now_ms: u64, random: u64) {
        self.failures = self.failures.saturating_add(1);
        self.is_probing = false;
        let pause_ms = OPEN_MS.saturating_add(random % (OPEN_MS / 2));
        self.open_until_ms = now_ms.saturating_add(pause_ms);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn opens_after_two_failures_and_probes_one_at_a_time() {
        let mut breaker = Breaker::default();
        breaker.called();
        breaker.failed(1_000, 0);
        assert!(breaker.is_closed() && breaker.may_call(1_000));
        breaker.called();
        breaker.failed(1_100, 499);
        assert!(!breaker.is_closed() && !breaker.may_call(2_598));
        assert!(breaker.may_call(2_599));
        breaker.called();
        assert!(!breaker.may_call(2_600), "one probe");
        breaker.failed(2_700, 0);
        assert!(!breaker.may_call(3_699) && breaker.may_call(3_700));
        breaker.called();
        breaker.succeeded();
        assert!(breaker.is_closed() && breaker.may_call(3_701));
    }
}
