//! Months of the calendar, in UTC.

use std::fmt;

use time::OffsetDateTime;

/// A month of the calendar, in UTC: months since January of the year 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(pub u32);

impl Month {
    /// The month of a time, in milliseconds of the Unix epoch. Of what is no year
    /// from 1970 to 9999, the nearest one.
    #[must_use]
    pub fn of_ms(time_ms: i64) -> Self {
        let time_s = (time_ms / 1_000).max(0);
        let last = (9_999, 12);
        let (year, month) = OffsetDateTime::from_unix_timestamp(time_s)
            .map_or(last, |at| (at.year(), u8::from(at.month())));
        let months = u32::try_from(year).unwrap_or(0).saturating_mul(12);
        Self(months.saturating_add(u32::from(month).saturating_sub(1)))
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Its first day, `2026-12-01`.
    #[must_use]
    pub fn first_day(self) -> String {
        format!("{self}-01")
    }

    /// The month before.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// As in `2026-11`.
impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let month = (self.0 % 12).saturating_add(1);
        write!(f, "{:04}-{month:02}", self.0 / 12)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn months_end_where_the_calendar_says() {
        for (time_ms, expected) in [
            (i64::MIN, "1970-01"),
            (-1, "1970-01"),
            (0, "1970-01"),
            (1_795_725_600_000, "2026-11"),
            (1_796_083_199_999, "2026-11"),
            (1_796_083_200_000, "2026-12"),
            (1_798_761_599_999, "2026-12"),
            (1_798_761_600_000, "2027-01"),
            (1_835_395_199_999, "2028-02"),
            (1_835_481_600_000, "2028-03"),
            (i64::MAX, "9999-12"),
        ] {
            assert_eq!(Month::of_ms(time_ms).to_string(), expected, "{time_ms}");
        }
        let january = Month::of_ms(1_798_761_600_000);
        assert_eq!(january.before().to_string(), "2026-12");
    }
}
