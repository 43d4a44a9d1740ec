//! A sliding window of sub-windows, in a record of fixed size.
//!
//! A request admitted at `t` in the sub-window `[s·d, (s+1)·d)` counts until
//! `(s+1)·d + W`, which is never before `t + W`: over any stretch of `W` no
//! more than the limit is admitted. The price is that a place comes free up to
//! `d = W / 50` late.

use crate::config::Limit;

/// Sub-windows in a window.
const PARTS: u64 = 50;

/// Sub-windows that are remembered: a window, and the one in progress.
const SLOTS: usize = 51;

/// The size of a record in bytes: the number of its latest sub-window, then a
/// count for each slot, little-endian.
pub const RECORD_BYTES: usize = 8 + SLOTS * 4;

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass; so many more may in this window.
    Admit {
        /// What is left of the limit.
        remaining: u32,
    },
    /// It may not pass before that time is over.
    Refuse {
        /// Whole seconds, rounded up: never too early.
        retry_after_s: u32,
    },
}

/// Decides on one request at `now_ms` of a clock that does not leap.
///
/// Takes the record as it stands and gives the one to write in its place; none
/// where the request is refused. A record of another size counts as none.
#[must_use]
pub fn admit(record: Option<&[u8]>, limit: Limit, now_ms: u64) -> (Verdict, Option<Vec<u8>>) {
    let part_ms = u64::from(limit.window_s.get()).saturating_mul(1_000 / PARTS);
    let now_part = now_ms.checked_div(part_ms).unwrap_or(0);
    let mut window = Window::read(record, now_part);
    window.advance(now_part);
    let count = window.count();
    if count < limit.requests.get() {
        window.take();
        let left = limit.requests.get().saturating_sub(count).saturating_sub(1);
        return (Verdict::Admit { remaining: left }, Some(window.write()));
    }
    let free_ms = window.first_free_part().saturating_mul(part_ms);
    let wait_s = free_ms.saturating_sub(now_ms).div_ceil(1_000).max(1);
    let retry_after_s = u32::try_from(wait_s).unwrap_or(u32::MAX);
    (Verdict::Refuse { retry_after_s }, None)
}

struct Window {
    /// The latest sub-window that was looked at.
    part: u64,
    /// Admissions; the sub-window `p` counts in slot `p % SLOTS`.
    slots: [u32; SLOTS],
}

impl Window {
    fn read(record: Option<&[u8]>, now_part: u64) -> Self {
        let fresh = Self {
            part: now_part,
            slots: [0; SLOTS],
        };
        let Some(record) = record.filter(|r| r.len() == RECORD_BYTES) else {
            return fresh;
        };
        let Some((part, counts)) = record.split_first_chunk::<8>() else {
            return fresh;
        };
        let mut window = Self {
            part: u64::from_le_bytes(*part),
            ..fresh
        };
        for (slot, bytes) in window.slots.iter_mut().zip(counts.chunks_exact(4)) {
            *slot = bytes.try_into().map_or(0, u32::from_le_bytes);
        }
        window
    }

    fn write(&self) -> Vec<u8> {
        let mut record = Vec::with_capacity(RECORD_BYTES);
        record.extend_from_slice(&self.part.to_le_bytes());
        for slot in self.slots {
            record.extend_from_slice(&slot.to_le_bytes());
        }
        record
    }

    /// Forgets the sub-windows that are over. A `now` before the record's own
    /// counts as the record's.
    fn advance(&mut self, now_part: u64) {
        let steps = now_part.saturating_sub(self.part);
        if steps >= SLOTS as u64 {
            self.slots = [0; SLOTS];
        } else {
            for step in 1..=steps {
                if let Some(slot) = self.slot(self.part.saturating_add(step)) {
                    *slot = 0;
                }
            }
        }
        self.part = self.part.max(now_part);
    }

    fn slot(&mut self, part: u64) -> Option<&mut u32> {
        let index = usize::try_from(part.checked_rem(SLOTS as u64)?).ok()?;
        self.slots.get_mut(index)
    }

    fn count(&self) -> u32 {
        self.slots
            .iter()
            .fold(0, |sum: u32, slot| sum.saturating_add(*slot))
    }

    fn take(&mut self) {
        let part = self.part;
        if let Some(slot) = self.slot(part) {
            *slot = slot.saturating_add(1);
        }
    }

    /// The sub-window in which the oldest admission no longer counts.
    fn first_free_part(&mut self) -> u64 {
        let oldest = self.part.saturating_sub(PARTS);
        (oldest..=self.part)
            .find(|part| self.slot(*part).is_some_and(|slot| *slot > 0))
            .unwrap_or(self.part)
            .saturating_add(SLOTS as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn limit(requests: u32, window_s: u32) -> Limit {
        Limit {
            requests: NonZeroU32::new(requests).unwrap(),
            window_s: NonZeroU32::new(window_s).unwrap(),
        }
    }

    /// The verdicts on requests at those times, over one record.
    fn run(limit: Limit, times_ms: &[u64]) -> Vec<Verdict> {
        let mut record: Option<Vec<u8>> = None;
        times_ms
            .iter()
            .map(|now| {
                let (verdict, write) = admit(record.as_deref(), limit, *now);
                if let Some(write) = write {
                    assert_eq!(write.len(), RECORD_BYTES);
                    record = Some(write);
                }
                verdict
            })
            .collect()
    }

    #[test]
    fn the_limit_passes_and_no_more() {
        assert_eq!(
            run(limit(2, 60), &[5, 5, 5]),
            [
                Verdict::Admit { remaining: 1 },
                Verdict::Admit { remaining: 0 },
                Verdict::Refuse { retry_after_s: 62 },
            ]
        );
    }

    #[test]
    fn retry_after_is_never_too_early_and_then_is_enough() {
        for (window_s, start) in [(1, 7), (60, 123_456), (3_600, 9)] {
            let limit = limit(3, window_s);
            let before = run(limit, &[start, start + 1, start + 2, start + 3]);
            let Verdict::Refuse { retry_after_s } = before[3] else {
                panic!("{before:?}");
            };
            let retry = start + 3 + u64::from(retry_after_s) * 1_000;
            let after = run(limit, &[start, start + 1, start + 2, retry]);
            assert!(matches!(after[3], Verdict::Admit { .. }), "{after:?}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_frees_nothing() {
        let verdicts = run(limit(1, 60), &[120_000, 0, 60_000]);
        assert!(matches!(verdicts[1], Verdict::Refuse { .. }));
        assert!(matches!(verdicts[2], Verdict::Refuse { .. }));
    }

    #[test]
    fn a_record_of_another_size_counts_as_none() {
        let (verdict, _) = admit(Some(&[1, 2, 3]), limit(1, 60), 0);
        assert_eq!(verdict, Verdict::Admit { remaining: 0 });
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_rolling_window_admits_more_than_the_limit(
            requests in 1u32..20,
            window_s in prop_oneof![Just(1u32), Just(7), Just(60)],
            gaps in prop::collection::vec(0u64..3_000, 1..300),
        ) {
            let limit = limit(requests, window_s);
            let mut now = 0;
            let times: Vec<u64> = gaps.iter().map(|gap| { now += gap; now }).collect();
            let admitted: Vec<u64> = run(limit, &times)
                .iter()
                .zip(&times)
                .filter(|(v, _)| matches!(v, Verdict::Admit { .. }))
                .map(|(_, t)| *t)
                .collect();
            let window_ms = u64::from(window_s) * 1_000;
            for start in &admitted {
                let inside = admitted.iter().filter(|t| **t >= *start && **t < start + window_ms);
                prop_assert!(inside.count() <= requests as usize);
            }
        }

        #[test]
        fn no_record_panics(
            record in prop::collection::vec(any::<u8>(), 0..300),
            now in any::<u64>(),
        ) {
            let mut sized = record.clone();
            sized.resize(RECORD_BYTES, 0xff);
            let _ = admit(Some(&record), limit(5, 60), now);
            let _ = admit(Some(&sized), limit(5, 60), now);
        }
    }
}
