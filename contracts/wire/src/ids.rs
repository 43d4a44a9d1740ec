//! Identifiers as types of their own, so that a tenant can't be passed where a
//! plan is due.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The longest tenant or plan name, in bytes.
pub const NAME_MAX_BYTES: usize = 64;

/// Why a string is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// Not 1 to [`NAME_MAX_BYTES`] of `A-Z a-z 0-9 . _ -`.
    #[error("{kind} must be 1 to {NAME_MAX_BYTES} of A-Z a-z 0-9 . _ -, found {found:?}")]
    Name {
        /// What the string was to name.
        kind: &'static str,
        /// The string, its first [`NAME_MAX_BYTES`] characters.
        found: String,
    },
    /// Not a UUIDv7 in its hyphenated form.
    #[error("request id must be a hyphenated UUIDv7, found {found:?}")]
    RequestId {
        /// The string.
        found: String,
    },
}

fn is_name(s: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&s.len())
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Takes 1 to [`NAME_MAX_BYTES`] bytes of `A-Z a-z 0-9 . _ -`.
            ///
            /// # Errors
            /// [`IdError::Name`] for anything else.
            pub fn new(s: impl Into<String>) -> Result<Self, IdError> {
                let s = s.into();
                if is_name(&s) {
                    Ok(Self(s))
                } else {
                    Err(IdError::Name {
                        kind: $kind,
                        found: s.chars().take(NAME_MAX_BYTES).collect(),
                    })
                }
            }

            /// The name itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;

            fn try_from(s: String) -> Result<Self, IdError> {
                Self::new(s)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// A customer of the platform team, as its directory names it.
    TenantId,
    "tenant"
);
name!(
    /// What a tenant has bought: limits, models, budgets.
    PlanName,
    "plan"
);
name!(
    /// A key's name within its tenant, for humans; never the key itself.
    KeyName,
    "key id"
);

/// The gateway's name for one request: a UUIDv7, whose time decides the hour
/// that is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new id for `now_ms` (milliseconds of the Unix epoch) from ten random
    /// bytes (RFC 9562, section 5.7).
    #[must_use]
    pub fn mint(now_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid())
    }

    /// Reads the hyphenated form, in lower case, of a UUIDv7.
    ///
    /// # Errors
    /// [`IdError::RequestId`] for anything else, other UUID versions included.
    pub fn parse(s: &str) -> Result<Self, IdError> {
        let wrong = || IdError::RequestId {
            found: s.chars().take(64).collect(),
        };
        let id = Uuid::try_parse(s).map_err(|_| wrong())?;
        let canonical = id.get_version_num() == 7 && id.hyphenated().to_string() == s;
        canonical.then_some(Self(id)).ok_or_else(wrong)
    }

    /// The id of these 128 bits; `None` where they are no UUIDv7.
    #[must_use]
    pub fn from_u128(bits: u128) -> Option<Self> {
        let id = Uuid::from_u128(bits);
        let is_ours = id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122;
        is_ours.then_some(Self(id))
    }

    /// Milliseconds of the Unix epoch at which it was minted.
    #[must_use]
    pub fn time_ms(&self) -> i64 {
        let millis = self.0.as_u128() >> 80;
        i64::try_from(millis).unwrap_or(i64::MAX)
    }

    /// Its 128 bits, for compact sets.
    #[must_use]
    pub fn as_u128(&self) -> u128 {
        self.0.as_u128()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.hyphenated().encode_lower(&mut [0; 36]))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn names_are_safe_in_headers_and_keys() {
        for good in ["acme", "a", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(TenantId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a{b}", "é", "a\n", &"x".repeat(65)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_carries_its_time() {
        let id = RequestId::mint(1_795_000_000_123, [0xff; 10]);
        assert_eq!(id.time_ms(), 1_795_000_000_123);
        assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
        assert_eq!(RequestId::from_u128(id.as_u128()), Some(id));
        assert_eq!(RequestId::from_u128(id.as_u128() ^ (3 << 76)), None);
    }

    #[test]
    fn only_the_canonical_form_is_an_id() {
        let id = RequestId::mint(1, [7; 10]).to_string();
        for bad in [
            id.to_uppercase(),
            id.replace('-', ""),
            format!("{{{id}}}"),
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned(),
            String::new(),
        ] {
            // An id of digits only has no upper case.
            if bad != id {
                assert!(RequestId::parse(&bad).is_err(), "{bad}");
            }
        }
    }
}
