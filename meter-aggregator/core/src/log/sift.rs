//! What stands in a line of a gateway's log, to the last byte: events, what is set
//! aside, and what says nothing.

use weir_wire::{
    proto::usage::UsageEvent,
    usage::line::{LineKey, Piece, pieces},
};

use super::lines::Line;

/// The most bytes that are kept of what is set aside.
pub const ASIDE_MAX_BYTES: usize = 64 << 10;

/// What a line came to.
#[derive(Debug, Default)]
pub struct Sifted {
    /// Events, each with the number of the key that signed it; nothing of them was
    /// checked.
    pub events: Vec<(usize, Box<UsageEvent>)>,
    /// What begins as an event and is none, and what is other text.
    pub aside: Vec<Aside>,
    /// Bytes of the line that events took.
    pub event_bytes: u64,
    /// Bytes of the line that are set aside.
    pub aside_bytes: u64,
    /// Bytes of the line that say nothing.
    pub ignored_bytes: u64,
}

/// A part of a line that is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// What stands there, [`ASIDE_MAX_BYTES`] at the most.
    pub bytes: Vec<u8>,
    /// What is wrong with it.
    pub why: &'static str,
    /// Whether it may have been an event: it begins as one, or is too long to tell.
    pub is_torn: bool,
}

/// Reads a line.
#[must_use]
pub fn sift(line: &Line<'_>, keys: &[LineKey]) -> Sifted {
    let mut sifted = Sifted::default();
    if line.is_cut() {
        sifted.put_aside(line.bytes, "the line is longer than 1 MiB", true);
        sifted.aside_bytes = line.length;
        return sifted;
    }
    for piece in pieces(line.bytes, keys) {
        match piece {
            Piece::Event { key, event } => sifted.events.push((key, event)),
            Piece::Torn { bytes, why } => sifted.put_aside(bytes, why, true),
            Piece::Other(bytes) if says_nothing(bytes) => {
                sifted.ignored_bytes = sifted.ignored_bytes.saturating_add(length(bytes));
            }
            Piece::Other(bytes) => sifted.put_aside(bytes, "it is no event", false),
        }
    }
    let others = sifted.aside_bytes.saturating_add(sifted.ignored_bytes);
    sifted.event_bytes = line.length.saturating_sub(others);
    sifted
}

/// What Envoy writes where a request left no event.
#[must_use]
pub fn says_nothing(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == b'-' || b.is_ascii_whitespace())
}

impl Sifted {
    fn put_aside(&mut self, bytes: &[u8], why: &'static str, is_torn: bool) {
        self.aside_bytes = self.aside_bytes.saturating_add(length(bytes));
        self.aside.push(Aside {
            bytes: bytes.get(..ASIDE_MAX_BYTES).unwrap_or(bytes).to_vec(),
            why,
            is_torn,
        });
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;
    use weir_wire::usage::line::write;

    use super::*;

    fn key() -> LineKey {
        LineKey::of_token("gateway")
    }

    fn event(n: u64) -> String {
        let event = UsageEvent {
            sequence: n,
            ..UsageEvent::default()
        };
        write(&event.encode_to_vec(), &key())
    }

    /// The events' numbers, why the rest is set aside, and bytes.
    #[track_caller]
    fn check(text: &str, events: &[u64], aside: &[(&str, bool)], bytes: [usize; 3]) {
        let line = Line {
            at: 9,
            bytes: text.as_bytes(),
            length: text.len() as u64,
        };
        let found = sift(&line, &[key()]);
        let numbers: Vec<u64> = found.events.iter().map(|(_, e)| e.sequence).collect();
        assert_eq!(numbers, events);
        let reasons: Vec<(&str, bool)> = found.aside.iter().map(|a| (a.why, a.is_torn)).collect();
        assert_eq!(reasons, aside);
        let found = [found.event_bytes, found.aside_bytes, found.ignored_bytes];
        assert_eq!(found, bytes.map(|n| n as u64));
    }

    #[test]
    fn each_byte_is_accounted_for() {
        let one = event(1);
        let n = one.len();
        check(&one, &[1], &[], [n, 0, 0]);
        check(&format!("{one}\r"), &[1], &[], [n, 0, 1]);
        for nothing in ["-", "", "- -", "\r"] {
            check(nothing, &[], &[], [0, 0, nothing.len()]);
        }
        check("GET /", &[], &[("it is no event", false)], [0, 5, 0]);
        let torn = format!("{}{one}", &one[..20]);
        check(&torn, &[1], &[("its signature is none", true)], [n, 20, 0]);
        let two = format!("{one}-{}", event(2));
        check(&two, &[1, 2], &[], [two.len() - 1, 0, 1]);
    }

    #[test]
    fn what_is_set_aside_is_bounded() {
        let long = "x".repeat(ASIDE_MAX_BYTES + 1);
        let of = |length: usize| {
            sift(
                &Line {
                    at: 0,
                    bytes: long.as_bytes(),
                    length: length as u64,
                },
                &[key()],
            )
        };
        let whole = of(long.len());
        assert_eq!(whole.aside[0].bytes.len(), ASIDE_MAX_BYTES);
        assert_eq!(whole.aside_bytes, long.len() as u64);
        let cut = of(long.len() + 1);
        assert!(cut.aside[0].why.contains("1 MiB"), "{cut:?}");
        assert_eq!(cut.aside_bytes, long.len() as u64 + 1);
    }
}
