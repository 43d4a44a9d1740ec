//! What a server's clock must show, by a clock here that never leaps.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// By so much a clock may be beside what is expected, in milliseconds.
const TOLERANCE_MS: i64 = 100;

/// An offset that is older makes way for one that is less exact, in milliseconds.
const EXACT_FOR_MS: i64 = 1_000;

/// No clock shows less, and none shows more.
const ANY: Bounds = Bounds {
    low_ms: 0,
    high_ms: 1 << 53,
};

/// Between which TIME is expected, in milliseconds of the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) low_ms: i64,
    pub(crate) high_ms: i64,
}

/// When a call was sent, on the clock here, and what was known then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    at_ms: i64,
    generation: u64,
}

/// TIME less the clock here, in milliseconds, within what a round trip took.
#[derive(Debug, Clone, Copy)]
struct Offset {
    low_ms: i64,
    high_ms: i64,
    learnt_at_ms: i64,
}

#[derive(Debug, Default)]
struct Known {
    offsets: HashMap<u16, Offset>,
    /// Another one after each leap.
    generation: u64,
}

/// The clocks of the servers, each known by a hash slot of a cluster that it
/// holds; a server alone is slot 0.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    known: Mutex<Known>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            known: Mutex::default(),
        }
    }

    /// Notes that a call is sent now.
    pub(crate) fn send(&self) -> Sent {
        Sent {
            at_ms: self.now_ms(),
            generation: self.known().generation,
        }
    }

    /// Where a call that was sent then must find TIME, if it is executed in time.
    pub(crate) fn bounds(&self, slot: u16, sent: Sent, timeout: Duration) -> Bounds {
        let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let known = self.known();
        let Some(offset) = known.offsets.get(&slot) else {
            return ANY;
        };
        offset.bounds(sent.at_ms, sent.at_ms.saturating_add(timeout_ms))
    }

    /// Whether TIME, just received, is where it must be; what it shows is learnt
    /// then.
    pub(crate) fn learn(&self, slot: u16, sent: Sent, time_ms: i64) -> bool {
        let received_ms = self.now_ms();
        let mut known = self.known();
        // An answer from before a leap that is known by now.
        if known.generation != sent.generation {
            return true;
        }
        let fresh = Offset {
            low_ms: time_ms.saturating_sub(received_ms),
            high_ms: time_ms.saturating_sub(sent.at_ms),
            learnt_at_ms: received_ms,
        };
        if let Some(offset) = known.offsets.get(&slot) {
            let bounds = offset.bounds(sent.at_ms, received_ms);
            if time_ms < bounds.low_ms || time_ms > bounds.high_ms {
                return false;
            }
            let age_ms = received_ms.saturating_sub(offset.learnt_at_ms);
            if fresh.width_ms() > offset.width_ms() && age_ms < EXACT_FOR_MS {
                return true;
            }
        }
        known.offsets.insert(slot, fresh);
        true
    }

    /// Forgets the offsets: clocks have leapt, or the server is another one.
    pub(crate) fn forget(&self) {
        let mut known = self.known();
        known.offsets.clear();
        known.generation = known.generation.wrapping_add(1);
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Offset {
    /// Clocks may run apart by a thousandth from when the offset was learnt.
    fn bounds(&self, sent_ms: i64, received_ms: i64) -> Bounds {
        let age_ms = received_ms.saturating_sub(self.learnt_at_ms).max(0);
        let tolerance_ms = TOLERANCE_MS.saturating_add(age_ms / 1_000);
        let low_ms = sent_ms.saturating_add(self.low_ms);
        let high_ms = received_ms.saturating_add(self.high_ms);
        Bounds {
            low_ms: low_ms.saturating_sub(tolerance_ms).max(ANY.low_ms),
            high_ms: high_ms.saturating_add(tolerance_ms).min(ANY.high_ms),
        }
    }

    fn width_ms(&self) -> i64 {
        self.high_ms.saturating_sub(self.low_ms)
    }
}

/// The hash slot of a tenant's keys: CRC-16/XMODEM of what stands between the
/// first brace and the next closing one, as in Redis' cluster specification.
pub(crate) fn slot(tenant: &str) -> u16 {
    let tag = tenant.split('}').next().unwrap_or_default();
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    });
    crc & 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(250);

    async fn pass(ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    /// A call that takes so long, and finds TIME so far beside a clock that shows
    /// 1,000,000 ms more than the one here.
    async fn call(clock: &Clock, took_ms: u64, beside_ms: i64) -> bool {
        let sent = clock.send();
        let time_ms = sent.at_ms + 1_000_000 + beside_ms;
        pass(took_ms).await;
        clock.learn(0, sent, time_ms)
    }

    #[tokio::test(start_paused = true)]
    async fn a_leap_is_told_from_a_slow_call() {
        let clock = Clock::new();
        assert_eq!(clock.bounds(0, clock.send(), TIMEOUT), ANY);
        assert!(call(&clock, 4, 2).await, "nothing is known");
        let sent = clock.send();
        let bounds = clock.bounds(0, sent, TIMEOUT);
        assert_eq!(bounds.low_ms - sent.at_ms, 999_998 - 100);
        assert_eq!(bounds.high_ms - sent.at_ms, 1_000_002 + 250 + 100);
        assert_eq!(clock.bounds(1, sent, TIMEOUT), ANY, "another server");
        assert!(call(&clock, 240, 239).await, "slow on its way there");
        assert!(call(&clock, 240, 1).await, "slow on its way back");
        assert!(!call(&clock, 1, 110).await);
        assert!(!call(&clock, 1, -110).await);
        assert!(call(&clock, 1, 90).await, "slewed");
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_may_drift_while_nothing_is_called() {
        let clock = Clock::new();
        assert!(call(&clock, 1, 0).await);
        pass(600_000).await;
        assert!(call(&clock, 1, 500).await);
        assert!(!call(&clock, 1, 0).await, "but not at once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_a_leap_teaches_nothing() {
        let clock = Clock::new();
        assert!(call(&clock, 1, 0).await);
        let before = clock.send();
        clock.forget();
        assert!(call(&clock, 1, 3_600_000).await);
        assert!(clock.learn(0, before, 1_000_000));
        assert!(call(&clock, 1, 3_600_000).await);
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // What `CLUSTER KEYSLOT weir:q:{…}:m` of Redis 7.0 says.
        for (tenant, expected) in [("acme", 11_304), ("tenant-7", 4_260), ("a}b", 15_495)] {
            assert_eq!(slot(tenant), expected);
        }
    }
}
