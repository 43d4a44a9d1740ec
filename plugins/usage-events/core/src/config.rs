//! The plugin's configuration.

use serde::Deserialize;
use weir_wire::host::HostKind;

/// Where the filter finds the credential that the aggregator asks of it.
pub const TOKEN_ENVIRONMENT: &str = "WEIR_INGEST_TOKEN";

/// What the operator writes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway that runs the filter.
    pub host: HostKind,
    /// The cluster (Envoy) or upstream of the aggregator.
    pub cluster: String,
    /// The `:authority` of its requests; the cluster's name where absent.
    #[serde(default)]
    pub authority: String,
    /// How long one batch may take, in milliseconds, 10 to 60,000.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How often events leave, in milliseconds, 10 to 60,000.
    #[serde(default = "default_flush_ms")]
    pub flush_ms: u64,
    /// The most bytes of events that wait in one worker, 64 KiB to 1 GiB.
    #[serde(default = "default_max_waiting_bytes")]
    pub max_waiting_bytes: usize,
}

fn default_timeout_ms() -> u64 {
    5_000
}

fn default_flush_ms() -> u64 {
    100
}

fn default_max_waiting_bytes() -> usize {
    16 << 20
}

impl Config {
    /// Checks the whole.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if self.cluster.is_empty() {
            return Err("cluster: must name the aggregator's cluster, found \"\"".to_owned());
        }
        for (name, value) in [("timeout_ms", self.timeout_ms), ("flush_ms", self.flush_ms)] {
            if !(10..=60_000).contains(&value) {
                return Err(format!("{name}: must be 10 to 60000, found {value}"));
            }
        }
        if !(64 << 10..=1 << 30).contains(&self.max_waiting_bytes) {
            return Err(format!(
                "max_waiting_bytes: must be 65536 to 1073741824, found {}",
                self.max_waiting_bytes
            ));
        }
        Ok(())
    }

    /// The `:authority` to send.
    #[must_use]
    pub fn authority(&self) -> &str {
        if self.authority.is_empty() {
            &self.cluster
        } else {
            &self.authority
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        for (field, names) in [
            (r#""cluster":"""#, "cluster"),
            (r#""cluster":"a","timeout_ms":1"#, "timeout_ms"),
            (r#""cluster":"a","flush_ms":99999"#, "flush_ms"),
            (
                r#""cluster":"a","max_waiting_bytes":1"#,
                "max_waiting_bytes",
            ),
            (r#""cluster":"a","flush":1"#, "flush"),
        ] {
            let error = serde_json::from_str::<Config>(&format!(r#"{{"host":"envoy",{field}}}"#))
                .map_err(|e| e.to_string())
                .and_then(|c| c.validate())
                .unwrap_err();
            assert!(error.contains(names), "{error} should name {names}");
        }
    }
}
