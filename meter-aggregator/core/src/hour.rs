//! The hour that a request is billed in: that of its id, whoever reports it
//! and whenever.

use std::fmt;

/// The length of an hour, in milliseconds.
const HOUR_MS: i64 = 3_600_000;

/// The length of an hour, in seconds.
const HOUR_S: i64 = 3_600;

/// The last second of an hour, counted from its first.
const LAST_S: i64 = HOUR_S - 1;

/// Hours since the Unix epoch, UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Hour(pub i64);

impl Hour {
    /// The hour of a time in milliseconds of the Unix epoch.
    #[must_use]
    pub fn of_ms(ms: i64) -> Self {
        Self(ms.div_euclid(HOUR_MS))
    }

    /// The hour of a time in seconds of the Unix epoch.
    #[must_use]
    pub fn of_s(s: i64) -> Self {
        Self(s.div_euclid(HOUR_S))
    }

    /// Its first second, in seconds of the Unix epoch.
    #[must_use]
    pub fn start_s(self) -> i64 {
        self.0.saturating_mul(HOUR_S)
    }

    /// Its last second.
    #[must_use]
    pub fn last_s(self) -> i64 {
        self.start_s().saturating_add(LAST_S)
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
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn timestamps_stay_in_their_hour() {
        let hour = Hour::of_ms(7_200_000);
        assert_eq!((hour.start_s(), hour.last_s()), (7_200, 10_799));
        assert_eq!(Hour::of_ms(7_199_999), Hour(1));
        assert_eq!(Hour::of_ms(-1), Hour(-1));
        assert_eq!((Hour::of_s(7_199), Hour::of_s(7_200)), (Hour(1), Hour(2)));
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

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_time_has_one_hour(ms in any::<i64>(), now_s in any::<i64>(), grace_s in 0_i64..1_000_000) {
            let hour = Hour::of_ms(ms);
            let s = ms.div_euclid(1_000);
            prop_assert_eq!(Hour::of_s(s), hour);
            prop_assert!((hour.start_s()..=hour.last_s()).contains(&s));
            prop_assert_eq!(Hour::of_s(hour.clamp_s(now_s)), hour);
            // It is over once its last second and the grace are, and stays so.
            let end_s = hour.last_s() + grace_s;
            prop_assert!(!hour.is_over(end_s, grace_s) && hour.is_over(end_s + 1, grace_s));
        }

        #[test]
        fn nothing_overflows(hour in any::<i64>(), now_s in any::<i64>(), grace_s in any::<i64>()) {
            let hour = Hour(hour);
            let _ = (hour.clamp_s(now_s), hour.is_over(now_s, grace_s), hour.last_s());
        }
    }
}
