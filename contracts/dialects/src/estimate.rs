//! Estimates of tokens where nobody counted them.

/// Bytes of text to a token. OpenAI states about four characters of English;
/// bytes err towards more for other scripts.
pub const BYTES_PER_TOKEN: u64 = 4;

/// Tokens of a text of so many bytes.
#[must_use]
pub fn tokens(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}
