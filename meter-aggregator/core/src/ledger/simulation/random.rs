//! Chance, from a seed: SplitMix64 (Steele, Lea and Flood, 2014).

/// A source of numbers that a seed decides.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `from..to`.
    pub fn within(&mut self, from: i64, to: i64) -> i64 {
        let span = u64::try_from(to - from).expect("a range that is not empty");
        from + i64::try_from(self.next() % span).unwrap()
    }

    /// True `permille` times of a thousand.
    pub fn chance(&mut self, permille: i64) -> bool {
        self.within(0, 1_000) < permille
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap()
    }

    /// A span of time, milliseconds: mostly short, at the most `most_ms`.
    pub fn pause_ms(&mut self, most_ms: i64) -> i64 {
        let most = match self.within(0, 100) {
            0..50 => 60_000,
            50..80 => 1_200_000,
            80..95 => 3 * super::HOUR_MS,
            95..99 => 24 * super::HOUR_MS,
            _ => 60 * super::HOUR_MS,
        };
        self.within(1, most.min(most_ms) + 1)
    }
}
