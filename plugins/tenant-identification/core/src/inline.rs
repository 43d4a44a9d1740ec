//! Tenants that stand in the plugin's configuration.

use std::collections::HashSet;

use serde::Deserialize;
use weir_wire::{
    directory::{self, KeyState, State},
    ids::{PlanName, TenantId},
    key_hash::KeyHash,
    shown,
    timestamp::Timestamp,
};

use crate::tenants::Store;

/// One tenant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name in headers, limits and invoices.
    pub id: TenantId,
    /// The plan it is on.
    pub plan: PlanName,
    /// Whether it may call.
    #[serde(default)]
    pub state: State,
    /// Its API keys.
    #[serde(default)]
    pub keys: Vec<ApiKey>,
}

/// One API key, of which only the hash is known.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// SHA-256 of the whole key, 64 hexadecimal digits.
    pub sha256: String,
    /// The key's first characters, for humans.
    #[serde(default)]
    pub prefix: String,
    /// Whether it works.
    #[serde(default)]
    pub state: KeyState,
    /// When it ends, RFC 3339; never, where it is left out.
    pub expires_at: Option<String>,
}

/// Checks the tenants and builds the store of them.
///
/// # Errors
/// A message that names the field, what was found and what is allowed.
pub fn store(tenants: &[Tenant]) -> Result<Store, String> {
    let (mut ids, mut hashes) = (HashSet::new(), HashSet::new());
    let mut checked = Vec::with_capacity(tenants.len());
    for (t, tenant) in tenants.iter().enumerate() {
        if !ids.insert(&tenant.id) {
            return Err(format!("tenants[{t}].id: {} comes twice", tenant.id));
        }
        let mut keys = Vec::new();
        for (k, key) in tenant.keys.iter().enumerate() {
            let at = format!("tenants[{t}].keys[{k}]");
            let hash = KeyHash::parse(&key.sha256).map_err(|e| format!("{at}.sha256: {e}"))?;
            if !hashes.insert(hash) {
                return Err(format!("{at}.sha256: the same key comes twice"));
            }
            let expires_at = key
                .expires_at
                .as_deref()
                .map(Timestamp::parse)
                .transpose()
                .map_err(|e| format!("{at}.expires_at: {}", shown::shorten(&e.to_string())))?;
            if key.state.is_active() {
                keys.push(directory::Key {
                    hash,
                    expires_at_ms: expires_at.map(Timestamp::ms),
                });
            }
        }
        checked.push(directory::Tenant {
            id: tenant.id.clone(),
            plan: tenant.plan.clone(),
            state: tenant.state,
            keys,
        });
    }
    Store::inline(checked).map_err(|e| format!("tenants: {e}"))
}
