//! Dollars as people write them, whole micro-dollars as programs count them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Micro-dollars in a dollar.
const MICROS: u64 = 1_000_000;

/// The most: a billion dollars.
const DOLLARS_MAX: u64 = 1_000_000_000;

/// The most digits after the point.
const DIGITS_MAX: usize = 6;

/// An amount of dollars to a micro-dollar: 0 to 1,000,000,000. Read from a string or
/// a number with at most six digits after the point, written as a string with at
/// least two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dollars(u64);

/// It is no such amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DollarsError(String);

impl fmt::Display for DollarsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "must be dollars, 0 to {DOLLARS_MAX} with at most {DIGITS_MAX} digits after the point, found {:?}",
            self.0
        )
    }
}

impl std::error::Error for DollarsError {}

/// How much of a wrong amount an error repeats.
const SHOWN_CHARS: usize = 40;

impl Dollars {
    /// So many micro-dollars; `None` beyond a billion dollars.
    #[must_use]
    pub fn from_micros(micros: u64) -> Option<Self> {
        let most = DOLLARS_MAX.saturating_mul(MICROS);
        (micros <= most).then_some(Self(micros))
    }

    /// In micro-dollars; at most 10^15.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }
}

/// Digits alone: no sign, no exponent, at least one.
fn digits(text: &str) -> Option<u64> {
    let are_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    are_digits.then(|| text.parse().ok()).flatten()
}

fn micros(text: &str) -> Option<u64> {
    let (whole, part) = match text.split_once('.') {
        Some((whole, part)) => (whole, Some(part)),
        None => (text, None),
    };
    let part = match part {
        None => 0,
        Some(part) if part.len() <= DIGITS_MAX => {
            let missing = DIGITS_MAX.saturating_sub(part.len());
            let scale = 10_u64.checked_pow(u32::try_from(missing).ok()?)?;
            digits(part)?.checked_mul(scale)?
        }
        Some(_) => return None,
    };
    digits(whole)?.checked_mul(MICROS)?.checked_add(part)
}

impl FromStr for Dollars {
    type Err = DollarsError;

    fn from_str(text: &str) -> Result<Self, DollarsError> {
        micros(text)
            .and_then(Self::from_micros)
            .ok_or_else(|| DollarsError(text.chars().take(SHOWN_CHARS).collect()))
    }
}

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.checked_div(MICROS).unwrap_or_default();
        let part = self.0.checked_rem(MICROS).unwrap_or_default();
        let part = format!("{part:06}");
        let (cents, rest) = part.split_at_checked(2).unwrap_or((&part, ""));
        write!(f, "{whole}.{cents}{}", rest.trim_end_matches('0'))
    }
}

impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Visitor)
    }
}

struct Visitor;

impl Visitor {
    fn read<E: de::Error>(text: &str) -> Result<Dollars, E> {
        text.parse().map_err(E::custom)
    }
}

impl de::Visitor<'_> for Visitor {
    type Value = Dollars;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dollars, as a number or a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Dollars, E> {
        Self::read(text)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Dollars, E> {
        Self::read(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Dollars, E> {
        Self::read(&number.to_string())
    }

    // The shortest decimal that is this number is what was written, for amounts of
    // up to fifteen digits; nothing is calculated with it.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Dollars, E> {
        Self::read(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(json: &str, micros: u64, shown: &str) {
        let read: Dollars = serde_json::from_str(json).unwrap();
        assert_eq!((read.micros(), read.to_string().as_str()), (micros, shown));
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(written, format!("\"{shown}\""));
    }

    #[test]
    fn dollars_are_read_as_they_are_written() {
        check("500", 500_000_000, "500.00");
        check("12.5", 12_500_000, "12.50");
        check("\"12.50\"", 12_500_000, "12.50");
        check("0.000001", 1, "0.000001");
        check("\"0\"", 0, "0.00");
        check("0.1", 100_000, "0.10");
        check("1.005", 1_005_000, "1.005");
        check("999999999.123456", 999_999_999_123_456, "999999999.123456");
        check("1000000000", 1_000_000_000_000_000, "1000000000.00");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for wrong in [
            "-1",
            "1000000000.1",
            "1000000001",
            "0.0000001",
            "\"1.\"",
            "\".5\"",
            "\"\"",
            "\"1e3\"",
            "\"+1\"",
            "\" 1\"",
            "\"1,5\"",
            "\"$5\"",
            "\"1.2.3\"",
            "18446744073709551615",
            "1e300",
            "true",
            "null",
        ] {
            let error = serde_json::from_str::<Dollars>(wrong).unwrap_err();
            assert!(error.to_string().contains("dollars"), "{wrong}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn each_amount_comes_back(micros in 0..=1_000_000_000_000_000_u64) {
            let dollars = Dollars::from_micros(micros).unwrap();
            prop_assert_eq!(dollars.to_string().parse::<Dollars>().unwrap(), dollars);
            let json = serde_json::to_string(&dollars).unwrap();
            prop_assert_eq!(serde_json::from_str::<Dollars>(&json).unwrap(), dollars);
        }

        #[test]
        fn numbers_are_exact(micros in 0..1_000_000_000_000_000_u64) {
            let dollars = Dollars::from_micros(micros).unwrap();
            prop_assert_eq!(serde_json::from_str::<Dollars>(&dollars.to_string()).unwrap(), dollars);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,20}|[0-9.]{0,30}") {
            let _ = text.parse::<Dollars>();
        }
    }
}
