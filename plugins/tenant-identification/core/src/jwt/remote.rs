//! When to fetch an issuer's keys, and how long they serve.
//!
//! All times are milliseconds of a clock that never goes back and that all
//! workers of a gateway share.

use super::config::JwksUriConfig;
use crate::board::{time_word, word_time};

/// How long beyond its timeout a fetch without an answer counts as under way.
const GRACE_MS: u64 = 1_000;

/// How many numbers a schedule is.
pub(crate) const WORDS: usize = 5;

/// The fetches of one issuer's set.
#[derive(Debug, Clone)]
pub(crate) struct Schedule<'c> {
    config: &'c JwksUriConfig,
    fetched_at_ms: Option<u64>,
    begun_at_ms: Option<u64>,
    due_at_ms: u64,
    failures: u32,
    asked_at_ms: Option<u64>,
}

impl<'c> Schedule<'c> {
    pub fn new(config: &'c JwksUriConfig) -> Self {
        Self {
            config,
            fetched_at_ms: None,
            begun_at_ms: None,
            due_at_ms: 0,
            failures: 0,
            asked_at_ms: None,
        }
    }

    pub fn is_due(&self, mono_ms: u64) -> bool {
        mono_ms >= self.due_at_ms && !self.is_under_way(mono_ms)
    }

    pub fn is_under_way(&self, mono_ms: u64) -> bool {
        self.begun_at_ms
            .is_some_and(|begun| mono_ms < begun.saturating_add(self.patience_ms()))
    }

    fn patience_ms(&self) -> u64 {
        self.config.timeout_ms.saturating_add(GRACE_MS)
    }

    pub fn begin(&mut self, mono_ms: u64) {
        if self.begun_at_ms.is_some() {
            // The one before was never answered.
            self.failures = self.failures.saturating_add(1);
        }
        self.begun_at_ms = Some(mono_ms);
        self.due_at_ms = mono_ms
            .saturating_add(self.patience_ms())
            .saturating_add(self.backoff_ms(self.failures));
    }

    /// A fetch because of a key that is not known, at most one in a pause:
    /// tokens with made-up keys must not make the gateway call at will.
    pub fn ask(&mut self, mono_ms: u64) -> bool {
        let pause_ms = self.config.unknown_kid_pause_s.saturating_mul(1000);
        let is_paused = self
            .asked_at_ms
            .is_some_and(|asked| mono_ms < asked.saturating_add(pause_ms));
        if is_paused || self.is_under_way(mono_ms) {
            return false;
        }
        self.asked_at_ms = Some(mono_ms);
        self.begin(mono_ms);
        true
    }

    pub fn succeeded(&mut self, fetched_at_ms: u64) {
        self.fetched_at_ms = Some(fetched_at_ms);
        self.begun_at_ms = None;
        self.failures = 0;
        let refresh_ms = self.config.refresh_s.saturating_mul(1000);
        self.due_at_ms = fetched_at_ms.saturating_add(refresh_ms);
    }

    pub fn failed(&mut self, mono_ms: u64) {
        self.begun_at_ms = None;
        self.due_at_ms = mono_ms.saturating_add(self.backoff_ms(self.failures));
        self.failures = self.failures.saturating_add(1);
    }

    /// 1, 2, 4 seconds and so on, up to the time between two fetches.
    fn backoff_ms(&self, failures: u32) -> u64 {
        let seconds = 1_u64.checked_shl(failures.min(32)).unwrap_or(u64::MAX);
        seconds.min(self.config.refresh_s).saturating_mul(1000)
    }

    pub fn fetched_at_ms(&self) -> Option<u64> {
        self.fetched_at_ms
    }

    /// As [`Self::to_words`] wrote it.
    pub fn from_words(config: &'c JwksUriConfig, words: [u64; WORDS]) -> Self {
        let [fetched, begun, due_at_ms, failures, asked] = words;
        Self {
            config,
            fetched_at_ms: word_time(fetched),
            begun_at_ms: word_time(begun),
            due_at_ms,
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
            asked_at_ms: word_time(asked),
        }
    }

    /// All but the configuration.
    pub fn to_words(&self) -> [u64; WORDS] {
        [
            time_word(self.fetched_at_ms),
            time_word(self.begun_at_ms),
            self.due_at_ms,
            u64::from(self.failures),
            time_word(self.asked_at_ms),
        ]
    }
}

/// The set that one worker holds.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub uri: JwksUriConfig,
    pub fetched_at_ms: Option<u64>,
}

impl Held {
    pub fn age_ms(&self, mono_ms: u64) -> Option<u64> {
        Some(mono_ms.saturating_sub(self.fetched_at_ms?))
    }

    /// Whether what was fetched then is newer than what is here.
    pub fn is_news(&self, fetched_at_ms: u64) -> bool {
        self.fetched_at_ms.is_none_or(|own| fetched_at_ms > own)
    }

    pub fn is_too_old(&self, age_ms: u64) -> bool {
        age_ms >= self.uri.max_age_s.saturating_mul(1000)
    }

    /// Forgets a set that has become too old; whether there was one.
    pub fn forget_old(&mut self, mono_ms: u64) -> bool {
        let is_old = self.age_ms(mono_ms).is_some_and(|age| self.is_too_old(age));
        if is_old {
            self.fetched_at_ms = None;
        }
        is_old
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn config() -> JwksUriConfig {
        let json = r#"{"cluster":"c","authority":"a","path":"/","refresh_s":10,"max_age_s":60}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_failure_is_tried_again_ever_later() {
        let config = config();
        let mut s = Schedule::new(&config);
        assert!(s.is_due(0));
        let mut now = 0;
        for wait_ms in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
            s.begin(now);
            assert!(!s.is_due(now + 2_999) && s.is_under_way(now + 2_999));
            now += 100;
            s.failed(now);
            assert!(!s.is_due(now + wait_ms - 1), "{wait_ms}");
            assert!(s.is_due(now + wait_ms), "{wait_ms}");
            now += wait_ms;
        }
        s.begin(now);
        s.succeeded(now);
        assert!(!s.is_due(now + 9_999) && s.is_due(now + 10_000));
        s.failed(now);
        assert!(s.is_due(now + 1_000));
    }

    #[test]
    fn a_fetch_that_is_never_answered_ends() {
        let config = config();
        let mut s = Schedule::new(&config);
        for (begun, again) in [(0, 4_000), (4_000, 9_000), (9_000, 16_000)] {
            s.begin(begun);
            assert!(s.is_under_way(begun + 2_999), "{begun}");
            assert!(!s.is_under_way(begun + 3_000), "{begun}");
            assert!(!s.is_due(again - 1), "{begun}");
            assert!(s.is_due(again), "{begun}");
        }
    }

    #[test]
    fn unknown_keys_cause_one_fetch_in_a_pause() {
        let config = config();
        let mut s = Schedule::new(&config);
        s.begin(0);
        for (now, is_asked) in [
            (2_999, false),
            (3_000, true),
            (3_001, false),
            (32_999, false),
            (33_000, true),
            (99_000, true),
        ] {
            assert_eq!(s.ask(now), is_asked, "{now}");
        }
    }

    #[test]
    fn a_set_serves_until_it_is_too_old() {
        let mut held = Held {
            uri: config(),
            fetched_at_ms: None,
        };
        assert_eq!(held.age_ms(5), None);
        held.fetched_at_ms = Some(1_000);
        assert_eq!(held.age_ms(60_999), Some(59_999));
        assert!(!held.forget_old(60_999));
        assert!(held.is_news(1_001) && !held.is_news(1_000));
        assert!(held.forget_old(61_000) && !held.forget_old(61_000));
        assert!(held.is_news(0));
    }

    #[test]
    fn a_schedule_comes_back_from_its_words() {
        let config = config();
        let mut s = Schedule::new(&config);
        for _ in 0..2 {
            let back = Schedule::from_words(&config, s.to_words());
            assert_eq!(format!("{back:?}"), format!("{s:?}"));
            s.begin(7);
            s.failed(8);
            s.ask(100_000);
            s.succeeded(9);
            s.begin(1 << 60);
        }
    }
}
