//! Which store counts, by the configuration.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use weir_process::secret;
use weir_router_core::quota::{Answer, Ask, Closing};
use weir_router_store::{MemoryQuota, QuotaStore, Unavailable};

/// The section `quota.redis` of the router's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    url_env: String,
    #[serde(default)]
    cluster: bool,
    #[serde(default = "default_timeout_ms")]
    timeout_ms: u64,
}

fn default_timeout_ms() -> u64 {
    250
}

/// Which Redis, checked.
#[expect(dead_code, reason = "open_store reads them once there is such a store")]
pub struct RedisOptions {
    url: String,
    cluster: bool,
    timeout: Duration,
}

impl RedisOptions {
    pub fn new(section: Section) -> anyhow::Result<Self> {
        ensure!(
            (1..=10_000).contains(&section.timeout_ms),
            "quota.redis.timeout_ms: must be 1 to 10000, found {}",
            section.timeout_ms
        );
        Ok(Self {
            url: secret(&section.url_env).context("quota.redis.url_env")?,
            cluster: section.cluster,
            timeout: Duration::from_millis(section.timeout_ms),
        })
    }
}

/// The store that the configuration names.
pub enum Store {
    Memory(MemoryQuota),
}

/// Opens it. The Redis store is plugged in here, as a variant of [`Store`].
pub async fn open_store(redis: Option<RedisOptions>) -> anyhow::Result<Store> {
    match redis {
        Some(_) => bail!("quota.redis: not built yet"),
        None => Ok(Store::Memory(MemoryQuota::new()?)),
    }
}

impl QuotaStore for Store {
    async fn acquire(&self, ask: Ask) -> Result<Answer, Unavailable> {
        match self {
            Self::Memory(memory) => memory.acquire(ask).await,
        }
    }

    async fn close(&self, closing: Vec<(String, Closing)>) -> Result<(), Unavailable> {
        match self {
            Self::Memory(memory) => memory.close(closing).await,
        }
    }
}
