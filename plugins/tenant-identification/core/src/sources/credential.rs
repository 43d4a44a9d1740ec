//! Keys and tokens in headers and cookies.
//!
//! OpenAI's SDKs send `Authorization: Bearer`, Anthropic's `x-api-key`, Azure's
//! `api-key`.

use crate::jwt::TOKEN_MAX_BYTES;

/// A header's name, in lower case, and its value.
pub type Header<'a> = (&'a str, &'a [u8]);

/// The headers that carry an API key where nothing else is configured. They are
/// stripped before upstream whatever is configured.
pub const HEADERS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// The longest key that is hashed, in bytes.
pub const KEY_MAX_BYTES: usize = 512;

/// The most credentials of one request.
pub const CREDENTIALS_MAX: usize = 8;

/// Headers that mean something else to HTTP or to a gateway.
const TAKEN: [&str; 9] = [
    "host",
    "cookie",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "te",
    "upgrade",
    "accept",
];

/// A place that may hold a credential, and who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The header or the cookie.
    pub at: At,
    /// It may hold an API key.
    pub keys: bool,
    /// It may hold a token.
    pub tokens: bool,
}

/// Where in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A header, its name in lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
}

impl At {
    /// For messages: `authorization header`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Header(name) => format!("{name} header"),
            Self::Cookie(name) => format!("cookie {name}"),
        }
    }
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// To be looked up by its hash.
    Key(&'a [u8]),
    /// To be verified.
    Token(&'a [u8]),
    /// Neither: another scheme than Bearer, nothing, or too much.
    Unusable,
}

/// A credential and where it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a> {
    /// The place.
    pub at: &'a At,
    /// What it held.
    pub credential: Credential<'a>,
}

/// Whether a header can be named as a place.
///
/// # Errors
/// Why not.
pub fn check_header(name: &str) -> Result<(), String> {
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!(
            "must be a header's name in lower case, found {name:?}"
        ));
    }
    if TAKEN.contains(&name) || weir_wire::headers::is_internal(name) {
        return Err(format!("{name} has another meaning"));
    }
    Ok(())
}

/// Every credential of the request, place by place. Copies of a header that a
/// host joined by commas are taken apart again.
pub fn presented<'a>(
    places: &'a [Place],
    headers: &'a [Header<'a>],
) -> impl Iterator<Item = Presented<'a>> {
    places.iter().flat_map(move |place| {
        let (header, cookie) = match &place.at {
            At::Header(name) => (name.as_str(), None),
            At::Cookie(name) => ("cookie", Some(name.as_str())),
        };
        headers
            .iter()
            .filter(move |(name, _)| name.eq_ignore_ascii_case(header))
            .flat_map(move |(_, value)| {
                let separator = if cookie.is_some() { b';' } else { b',' };
                value.split(move |b| *b == separator)
            })
            .filter_map(move |part| {
                let value = match cookie {
                    None => part.trim_ascii(),
                    Some(wanted) => cookie_value(part, wanted)?,
                };
                Some(Presented {
                    at: &place.at,
                    credential: read(place, value),
                })
            })
    })
}

/// The cookies of the request without those that held a credential; `None`
/// where nothing is left.
#[must_use]
pub fn other_cookies(places: &[Place], headers: &[Header<'_>]) -> Option<String> {
    let is_ours = |part: &[u8]| {
        places.iter().any(
            |place| matches!(&place.at, At::Cookie(name) if cookie_value(part, name).is_some()),
        )
    };
    let kept: Vec<&str> = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("cookie"))
        .flat_map(|(_, value)| value.split(|b| *b == b';'))
        .filter(|part| !is_ours(part))
        .filter_map(|part| std::str::from_utf8(part.trim_ascii()).ok())
        .filter(|part| !part.is_empty())
        .collect();
    (!kept.is_empty()).then(|| kept.join("; "))
}

fn cookie_value<'a>(part: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let part = part.trim_ascii();
    let equals = part.iter().position(|b| *b == b'=')?;
    let (name, value) = part.split_at_checked(equals)?;
    let value = value.get(1..)?;
    let value = value
        .strip_prefix(b"\"")
        .and_then(|v| v.strip_suffix(b"\""))
        .unwrap_or(value);
    (name.trim_ascii() == wanted.as_bytes()).then_some(value)
}

fn read<'a>(place: &Place, value: &'a [u8]) -> Credential<'a> {
    let value = match (&place.at, without_scheme(value)) {
        (_, Some(rest)) => rest,
        (At::Header(name), None) if name == "authorization" => return Credential::Unusable,
        (_, None) => value,
    };
    let is_token = place.tokens && (!place.keys || is_token_shaped(value));
    let longest = if is_token {
        TOKEN_MAX_BYTES
    } else {
        KEY_MAX_BYTES
    };
    match value.len() {
        0 => Credential::Unusable,
        len if len > longest => Credential::Unusable,
        _ if is_token => Credential::Token(value),
        _ => Credential::Key(value),
    }
}

fn without_scheme(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| rest.trim_ascii())
}

/// Two dots between characters of base64url: no key that Weir made looks so.
fn is_token_shaped(value: &[u8]) -> bool {
    // A look-up for each byte, because tokens are long and come with every request.
    let (mut dots, mut others) = (0_usize, false);
    for byte in value {
        let kind = KINDS.get(usize::from(*byte)).copied().unwrap_or(OTHER);
        dots = dots.saturating_add(usize::from(kind & DOT));
        others |= kind == OTHER;
    }
    dots == 2 && !others
}

const DOT: u8 = 1;
const OTHER: u8 = 2;

/// What each byte is in a token: a dot, a character of base64url (0), or neither.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // the compiler works it out
const KINDS: [u8; 256] = {
    let mut kinds = [OTHER; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            kinds[byte as usize] = 0;
        }
        byte += 1;
    }
    kinds[b'.' as usize] = DOT;
    kinds
};

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn place(at: At, keys: bool, tokens: bool) -> Place {
        Place { at, keys, tokens }
    }

    fn header(name: &str) -> At {
        At::Header(name.to_owned())
    }

    #[track_caller]
    fn check(place: &Place, name: &str, value: &[u8], expected: &[Credential<'_>]) {
        let headers = [(name, value)];
        let places = std::slice::from_ref(place);
        let found: Vec<_> = presented(places, &headers).map(|p| p.credential).collect();
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(value));
    }

    #[test]
    fn shape_tells_tokens_from_keys_where_both_may_stand() {
        use Credential::{Key, Token, Unusable};
        let both = place(header("authorization"), true, true);
        let a = "authorization";
        check(&both, a, b"Bearer sk-1", &[Key(b"sk-1")]);
        check(&both, a, b"bearer  a.b.c ", &[Token(b"a.b.c")]);
        check(&both, a, b"Bearer a.b.", &[Token(b"a.b.")]);
        check(&both, a, b"Bearer a.b.c.d", &[Key(b"a.b.c.d")]);
        check(&both, a, b"Bearer a.b.$", &[Key(b"a.b.$")]);
        check(&both, a, b"Basic abc", &[Unusable]);
        check(&both, a, b"", &[Unusable]);
        check(&both, a, b"Bearer k, Bearer l", &[Key(b"k"), Key(b"l")]);
        check(
            &place(header(a), true, false),
            a,
            b"Bearer a.b.c",
            &[Key(b"a.b.c")],
        );
        check(
            &place(header(a), false, true),
            a,
            b"Bearer k",
            &[Token(b"k")],
        );
    }

    #[test]
    fn other_headers_need_no_scheme() {
        let own = place(header("x-jwt"), false, true);
        check(&own, "X-JWT", b"a.b.c", &[Credential::Token(b"a.b.c")]);
        check(
            &own,
            "x-jwt",
            b"Bearer a.b.c",
            &[Credential::Token(b"a.b.c")],
        );
        let long = vec![b'x'; TOKEN_MAX_BYTES + 1];
        check(&own, "x-jwt", &long, &[Credential::Unusable]);
    }

    #[test]
    fn a_cookie_is_read_and_taken_out() {
        let cookie = place(At::Cookie("session".to_owned()), false, true);
        let token = [Credential::Token(b"a.b.c".as_slice())];
        check(&cookie, "cookie", b"x=1; session=a.b.c; y=2", &token);
        check(&cookie, "cookie", b"session=\"a.b.c\"", &token);
        check(&cookie, "cookie", b"sessions=a.b.c; session", &[]);
        let cookies = |value: &str| {
            let headers = [("cookie", value.as_bytes())];
            other_cookies(std::slice::from_ref(&cookie), &headers)
        };
        assert_eq!(cookies("x=1; session=a; y=2").as_deref(), Some("x=1; y=2"));
        assert_eq!(cookies("session=a"), None);
    }

    #[test]
    fn a_header_with_another_meaning_is_no_place() {
        for good in ["authorization", "x-api-key", "x-jwt"] {
            assert_eq!(check_header(good), Ok(()));
        }
        for bad in [
            "",
            "X-Key",
            ":path",
            "x key",
            "host",
            "cookie",
            "x-tenant-id",
            "x-weir-a",
        ] {
            assert!(check_header(bad).is_err(), "{bad}");
        }
    }
}
