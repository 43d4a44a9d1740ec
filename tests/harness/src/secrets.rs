//! Keys and tokens, new for each stack.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// A new secret of 32 random bytes, base64url.
///
/// # Panics
/// Where the machine has no randomness.
#[must_use]
pub fn random() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the machine has no randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A tenant's new API key; `plan` is for humans.
#[must_use]
pub fn api_key(plan: &str) -> String {
    format!("weir-{plan}-{}", random())
}

/// What the directory holds of a key.
#[must_use]
pub fn sha256_hex(key: &str) -> String {
    Sha256::digest(key)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}
