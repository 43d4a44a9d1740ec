//! Percentiles, medians and pairs.

/// The median of some values and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle value; of an even count, the mean of the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// The nearest-rank percentile: the least value that `percent` % of all do not
/// exceed. 0 where there are none.
#[must_use]
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    nearest_rank(sorted, percent).unwrap_or(0)
}

/// The same of `values` in any order; NaN where there are none.
#[must_use]
pub fn quantile(values: &[f64], percent: usize) -> f64 {
    nearest_rank(&in_order(values), percent).unwrap_or(f64::NAN)
}

fn nearest_rank<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = sorted
        .len()
        .saturating_mul(percent.min(100))
        .div_ceil(100)
        .max(1);
    sorted.get(rank.saturating_sub(1)).copied()
}

fn in_order(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The spread of `values`; NaN where there are none.
#[must_use]
pub fn spread(values: &[f64]) -> Spread {
    let sorted = in_order(values);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let last = sorted.len().saturating_sub(1);
    Spread {
        // The same value twice where the count is odd.
        median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
        min: at(0),
        max: at(last),
    }
}

/// Compares round by round: `compare(base, other)` for each round that both
/// have.
#[must_use]
pub fn pairs(base: &[f64], other: &[f64], compare: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    base.iter()
        .zip(other)
        .map(|(base, other)| compare(*base, *other))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], median: f64, min: f64, max: f64) {
        assert_eq!(spread(values), Spread { median, min, max });
    }

    #[test]
    fn the_median_is_in_the_middle_in_any_order() {
        check(&[3.0], 3.0, 3.0, 3.0);
        check(&[9.0, 1.0, 2.0], 2.0, 1.0, 9.0);
        check(&[4.0, 1.0, 3.0, 2.0], 2.5, 1.0, 4.0);
        assert!(spread(&[]).median.is_nan());
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let hundred: Vec<u64> = (1..=100).collect();
        for (percent, expected) in [(0, 1), (1, 1), (50, 50), (99, 99), (100, 100), (200, 100)] {
            assert_eq!(percentile(&hundred, percent), expected, "p{percent}");
        }
        assert_eq!(percentile(&[7, 8], 50), 7);
        assert_eq!(percentile(&[7, 8], 99), 8);
        assert_eq!(percentile(&[], 50), 0);
    }

    #[test]
    fn pairs_keep_to_their_round() {
        // The machine doubled its speed between the rounds; the ratio did not
        // change, which medians of each side alone could hide.
        let bare = [100.0, 50.0, 100.0];
        let filters = [160.0, 80.0, 160.0];
        assert_eq!(pairs(&bare, &filters, |a, b| b / a), [1.6, 1.6, 1.6]);
        assert_eq!(pairs(&bare, &filters, |a, b| b - a), [60.0, 30.0, 60.0]);
        assert_eq!(pairs(&bare, &[], |a, b| b - a), [] as [f64; 0]);
    }
}
