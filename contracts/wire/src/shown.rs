//! What an error message may show of what was found.

/// The longest quoted text that is shown whole, in characters: no key, token or
/// secret is as short.
pub const QUOTED_MAX: usize = 20;

/// How much is shown of a longer one.
const SHOWN: usize = 8;

/// Cuts what stands between quotation marks or backticks, where it is long:
/// somebody may have written a secret in the place of its name.
#[must_use]
pub fn shorten(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(start) = rest.find(['"', '`']) {
        let (before, quoted) = rest.split_at(start);
        out.push_str(before);
        let mark = if quoted.starts_with('"') { '"' } else { '`' };
        let inner = quoted.get(1..).unwrap_or_default();
        // A quotation mark in the text would end it early; what is between it
        // and the last one is one text then.
        let end = match mark {
            '"' => inner.rfind(mark),
            _ => inner.find(mark),
        };
        let Some((text, after)) = end.and_then(|end| inner.split_at_checked(end)) else {
            out.push('…');
            return out;
        };
        out.push(mark);
        if text.chars().count() > QUOTED_MAX {
            out.extend(text.chars().take(SHOWN));
            out.push('…');
        } else {
            out.push_str(text);
        }
        out.push(mark);
        rest = after.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(message: &str, expected: &str) {
        assert_eq!(shorten(message), expected);
    }

    #[test]
    fn what_may_be_a_secret_is_cut() {
        check(
            r#"invalid type: string "weir_sk_0123456789abcdefghij", expected a sequence"#,
            r#"invalid type: string "weir_sk_…", expected a sequence"#,
        );
        check(
            "unknown field `hostt`, expected `host`",
            "unknown field `hostt`, expected `host`",
        );
        check(
            "unknown field `c2VjcmV0LXNlY3JldC1zZWNyZXQ`, expected `host`",
            "unknown field `c2VjcmV0…`, expected `host`",
        );
        check(r#"a "b"c""#, r#"a "b"c""#);
        check(r#"string "open"#, r#"string …"#);
        check("none", "none");
    }
}
