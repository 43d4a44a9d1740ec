//! Slots that are reused and never move: memory that wasm cannot give back is at
//! least not asked for twice.

use std::num::NonZeroU32;

/// Slots that are allocated at once. A `Vec` that doubles would hold the old and
/// the new half at one time, and wasm keeps what was ever held.
const CHUNK: usize = 1024;

/// A slot's place; four bytes, in an `Option` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Index(NonZeroU32);

impl Index {
    /// Saturates far beyond what 32 bits can address in slots of this size.
    fn new(position: usize) -> Self {
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(position))
    }

    fn place(self) -> (usize, usize) {
        let position = usize::try_from(self.0.get().saturating_sub(1)).unwrap_or(usize::MAX);
        (position / CHUNK, position % CHUNK)
    }
}

/// Values in slots. An `Option` of the value should cost no bytes.
#[derive(Debug, Clone)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<Index>,
    used: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            used: 0,
        }
    }
}

impl<T> Slab<T> {
    /// How many slots hold a value.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// The bytes of the slots, free ones too.
    pub(super) fn memory_bytes(&self) -> usize {
        let slots = self.chunks.len().saturating_mul(CHUNK);
        let free = self.free.capacity().saturating_mul(size_of::<Index>());
        slots
            .saturating_mul(size_of::<Option<T>>())
            .saturating_add(free)
    }

    pub(super) fn insert(&mut self, value: T) -> Index {
        self.used = self.used.saturating_add(1);
        if let Some(index) = self.free.pop() {
            if let Some(slot) = self.slot(index) {
                *slot = Some(value);
            }
            return index;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = self.chunks.len().saturating_sub(1).saturating_mul(CHUNK);
        let within = self.chunks.last_mut().map_or(0, |last| {
            last.push(Some(value));
            last.len().saturating_sub(1)
        });
        Index::new(before.saturating_add(within))
    }

    pub(super) fn remove(&mut self, index: Index) -> Option<T> {
        let value = self.slot(index)?.take()?;
        self.used = self.used.saturating_sub(1);
        self.free.push(index);
        Some(value)
    }

    pub(super) fn get(&self, index: Index) -> Option<&T> {
        let (chunk, slot) = index.place();
        self.chunks.get(chunk)?.get(slot)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: Index) -> Option<&mut T> {
        self.slot(index)?.as_mut()
    }

    /// All values with their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Index, &T)> {
        let slots = self.chunks.iter().flatten().enumerate();
        slots.filter_map(|(at, slot)| Some((Index::new(at), slot.as_ref()?)))
    }

    fn slot(&mut self, index: Index) -> Option<&mut Option<T>> {
        let (chunk, slot) = index.place();
        self.chunks.get_mut(chunk)?.get_mut(slot)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_freed_slot_is_taken_before_a_new_one() {
        let mut slab = Slab::default();
        let all: Vec<Index> = (0..3000).map(|n| slab.insert(n)).collect();
        let memory = slab.memory_bytes();
        assert!(
            all.iter()
                .enumerate()
                .all(|(n, i)| slab.get(*i) == Some(&n))
        );
        for round in 0..3 {
            for index in all.iter().step_by(2) {
                assert!(slab.remove(*index).is_some());
                assert_eq!(slab.remove(*index), None);
            }
            assert_eq!(slab.len(), 1500);
            assert_eq!(slab.iter().count(), 1500);
            for n in 0..1500 {
                slab.insert(n + round);
            }
            assert_eq!(slab.len(), 3000);
        }
        let slots = 3 * CHUNK * size_of::<Option<usize>>();
        assert!(memory >= slots && slab.memory_bytes() < slots + 4 * 4096);
    }
}
