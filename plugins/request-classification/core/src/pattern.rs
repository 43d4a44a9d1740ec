//! Patterns in which `*` stands for any run of characters, none included.

/// The longest pattern, in bytes.
pub const MAX_BYTES: usize = 256;

/// Whether a text has the form of a pattern.
#[must_use]
pub fn matches(pattern: &str, text: &[u8]) -> bool {
    let mut parts = pattern.as_bytes().split(|b| *b == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        // The first place where a part fits leaves most to those after it.
        let Some(at) = find(rest, part) else {
            return false;
        };
        rest = rest
            .get(at.saturating_add(part.len())..)
            .unwrap_or_default();
    }
    rest.ends_with(last)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() {
        return Some(0);
    }
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, fits: &[&str], does_not: &[&str]) {
        for text in fits {
            assert!(matches(pattern, text.as_bytes()), "{pattern} {text}");
        }
        for text in does_not {
            assert!(!matches(pattern, text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn a_star_is_any_run() {
        check("kb-*", &["kb-", "kb-a", "kb-a*b"], &["kb", "akb-", ""]);
        check("*", &["", "a", "a/b"], &[]);
        check("a*b", &["ab", "axb", "abb"], &["a", "b", "aba", "xab"]);
        check(
            "/v1/kb/*/ask",
            &["/v1/kb/1/ask", "/v1/kb/1/2/ask", "/v1/kb//ask"],
            &["/v1/kb/ask", "/v1/kb/1/ask/"],
        );
        check("a*b*c", &["abc", "aXbXc", "abcbc"], &["acb", "ac"]);
        check("**a**", &["a", "bab"], &["b"]);
        check("aa*aa", &["aaaa", "aaaaa"], &["aaa", "aa"]);
        check("plain", &["plain"], &["plainer", "plai"]);
        check("", &[""], &["a"]);
    }
}
