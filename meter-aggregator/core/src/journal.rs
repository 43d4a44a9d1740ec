//! The journal: every change of what a request is billed, each line hashed over the
//! one before, so that none can be changed or taken out unseen.

use sha2::{Digest as _, Sha256};
use thiserror::Error;
use weir_wire::ids::{RequestId, TenantId};

use crate::fold::Quantities;

/// The hash before the first line.
pub const GENESIS: [u8; 32] = [0; 32];

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whose.
    pub tenant: TenantId,
    /// Of which request; its time says in which hour.
    pub request_id: RequestId,
    /// SHA-256 of the event by which it is billed now, as the ledger keeps it.
    pub event: [u8; 32],
    /// By how much each meter changed.
    pub deltas: Quantities,
}

/// The hash of a line after the line with the hash `before`: SHA-256 over `before`,
/// the tenant with its length in front (64 bits, little-endian), the request id's 128
/// bits (big-endian), the event's hash, and for each meter in their order its name
/// with its length in front and the change (64 bits, little-endian).
#[must_use]
pub fn chain(before: &[u8; 32], line: &Line) -> [u8; 32] {
    let mut hash = Sha256::new();
    let text = |hash: &mut Sha256, text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    hash.update(before);
    text(&mut hash, line.tenant.as_str());
    hash.update(line.request_id.as_u128().to_be_bytes());
    hash.update(line.event);
    for (meter, delta) in &line.deltas {
        text(&mut hash, &meter.to_string());
        hash.update(delta.to_le_bytes());
    }
    hash.finalize().into()
}

/// A line whose hash does not follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line {number} of the journal does not follow from the one before")]
pub struct Broken {
    /// Which, from 1.
    pub number: u64,
}

/// Walks a journal from its beginning and checks each line.
#[derive(Debug, Clone)]
pub struct Walk {
    before: [u8; 32],
    number: u64,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            before: GENESIS,
            number: 0,
        }
    }
}

impl Walk {
    /// The next line, with the hash that stands beside it.
    ///
    /// # Errors
    /// [`Broken`] where that is not the line's.
    pub fn next(&mut self, line: &Line, hash: &[u8]) -> Result<(), Broken> {
        self.number = self.number.saturating_add(1);
        self.before = chain(&self.before, line);
        if self.before == hash {
            Ok(())
        } else {
            Err(Broken {
                number: self.number,
            })
        }
    }

    /// How many lines it walked, and the hash of the last.
    #[must_use]
    pub fn end(&self) -> (u64, [u8; 32]) {
        (self.number, self.before)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::meter::{Dimension, Meter};

    fn line() -> Line {
        Line {
            tenant: TenantId::new("ab").unwrap(),
            request_id: RequestId::mint(7, [1; 10]),
            event: [3; 32],
            deltas: Quantities::from([(Meter::of(Dimension::ApiCalls), 1)]),
        }
    }

    #[test]
    fn every_field_and_every_line_before_counts() {
        let base = chain(&GENESIS, &line());
        let changes: [fn(&mut Line); 5] = [
            |l| l.tenant = TenantId::new("a").unwrap(),
            |l| l.request_id = RequestId::mint(8, [1; 10]),
            |l| l.event = [4; 32],
            |l| l.deltas = Quantities::from([(Meter::of(Dimension::InputTokens), 1)]),
            |l| l.deltas = Quantities::from([(Meter::of(Dimension::ApiCalls), -1)]),
        ];
        for change in changes {
            let mut other = line();
            change(&mut other);
            assert_ne!(chain(&GENESIS, &other), base, "{other:?}");
        }
        assert_ne!(chain(&base, &line()), base);
        assert_eq!(chain(&GENESIS, &line()), base);
    }

    #[test]
    fn a_walk_finds_the_line_that_was_changed() {
        let first = chain(&GENESIS, &line());
        let second = chain(&first, &line());
        let mut walk = Walk::default();
        assert_eq!(walk.next(&line(), &first), Ok(()));
        assert_eq!(walk.next(&line(), &second), Ok(()));
        assert_eq!(walk.end(), (2, second));
        let mut other = line();
        other.deltas.clear();
        assert_eq!(walk.next(&other, &second), Err(Broken { number: 3 }));
    }
}
