//! New API keys.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use weir_wire::key_hash::KeyHash;

/// What every key begins with, so that scanners for leaked secrets know one.
const MARK: &str = "weir_sk_";

/// How many characters of a key are kept in the file: the mark and 48 of its
/// 256 random bits.
const PREFIX_LENGTH: usize = 16;

/// A key, before it is shown. Without `Debug`, so that no log has it.
pub struct Secret(String);

impl Secret {
    /// The mark and 32 random bytes, base64url: 51 characters.
    #[must_use]
    pub fn of(random: [u8; 32]) -> Self {
        Self(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(random)))
    }

    /// What the file has of it.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.0.as_bytes())
    }

    /// Its first characters.
    #[must_use]
    pub fn prefix(&self) -> String {
        self.0.chars().take(PREFIX_LENGTH).collect()
    }

    /// The key itself, for the one who asked.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn keys_are_marked_and_long() {
        let key = Secret::of([7; 32]);
        assert_ne!(key.reveal(), Secret::of([8; 32]).reveal());
        assert_eq!(key.reveal().len(), 51);
        assert!(key.reveal().starts_with(&key.prefix()) && key.prefix().starts_with(MARK));
        assert_eq!(key.prefix().len(), PREFIX_LENGTH);
        assert_eq!(key.hash(), KeyHash::of(key.reveal().as_bytes()));
    }
}
