//! Where the router counts and keeps its books, here or in Redis, each behind one
//! trait, where what it tells waits to leave, and how the directory's file is changed.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod budget;
pub mod directory;
mod memory;
mod redis;
pub mod spool;

pub use budget::{BudgetStore, OpenError, RedisBudget, SqliteBudget};
pub use memory::MemoryQuota;
pub use redis::{RedisQuota, RedisSettings, SettingsError};

use std::future::Future;

use thiserror::Error;
use weir_router_core::quota::{Answer, Ask, Closing};

/// The store can't be asked just now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the store is not available: {why}")]
pub struct Unavailable {
    /// For the log; names no secret.
    pub why: String,
}

/// Where leases are granted and counted.
pub trait QuotaStore: Send + Sync + 'static {
    /// Closes what is to be closed, then grants a lease or says when.
    fn acquire(&self, ask: Ask) -> impl Future<Output = Result<Answer, Unavailable>> + Send;

    /// Takes leases of tenants back.
    fn close(
        &self,
        closing: Vec<(String, Closing)>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;
}
