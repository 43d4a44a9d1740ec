//! The epoch that a tenant was last granted something in, by whatever class: a
//! store that has forgotten it has forgotten what this gateway admitted.

use weir_plugin_host::shared;
use weir_rate_limiting_core::record::EPOCH_MAX_BYTES;
use weir_wire::{host::HostKind, quota::EPOCH_TOLD_MS};

/// A time and the epoch, padded: values keep their size.
const BYTES: usize = 8 + EPOCH_MAX_BYTES;

fn key(tenant: &str) -> String {
    format!("weir/epoch/1/{tenant}")
}

/// What is to be told of that tenant, if anything.
pub fn read(tenant: &str, now_ms: u64) -> Option<String> {
    let found = shared::read(&key(tenant))?;
    let (at_ms, epoch) = found.split_first_chunk()?;
    let is_told = now_ms.saturating_sub(u64::from_le_bytes(*at_ms)) < EPOCH_TOLD_MS;
    let epoch = std::str::from_utf8(epoch).ok()?.trim_end_matches('\0');
    is_told.then(|| epoch.to_owned())
}

/// Notes what a grant said.
pub fn write(host: HostKind, tenant: &str, epoch: &str, now_ms: u64) {
    if epoch.len() > EPOCH_MAX_BYTES {
        return;
    }
    let mut value = now_ms.to_le_bytes().to_vec();
    value.extend_from_slice(epoch.as_bytes());
    value.resize(BYTES, 0);
    // Another worker's is as good.
    let _ = shared::change(host, &key(tenant), |_| ((), Some(value.clone())));
}
