//! Keeps a service that does not answer out of the way of requests.

/// Failures in a row after which no request waits for an answer,
const FAILURES: u32 = 2;

/// if the last came so long after the first, in milliseconds: calls that are made
/// at once fail at once, which says no more than one.
const FAILING_MS: u64 = 300;

/// How long nothing is asked after a failure before that, in milliseconds: a service
/// that refuses at once would be asked a thousand times a second.
const PAUSE_MS: u64 = 50;

/// How long nothing is asked then, in milliseconds, and half of it again by chance.
const OPEN_MS: u64 = 1_000;

/// One worker's view of the service. Times are of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    failures: u32,
    since_ms: u64,
    is_open: bool,
    open_until_ms: u64,
    is_probing: bool,
}

impl Breaker {
    /// Whether answers may be waited for.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.is_open
    }

    /// Whether a call may be made: any while closed, one at a time after a pause
    /// otherwise.
    #[must_use]
    pub fn may_call(&self, now_ms: u64) -> bool {
        now_ms >= self.open_until_ms && (self.is_closed() || !self.is_probing)
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
        if self.failures == 0 {
            self.since_ms = now_ms;
        }
        self.failures = self.failures.saturating_add(1);
        let failing_ms = now_ms.saturating_sub(self.since_ms);
        self.is_open |= self.failures >= FAILURES && failing_ms >= FAILING_MS;
        self.is_probing = false;
        let pause_ms = match self.is_open {
            true => OPEN_MS.saturating_add(random % (OPEN_MS / 2)),
            false => PAUSE_MS,
        };
        self.open_until_ms = now_ms.saturating_add(pause_ms);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn opens_after_failing_for_a_while_and_probes_one_at_a_time() {
        let mut breaker = Breaker::default();
        breaker.called();
        breaker.failed(1_000, 0);
        assert!(breaker.is_closed() && !breaker.may_call(1_049) && breaker.may_call(1_050));
        breaker.called();
        breaker.failed(1_100, 499);
        assert!(breaker.is_closed(), "at once");
        breaker.called();
        breaker.failed(1_300, 499);
        assert!(!breaker.is_closed() && !breaker.may_call(2_798));
        assert!(breaker.may_call(2_799));
        breaker.called();
        assert!(!breaker.may_call(2_800), "one probe");
        breaker.failed(2_900, 0);
        assert!(!breaker.may_call(3_899) && breaker.may_call(3_900));
        breaker.called();
        breaker.succeeded();
        assert!(breaker.is_closed() && breaker.may_call(3_901));
    }
}
