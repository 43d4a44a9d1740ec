//! Whole numbers that JSON writes as any number: read exactly, or not at all.

/// The longest number that is looked at, in bytes.
const MAX: usize = 64;

/// The whole number that this JSON number is, as `12`, `12.0` or `1.2e1`; nothing
/// where it has a fraction, does not fit, or is no number.
pub(super) fn whole(text: &str) -> Option<i64> {
    if text.len() > MAX {
        return None;
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa),
    };
    let (int, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{int}{fraction}");
    if int.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let significant = all.trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // Zeros that stand behind the last digit that is none, once the point moved.
    let places = i32::try_from(fraction.len()).ok()?;
    let dropped = i32::try_from(all.len().checked_sub(significant.len())?).ok()?;
    let zeros = exponent.checked_sub(places)?.checked_add(dropped)?;
    let zeros = usize::try_from(zeros).ok().filter(|zeros| *zeros < 20)?;
    format!("{sign}{significant}{:0<zeros$}", "").parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_number_is_read_exactly_or_refused() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("0e99", Some(0)),
            ("25", Some(25)),
            ("25.0", Some(25)),
            ("-25.00", Some(-25)),
            ("2.5e1", Some(25)),
            ("2500E-2", Some(25)),
            ("1e18", Some(1_000_000_000_000_000_000)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9.223372036854775808e18", Some(i64::MIN)),
            // One more than a float of 64 bits can say.
            ("9007199254740993.0", Some(9_007_199_254_740_993)),
            ("9223372036854775808", None),
            ("1e19", None),
            ("1e2000000000", None),
            ("1e99999999999", None),
            ("0.5", None),
            ("25.1", None),
            ("251e-1", None),
            ("", None),
            (".5", None),
            ("-", None),
            ("e5", None),
            ("null", None),
            ("\"25\"", None),
            ("1e", None),
            ("1.2.3", None),
            ("--1", None),
        ] {
            assert_eq!(whole(text), wanted, "{text}");
        }
        assert_eq!(whole(&"1".repeat(MAX + 1)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_way_it_is_written(value: i64, zeros in 0_usize..9, places in 0_usize..9) {
            prop_assert_eq!(whole(&value.to_string()), Some(value));
            let with_zeros = format!("{value}.{:0<zeros$}", "0");
            prop_assert_eq!(whole(&with_zeros), Some(value));
            let raised = format!("{value}{:0<places$}e-{places}", "");
            prop_assert_eq!(whole(&raised), Some(value));
            let fraction = format!("{value}.{:0<places$}1", "");
            prop_assert_eq!(whole(&fraction), None);
        }

        #[test]
        fn nothing_panics(text in ".{0,80}", numeric in "[-+0-9.eE]{0,40}") {
            let _ = whole(&text);
            let _ = whole(&numeric);
        }
    }
}
