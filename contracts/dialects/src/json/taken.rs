//! Which places the value at hand is in, and what was found in them.

use std::sync::Arc;

use super::{Found, Kind, length, places::Places, places::STEPS_MAX};

/// The places of a scan, as the text passes them.
#[derive(Debug)]
pub(super) struct Taken {
    places: Arc<Places>,
    value_max_bytes: usize,
    found: Vec<Slot>,
    /// Of each open container, the places that are in it.
    within: [u32; STEPS_MAX],
    /// Of those, the ones whose step was there already.
    passed: [u32; STEPS_MAX],
    /// Of each open array, the position at hand.
    index: [u32; STEPS_MAX],
    /// The places that match down to the value at hand.
    hits: u32,
    /// The places in which a value began and did not end.
    open: u32,
    /// The places in which something was found.
    full: u32,
    twice: u32,
}

/// A value that was found.
#[derive(Debug)]
struct Slot {
    kind: Kind,
    start: u64,
    end: Option<u64>,
    raw: Vec<u8>,
    is_too_long: bool,
}

impl Taken {
    pub(super) fn new(places: Arc<Places>, value_max_bytes: usize) -> Self {
        let slot = || Slot {
            kind: Kind::Null,
            start: 0,
            end: None,
            raw: Vec::new(),
            is_too_long: false,
        };
        Self {
            value_max_bytes,
            found: std::iter::repeat_with(slot).take(places.count()).collect(),
            within: [0; STEPS_MAX],
            passed: [0; STEPS_MAX],
            index: [0; STEPS_MAX],
            hits: places.all(),
            places,
            open: 0,
            full: 0,
            twice: 0,
        }
    }

    pub(super) fn forget(&mut self) {
        self.hits = self.places.all();
        self.open = 0;
        self.full = 0;
        self.twice = 0;
    }

    pub(super) fn found(&self, place: usize) -> Option<Found<'_>> {
        let slot = self.found.get(place)?;
        let is_full = self.full & bit(place) != 0;
        is_full.then(|| Found {
            kind: slot.kind,
            start: slot.start,
            end: slot.end,
            raw: (slot.end.is_some() && !slot.is_too_long).then_some(&slot.raw),
        })
    }

    pub(super) fn twice(&self) -> Option<usize> {
        let place = self.twice.trailing_zeros();
        usize::try_from(place).ok().filter(|_| self.twice != 0)
    }

    /// A container opens in so many others.
    pub(super) fn enter(&mut self, depth: usize) {
        let hits = self.hits & !self.places.with_steps(depth);
        if let (Some(within), Some(passed), Some(index)) = (
            self.within.get_mut(depth),
            self.passed.get_mut(depth),
            self.index.get_mut(depth),
        ) {
            (*within, *passed, *index) = (hits, 0, 0);
        }
    }

    /// The next value is that of a member of this name; none is one longer than any.
    pub(super) fn name(&mut self, level: usize, name: Option<&[u8]>) {
        self.hits = match (self.within.get(level), name) {
            (Some(within), Some(name)) if *within != 0 => within & self.places.named(level, name),
            _ => 0,
        };
        if self.hits != 0
            && let Some(passed) = self.passed.get_mut(level)
        {
            self.twice |= *passed & self.hits;
            *passed |= self.hits;
            // Of two the last counts, also where it has not what the first had.
            self.full &= !self.hits;
        }
    }

    /// The next value is an array's item.
    pub(super) fn item(&mut self, level: usize) {
        self.hits = match (self.within.get(level), self.index.get(level)) {
            (Some(within), Some(index)) if *within != 0 => {
                within & self.places.at_index(level, *index)
            }
            _ => 0,
        };
    }

    /// The next item of an array is the next in the count.
    pub(super) fn next_item(&mut self, level: usize) {
        if let Some(index) = self.index.get_mut(level) {
            *index = index.saturating_add(1);
        }
    }

    /// A value begins in so many containers.
    #[inline]
    pub(super) fn begin(&mut self, depth: usize, kind: Kind, start: u64) {
        if self.hits == 0 {
            return;
        }
        let here = self.hits & self.places.with_steps(depth);
        each(&mut self.found, here, |slot| {
            slot.kind = kind;
            slot.start = start;
            slot.end = None;
            slot.raw.clear();
            slot.is_too_long = false;
        });
        self.full |= here;
        self.open |= here;
    }

    /// The value ends before the `end`th byte of a chunk, which begins at `offset`.
    #[inline]
    pub(super) fn end(&mut self, depth: usize, end: usize, chunk: &[u8], offset: u64) {
        if self.open == 0 {
            return;
        }
        let here = self.open & self.places.with_steps(depth);
        let bytes = chunk.get(..end).unwrap_or_default();
        each(&mut self.found, here, |slot| {
            slot.keep(bytes, offset, self.value_max_bytes);
            slot.end = Some(offset.saturating_add(length(end)));
        });
        self.open &= !here;
    }

    /// The chunk ends.
    pub(super) fn keep(&mut self, chunk: &[u8], offset: u64) {
        each(&mut self.found, self.open, |slot| {
            slot.keep(chunk, offset, self.value_max_bytes);
        });
    }
}

impl Slot {
    fn keep(&mut self, bytes: &[u8], offset: u64, max_bytes: usize) {
        let from = self.start.saturating_sub(offset);
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let bytes = bytes.get(from..).unwrap_or_default();
        if self.is_too_long || self.raw.len().saturating_add(bytes.len()) > max_bytes {
            self.is_too_long = true;
        } else {
            self.raw.extend_from_slice(bytes);
        }
    }
}

/// Does something with each of a set.
fn each(found: &mut [Slot], set: u32, mut what: impl FnMut(&mut Slot)) {
    let mut left = set;
    while left != 0 {
        let place = usize::try_from(left.trailing_zeros()).unwrap_or(usize::MAX);
        left &= left.wrapping_sub(1);
        if let Some(slot) = found.get_mut(place) {
            what(slot);
        }
    }
}

fn bit(place: usize) -> u32 {
    u32::try_from(place)
        .ok()
        .and_then(|place| 1_u32.checked_shl(place))
        .unwrap_or(0)
}
