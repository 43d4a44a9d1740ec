//! A usage event as a line of a log, for Envoy's access log, which the aggregator
//! reads as a write-ahead log, and for what a gateway could not keep.
//!
//! `W1 <length> <crc32> <event> <hmac>`: the event is its protobuf in base64url
//! without padding, the length that text's in bytes, the check sum (CRC-32 of IEEE
//! 802.3) over it in eight hexadecimal digits, and the last HMAC-SHA256, in
//! base64url, of all before it and its space. Its key is the credential that the
//! producer would send the event with.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use prost::Message as _;
use sha2::Sha256;

use crate::proto::usage::UsageEvent;

/// What every line begins with.
pub const MARKER: &[u8] = b"W1 ";

/// The longest event of a line, in bytes of base64url.
pub const EVENT_MAX_BYTES: usize = 256 << 10;

/// What signs the lines of one producer.
#[derive(Clone)]
pub struct LineKey(Hmac<Sha256>);

impl LineKey {
    /// Of the producer with that credential.
    #[must_use]
    pub fn of_token(token: &str) -> Self {
        let keyed = Hmac::<Sha256>::new_from_slice(token.as_bytes());
        // A key of any length is one (RFC 2104, section 2).
        Self(keyed.unwrap_or_else(|_| Hmac::new(&hmac::digest::Key::<Hmac<Sha256>>::default())))
    }

    fn sign(&self, message: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.verify_slice(signature).is_ok()
    }
}

/// Never shows the credential.
impl std::fmt::Debug for LineKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LineKey")
    }
}

/// Writes an event, given as its protobuf, without a line end.
#[must_use]
pub fn write(event: &[u8], key: &LineKey) -> String {
    let text = URL_SAFE_NO_PAD.encode(event);
    let sum = crc32fast::hash(text.as_bytes());
    let mut line = format!("W1 {} {sum:08x} {text}", text.len());
    let signature = key.sign(line.as_bytes());
    line.push(' ');
    URL_SAFE_NO_PAD.encode_string(signature, &mut line);
    line
}

/// What stands in a line of a log.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece<'a> {
    /// An event, by the producer of that key.
    Event {
        /// Which of the keys.
        key: usize,
        /// The event; nothing of it was checked.
        event: Box<UsageEvent>,
    },
    /// It begins as an event does, and is none.
    Torn {
        /// Up to the next event, or to the end.
        bytes: &'a [u8],
        /// What is wrong.
        why: &'static str,
    },
    /// Anything else: what a log writes before an event.
    Other(&'a [u8]),
}

/// Reads a line, without its end. A write that was cut has no end: the next event
/// is in the same line, and found.
#[must_use]
pub fn pieces<'a>(line: &'a [u8], keys: &[LineKey]) -> Vec<Piece<'a>> {
    let mut found = Vec::new();
    let mut rest = line;
    // Why what `rest` begins with is no event.
    let mut torn: Option<&'static str> = None;
    let mut from = 0;
    while let Some(at) = marker(rest, from) {
        let (before, candidate) = rest.split_at(at);
        match event_at(candidate, keys) {
            Ok((key, event, length)) => {
                push(&mut found, before, torn.take());
                found.push(Piece::Event { key, event });
                rest = candidate.get(length..).unwrap_or_default();
                from = 0;
            }
            Err(why) if torn.is_none() => {
                push(&mut found, before, None);
                rest = candidate;
                torn = Some(why);
                from = 1;
            }
            // Of what is torn the first part says why.
            Err(_) => from = at.saturating_add(1),
        }
    }
    push(&mut found, rest, torn);
    found
}

fn push<'a>(found: &mut Vec<Piece<'a>>, bytes: &'a [u8], torn: Option<&'static str>) {
    match torn {
        _ if bytes.is_empty() => {}
        Some(why) => found.push(Piece::Torn { bytes, why }),
        None => found.push(Piece::Other(bytes)),
    }
}

fn marker(bytes: &[u8], from: usize) -> Option<usize> {
    let tail = bytes.get(from..)?;
    let at = tail.windows(MARKER.len()).position(|w| w == MARKER)?;
    Some(from.saturating_add(at))
}

/// Bytes of base64url in a signature.
const SIGNATURE_BYTES: usize = 43;

/// The event that `bytes` begin with, whose it is, and how long it stands there.
fn event_at(
    bytes: &[u8],
    keys: &[LineKey],
) -> Result<(usize, Box<UsageEvent>, usize), &'static str> {
    let mut fields = bytes.splitn(4, |b| *b == b' ').skip(1);
    let (length, sum) = (fields.next(), fields.next());
    let rest = fields.next().ok_or("it is cut")?;
    let number = |field: Option<&[u8]>, radix| {
        let text = std::str::from_utf8(field?).ok()?;
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric())
            .then(|| u32::from_str_radix(text, radix).ok())?
    };
    let length = number(length, 10)
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| (1..=EVENT_MAX_BYTES).contains(n))
        .ok_or("its length is none")?;
    let sum = number(sum, 16).ok_or("its check sum is none")?;
    let text = rest.get(..length).ok_or("it is cut")?;
    if crc32fast::hash(text) != sum {
        return Err("its check sum does not fit");
    }
    let after = rest.get(length..).unwrap_or_default();
    let signature = match after.split_first() {
        Some((b' ', after)) => after.get(..SIGNATURE_BYTES).ok_or("it is cut")?,
        _ => return Err("it has no signature"),
    };
    let head = bytes.len().saturating_sub(rest.len());
    let signed = bytes.get(..head.saturating_add(length)).unwrap_or_default();
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| "its signature is none")?;
    let key = keys
        .iter()
        .position(|key| key.verifies(signed, &signature))
        .ok_or("no producer signed it")?;
    let event = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| UsageEvent::decode(bytes.as_slice()).ok())
        .ok_or("it holds no event")?;
    let whole = signed
        .len()
        .saturating_add(1)
        .saturating_add(SIGNATURE_BYTES);
    Ok((key, Box::new(event), whole))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn event(n: u64) -> UsageEvent {
        UsageEvent {
            event_id: format!("event {n}"),
            sequence: n,
            ..UsageEvent::default()
        }
    }

    fn keys() -> [LineKey; 2] {
        ["router", "gateway"].map(LineKey::of_token)
    }

    fn line(n: u64) -> String {
        write(&event(n).encode_to_vec(), &keys()[1])
    }

    fn found(n: u64) -> Piece<'static> {
        Piece::Event {
            key: 1,
            event: Box::new(event(n)),
        }
    }

    fn torn<'a>(bytes: &'a str, why: &'static str) -> Piece<'a> {
        Piece::Torn {
            bytes: bytes.as_bytes(),
            why,
        }
    }

    #[test]
    fn an_event_is_found_behind_what_a_log_writes() {
        let one = line(1);
        assert_eq!(pieces(one.as_bytes(), &keys()), [found(1)]);
        let logged = format!("[2026-11-27 error][wasm] usage-events: {one}");
        let before = &logged.as_bytes()[..logged.find("W1 ").unwrap()];
        assert_eq!(
            pieces(logged.as_bytes(), &keys()),
            [Piece::Other(before), found(1)]
        );
        assert_eq!(pieces(b"-", &keys()), [Piece::Other(b"-")]);
        assert_eq!(pieces(b"", &keys()), []);
    }

    #[test]
    fn after_a_line_that_was_cut_the_next_is_found() {
        let (one, two) = (line(1), line(2));
        for cut in 3..one.len() {
            let (part, _) = one.split_at(cut);
            let text = format!("{part}{two}");
            let pieces = pieces(text.as_bytes(), &keys());
            assert_eq!(pieces.len(), 2, "{text}: {pieces:?}");
            assert!(
                matches!(pieces[0], Piece::Torn { bytes, .. } if bytes == part.as_bytes()),
                "{pieces:?}"
            );
            assert_eq!(pieces[1], found(2), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        let one = line(1);
        let stranger = write(&event(1).encode_to_vec(), &LineKey::of_token("stranger"));
        for (text, why) in [
            (stranger, "no producer signed it"),
            (one.replacen("W1 ", "W1 1", 1), "it is cut"),
            (one.replacen("W1 ", "W1 -", 1), "its length is none"),
            (one[..one.len() - 1].to_owned(), "it is cut"),
            (
                "W1 4 00000000 AAAA x".to_owned(),
                "its check sum does not fit",
            ),
            ("W1 4 zz AAAA x".to_owned(), "its check sum is none"),
            (
                "W1 999999999 00000000 AAAA x".to_owned(),
                "its length is none",
            ),
            ("W1 ".to_owned(), "it is cut"),
        ] {
            assert_eq!(pieces(text.as_bytes(), &keys()), [torn(&text, why)]);
        }
        assert_eq!(format!("{:?}", keys()[0]), "LineKey");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_byte_of_an_event_can_be_changed(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = line(7).into_bytes();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            for piece in pieces(&bytes, &keys()) {
                prop_assert!(!matches!(piece, Piece::Event { .. }), "{piece:?}");
            }
        }

        #[test]
        fn nothing_is_lost_and_nothing_panics(text in prop::collection::vec(prop_oneof![
            Just(b"W1 ".to_vec()), Just(line(1).into_bytes()), Just(b" ".to_vec()),
            Just(b"4".to_vec()), prop::collection::vec(any::<u8>(), 0..6)], 0..8)) {
            let text = text.concat();
            let lengths = pieces(&text, &keys()).into_iter().map(|piece| match piece {
                Piece::Event { .. } => line(1).len(),
                Piece::Torn { bytes, .. } | Piece::Other(bytes) => bytes.len(),
            });
            prop_assert_eq!(lengths.sum::<usize>(), text.len());
        }
    }
}
