//! The plugin's configuration.

use serde::Deserialize;
use weir_wire::{
    host::HostKind,
    ids::{PlanName, TenantId},
};

use crate::directory::Directory;

/// What the operator writes. The signing keys are not in it: they come from the
/// VM's environment, because gateways show plugin configs on their admin port.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway that runs the filter.
    pub host: HostKind,
    /// The tenants and their keys.
    pub tenants: Vec<Tenant>,
}

/// One tenant of the directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name in headers, limits and invoices.
    pub id: TenantId,
    /// The plan it is on.
    pub plan: PlanName,
    /// Its API keys.
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
}

impl Config {
    /// Checks the whole and builds the directory.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self) -> Result<Directory, String> {
        let mut directory = Directory::default();
        for (t, tenant) in self.tenants.iter().enumerate() {
            for earlier in self.tenants.iter().take(t) {
                if earlier.id == tenant.id {
                    return Err(format!("tenants[{t}].id: {} comes twice", tenant.id));
                }
            }
            for (k, key) in tenant.keys.iter().enumerate() {
                let at = format!("tenants[{t}].keys[{k}].sha256");
                let hash = parse_hash(&key.sha256).ok_or_else(|| {
                    format!(
                        "{at}: must be 64 hexadecimal digits, found {:?}",
                        key.sha256
                    )
                })?;
                if !directory.insert(hash, tenant.id.clone(), tenant.plan.clone()) {
                    return Err(format!("{at}: the same key comes twice"));
                }
            }
        }
        Ok(directory)
    }
}

fn parse_hash(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check_refused(json: &str, names: &str) {
        let error = serde_json::from_str::<Config>(json)
            .map_err(|e| e.to_string())
            .and_then(|c| c.validate().map(|_| ()))
            .unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let hash = "ab".repeat(32);
        check_refused(r#"{"host":"nginx","tenants":[]}"#, "nginx");
        check_refused(r#"{"host":"envoy","tenant":[]}"#, "tenant");
        check_refused(r#"{"host":"envoy"}"#, "tenants");
        let tenant = |keys: &str| {
            format!(r#"{{"host":"envoy","tenants":[{{"id":"a","plan":"p","keys":[{keys}]}}]}}"#)
        };
        check_refused(&tenant(r#"{"sha256":"xyz"}"#), "tenants[0].keys[0].sha256");
        check_refused(&tenant(r#"{"sha":"xyz"}"#), "sha");
        let key = format!(r#"{{"sha256":"{hash}"}}"#);
        check_refused(&tenant(&format!("{key},{key}")), "keys[1].sha256");
        check_refused(
            r#"{"host":"envoy","tenants":[{"id":"a b","plan":"p","keys":[]}]}"#,
            "a b",
        );
        check_refused(
            r#"{"host":"envoy","tenants":[{"id":"a","plan":"p","keys":[]},{"id":"a","plan":"q","keys":[]}]}"#,
            "tenants[1].id",
        );
    }
}
