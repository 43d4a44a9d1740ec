//! Tokens of the last sixty seconds, in slots of one second.
//!
//! What is taken at `t` counts until the end of the slot ⌈(t + 60 s) / 1 s⌉: for at
//! least sixty seconds, so that in any sixty no more than the limit is taken, and
//! for a second more at the most.

use std::collections::BTreeMap;

/// How long tokens count, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// How long a slot is, in milliseconds.
const SLOT_MS: u64 = 1_000;

/// The count of a tenant.
#[derive(Debug, Clone, Default)]
pub(super) struct Minute {
    /// None of them is 0.
    slots: BTreeMap<u64, u64>,
    sum: u64,
}

/// Until whose end what is taken now counts.
pub(super) fn slot(now_ms: u64) -> u64 {
    now_ms.saturating_add(WINDOW_MS).div_ceil(SLOT_MS)
}

/// Whether what counts until the end of that slot counts no more.
pub(super) fn is_over(slot: u64, now_ms: u64) -> bool {
    slot.saturating_mul(SLOT_MS) <= now_ms
}

impl Minute {
    /// Takes off what counts no more; gives the slots that are gone.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        while let Some(first) = self.slots.first_entry() {
            if !is_over(*first.key(), now_ms) {
                break;
            }
            gone.push(*first.key());
            self.sum = self.sum.saturating_sub(first.remove());
        }
        gone
    }

    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// What a slot holds.
    pub(super) fn at(&self, slot: u64) -> u64 {
        self.slots.get(&slot).copied().unwrap_or(0)
    }

    /// Makes a slot hold so many.
    pub(super) fn set(&mut self, slot: u64, tokens: u64) {
        let before = self.at(slot);
        self.sum = self.sum.saturating_sub(before).saturating_add(tokens);
        if tokens == 0 {
            self.slots.remove(&slot);
        } else {
            self.slots.insert(slot, tokens);
        }
    }

    /// In how many milliseconds so many more are within a limit, by what counts now;
    /// `None` where they never are.
    pub(super) fn free_in_ms(&self, tokens: u64, limit: u64, now_ms: u64) -> Option<u64> {
        let most = limit.checked_sub(tokens)?;
        let mut left = self.sum;
        let mut at_ms = now_ms;
        for (slot, taken) in &self.slots {
            if left <= most {
                break;
            }
            left = left.saturating_sub(*taken);
            at_ms = slot.saturating_mul(SLOT_MS);
        }
        Some(at_ms.saturating_sub(now_ms))
    }

    /// In how many milliseconds the first of them, and the last, count no more.
    pub(super) fn ends_in_ms(&self, now_ms: u64) -> (u64, u64) {
        let until = |slot: Option<(&u64, &u64)>| {
            slot.map_or(0, |(slot, _)| {
                slot.saturating_mul(SLOT_MS).saturating_sub(now_ms)
            })
        };
        let first = self.slots.first_key_value();
        (until(first), until(self.slots.last_key_value()))
    }
}
