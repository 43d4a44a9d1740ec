//! The embedded default: this process's memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use weir_router_core::quota::{Answer, Ask, Closing, Memory};

use crate::{QuotaStore, Unavailable};

/// Counts in memory; see [`Memory`].
#[derive(Debug)]
pub struct MemoryQuota {
    memory: Mutex<Memory>,
    start: Instant,
}

impl MemoryQuota {
    /// Empty, under an epoch of its own.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn new() -> Result<Self, Unavailable> {
        let random = getrandom::u64().map_err(|e| Unavailable { why: e.to_string() })?;
        Ok(Self {
            memory: Mutex::new(Memory::new(format!("memory-{random:016x}"))),
            start: Instant::now(),
        })
    }

    // A panic under the lock cannot leave a count half changed.
    fn memory(&self) -> (MutexGuard<'_, Memory>, u64) {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        (memory, now_ms)
    }
}

impl QuotaStore for MemoryQuota {
    async fn acquire(&self, ask: Ask) -> Result<Answer, Unavailable> {
        let (mut memory, now_ms) = self.memory();
        // Granted by the process before this one, which counted for all tenants.
        if !ask.epoch.is_empty() && ask.epoch != memory.epoch() {
            memory.lost(now_ms);
        }
        Ok(memory.acquire(&ask, now_ms))
    }

    async fn close(&self, closing: Vec<(String, Closing)>) -> Result<(), Unavailable> {
        let (mut memory, now_ms) = self.memory();
        for (tenant, closing) in &closing {
            memory.close(tenant, closing, now_ms);
        }
        Ok(())
    }
}
