//! How long a provider wants to be left alone, as its answers say it.

use weir_wire::timestamp::Timestamp;

/// The longest wait that is believed at all: a day, in milliseconds.
const WAIT_MAX_MS: u64 = 86_400_000;

/// Months as HTTP dates write them.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Days of the week, the same.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// What `Retry-After` says, in milliseconds from now, at most a day: seconds or a
/// date (RFC 9110, section 10.2.3). Of dates the one form that is written today,
/// IMF-fixdate (section 5.6.7). `now_ms` is Unix time; a date that is over is 0.
/// `None` for anything else.
#[must_use]
pub fn parse_retry_after(value: &str, now_ms: u64) -> Option<u64> {
    let value = value.trim_ascii();
    let wait_ms = match thousandths(value) {
        Some(ms) => ms,
        None => date(value)?.saturating_sub(now_ms),
    };
    Some(wait_ms.min(WAIT_MAX_MS))
}

/// What OpenAI's and Anthropic's header for milliseconds says, at most a day. It is
/// finer than `Retry-After` and comes before it, as in their clients.
#[must_use]
pub fn parse_retry_after_ms(value: &str) -> Option<u64> {
    let whole = thousandths(value.trim_ascii())?.div_ceil(1_000);
    Some(whole.min(WAIT_MAX_MS))
}

/// A number with or without digits after the point, in thousandths, rounded up.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| {
        !digits.is_empty() && digits.len() <= 18 && digits.bytes().all(|b| b.is_ascii_digit())
    };
    if !is_number(whole) || !is_number(part) {
        return None;
    }
    let (kept, rest) = part.split_at_checked(3).unwrap_or((part, ""));
    let kept: u64 = format!("{kept:0<3}").parse().ok()?;
    let more = u64::from(rest.bytes().any(|b| b != b'0'));
    let whole: u64 = whole.parse().ok()?;
    let ms = whole.saturating_mul(1_000).saturating_add(kept);
    Some(ms.saturating_add(more))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in milliseconds of the Unix epoch.
fn date(text: &str) -> Option<u64> {
    let (day_name, rest) = text.split_once(", ")?;
    if !DAYS.contains(&day_name) {
        return None;
    }
    let mut parts = rest.split(' ');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let (time, zone) = (parts.next()?, parts.next()?);
    if zone != "GMT" || parts.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|m| *m == month)?.checked_add(1)?;
    // The same moment in the form that there is a reader for.
    let text = format!("{year}-{month:02}-{day}T{time}Z");
    let read = Timestamp::parse(&text).ok()?;
    Some(read.ms())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// 06 Nov 1994 08:49:37 GMT, in milliseconds.
    const THEN: u64 = 784_111_777_000;

    #[test]
    fn seconds_and_dates_are_read() {
        for (value, now_ms, expected) in [
            ("0", 0, Some(0)),
            ("120", 0, Some(120_000)),
            (" 7 ", 0, Some(7_000)),
            ("1.5", 0, Some(1_500)),
            ("0.0001", 0, Some(1)),
            ("99999999999999", 0, Some(86_400_000)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", THEN - 2_500, Some(2_500)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", THEN, Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", THEN + 1, Some(0)),
            ("Thu, 01 Jan 1970 00:00:01 GMT", 0, Some(1_000)),
            ("Fri, 31 Dec 2100 23:59:59 GMT", THEN, Some(86_400_000)),
            ("", 0, None),
            ("-1", 0, None),
            ("1e3", 0, None),
            ("1.", 0, None),
            (".5", 0, None),
            ("soon", 0, None),
            ("1, 2", 0, None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 0, None),
            ("Sun Nov  6 08:49:37 1994", 0, None),
            ("Sun, 06 Nov 1994 08:49:37 CET", 0, None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", 0, None),
            ("Sun, 06 Nov 1994 25:49:37 GMT", 0, None),
            ("Sun, 06 Nov 1994 08:49:37 GMT x", 0, None),
            ("Son, 06 Nov 1994 08:49:37 GMT", 0, None),
        ] {
            assert_eq!(parse_retry_after(value, now_ms), expected, "{value:?}");
        }
    }

    #[test]
    fn milliseconds_are_read() {
        for (value, expected) in [
            ("0", Some(0)),
            ("250", Some(250)),
            ("250.4", Some(251)),
            ("99999999999999", Some(86_400_000)),
            ("1s", None),
            ("", None),
        ] {
            assert_eq!(parse_retry_after_ms(value), expected, "{value:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_value_panics(value in "\\PC{0,40}|[0-9.]{0,40}|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} \\PC{0,20}") {
            let _ = parse_retry_after(&value, THEN);
            let _ = parse_retry_after_ms(&value);
        }
    }
}
