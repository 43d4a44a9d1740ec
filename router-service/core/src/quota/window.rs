//! A sliding window of sub-windows, and its arithmetic.
//!
//! What is granted at `t` for a life Λ may be used until `t + Λ` and counts until
//! the end of the sub-window ⌈(t + Λ + W) / d⌉: whenever it is used, it counts for
//! a whole window W after. So over any stretch of W no more than the limit is used.
//! The price: a place comes free up to Λ + d late, of which closing a lease gives
//! back what was not needed.

use std::collections::BTreeMap;

use weir_wire::quota::LIFE_MAX_MS;

/// Sub-windows in a window, about.
const PARTS: u64 = 240;

/// The shortest sub-window, in milliseconds.
const PART_MIN_MS: u64 = 10;

/// The shortest life of a lease, in milliseconds: as long as a call may take.
const LIFE_MIN_MS: u64 = 250;

/// The sub-window d of a window, in milliseconds.
#[must_use]
pub fn part_ms(window_ms: u64) -> u64 {
    (window_ms / PARTS).max(PART_MIN_MS)
}

/// The longest life of a lease under a window, in milliseconds: a thirtieth of
/// it, within bounds, so that a window of a second still admits most of it.
#[must_use]
pub fn life_max_ms(window_ms: u64) -> u64 {
    (window_ms / 30).clamp(LIFE_MIN_MS, u64::from(LIFE_MAX_MS))
}

/// The sub-window until whose end counts what may be used until `used_by_ms`.
#[must_use]
pub fn slot(used_by_ms: u64, window_ms: u64) -> u64 {
    used_by_ms
        .saturating_add(window_ms)
        .div_ceil(part_ms(window_ms))
}

/// Whether what counts until the end of that slot counts no more.
#[must_use]
pub fn is_over(slot: u64, window_ms: u64, now_ms: u64) -> bool {
    slot.saturating_mul(part_ms(window_ms)) <= now_ms
}

/// The latest time at which a lease of that age was closed, on the store's clock.
/// `t_ms` is when it was granted: after the gateway's first sending, from which
/// the gateway reckons. Clocks may run apart by two thousandths.
#[must_use]
pub fn closed_at_ms(t_ms: u64, life_ms: u64, age_ms: u64) -> u64 {
    let age_ms = age_ms.saturating_add(age_ms / 499).saturating_add(1);
    t_ms.saturating_add(age_ms.min(life_ms))
}

/// The count of one limit.
#[derive(Debug, Clone, Default)]
pub struct Window {
    slots: BTreeMap<u64, u64>,
    sum: u64,
}

impl Window {
    /// What counts at `now_ms`.
    pub fn count(&mut self, window_ms: u64, now_ms: u64) -> u64 {
        while let Some(first) = self.slots.first_entry() {
            if !is_over(*first.key(), window_ms, now_ms) {
                break;
            }
            self.sum = self.sum.saturating_sub(first.remove());
        }
        self.sum
    }

    /// Counts `n` until the end of a slot.
    pub fn add(&mut self, slot: u64, n: u64) {
        if n > 0 {
            let held = self.slots.entry(slot).or_default();
            *held = held.saturating_add(n);
            self.sum = self.sum.saturating_add(n);
        }
    }

    /// Counts `n` of a slot no more; those that it has not are not there.
    pub fn subtract(&mut self, slot: u64, n: u64) {
        if let Some(held) = self.slots.get_mut(&slot) {
            let n = n.min(*held);
            *held = held.saturating_sub(n);
            self.sum = self.sum.saturating_sub(n);
            if *held == 0 {
                self.slots.remove(&slot);
            }
        }
    }

    /// When at least one more may be granted under a limit of so many, at the
    /// earliest; `now_ms` where it may at once.
    #[must_use]
    pub fn free_at_ms(&self, requests: u64, window_ms: u64, now_ms: u64) -> u64 {
        let mut left = self.sum;
        let mut at = now_ms;
        for (slot, n) in &self.slots {
            if left < requests {
                break;
            }
            left = left.saturating_sub(*n);
            at = slot.saturating_mul(part_ms(window_ms));
        }
        at.max(now_ms)
    }

    /// When nothing of what counts now counts any more.
    #[must_use]
    pub fn reset_at_ms(&self, window_ms: u64, now_ms: u64) -> u64 {
        let last = self.slots.last_key_value().map_or(0, |(slot, _)| *slot);
        last.saturating_mul(part_ms(window_ms)).max(now_ms)
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn what_is_used_counts_for_a_window_after() {
        for window_ms in [1_000, 60_000, 3_600_000, 86_400_000] {
            for used_by_ms in [0, 1, 12_345, 1_795_000_000_000] {
                let mut window = Window::default();
                window.add(slot(used_by_ms, window_ms), 3);
                let end = used_by_ms + window_ms;
                assert_eq!(window.count(window_ms, end - 1), 3);
                let free = window.free_at_ms(3, window_ms, end - 1);
                assert!((end..end + part_ms(window_ms)).contains(&free), "{free}");
                assert_eq!(window.count(window_ms, free - 1), 3);
                assert_eq!(window.count(window_ms, free), 0);
                assert!(window.is_empty());
            }
        }
    }

    #[test]
    fn a_place_comes_free_where_enough_have_gone() {
        let mut window = Window::default();
        for (slot, n) in [(250, 2), (260, 2), (270, 2)] {
            window.add(slot, n);
        }
        assert_eq!(window.free_at_ms(7, 60_000, 9), 9);
        assert_eq!(window.free_at_ms(6, 60_000, 9), 250 * 250);
        assert_eq!(window.free_at_ms(3, 60_000, 9), 260 * 250, "lowered");
        assert_eq!(window.reset_at_ms(60_000, 9), 270 * 250);
        window.subtract(250, 9);
        window.subtract(251, 1);
        assert_eq!(window.count(60_000, 9), 4);
    }

    #[test]
    fn a_lease_is_closed_by_its_end_at_the_latest() {
        assert_eq!(closed_at_ms(1_000, 2_000, 0), 1_001);
        assert_eq!(closed_at_ms(1_000, 2_000, 499), 1_501);
        assert_eq!(closed_at_ms(1_000, 2_000, u64::MAX), 3_000);
    }
}
