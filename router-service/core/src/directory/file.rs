//! `directory.yaml`: the tenants, their plans and the hashes of their keys, as
//! weir-keys writes them and the router reads them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;
pub use weir_wire::directory::{KeyState, State as TenantState};
use weir_wire::{
    directory::KEYS_MAX,
    ids::{KeyName, PlanName, TenantId},
    key_hash::KeyHash,
    timestamp::Timestamp,
};

use crate::{allowance::Allowance, plan::Plan, quota::Limits};

/// The largest file that is read, in bytes.
pub const FILE_MAX_BYTES: u64 = 1 << 30;

/// The most characters that are kept of a key to tell it from others.
pub const PREFIX_MAX: usize = 24;

/// What is wrong with a file. No message repeats what stands in the place of a
/// hash or of a prefix: it may be a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FileError {
    /// It is no YAML, or not of this shape at all.
    #[error("{0}")]
    Yaml(String),
    /// A field is not what it must be.
    #[error("{field}: {message}")]
    Field {
        /// Its path, such as `tenants[3].keys[1].sha256`.
        field: String,
        /// What was found and what is allowed.
        message: String,
    },
}

/// The whole directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Grows with each change; at least 1.
    pub version: u64,
    /// Plans beside those of the router's configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plans: BTreeMap<PlanName, Plan>,
    /// In any order, each once.
    pub tenants: Vec<Tenant>,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name in headers, limits and invoices.
    pub id: TenantId,
    /// The plan it is on.
    pub plan: PlanName,
    /// Whether it may call; active where absent.
    #[serde(default, skip_serializing_if = "TenantState::is_active")]
    pub state: TenantState,
    /// What it may do in place of its plan's limits; none at all where empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What it is allowed in place of what its plan allows, bound by bound.
    #[serde(default, skip_serializing_if = "Allowance::is_empty")]
    pub allowance: Allowance,
    /// Its API keys; at most [`KEYS_MAX`] of them not revoked.
    #[serde(default)]
    pub keys: Vec<Key>,
}

/// One API key, of which only the hash is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its name within the tenant, for humans.
    pub id: KeyName,
    /// The key's first characters, for humans: 1 to [`PREFIX_MAX`], visible
    /// ASCII, and not the whole key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// SHA-256 of the whole key, 64 hexadecimal digits.
    #[serde(with = "hex")]
    pub sha256: KeyHash,
    /// Whether it works; active where absent.
    #[serde(default, skip_serializing_if = "KeyState::is_active")]
    pub state: KeyState,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it ends; never where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A hash as hexadecimal digits.
mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use weir_wire::key_hash::KeyHash;

    pub fn serialize<S: Serializer>(hash: &KeyHash, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(hash)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<KeyHash, D::Error> {
        KeyHash::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A parser whose bounds grow with the text, because a hundred thousand tenants
/// are beyond its own; that shows no text, which may hold a key; and that takes
/// no aliases, which could make a small file large.
fn options(text: &str) -> serde_saphyr::Options {
    let most = text.len().saturating_add(64);
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: most,
            max_nodes: most,
            max_total_scalar_bytes: most,
            max_aliases: 0,
        },
    }
}

impl File {
    /// Reads the YAML; [`File::validate`] checks what it says.
    ///
    /// # Errors
    /// [`FileError`], which names the field where there is one.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        // Following the path costs time; it is needed for a message alone.
        serde_saphyr::from_str_with_options(text, options(text)).map_err(|_| Self::explain(text))
    }

    fn explain(text: &str) -> FileError {
        let mut field = String::new();
        let read = serde_saphyr::with_deserializer_from_str_with_options(
            text,
            options(text),
            |deserializer| {
                serde_path_to_error::deserialize::<_, Self>(deserializer).map_err(|error| {
                    field = error.path().to_string();
                    error.into_inner()
                })
            },
        );
        let message = match read {
            // Cannot be: it was refused a moment ago.
            Ok(_) => "is not understood".to_owned(),
            Err(error) => error.to_string(),
        };
        if field.is_empty() || field == "." || field == "?" {
            FileError::Yaml(message)
        } else {
            FileError::Field { field, message }
        }
    }

    /// Writes the YAML; the reverse of [`File::parse`].
    ///
    /// # Errors
    /// [`FileError::Yaml`] where it cannot be written, which is not known to be.
    pub fn to_yaml(&self) -> Result<String, FileError> {
        serde_saphyr::to_string(self).map_err(|e| FileError::Yaml(e.to_string()))
    }

    /// Checks what types cannot say. `plans` are those that the router knows;
    /// where there are none, plans are not checked.
    ///
    /// # Errors
    /// [`FileError::Field`], which names the first field that is wrong.
    pub fn validate(&self, plans: &BTreeSet<PlanName>) -> Result<(), FileError> {
        if self.version == 0 {
            return Err(wrong("version", "must be at least 1, found 0"));
        }
        self.validate_plans(plans)?;
        let mut ids = HashMap::with_capacity(self.tenants.len());
        let mut hashes = HashMap::with_capacity(self.tenants.len());
        for (t, tenant) in self.tenants.iter().enumerate() {
            if let Some(earlier) = ids.insert(&tenant.id, t) {
                return Err(wrong(
                    format!("tenants[{t}].id"),
                    format!("{} is tenants[{earlier}] already", tenant.id),
                ));
            }
            let is_known = plans.contains(&tenant.plan) || self.plans.contains_key(&tenant.plan);
            if !plans.is_empty() && !is_known {
                let known = plans.iter().chain(self.plans.keys());
                let known: Vec<&str> = known.map(PlanName::as_str).collect();
                return Err(wrong(
                    format!("tenants[{t}].plan"),
                    format!("must be one of {}, found {}", known.join(", "), tenant.plan),
                ));
            }
            tenant.validate(t)?;
            for (k, key) in tenant.keys.iter().enumerate() {
                if let Some((t2, k2)) = hashes.insert(key.sha256, (t, k)) {
                    return Err(wrong(
                        format!("tenants[{t}].keys[{k}].sha256"),
                        format!("is that of tenants[{t2}].keys[{k2}] already"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn validate_plans(&self, configured: &BTreeSet<PlanName>) -> Result<(), FileError> {
        for (name, plan) in &self.plans {
            if configured.contains(name) {
                return Err(wrong(
                    format!("plans.{name}"),
                    "must be none of the router's configuration, which has one of that name",
                ));
            }
            if let Err(message) = plan.validate() {
                let (field, message) = message.split_once(": ").unwrap_or(("limits", &message));
                return Err(wrong(format!("plans.{name}.{field}"), message));
            }
        }
        Ok(())
    }
}

impl Tenant {
    fn validate(&self, t: usize) -> Result<(), FileError> {
        if let Some(Err(message)) = self.limits.as_ref().map(Limits::validate) {
            let (field, message) = message.split_once(": ").unwrap_or(("limits", &message));
            return Err(wrong(format!("tenants[{t}].{field}"), message));
        }
        if let Err(message) = self.allowance.validate() {
            let (field, message) = message.split_once(": ").unwrap_or(("", &message));
            return Err(wrong(format!("tenants[{t}].allowance.{field}"), message));
        }
        let working = self.keys.iter().filter(|k| k.state.is_active()).count();
        if working > KEYS_MAX {
            return Err(wrong(
                format!("tenants[{t}].keys"),
                format!("must be at most {KEYS_MAX} that are not revoked, found {working}"),
            ));
        }
        let mut names = HashSet::with_capacity(self.keys.len());
        for (k, key) in self.keys.iter().enumerate() {
            if !names.insert(&key.id) {
                return Err(wrong(
                    format!("tenants[{t}].keys[{k}].id"),
                    format!("{} comes twice", key.id),
                ));
            }
            if let Some(prefix) = &key.prefix {
                check_prefix(prefix, &key.sha256)
                    .map_err(|message| wrong(format!("tenants[{t}].keys[{k}].prefix"), message))?;
            }
        }
        Ok(())
    }
}

fn check_prefix(prefix: &str, hash: &KeyHash) -> Result<(), String> {
    let length = prefix.chars().count();
    if !(1..=PREFIX_MAX).contains(&length) || !prefix.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "must be 1 to {PREFIX_MAX} visible ASCII characters, found {length} characters"
        ));
    }
    if KeyHash::of(prefix.as_bytes()).is(hash) {
        return Err("must be the beginning of the key, found the whole key".to_owned());
    }
    Ok(())
}

fn wrong(field: impl Into<String>, message: impl Into<String>) -> FileError {
    FileError::Field {
        field: field.into(),
        message: message.into(),
    }
}

#[cfg(test)]
mod tests;
