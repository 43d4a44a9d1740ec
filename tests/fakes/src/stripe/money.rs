//! Exact money: a unit amount in cents of up to twelve decimal places, times a quantity, rounded once.

/// Decimal places that Stripe allows in `unit_amount_decimal`.
const PLACES: usize = 12;

/// 10 to the power of [`PLACES`].
const SCALE: i128 = 1_000_000_000_000;

/// A price of one unit, in trillionths of the currency's smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnitAmount(i128);

impl UnitAmount {
    /// Whole cents.
    pub(super) fn from_cents(cents: i64) -> Option<Self> {
        i128::from(cents)
            .checked_mul(SCALE)
            .filter(|scaled| *scaled >= 0)
            .map(Self)
    }

    /// A decimal number of cents: digits, and at most twelve more after a point.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || whole.len() > PLACES || fraction.len() > PLACES {
            return None;
        }
        let whole: i128 = whole.parse().ok()?;
        let fraction: i128 = format!("{fraction:0<PLACES$}").parse().ok()?;
        whole.checked_mul(SCALE)?.checked_add(fraction).map(Self)
    }

    /// The cents, where there is no fraction.
    pub(super) fn whole_cents(self) -> Option<i64> {
        let fraction = self.0.checked_rem(SCALE)?;
        if fraction != 0 {
            return None;
        }
        i64::try_from(self.0.checked_div(SCALE)?).ok()
    }

    /// Cents for so many units, rounded half up; nothing where they don't fit.
    pub(super) fn times(self, quantity: i64) -> Option<i64> {
        let exact = self.0.checked_mul(i128::from(quantity))?;
        let rounded = exact
            .checked_add(SCALE.checked_div(2)?)?
            .checked_div_euclid(SCALE)?;
        i64::try_from(rounded).ok()
    }

    /// As Stripe writes `unit_amount_decimal`: no trailing zeros.
    pub(super) fn decimal(self) -> String {
        let whole = self.0.checked_div(SCALE).unwrap_or(0);
        let fraction = self.0.checked_rem(SCALE).unwrap_or(0);
        if fraction == 0 {
            return whole.to_string();
        }
        let fraction = format!("{fraction:0PLACES$}");
        format!("{whole}.{}", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unit: &str, quantity: i64, cents: Option<i64>) {
        let found = UnitAmount::parse(unit).and_then(|unit| unit.times(quantity));
        assert_eq!(found, cents, "{unit} times {quantity}");
    }

    #[test]
    fn amounts_are_exact_and_rounded_half_up() {
        check("0.5", 1, Some(1));
        check("0.5", 3, Some(2));
        check("0.499999999999", 1, Some(0));
        check("0.000015", 33_333, Some(0));
        check("0.000015", 33_334, Some(1));
        check("0.00025", 1_234_567_890, Some(308_642));
        check("0.1", 999_999_999_999_999, Some(100_000_000_000_000));
        check("250", 4, Some(1000));
        check("999999999999", i64::MAX, None);
        for malformed in ["", ".5", "1.", "-1", "1e3", "1.0000000000001", "1,5", "+1"] {
            check(malformed, 1, None);
        }
    }

    #[test]
    fn decimals_are_written_as_stripe_does() {
        for (text, wanted) in [
            ("10", "10"),
            ("0.50", "0.5"),
            ("0.000000000001", "0.000000000001"),
        ] {
            assert_eq!(
                UnitAmount::parse(text).map(UnitAmount::decimal).as_deref(),
                Some(wanted)
            );
        }
        assert_eq!(
            UnitAmount::parse("7.0").and_then(UnitAmount::whole_cents),
            Some(7)
        );
        assert_eq!(
            UnitAmount::parse("7.1").and_then(UnitAmount::whole_cents),
            None
        );
        assert_eq!(UnitAmount::from_cents(7), UnitAmount::parse("7"));
    }
}
