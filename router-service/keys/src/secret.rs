//! New API keys.

use anyhow::anyhow;
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
    pub fn make() -> anyhow::Result<Self> {
        let mut random = [0_u8; 32];
        getrandom::fill(&mut random).map_err(|e| anyhow!("the machine has no randomness: {e}"))?;
        Ok(Self(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(random))))
    }

    /// What the file has of it.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.0.as_bytes())
    }

    /// Its first characters.
    pub fn prefix(&self) -> String {
        self.0.chars().take(PREFIX_LENGTH).collect()
    }

    /// The key itself, for the one who asked.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_marked_long_and_new() {
        let (one, two) = (Secret::make().unwrap(), Secret::make().unwrap());
        assert_ne!(one.reveal(), two.reveal());
        assert_eq!(one.reveal().len(), 51);
        assert!(one.reveal().starts_with(&one.prefix()) && one.prefix().starts_with(MARK));
        assert_eq!(one.prefix().len(), PREFIX_LENGTH);
        assert_eq!(one.hash(), KeyHash::of(one.reveal().as_bytes()));
    }
}
