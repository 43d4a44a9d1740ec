//! What happened lately: two counts over a sliding window, in buckets.

use std::collections::VecDeque;

/// Buckets of a window: what leaves it leaves a tenth of it at once.
const BUCKETS: u64 = 10;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Its time by the length of a bucket.
    number: u64,
    counts: (u64, u64),
}

/// Two counts over a window that slides with the clock by a tenth of itself.
#[derive(Debug, Clone)]
pub struct Window {
    bucket_ms: u64,
    buckets: VecDeque<Bucket>,
}

impl Window {
    /// One that is empty, so many milliseconds long.
    #[must_use]
    pub fn new(window_ms: u64) -> Self {
        Self {
            bucket_ms: window_ms.div_ceil(BUCKETS).max(1),
            buckets: VecDeque::new(),
        }
    }

    /// Counts more of both.
    pub fn add(&mut self, now_ms: u64, one: u64, other: u64) {
        let number = self.slide(now_ms);
        match self.buckets.back_mut() {
            // A clock that went back counts with what is there.
            Some(last) if last.number >= number => {
                let (a, b) = last.counts;
                last.counts = (a.saturating_add(one), b.saturating_add(other));
            }
            _ => self.buckets.push_back(Bucket {
                number,
                counts: (one, other),
            }),
        }
    }

    /// Both counts of the window that ends now.
    pub fn sums(&mut self, now_ms: u64) -> (u64, u64) {
        self.slide(now_ms);
        let counts = self.buckets.iter().map(|bucket| bucket.counts);
        counts.fold((0, 0), |(a, b), (one, other)| {
            (a.saturating_add(one), b.saturating_add(other))
        })
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.clear();
    }

    /// Forgets what is over; gives the number of the bucket of now.
    fn slide(&mut self, now_ms: u64) -> u64 {
        let number = now_ms.checked_div(self.bucket_ms).unwrap_or_default();
        let is_over = |bucket: &Bucket| bucket.number.saturating_add(BUCKETS) <= number;
        while self.buckets.front().is_some_and(is_over) {
            self.buckets.pop_front();
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn what_is_over_is_forgotten() {
        let mut window = Window::new(100);
        window.add(0, 1, 1);
        window.add(55, 2, 0);
        assert_eq!(window.sums(99), (3, 1));
        assert_eq!(window.sums(100), (2, 0));
        window.add(90, 1, 0);
        assert_eq!(window.sums(149), (3, 0));
        assert_eq!(window.sums(1_000), (0, 0));
        window.add(1_000, 1, 1);
        window.clear();
        assert_eq!(window.sums(1_000), (0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// All of the last nine tenths counts, and nothing older than the window.
        #[test]
        fn the_window_is_as_long_as_it_says(
            gaps in prop::collection::vec(0..40_u64, 1..60),
            window_ms in 1..200_u64,
        ) {
            let mut window = Window::new(window_ms);
            let mut times = Vec::new();
            let mut now = 0;
            for gap in gaps {
                now += gap;
                window.add(now, 1, 2);
                times.push(now);
                let bucket = window_ms.div_ceil(10);
                let within = |most| times.iter().filter(|t| now - **t < most).count() as u64;
                let (one, other) = window.sums(now);
                prop_assert!(within(bucket * 9) <= one && one <= within(bucket * 10));
                prop_assert_eq!(other, one * 2);
                prop_assert!(window.buckets.len() <= 10);
            }
        }
    }
}
