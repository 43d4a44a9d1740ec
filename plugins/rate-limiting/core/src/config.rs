//! The plugin's configuration.

use std::{collections::BTreeMap, num::NonZeroU32};

use serde::Deserialize;
use weir_wire::{host::HostKind, ids::PlanName};

/// What the operator writes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway that runs the filter.
    pub host: HostKind,
    /// Where leases are asked for. Without it each gateway counts for itself, and
    /// admits its share of `plans`.
    pub quota: Option<QuotaConfig>,
    /// How many gateways share each limit where they count for themselves; each
    /// admits `requests / gateways`, rounded down.
    #[serde(default = "one")]
    pub gateways: NonZeroU32,
    /// The limit of each plan, for gateways that count for themselves: always
    /// without `quota`; with it where `on_failure` is `local` and the service has
    /// not been heard of.
    #[serde(default)]
    pub plans: BTreeMap<PlanName, Limit>,
    /// Counts and logs what would be refused, and lets it pass.
    #[serde(default)]
    pub shadow: bool,
}

/// The quota service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaConfig {
    /// The cluster (Envoy) or the address `host:port` (Kong) of the service.
    pub cluster: String,
    /// The authority of the calls; the cluster's name where absent.
    pub authority: Option<String>,
    /// How long one call may take, in milliseconds, 10 to 10,000.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// What becomes of requests for which nothing is leased while the service
    /// can't be asked.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// A policy for when the quota service can't be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They are refused with 503: no limit is ever exceeded.
    #[default]
    Deny,
    /// Each gateway admits its share: at most twice the limit in one window.
    Local,
    /// They pass.
    Allow,
}

fn default_timeout_ms() -> u64 {
    250
}

/// So many requests in any stretch of time that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// At the most so many.
    pub requests: NonZeroU32,
    /// In any so many seconds, 1 to 86,400.
    pub window_s: NonZeroU32,
}

/// How long a call may take.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 10..=10_000;

/// The longest window: a day.
const WINDOW_MAX_S: u32 = 86_400;

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

impl Config {
    /// Checks the whole.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        match &self.quota {
            None if self.plans.is_empty() => {
                return Err("plans: must name at least one plan where there is no quota".to_owned());
            }
            None => {}
            Some(quota) => quota.validate()?,
        }
        for (plan, limit) in &self.plans {
            if limit.window_s.get() > WINDOW_MAX_S {
                return Err(format!(
                    "plans.{plan}.window_s: must be 1 to {WINDOW_MAX_S}, found {}",
                    limit.window_s
                ));
            }
            if limit.requests < self.gateways {
                return Err(format!(
                    "plans.{plan}.requests: must be at least gateways ({}), found {}",
                    self.gateways, limit.requests
                ));
            }
        }
        Ok(())
    }

    /// This gateway's share of the plan's limit.
    #[must_use]
    pub fn share(&self, plan: &str) -> Option<Limit> {
        let limit = self
            .plans
            .iter()
            .find_map(|(name, limit)| (name.as_str() == plan).then_some(limit))?;
        self.share_of(limit.requests.get(), limit.window_s.get())
    }

    /// This gateway's share of a limit; none where that is no whole request.
    #[must_use]
    pub fn share_of(&self, requests: u32, window_s: u32) -> Option<Limit> {
        Some(Limit {
            requests: NonZeroU32::new(requests.checked_div(self.gateways.get())?)?,
            window_s: NonZeroU32::new(window_s)?,
        })
    }
}

impl QuotaConfig {
    fn validate(&self) -> Result<(), String> {
        if self.cluster.is_empty() {
            return Err("quota.cluster: must name a cluster, found nothing".to_owned());
        }
        if !TIMEOUT_MS.contains(&self.timeout_ms) {
            return Err(format!(
                "quota.timeout_ms: must be {} to {}, found {}",
                TIMEOUT_MS.start(),
                TIMEOUT_MS.end(),
                self.timeout_ms
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check_refused(json: &str, names: &str) {
        let error = serde_json::from_str::<Config>(json)
            .map_err(|e| e.to_string())
            .and_then(|c| c.validate())
            .unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        check_refused(r#"{"host":"envoy","plans":{}}"#, "plans");
        check_refused(r#"{"host":"envoy","plan":{}}"#, "`plan`");
        for (limit, names) in [
            (r#"{"requests":0,"window_s":60}"#, "nonzero"),
            (r#"{"requests":1,"window_s":86401}"#, "plans.p.window_s"),
            (r#"{"requests":1,"window":1}"#, "window"),
            (r#"{"requests":1,"window_s":1}"#, "plans.p.requests"),
        ] {
            let json = format!(r#"{{"host":"envoy","gateways":2,"plans":{{"p":{limit}}}}}"#);
            check_refused(&json, names);
        }
        for (quota, names) in [
            (r#"{"cluster":""}"#, "quota.cluster"),
            (r#"{"cluster":"c","timeout_ms":9}"#, "quota.timeout_ms"),
            (r#"{"cluster":"c","on_failure":"open"}"#, "`open`"),
            (r#"{"cluster":"c","timeout":9}"#, "`timeout`"),
        ] {
            check_refused(&format!(r#"{{"host":"envoy","quota":{quota}}}"#), names);
        }
    }

    #[test]
    fn with_a_quota_service_no_plan_need_be_named() {
        let json = r#"{"host":"envoy","quota":{"cluster":"c"}}"#;
        let config: Config = serde_json::from_str(json).unwrap();
        config.validate().unwrap();
        let quota = config.quota.unwrap();
        assert_eq!((quota.timeout_ms, quota.on_failure), (250, OnFailure::Deny));
    }

    #[test]
    fn the_shares_never_exceed_the_limit() {
        let config: Config = serde_json::from_str(
            r#"{"host":"envoy","gateways":3,"plans":{"p":{"requests":100,"window_s":60}}}"#,
        )
        .unwrap();
        assert_eq!(config.share("p").unwrap().requests.get(), 33);
        assert_eq!(config.share("q"), None);
    }
}
