//! What the workers of a gateway hold together of one tenant and class: a record
//! of fixed size in the host's shared data, changed by compare-and-swap only.

use weir_wire::quota::{LEASE_ID_BYTES, LIMITS_MAX};

/// The longest epoch that is remembered, in bytes; a longer one counts as none.
pub const EPOCH_MAX_BYTES: usize = 64;

/// Leases held at once: one that is spent, and the next.
pub const LEASES: usize = 2;

const WORD: usize = 8;
const LEASE_WORDS: usize = 5;
const LIMIT_WORDS: usize = 3;
const WORDS: usize = 14 + LEASES * LEASE_WORDS + EPOCH_MAX_BYTES / WORD + LIMITS_MAX * LIMIT_WORDS;

/// The size of a record in bytes, always.
pub const RECORD_BYTES: usize = WORDS * WORD;

/// Changes with the layout, so that a gateway that was updated in place reads no
/// record of before.
const LAYOUT: u64 = 1;

/// The name of a lease.
pub type LeaseId = [u8; LEASE_ID_BYTES];

/// How often a tenant asks, in periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// When the period began.
    pub start_ms: u64,
    /// Requests in it.
    pub count: u32,
    /// Requests in the one before.
    pub last: u32,
}

/// An acquire that was sent and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// The lease that it asks for.
    pub id: LeaseId,
    /// When it was sent first.
    pub first_sent_ms: u64,
    /// Until when its answer is waited for; 0 where it failed.
    pub deadline_ms: u64,
    /// As it was asked.
    pub wanted: u32,
    /// As it was asked, in milliseconds.
    pub life_ms: u32,
}

/// Requests that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How many may still be made.
    pub left: u32,
    /// Of how many.
    pub granted: u32,
    /// When it was first asked for.
    pub first_sent_ms: u64,
    /// Before when they may be made.
    pub deadline_ms: u64,
}

/// An answer that holds for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What was answered.
    pub kind: Kind,
    /// Until when there is no use in asking again.
    pub until_ms: u64,
    /// When a request may pass at the earliest.
    pub retry_at_ms: u64,
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The limit is reached.
    Denied,
    /// The store waits until what it lost can't matter.
    Fenced,
    /// There is no limit.
    Unlimited,
    /// Neither the plan nor the tenant is known.
    UnknownPlan,
}

/// One limit, as the last answer told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// At most so many requests.
    pub requests: u32,
    /// In so many seconds.
    pub window_s: u32,
    /// Whether it is of the record's class alone.
    pub of_class: bool,
    /// Not granted to anybody then.
    pub remaining: u32,
    /// When all that counted then counts no more.
    pub reset_at_ms: u64,
}

/// All of it. Times are of the host's monotonic clock, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// How often the tenant asks.
    pub rate: Rate,
    /// What is being asked for, or was and failed.
    pub pending: Option<Pending>,
    /// What is held, the older first.
    pub leases: [Option<Lease>; LEASES],
    /// What was answered last, where that was no lease.
    pub standing: Option<Standing>,
    /// The store's epoch at the last grant, and when that was.
    pub epoch: (Vec<u8>, u64),
    /// The limits as the last answer told of them, at most [`LIMITS_MAX`].
    pub limits: Vec<Told>,
}

impl Record {
    /// Reads a record; one of another size or layout counts as none.
    #[must_use]
    pub fn decode(bytes: Option<&[u8]>) -> Self {
        bytes
            .filter(|bytes| bytes.len() == RECORD_BYTES)
            .and_then(|bytes| Self::read(&mut Reader(bytes)))
            .unwrap_or_default()
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        if from.word()? != LAYOUT {
            return None;
        }
        let flags = from.word()?;
        let flag = |bit: u32| flags.checked_shr(bit).unwrap_or(0) & 1 == 1;
        let start_ms = from.word()?;
        let (count, last) = from.halves()?;
        let pending = Pending {
            id: from.bytes()?,
            first_sent_ms: from.word()?,
            deadline_ms: from.word()?,
            wanted: 0,
            life_ms: 0,
        };
        let (wanted, life_ms) = from.halves()?;
        let mut leases = [None; LEASES];
        for (lease, bit) in leases.iter_mut().zip(1..) {
            let id = from.bytes()?;
            let (left, granted) = from.halves()?;
            let read = Lease {
                id,
                left,
                granted,
                first_sent_ms: from.word()?,
                deadline_ms: from.word()?,
            };
            *lease = flag(bit).then_some(read);
        }
        let kind = Kind::of(flags.checked_shr(8).unwrap_or(0) & 0xff);
        let (until_ms, retry_at_ms) = (from.word()?, from.word()?);
        let (epoch_at_ms, (length, limits)) = (from.word()?, from.halves()?);
        let epoch: [u8; EPOCH_MAX_BYTES] = from.bytes()?;
        let length = usize::try_from(length).ok()?;
        Some(Self {
            rate: Rate {
                start_ms,
                count,
                last,
            },
            pending: flag(0).then_some(Pending {
                wanted,
                life_ms,
                ..pending
            }),
            leases,
            standing: kind.map(|kind| Standing {
                kind,
                until_ms,
                retry_at_ms,
            }),
            epoch: (epoch.get(..length)?.to_vec(), epoch_at_ms),
            limits: (0..limits.min(LIMITS_MAX as u32))
                .map(|_| Told::read(from))
                .collect::<Option<_>>()?,
        })
    }

    /// Its bytes, [`RECORD_BYTES`] of them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer(Vec::with_capacity(RECORD_BYTES));
        let mut flags = u64::from(self.pending.is_some());
        for (lease, bit) in self.leases.iter().zip([2, 4]) {
            flags |= if lease.is_some() { bit } else { 0 };
        }
        flags |= self.standing.map_or(0, |s| s.kind.number() << 8);
        to.word(LAYOUT);
        to.word(flags);
        to.word(self.rate.start_ms);
        to.halves(self.rate.count, self.rate.last);
        let pending = self.pending.unwrap_or(Pending {
            id: [0; LEASE_ID_BYTES],
            first_sent_ms: 0,
            deadline_ms: 0,
            wanted: 0,
            life_ms: 0,
        });
        to.bytes(&pending.id);
        to.word(pending.first_sent_ms);
        to.word(pending.deadline_ms);
        to.halves(pending.wanted, pending.life_ms);
        for lease in self.leases {
            let lease = lease.unwrap_or(Lease {
                id: [0; LEASE_ID_BYTES],
                left: 0,
                granted: 0,
                first_sent_ms: 0,
                deadline_ms: 0,
            });
            to.bytes(&lease.id);
            to.halves(lease.left, lease.granted);
            to.word(lease.first_sent_ms);
            to.word(lease.deadline_ms);
        }
        to.word(self.standing.map_or(0, |s| s.until_ms));
        to.word(self.standing.map_or(0, |s| s.retry_at_ms));
        let (epoch, at_ms) = &self.epoch;
        let mut padded = [0; EPOCH_MAX_BYTES];
        let length = match padded.get_mut(..epoch.len()) {
            Some(place) => {
                place.copy_from_slice(epoch);
                u32::try_from(epoch.len()).unwrap_or(0)
            }
            None => 0,
        };
        to.word(*at_ms);
        to.halves(length, u32::try_from(self.limits.len()).unwrap_or(0));
        to.bytes(&padded);
        for limit in self.limits.iter().take(LIMITS_MAX) {
            limit.write(&mut to);
        }
        to.0.resize(RECORD_BYTES, 0);
        to.0
    }
}

impl Kind {
    fn number(self) -> u64 {
        match self {
            Self::Denied => 1,
            Self::Fenced => 2,
            Self::Unlimited => 3,
            Self::UnknownPlan => 4,
        }
    }

    fn of(number: u64) -> Option<Self> {
        [
            Self::Denied,
            Self::Fenced,
            Self::Unlimited,
            Self::UnknownPlan,
        ]
        .into_iter()
        .find(|kind| kind.number() == number)
    }
}

impl Told {
    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (requests, window_s) = from.halves()?;
        let (remaining, of_class) = from.halves()?;
        Some(Self {
            requests,
            window_s,
            of_class: of_class != 0,
            remaining,
            reset_at_ms: from.word()?,
        })
    }

    fn write(&self, to: &mut Writer) {
        to.halves(self.requests, self.window_s);
        to.halves(self.remaining, u32::from(self.of_class));
        to.word(self.reset_at_ms);
    }
}

/// Numbers, little end first.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn halves(&mut self) -> Option<(u32, u32)> {
        let first = u32::from_le_bytes(self.bytes()?);
        Some((first, u32::from_le_bytes(self.bytes()?)))
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn word(&mut self, word: u64) {
        self.bytes(&word.to_le_bytes());
    }

    fn halves(&mut self, first: u32, second: u32) {
        self.bytes(&first.to_le_bytes());
        self.bytes(&second.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_record_comes_back_from_its_bytes() {
        let lease = |n: u8| Lease {
            id: [n; 16],
            left: 3,
            granted: 9,
            first_sent_ms: 100 + u64::from(n),
            deadline_ms: u64::MAX,
        };
        let limit = Told {
            requests: 100,
            window_s: 60,
            of_class: true,
            remaining: 7,
            reset_at_ms: 12,
        };
        let whole = Record {
            rate: Rate {
                start_ms: 1,
                count: 2,
                last: 3,
            },
            pending: Some(Pending {
                id: [7; 16],
                first_sent_ms: 4,
                deadline_ms: 5,
                wanted: 6,
                life_ms: 2_000,
            }),
            leases: [Some(lease(1)), Some(lease(2))],
            standing: Some(Standing {
                kind: Kind::UnknownPlan,
                until_ms: 8,
                retry_at_ms: 9,
            }),
            epoch: (vec![b'e'; EPOCH_MAX_BYTES], 10),
            limits: vec![limit; LIMITS_MAX],
        };
        let second_only = Record {
            leases: [None, Some(lease(2))],
            ..Record::default()
        };
        for record in [whole, second_only, Record::default()] {
            let bytes = record.encode();
            assert_eq!(bytes.len(), RECORD_BYTES);
            assert_eq!(Record::decode(Some(&bytes)), record);
        }
        assert_eq!(Record::decode(None), Record::default());
        assert_eq!(Record::decode(Some(&[0; 9])), Record::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), RECORD_BYTES)) {
            let _ = Record::decode(Some(&bytes));
            bytes[..8].copy_from_slice(&LAYOUT.to_le_bytes());
            let record = Record::decode(Some(&bytes));
            prop_assert_eq!(record.encode().len(), RECORD_BYTES);
        }
    }
}
