//! Which events of a producer's run never came.
//!
//! A run numbers its events from 1, in order. A number that is passed over is missing
//! until it comes: by another file, another sink, or a replay.

/// The most ranges of a run that are followed one by one.
pub const RANGES_MAX: usize = 1_000;

/// What has come of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// The highest number that came.
    pub highest: u64,
    /// What is missing below it, in order, without overlaps.
    pub missing: Vec<Missing>,
    /// Numbers that are missing, too, and were too scattered to be followed: whether
    /// they came later is not known.
    pub unfollowed: u64,
}

/// Numbers that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// When they were passed over, milliseconds of the Unix epoch.
    pub since_ms: i64,
    /// Whether the operator was told.
    pub is_told: bool,
}

impl Missing {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

impl Run {
    /// Takes note of an event's number; 0 is none. Says whether `missing` is another
    /// than before.
    pub fn see(&mut self, number: u64, now_ms: i64) -> bool {
        if number > self.highest {
            let first = self.highest.saturating_add(1);
            self.highest = number;
            let passed_over = first < number;
            if passed_over {
                self.missing.push(Missing {
                    first,
                    last: number.saturating_sub(1),
                    since_ms: now_ms,
                    is_told: false,
                });
                self.bound();
            }
            return passed_over;
        }
        self.close(number)
    }

    /// Takes a number out of what is missing.
    fn close(&mut self, number: u64) -> bool {
        let place = self.missing.partition_point(|range| range.last < number);
        let Some(range) = self.missing.get(place).copied() else {
            return false;
        };
        if number < range.first {
            return false;
        }
        let before = Missing {
            last: number.saturating_sub(1),
            ..range
        };
        let after = Missing {
            first: number.saturating_add(1),
            ..range
        };
        let left = [(range.first < number, before), (number < range.last, after)];
        let left = left
            .into_iter()
            .filter_map(|(is_some, r)| is_some.then_some(r));
        self.missing.splice(place..=place, left);
        self.bound();
        true
    }

    /// Lets the oldest ranges go where there are too many.
    fn bound(&mut self) {
        let excess = self.missing.len().saturating_sub(RANGES_MAX);
        for range in self.missing.drain(..excess) {
            self.unfollowed = self.unfollowed.saturating_add(range.count());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn run(numbers: &[u64]) -> Run {
        let mut run = Run::default();
        for n in numbers {
            run.see(*n, 7);
        }
        run
    }

    #[track_caller]
    fn check(numbers: &[u64], missing: &[(u64, u64)]) {
        let found: Vec<(u64, u64)> = run(numbers)
            .missing
            .iter()
            .map(|m| (m.first, m.last))
            .collect();
        assert_eq!(found, missing, "{numbers:?}");
    }

    #[test]
    fn what_is_passed_over_is_missing_until_it_comes() {
        check(&[], &[]);
        check(&[1, 2, 3, 2], &[]);
        check(&[3], &[(1, 2)]);
        check(&[1, 4, 9], &[(2, 3), (5, 8)]);
        check(&[1, 9, 5], &[(2, 4), (6, 8)]);
        check(&[1, 4, 3, 2], &[]);
        check(&[0, 1, 0], &[]);
        check(&[u64::MAX], &[(1, u64::MAX - 1)]);
    }

    #[test]
    fn a_part_keeps_when_it_went_missing_and_whether_that_was_told() {
        let mut run = Run::default();
        assert!(!run.see(1, 1));
        assert!(run.see(9, 2));
        run.missing[0].is_told = true;
        assert!(run.see(5, 3));
        assert!(run.missing.iter().all(|m| m.since_ms == 2 && m.is_told));
        assert!(!run.see(5, 3));
        assert!(run.see(20, 4));
        assert!(!run.missing[2].is_told);
    }

    #[test]
    fn ranges_are_bounded() {
        let every_second: Vec<u64> = (1..=RANGES_MAX as u64 + 5).map(|n| n * 2).collect();
        let found = run(&every_second);
        assert_eq!(found.missing.len(), RANGES_MAX);
        assert_eq!(found.unfollowed, 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_the_complement_of_what_came(numbers in prop::collection::vec(1_u64..40, 0..60)) {
            let run = run(&numbers);
            let came: BTreeSet<u64> = numbers.into_iter().collect();
            let missing: Vec<u64> = run.missing.iter().flat_map(|m| m.first..=m.last).collect();
            let expected: Vec<u64> = (1..=run.highest).filter(|n| !came.contains(n)).collect();
            prop_assert_eq!(missing, expected);
            let apart = run.missing.windows(2).all(|w| w[0].last + 1 < w[1].first);
            prop_assert!(apart, "{:?}", run.missing);
        }
    }
}
