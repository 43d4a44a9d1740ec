//! A time as operators write it in a directory: RFC 3339 outside, milliseconds inside.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

const NANOS_PER_MS: i128 = 1_000_000;

/// The last millisecond of the year 9999, which RFC 3339 can still say.
const LAST_MS: u64 = 253_402_300_799_999;

/// Why something is no time of the directory's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be RFC 3339 from 1970 to 9999, such as 2026-11-24T00:00:00Z, found {found:?}")]
pub struct TimestampError {
    /// What was found, its first 40 characters.
    pub found: String,
}

/// A moment: milliseconds of the Unix epoch, UTC, from 1 to the end of the year
/// 9999. 0 is not one, because it says "never" on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment of so many milliseconds; `None` outside of the bounds.
    #[must_use]
    pub fn from_ms(ms: u64) -> Option<Self> {
        (1..=LAST_MS).contains(&ms).then_some(Self(ms))
    }

    /// Reads RFC 3339 with any offset; what is finer than a millisecond is cut.
    ///
    /// # Errors
    /// [`TimestampError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        OffsetDateTime::parse(text, &Rfc3339)
            .ok()
            .and_then(|t| t.unix_timestamp_nanos().checked_div(NANOS_PER_MS))
            .and_then(|ms| u64::try_from(ms).ok())
            .and_then(Self::from_ms)
            .ok_or_else(|| TimestampError {
                found: text.chars().take(40).collect(),
            })
    }

    /// Milliseconds of the Unix epoch, UTC.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = i128::from(self.0)
            .checked_mul(NANOS_PER_MS)
            .and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok())
            .and_then(|time| time.format(&Rfc3339).ok())
            .ok_or(fmt::Error)?;
        f.write_str(&text)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        Self::parse(&text)
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(text: &str, ms: Option<u64>, shown: &str) {
        let found = Timestamp::parse(text);
        assert_eq!(found.as_ref().ok().map(|t| t.ms()), ms, "{text}");
        match found {
            Ok(time) => assert_eq!(time.to_string(), shown),
            Err(error) => assert!(error.to_string().contains(shown), "{error}"),
        }
    }

    #[test]
    fn is_rfc_3339() {
        check("1970-01-01T00:00:01Z", Some(1000), "1970-01-01T00:00:01Z");
        check(
            "1970-01-01T01:00:01.5+01:00",
            Some(1500),
            "1970-01-01T00:00:01.5Z",
        );
        check(
            "1970-01-01T00:00:00.0019Z",
            Some(1),
            "1970-01-01T00:00:00.001Z",
        );
        check(
            "9999-12-31T23:59:59.999Z",
            Some(LAST_MS),
            "9999-12-31T23:59:59.999Z",
        );
        for wrong in [
            "",
            "2026-11-24",
            "2026-13-24T00:00:00Z",
            "90d",
            "1969-12-31T23:59:59Z",
        ] {
            check(wrong, None, &format!("{wrong:?}"));
        }
        check("1970-01-01T00:00:00Z", None, "from 1970");
    }
}
