//! The hash that stands for an API key wherever Weir keeps one.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// Why a string is no hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be the SHA-256 of a key, 64 hexadecimal digits")]
pub struct KeyHashError;

/// SHA-256 of a whole API key. The key itself is never kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Hashes a key as a client sent it.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Takes the 32 bytes of a hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits, in either case.
    ///
    /// # Errors
    /// [`KeyHashError`] for anything else; it does not repeat what it found,
    /// which may be a key that somebody put in the place of its hash.
    pub fn parse(hex: &str) -> Result<Self, KeyHashError> {
        let digit = |d: u8| (d as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let mut hash = [0; 32];
        if hex.len() != 64 {
            return Err(KeyHashError);
        }
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = match pair {
                [high, low] => digit(*high)
                    .zip(digit(*low))
                    .map(|(high, low)| high << 4 | low)
                    .ok_or(KeyHashError)?,
                _ => return Err(KeyHashError),
            };
        }
        Ok(Self(hash))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in constant time.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn is_what_sha256sum_prints() {
        let hex = "f41eedf8098ec4340663dcdd5d3b7449f2563e0f239be749a6d31345cb5ccc8e";
        let hash = KeyHash::of(b"weir-example-enterprise-key");
        assert_eq!(hash.to_string(), hex);
        assert_eq!(KeyHash::parse(&hex.to_uppercase()), Ok(hash));
        assert!(hash.is(&KeyHash::from_bytes(*hash.as_bytes())));
        assert!(!hash.is(&KeyHash::of(b"another")));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for bad in ["", "ab", &"g".repeat(64), &"é".repeat(32), &"+f".repeat(32)] {
            assert_eq!(KeyHash::parse(bad), Err(KeyHashError), "{bad}");
        }
    }
}
