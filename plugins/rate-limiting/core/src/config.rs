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
    /// How many gateways share each tenant's limit; each admits
    /// `requests / gateways`, rounded down.
    #[serde(default = "one")]
    pub gateways: NonZeroU32,
    /// The limit of each plan.
    pub plans: BTreeMap<PlanName, Limit>,
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
        if self.plans.is_empty() {
            return Err("plans: must name at least one plan".to_owned());
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
        let requests = limit.requests.get().checked_div(self.gateways.get())?;
        Some(Limit {
            requests: NonZeroU32::new(requests)?,
            ..*limit
        })
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
