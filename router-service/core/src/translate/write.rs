//! Small pieces of JSON that are written by hand.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::refusal::Refusal;

/// Appends pieces in order.
pub(super) fn put(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> String {
    // A string always serialises; the fallback is unreachable.
    serde_json::to_string(text).unwrap_or_default()
}

/// A request for the provider.
pub(super) fn body(request: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(request)
        .map_err(|_| Refusal::server(500, "internal_error", "the request could not be written"))
}

/// The same JSON without white space between its tokens.
pub(super) fn compact(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in raw.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        out.push(c);
    }
    out
}

/// JSON that this module composed of whole pieces.
pub(super) fn raw(json: String) -> Result<Box<RawValue>, Refusal> {
    RawValue::from_string(json)
        .map_err(|_| Refusal::server(500, "internal_error", "a value could not be written"))
}

/// An object as it stands in a text of a model's or a client's; empty text is
/// an object without members, as servers write the call of a tool that takes
/// nothing. `None` where the text is no JSON object.
pub(super) fn object_in(text: &str) -> Option<Box<RawValue>> {
    let text = text.trim();
    let text = if text.is_empty() { "{}" } else { text };
    if !text.starts_with('{') {
        return None;
    }
    RawValue::from_string(text.to_owned()).ok()
}

/// The raw JSON of a string, where it holds any text.
pub(super) fn filled(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|r| r.get() != "\"\"")
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn white_space_goes_between_tokens_alone() {
        for (raw, expected) in [
            ("{ \"a b\" :\n[1, 2] }", r#"{"a b":[1,2]}"#),
            (r#"{ "a\" :" : "\\" }"#, r#"{"a\" :":"\\"}"#),
            ("[ ]", "[]"),
        ] {
            assert_eq!(compact(raw), expected);
        }
    }

    #[test]
    fn a_text_holds_an_object_or_none() {
        for (text, expected) in [
            ("", Some("{}")),
            (" {\"a\": 1} ", Some("{\"a\": 1}")),
            ("[1]", None),
            ("{\"a\":", None),
            ("{} {}", None),
        ] {
            assert_eq!(object_in(text).as_deref().map(RawValue::get), expected);
        }
    }
}
