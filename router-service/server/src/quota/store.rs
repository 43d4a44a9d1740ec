//! Which store counts, by the configuration.

use anyhow::Context as _;
use weir_router_core::quota::{Answer, Ask, Closing};
use weir_router_store::{MemoryQuota, QuotaStore, RedisQuota, RedisSettings, Unavailable};

/// The store that the configuration names.
pub enum Store {
    Memory(MemoryQuota),
    Redis(RedisQuota),
}

/// Opens it; a Redis may be away and come later.
pub async fn open_store(redis: Option<RedisSettings>) -> anyhow::Result<Store> {
    match redis {
        Some(settings) => {
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
