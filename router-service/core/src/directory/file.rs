//! `directory.yaml`: the tenants, their plans and the hashes of their keys, as
//! weir-keys writes them and the router reads them.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use weir_wire::{
    directory::KEYS_MAX,
    ids::{KeyName, PlanName, TenantId},
    key_hash::KeyHash,
};

use super::timestamp::Timestamp;

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
    /// Its API keys; at most [`KEYS_MAX`] of them not revoked.
    #[serde(default)]
    pub keys: Vec<Key>,
}

/// Whether a tenant may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantState {
    /// It may.
    #[default]
    Active,
    /// It is known, and refused.
    Suspended,
}

impl TenantState {
    fn is_active(&self) -> bool {
        *self == Self::Active
    }
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

/// Whether a key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It does, until it expires.
    #[default]
    Active,
    /// It does not, and never will again.
    Revoked,
}

impl KeyState {
    fn is_active(&self) -> bool {
        *self == Self::Active
    }
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
        let mut ids = HashMap::with_capacity(self.tenants.len());
        let mut hashes = HashMap::with_capacity(self.tenants.len());
        for (t, tenant) in self.tenants.iter().enumerate() {
            if let Some(earlier) = ids.insert(&tenant.id, t) {
                return Err(wrong(
                    format!("tenants[{t}].id"),
                    format!("{} is tenants[{earlier}] already", tenant.id),
                ));
            }
            if !plans.is_empty() && !plans.contains(&tenant.plan) {
                let known: Vec<&str> = plans.iter().map(PlanName::as_str).collect();
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
}

impl Tenant {
    fn validate(&self, t: usize) -> Result<(), FileError> {
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
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const HASH: &str = "ab";

    fn example() -> String {
        let (one, two) = (HASH.repeat(32), "1".repeat(64));
        format!(
            "# A comment.
version: 7
tenants:
  - id: acme
    plan: enterprise
    state: active
    keys:
      - id: k1
        prefix: weir_sk_acme_ab12
        sha256: {one}
        state: revoked
        created_at: 2026-11-24T00:00:00Z
        expires_at: 2027-11-24T01:00:00+01:00
      - {{id: k2, sha256: {two}}}
  - id: solo
    plan: starter
    state: suspended
"
        )
    }

    fn plans() -> BTreeSet<PlanName> {
        ["enterprise", "starter"]
            .map(|p| PlanName::new(p).unwrap())
            .into()
    }

    fn read(text: &str) -> Result<File, FileError> {
        let file = File::parse(text)?;
        file.validate(&plans())?;
        Ok(file)
    }

    #[test]
    fn an_example_is_read_and_written() {
        let file = read(&example()).unwrap();
        assert_eq!(file.version, 7);
        let [acme, solo] = file.tenants.as_slice() else {
            panic!("{file:?}");
        };
        assert_eq!(solo.state, TenantState::Suspended);
        assert_eq!(acme.keys[0].state, KeyState::Revoked);
        assert_eq!(acme.keys[1].state, KeyState::Active);
        assert_eq!(acme.keys[1].sha256.to_string(), "1".repeat(64));
        assert_eq!(
            acme.keys[0].expires_at.unwrap().to_string(),
            "2027-11-24T00:00:00Z"
        );
        assert_eq!(File::parse(&file.to_yaml().unwrap()), Ok(file));
    }

    #[track_caller]
    fn check_refused(from: &str, to: &str, names: &[&str]) {
        let text = example();
        assert!(text.contains(from), "{from}");
        let error = read(&text.replacen(from, to, 1)).unwrap_err().to_string();
        for name in names {
            assert!(error.contains(name), "{error:?} should name {name:?}");
        }
        assert!(
            !error.contains('\n') && !error.contains("weir_sk"),
            "{error:?}"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let two = "1".repeat(64);
        check_refused("version: 7", "version: 0", &["version: ", "found 0"]);
        check_refused("version: 7", "version: -1", &["version: "]);
        check_refused("version: 7", "vresion: 7", &["vresion"]);
        check_refused("version: 7\n", "", &["version"]);
        check_refused("plan: starter", "paln: starter", &["tenants[1]", "paln"]);
        check_refused(
            "plan: starter",
            "plan: gold",
            &["tenants[1].plan: ", "gold", "starter"],
        );
        check_refused(
            "state: suspended",
            "state: paused",
            &["tenants[1].state: ", "paused", "active"],
        );
        check_refused(
            "state: revoked",
            "state: gone",
            &["tenants[0].keys[0].state: ", "gone"],
        );
        check_refused("prefix:", "perfix:", &["tenants[0].keys[0]", "perfix"]);
        check_refused(
            "id: solo",
            "id: acme",
            &["tenants[1].id: ", "acme", "tenants[0]"],
        );
        check_refused("id: solo", "id: so lo", &["tenants[1].id: ", "so lo"]);
        check_refused("id: k2", "id: k1", &["tenants[0].keys[1].id: ", "k1"]);
        check_refused(
            &two,
            &HASH.repeat(32),
            &["tenants[0].keys[1].sha256: ", "keys[0]"],
        );
        check_refused(
            &two,
            "weir_sk_a_secret",
            &["tenants[0].keys[1].sha256: ", "64 hex"],
        );
        check_refused(
            "2027-11-24T01:00:00+01:00",
            "soon",
            &["tenants[0].keys[0].expires_at: ", "soon"],
        );
        check_refused(
            "acme_ab12",
            &"x".repeat(40),
            &["tenants[0].keys[0].prefix: ", "found 48"],
        );
        check_refused("acme_ab12", "é", &["tenants[0].keys[0].prefix: ", "ASCII"]);
        let whole = KeyHash::of(b"weir_sk_acme_ab12").to_string();
        check_refused(
            &HASH.repeat(32),
            &whole,
            &["tenants[0].keys[0].prefix: ", "whole key"],
        );
        check_refused("- id: solo", "- id: [solo", &["line"]);
        check_refused("id: acme", "id: &a acme\n    <<: *a", &[]);
    }

    #[test]
    fn a_tenant_has_so_many_working_keys() {
        let mut file = read(&example()).unwrap();
        let key = file.tenants[0].keys[1].clone();
        file.tenants[0].keys = (0..=KEYS_MAX)
            .map(|n| Key {
                id: KeyName::new(format!("n{n}")).unwrap(),
                sha256: KeyHash::of(&n.to_le_bytes()),
                ..key.clone()
            })
            .collect();
        let error = file.validate(&plans()).unwrap_err().to_string();
        assert!(
            error.contains("tenants[0].keys: ") && error.contains("1001"),
            "{error}"
        );
        file.tenants[0].keys[0].state = KeyState::Revoked;
        file.validate(&plans()).unwrap();
        // Without plans to compare with, any will do.
        file.tenants[0].plan = PlanName::new("gold").unwrap();
        file.validate(&BTreeSet::new()).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Names that YAML could take for something else come back as they were.
        #[test]
        fn what_is_written_is_read(
            names in prop::collection::btree_set("[A-Za-z0-9._-]{1,8}|true|no|null|1e5|0x1f|1_000|-|\\.inf|2026-11-24", 1..5),
            hash in "[0-9]{64}|[0-9]{30}e[0-9]{33}|[0-9a-f]{64}",
            times in prop::collection::vec(prop::option::of(1..LAST), 2),
        ) {
            let names: Vec<String> = names.into_iter().collect();
            let file = File {
                version: 1,
                tenants: names.iter().map(|name| Tenant {
                    id: TenantId::new(name.as_str()).unwrap(),
                    plan: PlanName::new(names[0].as_str()).unwrap(),
                    state: TenantState::Suspended,
                    keys: vec![Key {
                        id: KeyName::new(name.as_str()).unwrap(),
                        prefix: Some(name.clone()),
                        sha256: KeyHash::parse(&hash).unwrap(),
                        state: KeyState::Revoked,
                        created_at: times[0].and_then(Timestamp::from_ms),
                        expires_at: times[1].and_then(Timestamp::from_ms),
                    }],
                }).collect(),
            };
            let text = file.to_yaml().unwrap();
            prop_assert_eq!(File::parse(&text).map_err(|e| format!("{e} in {text}")), Ok(file));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = read(&text);
            let _ = read(&format!("version: 1\ntenants: {text}"));
        }
    }

    /// The last millisecond of a time that can be written.
    const LAST: u64 = 253_402_300_799_999;
}
