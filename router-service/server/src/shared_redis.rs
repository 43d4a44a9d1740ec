//! A Redis that routers share, as sections of the configuration name it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use weir_process::secret;
use weir_router_store::RedisSettings;

/// A member `redis` of a section.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSection {
    url_env: String,
    #[serde(default)]
    cluster: bool,
    #[serde(default = "default_timeout_ms")]
    timeout_ms: u64,
}

fn default_timeout_ms() -> u64 {
    250
}

impl RedisSection {
    /// Checks it; `field` is its place, such as `quota.redis`.
    pub fn settings(self, field: &str) -> anyhow::Result<RedisSettings> {
        ensure!(
            (1..=10_000).contains(&self.timeout_ms),
            "{field}.timeout_ms: must be 1 to 10000, found {}",
            self.timeout_ms
        );
        Ok(RedisSettings {
            url: secret(&self.url_env).with_context(|| format!("{field}.url_env"))?,
            cluster: self.cluster,
            timeout: Duration::from_millis(self.timeout_ms),
        })
    }
}
