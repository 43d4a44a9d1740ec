//! Which store counts, by the configuration.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use weir_process::secret;
use weir_router_core::quota::{Answer, Ask, Closing};
use weir_router_store::{MemoryQuota, QuotaStore, RedisQuota, RedisSettings, Unavailable};

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
pub struct RedisOptions(RedisSettings);

impl RedisOptions {
    pub fn new(section: Section) -> anyhow::Result<Self> {
        ensure!(
            (1..=10_000).contains(&section.timeout_ms),
            "quota.redis.timeout_ms: must be 1 to 10000, found {}",
            section.timeout_ms
        );
        Ok(Self(RedisSettings {
            url: secret(&section.url_env).context("quota.redis.url_env")?,
            cluster: section.cluster,
            timeout: Duration::from_millis(section.timeout_ms),
        }))
    }
}

/// The store that the configuration names.
pub enum Store {
    Memory(MemoryQuota),
    Redis(RedisQuota),
}

/// Opens it; a Redis may be away and come later.
pub async fn open_store(redis: Option<RedisOptions>) -> anyhow::Result<Store> {
    match redis {
        Some(RedisOptions(settings)) => {
            let redis = RedisQuota::connect(&settings).await;
            Ok(Store::Redis(redis.context("quota.redis")?))
        }
        None => Ok(Store::Memory(MemoryQuota::new()?)),
    }
}

impl QuotaStore for Store {
    async fn acquire(&self, ask: Ask) -> Result<Answer, Unavailable> {
        match self {
            Self::Memory(memory) => memory.acquire(ask).await,
            Self::Redis(redis) => redis.acquire(ask).await,
        }
    }

    async fn close(&self, closing: Vec<(String, Closing)>) -> Result<(), Unavailable> {
        match self {
            Self::Memory(memory) => memory.close(closing).await,
            Self::Redis(redis) => redis.close(closing).await,
        }
    }
}
