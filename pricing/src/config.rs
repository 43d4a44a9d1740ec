//! Money as people write it in a configuration: a string or a number, never more
//! digits than a micro-dollar has.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Digits after the point.
const DIGITS: u32 = 6;

/// 10 to the power of [`DIGITS`].
const MILLION: u64 = 1_000_000;

/// The largest markup.
pub const MARKUP_MAX: u64 = 1_000;

/// What tenants pay for each dollar that a provider charges: 0 to 1,000, at most
/// six digits after the point; 1 where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Markup {
    millionths: u64,
}

impl Markup {
    /// Takes 0 to [`MARKUP_MAX`] with at most six digits after the point.
    ///
    /// # Errors
    /// Says what was found and what is allowed.
    pub fn new(markup: Decimal) -> Result<Self, String> {
        let millionths = millionths(markup, MARKUP_MAX).map_err(|why| format!("markup {why}"))?;
        Ok(Self { millionths })
    }

    /// In millionths.
    #[must_use]
    pub fn millionths(self) -> u64 {
        self.millionths
    }
}

impl Default for Markup {
    fn default() -> Self {
        Self {
            millionths: MILLION,
        }
    }
}

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", decimal(self.millionths).normalize())
    }
}

/// Micro-dollars as dollars, with six digits after the point: `12.500000`.
#[must_use]
pub fn dollars(micros: u64) -> String {
    decimal(micros).to_string()
}

fn decimal(millionths: u64) -> Decimal {
    Decimal::from_i128_with_scale(millionths.into(), DIGITS)
}

/// In whole millionths, where it is 0 to `most` of them.
fn millionths(value: Decimal, most: u64) -> Result<u64, String> {
    let wrong = || {
        format!("must be 0 to {most} with at most {DIGITS} digits after the point, found {value}")
    };
    let short = value.normalize();
    let missing = DIGITS.checked_sub(short.scale()).ok_or_else(wrong)?;
    let factor = 10_i128.checked_pow(missing).ok_or_else(wrong)?;
    let millionths = short.mantissa().checked_mul(factor);
    let millionths = millionths.and_then(|n| u64::try_from(n).ok());
    millionths
        .filter(|n| *n <= most.saturating_mul(MILLION))
        .ok_or_else(wrong)
}

/// Reads a string or a number. A number of a document is a double on its way here,
/// whose shortest text is what was written as long as that had 15 digits or fewer,
/// which more than covers what is allowed.
struct Number<T>(&'static str, fn(Decimal) -> Result<T, String>);

impl<T> de::Visitor<'_> for Number<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as a number or a string", self.0)
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<T, E> {
        self.1(n.into()).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<T, E> {
        self.1(n.into()).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, n: f64) -> Result<T, E> {
        self.visit_str(&n.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let value = Decimal::from_str_exact(text)
            .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))?;
        self.1(value).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Markup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number("a markup", Self::new))
    }
}

impl Serialize for Markup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_refusal_says_what_was_found_and_what_is_allowed() {
        let markup = serde_json::from_str::<Markup>("1000.1").unwrap_err();
        assert!(markup.to_string().contains("markup must be 0 to 1000 with"));
        assert!(markup.to_string().contains("found 1000.1"));
    }

    #[test]
    fn a_markup_is_read_and_written() {
        for (json, expected) in [
            ("1.25", 1_250_000),
            ("\"1.25\"", 1_250_000),
            ("0", 0),
            ("1000", 1_000_000_000),
            ("0.000001", 1),
        ] {
            let markup: Markup = serde_json::from_str(json).unwrap();
            assert_eq!(markup.millionths(), expected);
            let again = serde_json::to_string(&markup).unwrap();
            assert_eq!(serde_json::from_str::<Markup>(&again).unwrap(), markup);
        }
        assert_eq!(Markup::default().to_string(), "1");
        for refused in ["1.0000001", "-1", "1001"] {
            assert!(serde_json::from_str::<Markup>(refused).is_err());
        }
    }

    #[test]
    fn micro_dollars_are_shown_as_dollars() {
        assert_eq!(dollars(0), "0.000000");
        assert_eq!(dollars(12_500_000), "12.500000");
        assert_eq!(dollars(u64::MAX), "18446744073709.551615");
    }
}
