//! Where something stood that was set aside: what comes again from there is set aside once.

use std::fmt::Display;

use sha2::{Digest as _, Sha256};

/// Of what a producer brought by a call: what it sends again, because it was told of a
/// failure, is the same. `sha256:` and 32 digits.
#[must_use]
pub fn of_call(producer: Option<&str>, bytes: &[u8]) -> String {
    let producer = producer.unwrap_or_default();
    // No name has a zero in it.
    format!("sha256:{}", hash(&[producer.as_bytes(), b"\0", bytes]))
}

/// Of what stood in a lane of a stream, under that number. Another stream may have something
/// else there.
#[must_use]
pub fn in_stream(lane: impl Display, number: i64, bytes: &[u8]) -> String {
    format!("{lane}/{number}/{}", hash(&[bytes]))
}

/// The first half of a SHA-256, in hexadecimal.
fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let hash = hash.finalize();
    let half = hash.iter().take(16);
    half.fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_same_is_in_the_same_place() {
        // printf 'edge\0x' | sha256sum
        let expected = "sha256:23813289e5dd65ecc2ebeb2afc83f392";
        assert_eq!(of_call(Some("edge"), b"x"), expected);
        assert_ne!(of_call(Some("edge"), b"y"), expected);
        assert_ne!(of_call(None, b"x"), expected);
        // printf x | sha256sum
        let expected = "3/7/2d711642b726b04401627ca9fbac32f5";
        assert_eq!(in_stream(3, 7, b"x"), expected);
    }
}
