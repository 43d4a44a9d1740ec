//! How many signatures a worker may check in a second: a flood of forged
//! tokens must not take the time of the requests beside it.

/// The most signature checks that one token may cost.
pub(crate) const CHECKS_MAX: u32 = 2;

/// A token bucket that holds one second's worth.
#[derive(Debug, Clone)]
pub struct Budget {
    per_second: u32,
    /// Thousandths of a check.
    level: u64,
    at_ms: Option<u64>,
    lacking: u64,
}

impl Budget {
    /// At most so many checks a second, at least two: a token may cost two.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let per_second = per_second.max(CHECKS_MAX);
        Self {
            per_second,
            level: u64::from(per_second).saturating_mul(1000),
            at_ms: None,
            lacking: 0,
        }
    }

    /// Takes `n` checks at `mono_ms` (milliseconds of a clock that never goes
    /// back); false, with nothing taken, where they are not there.
    pub fn take(&mut self, mono_ms: u64, n: u32) -> bool {
        let passed = mono_ms.saturating_sub(self.at_ms.unwrap_or(mono_ms));
        self.at_ms = Some(self.at_ms.unwrap_or(mono_ms).max(mono_ms));
        let rate = u64::from(self.per_second);
        // So many checks a second are as many thousandths a millisecond.
        let filled = self.level.saturating_add(passed.saturating_mul(rate));
        self.level = filled.min(rate.saturating_mul(1000));
        // What costs more than there ever is waits until all of it is there.
        let cost = u64::from(n.min(self.per_second)).saturating_mul(1000);
        match self.level.checked_sub(cost) {
            Some(left) => {
                self.level = left;
                self.lacking = 0;
                true
            }
            None => {
                self.lacking = cost.saturating_sub(self.level);
                false
            }
        }
    }

    /// After how many whole seconds what was last refused would be there, at
    /// least one.
    #[must_use]
    pub fn retry_after_s(&self) -> u64 {
        let per_second = u64::from(self.per_second).saturating_mul(1000);
        self.lacking.div_ceil(per_second.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_second_gives_what_it_may_and_no_more() {
        let mut budget = Budget::new(10);
        let taken = |budget: &mut Budget, at_ms| (0..100).filter(|_| budget.take(at_ms, 1)).count();
        for (at_ms, n) in [
            (5_000, 10),
            (5_000, 0),
            (5_099, 0),
            (5_100, 1),
            (5_050, 0),
            (5_350, 2),
            (5_400, 1),
            (99_000, 10),
            (u64::MAX, 10),
        ] {
            assert_eq!(taken(&mut budget, at_ms), n, "at {at_ms}");
            assert_eq!(budget.retry_after_s(), 1);
        }
    }

    #[test]
    fn what_is_not_there_whole_is_not_taken() {
        let mut budget = Budget::new(0);
        assert!(budget.take(0, 1));
        assert!(!budget.take(0, 2));
        assert!(budget.take(0, 1));
        assert!(!budget.take(0, 1));
        assert!(!budget.take(499, 1));
        assert!(budget.take(500, 1));
        assert!(budget.take(u64::MAX, 9), "all that there ever is");
        assert!(!budget.take(u64::MAX, 9));
        assert_eq!(budget.retry_after_s(), 1);
    }
}
