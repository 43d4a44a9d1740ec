//! Which gateway a filter runs in. Every filter's config has it.

use serde::{Deserialize, Serialize};

/// The two hosts differ in what a filter may call and in what a header change
/// does; ARCHITECTURE.md lists how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// Envoy, runtime `v8`.
    Envoy,
    /// Kong Gateway 3.4 to 3.10.
    Kong,
}

/// The pairs of a header map as proxy-wasm hosts hand it over: their count, the
/// lengths of each name and value, then all of these, each with a zero byte after
/// it; numbers are 32 bits, little end first (proxy-wasm ABI 0.2.1, "map
/// serialization"). Borrows from `bytes`; a name that is not UTF-8 becomes U+FFFD.
///
/// `None` where that is not what `bytes` are.
#[must_use]
pub fn pairs(bytes: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    let (count, rest) = number(bytes)?;
    let (mut lengths, all) = rest.split_at_checked(count.checked_mul(8)?)?;
    let mut left = all;
    // Nearly always all of it is text, and to see that at once is quickest.
    let all_text = std::str::from_utf8(all).ok();
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let mut text = || {
            let (length, more) = number(lengths)?;
            lengths = more;
            let start = all.len().checked_sub(left.len())?;
            let (text, after) = left.split_at_checked(length)?;
            left = after.strip_prefix(&[0])?;
            Some((start, text))
        };
        let ((start, name), (_, value)) = (text()?, text()?);
        let name = match all_text {
            Some(all) => all.get(start..start.checked_add(name.len())?)?,
            None => std::str::from_utf8(name).unwrap_or("\u{fffd}"),
        };
        pairs.push((name, value));
    }
    Some(pairs)
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_map_comes_back_from_its_bytes() {
        let mut bytes = vec![2, 0, 0, 0];
        for length in [5_u8, 1, 1, 0] {
            bytes.extend([length, 0, 0, 0]);
        }
        bytes.extend(b":path\0/\0\xff\0\0");
        let expected: Vec<(&str, &[u8])> = vec![(":path", b"/"), ("\u{fffd}", b"")];
        assert_eq!(pairs(&bytes), Some(expected));
        let length = bytes.len();
        bytes[length - 3] = b'a'; // all of it text now
        let expected: Vec<(&str, &[u8])> = vec![(":path", b"/"), ("a", b"")];
        assert_eq!(pairs(&bytes), Some(expected));
        for end in 0..bytes.len() {
            assert_eq!(pairs(&bytes[..end]), None, "{end}");
        }
        assert_eq!(pairs(&[0; 4]), Some(Vec::new()));
        assert_eq!(pairs(&[0xff; 40]), None);
    }
}
