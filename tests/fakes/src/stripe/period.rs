//! Billing periods: steps of days, weeks, months or years from an anchor.

use chrono::{DateTime, Months};

/// Seconds in a day.
const DAY_S: i64 = 86_400;

/// A length of a billing period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interval {
    Days(u32),
    Months(u32),
}

impl Interval {
    /// From Stripe's words, of which the price was checked to have one.
    pub(super) fn new(interval: &str, count: u32) -> Self {
        match interval {
            "day" => Self::Days(count),
            "week" => Self::Days(count.saturating_mul(7)),
            "year" => Self::Months(count.saturating_mul(12)),
            _ => Self::Months(count),
        }
    }

    /// `anchor` and so many steps. A month that is too short ends on its last
    /// day, and the next one is again counted from the anchor's day.
    pub(super) fn step(self, anchor: i64, steps: u32) -> i64 {
        match self {
            Self::Days(days) => {
                let days = i64::from(days.saturating_mul(steps));
                anchor.saturating_add(days.saturating_mul(DAY_S))
            }
            Self::Months(months) => DateTime::from_timestamp(anchor, 0)
                .and_then(|at| at.checked_add_months(Months::new(months.saturating_mul(steps))))
                .map_or(i64::MAX, |at| at.timestamp()),
        }
    }

    /// The period `[start, end)` from `anchor` on that `now` is in.
    pub(super) fn current(self, anchor: i64, now: i64) -> (i64, i64) {
        let mut steps: u32 = 0;
        let mut start = anchor;
        loop {
            steps = steps.saturating_add(1);
            let end = self.step(anchor, steps);
            if end > now || end <= start {
                return (start, end);
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        format!("{text}T00:00:00Z")
            .parse::<DateTime<chrono::Utc>>()
            .unwrap()
            .timestamp()
    }

    #[test]
    fn months_are_counted_from_the_anchor() {
        for (anchor, now, start, end) in [
            ("2026-01-31", "2026-02-10", "2026-01-31", "2026-02-28"),
            ("2026-01-31", "2026-02-28", "2026-02-28", "2026-03-31"),
            ("2026-11-01", "2027-01-15", "2027-01-01", "2027-02-01"),
        ] {
            let found = Interval::new("month", 1).current(at(anchor), at(now));
            assert_eq!(found, (at(start), at(end)), "{anchor} at {now}");
        }
        let found = Interval::new("week", 2).current(at("2026-11-01"), at("2026-11-15"));
        assert_eq!(found, (at("2026-11-15"), at("2026-11-29")));
    }
}
