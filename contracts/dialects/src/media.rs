//! Content types (RFC 9110, section 8.3.1).

/// An answer that is a stream of server-sent events.
pub const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Type and subtype of a `content-type`, in the case in which they came, without its
/// parameters.
#[must_use]
pub fn essence(content_type: &[u8]) -> &[u8] {
    let essence = content_type.split(|b| *b == b';').next();
    essence.unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn parameters_are_no_part_of_it() {
        for (content_type, expected) in [
            ("Text/HTML ; charset=utf-8; a", "Text/HTML"),
            (" application/json", "application/json"),
            ("", ""),
            (";", ""),
        ] {
            assert_eq!(essence(content_type.as_bytes()), expected.as_bytes());
        }
    }
}
