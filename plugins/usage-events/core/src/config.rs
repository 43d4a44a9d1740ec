//! The plugin's configuration.

use serde::Deserialize;
use weir_wire::host::HostKind;

/// Where the filter finds the credential that the aggregator asks of it, and that
/// signs what stands in a log.
pub const TOKEN_ENVIRONMENT: &str = "WEIR_INGEST_TOKEN";

/// What the operator writes. Events go to one of two sinks, or to both.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway that runs the filter.
    pub host: HostKind,
    /// The cluster (Envoy) or upstream of the aggregator, which takes batches by HTTP.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Whether each event is handed to Envoy's access log, as the filter state
    /// `wasm.weir.usage`.
    #[serde(default)]
    pub access_log: bool,
    /// The `:authority` of batches; the cluster's name where absent.
    #[serde(default)]
    pub authority: String,
    /// How long one batch may take, in milliseconds, 10 to 60,000.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How often events leave, in milliseconds, 10 to 60,000.
    #[serde(default = "default_flush_ms")]
    pub flush_ms: u64,
    /// The most bytes of a batch, 1 KiB to 4 MiB: once so much waits it leaves at
    /// once.
    #[serde(default = "default_batch_bytes")]
    pub batch_bytes: usize,
    /// The most bytes of events that wait in one worker, 64 KiB to 1 GiB.
    #[serde(default = "default_max_waiting_bytes")]
    pub max_waiting_bytes: usize,
    /// What becomes of a request's `accept-encoding`.
    #[serde(default)]
    pub accept_encoding: AcceptEncoding,
}

/// What upstreams are told of encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceptEncoding {
    /// None is wanted: each answer can be read as it passes.
    #[default]
    Identity,
    /// What the client said: an answer in gzip costs its decoding, and of one in
    /// another encoding the usage is estimated.
    Client,
}

fn default_timeout_ms() -> u64 {
    5_000
}

fn default_flush_ms() -> u64 {
    100
}

fn default_batch_bytes() -> usize {
    256 << 10
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
        match &self.cluster {
            Some(cluster) if cluster.is_empty() => {
                return Err("cluster: must name the aggregator's cluster, found \"\"".to_owned());
            }
            None if !self.access_log => {
                return Err(
                    "cluster: must name the aggregator's cluster, or access_log be true, found \
                     neither"
                        .to_owned(),
                );
            }
            _ => {}
        }
        if self.access_log && self.host == HostKind::Kong {
            return Err("access_log: must be false where host is kong, found true".to_owned());
        }
        for (name, value) in [("timeout_ms", self.timeout_ms), ("flush_ms", self.flush_ms)] {
            if !(10..=60_000).contains(&value) {
                return Err(format!("{name}: must be 10 to 60000, found {value}"));
            }
        }
        for (name, value, least, most) in [
            ("batch_bytes", self.batch_bytes, 1 << 10, 4 << 20),
            (
                "max_waiting_bytes",
                self.max_waiting_bytes,
                64 << 10,
                1 << 30,
            ),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("{name}: must be {least} to {most}, found {value}"));
            }
        }
        Ok(())
    }

    /// The `:authority` to send.
    #[must_use]
    pub fn authority(&self) -> &str {
        if self.authority.is_empty() {
            self.cluster.as_deref().unwrap_or_default()
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

    fn parse(fields: &str) -> Result<Config, String> {
        let config: Config =
            serde_json::from_str(&format!("{{{fields}}}")).map_err(|e| e.to_string())?;
        config.validate().map(|()| config)
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (fields, names) in [
            (r#""host":"envoy","cluster":"""#, "cluster"),
            (r#""host":"envoy""#, "cluster"),
            (r#""host":"envoy","access_log":false"#, "access_log"),
            (
                r#""host":"kong","cluster":"a","access_log":true"#,
                "access_log",
            ),
            (
                r#""host":"envoy","cluster":"a","timeout_ms":1"#,
                "timeout_ms",
            ),
            (
                r#""host":"envoy","cluster":"a","flush_ms":99999"#,
                "flush_ms",
            ),
            (
                r#""host":"envoy","cluster":"a","batch_bytes":4194305"#,
                "batch_bytes: must be 1024 to 4194304",
            ),
            (
                r#""host":"envoy","cluster":"a","max_waiting_bytes":1"#,
                "max_waiting_bytes",
            ),
            (
                r#""host":"envoy","cluster":"a","accept_encoding":"gzip""#,
                "identity",
            ),
            (r#""host":"envoy","cluster":"a","flush":1"#, "flush"),
        ] {
            let error = parse(fields).unwrap_err();
            assert!(error.contains(names), "{error} should name {names}");
        }
    }

    #[test]
    fn one_sink_is_enough() {
        let http = parse(r#""host":"kong","cluster":"a:1""#).unwrap();
        assert_eq!((http.authority(), http.access_log), ("a:1", false));
        assert_eq!(http.accept_encoding, AcceptEncoding::Identity);
        let log = parse(r#""host":"envoy","access_log":true"#).unwrap();
        assert_eq!((log.authority(), log.cluster.as_deref()), ("", None));
        parse(r#""host":"envoy","cluster":"a","access_log":true"#).unwrap();
    }
}
