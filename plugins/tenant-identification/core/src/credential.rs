//! Where a request may carry an API key.
//!
//! OpenAI's SDKs send `Authorization: Bearer`, Anthropic's `x-api-key`, Azure's
//! `api-key`.

/// The headers that may carry one; each is stripped before upstream.
pub const HEADERS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// The longest key that is hashed, in bytes.
pub const KEY_MAX_BYTES: usize = 512;

/// A key and the header it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a> {
    /// One of [`HEADERS`].
    pub header: &'static str,
    /// The key, or `None` where the header holds what is no key: another
    /// scheme than Bearer, nothing, or too much.
    pub key: Option<&'a [u8]>,
}

/// Every credential of the request, in the order of [`HEADERS`]. Copies of a
/// header that a host joined by commas are taken apart again.
pub fn presented<'a>(
    headers: &'a [(String, Vec<u8>)],
) -> impl Iterator<Item = Presented<'a>> + use<'a> {
    HEADERS.into_iter().flat_map(move |header| {
        headers
            .iter()
            .filter(move |(name, _)| name.eq_ignore_ascii_case(header))
            .flat_map(|(_, value)| value.split(|b| *b == b','))
            .map(move |value| Presented {
                header,
                key: parse(header, value.trim_ascii()),
            })
    })
}

fn parse<'a>(header: &str, value: &'a [u8]) -> Option<&'a [u8]> {
    let key = if header == "authorization" {
        let (scheme, rest) = value.split_at_checked("Bearer ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return None;
        }
        rest.trim_ascii()
    } else {
        value
    };
    (1..=KEY_MAX_BYTES).contains(&key.len()).then_some(key)
}
