//! A length of time as people write it: `90d`, `24h`, `30m`, `10s`, `2w`.

use std::str::FromStr;

use anyhow::Context as _;
use weir_wire::timestamp::Timestamp;

/// Whole seconds, at least 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(u64);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = text.chars().next_back();
        let seconds = match unit {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => 0,
        };
        let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        number
            .parse::<u64>()
            .ok()
            .filter(|_| digits && seconds > 0)
            .and_then(|number| number.checked_mul(seconds))
            .map(Self)
            .ok_or_else(|| {
                format!("must be a number and one of s m h d w, such as 24h, found {text:?}")
            })
    }
}

impl Span {
    /// How long it is.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// That long after `now`, in whole seconds.
    pub fn after(self, now: Timestamp) -> anyhow::Result<Timestamp> {
        self.0
            .checked_mul(1000)
            .and_then(|ms| now.ms().checked_add(ms))
            .and_then(Timestamp::from_ms)
            .with_context(|| format!("{} seconds from now are beyond the year 9999", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_numbers_with_a_unit() {
        for (text, seconds) in [
            ("0s", 0),
            ("30m", 1800),
            ("24h", 86_400),
            ("90d", 7_776_000),
            ("2w", 1_209_600),
        ] {
            assert_eq!(text.parse(), Ok(Span(seconds)), "{text}");
        }
        for wrong in [
            "",
            "d",
            "90",
            "-1d",
            "+1d",
            "1.5h",
            "1y",
            "1é",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            let error = wrong.parse::<Span>().unwrap_err();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
        let late = Span(u64::MAX / 1000).after(Timestamp::from_ms(1).unwrap());
        assert!(late.unwrap_err().to_string().contains("9999"));
    }
}
