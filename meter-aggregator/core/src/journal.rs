//! The journal: every change of a posting, each line hashed over the one
//! before, so that none can be changed or taken out unseen.

use sha2::{Digest as _, Sha256};

use crate::{hour::Hour, meter::Meter};

/// The hash before the first line.
pub const GENESIS: [u8; 32] = [0; 32];

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Of which request.
    pub request_id: &'a str,
    /// On which meter.
    pub meter: Meter,
    /// In which hour.
    pub hour: Hour,
    /// By how much.
    pub delta: i64,
}

/// The hash of a line after the line with the hash `before`: SHA-256 over
/// `before`, then each field with its length in front (little-endian).
#[must_use]
pub fn chain(before: &[u8; 32], line: &Line<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(before);
    for text in [line.tenant, line.request_id, line.meter.as_str()] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(line.hour.0.to_le_bytes());
    hash.update(line.delta.to_le_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn every_field_and_every_line_before_counts() {
        let line = Line {
            tenant: "ab",
            request_id: "c",
            meter: Meter::ApiCalls,
            hour: Hour(7),
            delta: 1,
        };
        let base = chain(&GENESIS, &line);
        let others = [
            chain(&base, &line),
            chain(
                &GENESIS,
                &Line {
                    tenant: "a",
                    request_id: "bc",
                    ..line.clone()
                },
            ),
            chain(
                &GENESIS,
                &Line {
                    meter: Meter::InputTokens,
                    ..line.clone()
                },
            ),
            chain(
                &GENESIS,
                &Line {
                    hour: Hour(8),
                    ..line.clone()
                },
            ),
            chain(
                &GENESIS,
                &Line {
                    delta: -1,
                    ..line.clone()
                },
            ),
        ];
        for other in others {
            assert_ne!(other, base);
        }
        assert_eq!(chain(&GENESIS, &line), base);
    }
}
