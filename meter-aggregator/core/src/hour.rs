//! The hour that a request is billed in: that of its id, whoever reports it
//! and whenever.

use std::fmt;

/// The length of an hour, in milliseconds.
const HOUR_MS: i64 = 3_600_000;

/// The length of an hour, in seconds.
const HOUR_S: i64 = 3_600;

/// Hours since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hour(pub i64);

impl Hour {
    /// The hour of a time in milliseconds of the Unix epoch.
    #[must_use]
    pub fn of_ms(ms: i64) -> Self {
        Self(ms.div_euclid(HOUR_MS))
    }

    /// Its first second, in seconds of the Unix epoch.
    #[must_use]
    pub fn start_s(self) -> i64 {
        self.0.saturating_mul(HOUR_S)
    }

    /// Its last second.
    #[must_use]
    pub fn last_s(self) -> i64 {
        self.start_s().saturating_add(HOUR_S).saturating_sub(1)
    }

    /// The time inside the hour that is nearest to `now_s`: what a meter event
    /// says when it is sent, true to the hour and never ahead of now while the
    /// hour still runs.
    #[must_use]
    pub fn clamp_s(self, now_s: i64) -> i64 {
        now_s.clamp(self.start_s(), self.last_s())
    }

    /// Whether the hour was over `grace_s` seconds ago.
    #[must_use]
    pub fn is_over(self, now_s: i64, grace_s: i64) -> bool {
        now_s > self.last_s().saturating_add(grace_s)
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn timestamps_stay_in_their_hour() {
        let hour = Hour::of_ms(7_200_000);
        assert_eq!((hour.start_s(), hour.last_s()), (7_200, 10_799));
        assert_eq!(Hour::of_ms(7_199_999), Hour(1));
        assert_eq!(Hour::of_ms(-1), Hour(-1));
        for (now, expected) in [(0, 7_200), (9_000, 9_000), (99_999, 10_799)] {
            assert_eq!(hour.clamp_s(now), expected);
        }
    }

    #[test]
    fn an_hour_is_over_after_its_grace() {
        let hour = Hour(1);
        assert!(!hour.is_over(7_199 + 300, 300));
        assert!(hour.is_over(7_200 + 300, 300));
    }
}
