//! What the workers of a gateway leave for each other: one head, and the pages
//! it names.

use weir_wire::directory::{PAGE_MAX_BYTES, Version};

use crate::board::{WORD_BYTES, read_words, time_word, word_time, words};

/// The bytes of a page's slot where sizes never change (Kong).
const SLOT_BYTES: usize = 64 << 10;

/// Epoch, lease, index and length before the page.
const SLOT_HEADER_BYTES: usize = 4 * WORD_BYTES;

const _: () = assert!(SLOT_HEADER_BYTES + PAGE_MAX_BYTES <= SLOT_BYTES);

/// The format of head and slots; part of their names, because the data outlives
/// the module that wrote it.
const FORMAT: &str = "1";

/// The directory that the pages on the board make up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Published {
    /// The lease under which its whole was written. Never 0.
    pub(super) epoch: u64,
    /// Which of two areas the pages are in.
    pub(super) area: u64,
    /// How many pages the whole has.
    pub(super) base: u32,
    /// With those of the changes since, which follow it.
    pub(super) count: u32,
    /// Where all of them lead.
    pub(super) version: Version,
}

/// The one record that says what counts. Monotonic times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    /// Who polls. Two may carry one number only if the head was lost.
    pub(super) holder: u64,
    /// The number of the last lease; grows.
    pub(super) lease: u64,
    /// Until when nobody else polls; 0 where nobody does.
    pub(super) deadline_ms: u64,
    /// When the last poll began.
    pub(super) asked_at_ms: Option<u64>,
    /// When the last poll that succeeded began.
    pub(super) polled_at_ms: Option<u64>,
    /// What is there to read.
    pub(super) published: Option<Published>,
    /// Somebody could not read a page: the next poll asks for everything.
    pub(super) whole_wanted: bool,
}

impl Head {
    /// A record that is not there, or is none, is an empty one.
    pub(super) fn decode(bytes: Option<&[u8]>) -> Self {
        bytes.and_then(Self::parse).unwrap_or_default()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let ([holder, lease, deadline_ms, asked, polled], rest) = read_words(bytes)?;
        let ([epoch, area, base, count, number, digest], rest) = read_words(rest)?;
        let ([whole_wanted], _) = read_words(rest)?;
        let published = Published {
            epoch,
            area,
            base: u32::try_from(base).ok()?,
            count: u32::try_from(count).ok()?,
            version: Version { number, digest },
        };
        Some(Self {
            holder,
            lease,
            deadline_ms,
            asked_at_ms: word_time(asked),
            polled_at_ms: word_time(polled),
            published: (epoch > 0).then_some(published),
            whole_wanted: whole_wanted > 0,
        })
    }

    /// Always of one size.
    pub(super) fn encode(&self) -> Vec<u8> {
        let of = |field: fn(&Published) -> u64| self.published.as_ref().map_or(0, field);
        words([
            self.holder,
            self.lease,
            self.deadline_ms,
            time_word(self.asked_at_ms),
            time_word(self.polled_at_ms),
            of(|p| p.epoch),
            of(|p| p.area),
            of(|p| p.base.into()),
            of(|p| p.count.into()),
            of(|p| p.version.number),
            of(|p| p.version.digest),
            self.whole_wanted.into(),
        ])
        .collect()
    }
}

/// Where one page is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot<'a> {
    /// Of which published directory it is a page.
    pub(super) epoch: u64,
    /// The lease under which it was written: an older one never overwrites it.
    pub(super) lease: u64,
    /// Which page.
    pub(super) index: u32,
    /// As the router sent it.
    pub(super) page: &'a [u8],
}

impl<'a> Slot<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let ([epoch, lease, index, length], rest) = read_words(bytes)?;
        Some(Self {
            epoch,
            lease,
            index: u32::try_from(index).ok()?,
            page: rest.get(..usize::try_from(length).ok()?)?,
        })
    }

    /// With `fixed`, padded to the one size of all slots.
    pub(super) fn encode(&self, fixed: bool) -> Vec<u8> {
        let length = u64::try_from(self.page.len()).unwrap_or(u64::MAX);
        let header = [self.epoch, self.lease, self.index.into(), length];
        let size = SLOT_HEADER_BYTES.saturating_add(self.page.len());
        let mut bytes = Vec::with_capacity(if fixed { SLOT_BYTES } else { size });
        bytes.extend(words(header));
        bytes.extend_from_slice(self.page);
        if fixed {
            bytes.resize(SLOT_BYTES, 0);
        }
        bytes
    }
}

/// The names of head and slots. Pollers of different routers share none.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
    head: String,
}

impl Names {
    pub(super) fn new(namespace: &str) -> Self {
        let prefix = format!("weir/directory.{FORMAT}.{namespace}");
        let head = format!("{prefix}.head");
        Self { prefix, head }
    }

    pub(super) fn head(&self) -> &str {
        &self.head
    }

    pub(super) fn slot(&self, area: u64, index: u32) -> String {
        format!("{}.{area}.{index}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_head_comes_back_as_it_was() {
        let published = Published {
            epoch: 7,
            area: 1,
            base: 3,
            count: 5,
            version: Version {
                number: 9,
                digest: u64::MAX,
            },
        };
        for (at, published) in [(None, None), (Some(0), Some(published))] {
            let head = Head {
                holder: 1,
                lease: 2,
                deadline_ms: 3,
                asked_at_ms: at,
                polled_at_ms: at,
                published,
                whole_wanted: at.is_some(),
            };
            assert_eq!(Head::decode(Some(&head.encode())), head);
            assert_eq!(head.encode().len(), Head::default().encode().len());
        }
        assert_eq!(Head::decode(None), Head::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_slot_comes_back_as_it_was(
            page in prop::collection::vec(any::<u8>(), 0..PAGE_MAX_BYTES),
            fixed: bool,
            numbers: (u64, u64, u32),
        ) {
            let (epoch, lease, index) = numbers;
            let slot = Slot { epoch, lease, index, page: &page };
            let bytes = slot.encode(fixed);
            prop_assert_eq!(bytes.len(), if fixed { SLOT_BYTES } else { 32 + page.len() });
            prop_assert_eq!(Slot::decode(&bytes), Some(slot));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            Head::decode(Some(&bytes));
            let _ = Slot::decode(&bytes);
        }
    }
}
