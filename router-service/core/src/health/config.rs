//! From when on a model counts as ill, and for how long it is left alone.

use serde::{Deserialize, Serialize};

/// The longest time of any kind here: an hour, in milliseconds.
const TIME_MAX_MS: u32 = 3_600_000;

/// When calls stop and go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// So many faults in a row open the breaker; at least 1.
    pub faults_in_a_row: u32,
    /// So many percent of the calls of a window open it, 1 to 100 ...
    pub fault_percent: u8,
    /// ... if there were so many; at least 1.
    pub calls_min: u32,
    /// How long the window is, in milliseconds.
    pub window_ms: u32,
    /// How long an open breaker lets no call through at first, in milliseconds; each
    /// failed probe doubles it.
    pub open_ms: u32,
    /// The longest that this grows to, in milliseconds.
    pub open_max_ms: u32,
    /// The longest that a provider's `Retry-After` is heeded, in milliseconds.
    pub pause_max_ms: u32,
    /// A first token that comes later is a fault, in milliseconds from the call;
    /// however late where absent.
    pub slow_start_ms: Option<u32>,
    /// After so long a probe whose outcome is not told is given up for lost, in
    /// milliseconds.
    pub probe_ms: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            faults_in_a_row: 5,
            fault_percent: 50,
            calls_min: 10,
            window_ms: 30_000,
            open_ms: 5_000,
            open_max_ms: 60_000,
            pause_max_ms: 60_000,
            slow_start_ms: Some(30_000),
            probe_ms: 60_000,
        }
    }
}

impl HealthConfig {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        let numbers = [
            ("faults_in_a_row", self.faults_in_a_row, u32::MAX),
            ("fault_percent", self.fault_percent.into(), 100),
            ("calls_min", self.calls_min, u32::MAX),
            ("window_ms", self.window_ms, TIME_MAX_MS),
            ("open_ms", self.open_ms, TIME_MAX_MS),
            ("open_max_ms", self.open_max_ms, TIME_MAX_MS),
            ("pause_max_ms", self.pause_max_ms, TIME_MAX_MS),
            (
                "slow_start_ms",
                self.slow_start_ms.unwrap_or(1),
                TIME_MAX_MS,
            ),
            ("probe_ms", self.probe_ms, TIME_MAX_MS),
        ];
        for (field, found, most) in numbers {
            if !(1..=most).contains(&found) {
                return Err(format!("{field}: must be 1 to {most}, found {found}"));
            }
        }
        if self.open_max_ms < self.open_ms {
            return Err(format!(
                "open_max_ms: must be at least open_ms, {}, found {}",
                self.open_ms, self.open_max_ms
            ));
        }
        Ok(())
    }

    /// Whether a first token that came after so long is a
    /// [`SlowStart`](super::Fault::SlowStart).
    #[must_use]
    pub fn is_slow(&self, first_ms: u64) -> bool {
        self.slow_start_ms
            .is_some_and(|most_ms| first_ms > most_ms.into())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check_refused(json: &str, names: &str) {
        let config = serde_json::from_str::<HealthConfig>(json).map_err(|e| e.to_string());
        let error = config.and_then(|c| c.validate()).unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let config: HealthConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(config, HealthConfig::default());
        config.validate().unwrap();
        check_refused(r#"{"open":5}"#, "open");
        check_refused(r#"{"faults_in_a_row":0}"#, "faults_in_a_row: must be 1");
        check_refused(
            r#"{"fault_percent":101}"#,
            "fault_percent: must be 1 to 100",
        );
        check_refused(
            r#"{"window_ms":3600001}"#,
            "window_ms: must be 1 to 3600000",
        );
        check_refused(r#"{"slow_start_ms":0}"#, "slow_start_ms");
        check_refused(
            r#"{"open_ms":70000}"#,
            "open_max_ms: must be at least open_ms, 70000, found 60000",
        );
    }

    #[test]
    fn a_first_token_may_be_late_by_the_config_alone() {
        let mut config = HealthConfig::default();
        assert!(!config.is_slow(30_000) && config.is_slow(30_001));
        config.slow_start_ms = None;
        assert!(!config.is_slow(u64::MAX));
    }
}
