//! An intent: one meter event that Stripe is to have, from its plan to Stripe's own
//! word that it counts.
//!
//! ```text
//! planned ─▶ sending ─▶ accepted ─▶ confirmed
//!    ▲          │  └──▶ reconcile ─▶ confirmed, planned (next generation), expired
//!    │          └─────▶ held                     or quarantined
//!    └── retry ── held, quarantined ─▶ cancelled, confirmed: the operator's word
//! quarantined ─▶ confirmed: the sums have it after all
//! planned, sending, held ─▶ expired: near 35 days, where Stripe surely does not have
//!                it; it is carried forward. Else ─▶ reconcile
//! accepted ─▶ quarantined: taken, and not in Stripe's sums
//! confirmed ─▶ accepted: asked about again, where Stripe complains of its meter
//! ```

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::{hour::Hour, meter::Meter};

/// Where an intent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Planned, not sent under this identifier.
    Planned,
    /// Sent at least once, without a final answer.
    Sending,
    /// Stripe said that it took it.
    Accepted,
    /// Stripe's sums have it.
    Confirmed,
    /// Stripe refused it; the operator decides.
    Held,
    /// Unknown for too long: the summaries must be asked before anything else.
    Reconcile,
    /// The summaries do not tell whether Stripe has it, or say that it was taken and
    /// does not count; the operator decides.
    Quarantined,
    /// Too old to be sent under its own time; what it was for is carried forward.
    Expired,
    /// The operator decided that Stripe is not to have it.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Planned,
        Self::Sending,
        Self::Accepted,
        Self::Confirmed,
        Self::Held,
        Self::Reconcile,
        Self::Quarantined,
        Self::Expired,
        Self::Cancelled,
    ];

    /// Its name in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Sending => "sending",
            Self::Accepted => "accepted",
            Self::Confirmed => "confirmed",
            Self::Held => "held",
            Self::Reconcile => "reconcile",
            Self::Quarantined => "quarantined",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == name)
    }

    /// Whether its end is open, so that nothing more of its bucket is planned.
    #[must_use]
    pub fn is_open(self) -> bool {
        match self {
            Self::Planned | Self::Sending | Self::Held | Self::Reconcile | Self::Quarantined => {
                true
            }
            Self::Accepted | Self::Confirmed | Self::Expired | Self::Cancelled => false,
        }
    }

    /// Whether Stripe has it, as far as it said.
    #[must_use]
    pub fn is_at_stripe(self) -> bool {
        matches!(self, Self::Accepted | Self::Confirmed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What makes an intent this one and no other.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// The Stripe account, as the operator names it.
    pub account: &'a str,
    /// The ledger's own id: one that was begun anew counts its revisions from
    /// the start again, and must not meet the names that another one gave.
    pub ledger: &'a str,
    /// Whose.
    pub tenant: &'a str,
    /// On which meter.
    pub meter: &'a Meter,
    /// In which hour.
    pub hour: Hour,
    /// 1 for the first intent of that hour.
    pub revision: i64,
    /// 0, and one more each time that it was proved or decided to be lost.
    pub generation: i64,
}

/// The meter event's identifier: the same for every attempt at an intent, and
/// for no other. 45 characters; Stripe allows 100.
#[must_use]
pub fn identifier(key: &Key<'_>) -> String {
    let mut hash = Sha256::new();
    let meter = key.meter.to_string();
    for text in [key.account, key.ledger, key.tenant, &meter] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    for number in [key.hour.0, key.revision, key.generation] {
        hash.update(number.to_le_bytes());
    }
    let digest = hash.finalize();
    let mut out = String::from("weir_");
    for byte in digest.iter().take(20) {
        out.push_str(&format!("{byte:02x}"));
    }
    out
}

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// Stripe answered.
    Answered {
        /// HTTP status.
        status: u16,
        /// `error.message`, where there is one.
        message: String,
        /// The `Stripe-Should-Retry` header.
        should_retry: Option<bool>,
        /// The `Retry-After` header, milliseconds.
        retry_after_ms: Option<i64>,
    },
    /// No answer came: it may or may not have been taken.
    Unanswered,
}

/// What an attempt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Stripe has it.
    Accepted,
    /// Again, with the same identifier; it may have been taken.
    Unknown,
    /// Again, with the same identifier; it was not taken.
    NotYet,
    /// It may have been taken, and Stripe wants no further attempt: ask the summaries.
    Reconcile,
    /// It was not taken and will not be; the operator decides. With the reason.
    Held(String),
}

/// Reads an attempt as Stripe means it.
#[must_use]
pub fn after(attempt: &Attempt) -> Next {
    let Attempt::Answered {
        status,
        message,
        should_retry,
        ..
    } = attempt
    else {
        return Next::Unknown;
    };
    let held = || Next::Held(format!("{status}: {message}"));
    match (status, should_retry) {
        (200..=299, _) => Next::Accepted,
        // An earlier attempt was taken, and its answer lost.
        (400, _) if message.starts_with("An event already exists with identifier") => {
            Next::Accepted
        }
        (429, Some(false)) => held(),
        // A key that is no good is so for all, and is mended for all.
        (401 | 403 | 429, _) => Next::NotYet,
        // Stripe's header says whether to ask again, not whether it was taken.
        (409 | 500..=599, Some(false)) => Next::Reconcile,
        (409 | 500..=599, _) => Next::Unknown,
        (_, Some(true)) => Next::NotYet,
        _ => held(),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::meter::Dimension;

    /// What was sent by one version must be known by the next.
    #[test]
    fn the_identifier_is_golden_and_each_part_makes_another() {
        let (input, output) = (
            Meter::of(Dimension::InputTokens),
            Meter::of(Dimension::OutputTokens),
        );
        let key = Key {
            account: "acct",
            ledger: "0123456789abcdef",
            tenant: "acme",
            meter: &input,
            hour: Hour(498_611),
            revision: 1,
            generation: 0,
        };
        let base = identifier(&key);
        assert_eq!(base, "weir_00bbe7de4a35b3341234ac6608a603dc43452d29");
        for other in [
            Key {
                account: "acc",
                tenant: "tacme",
                ..key
            },
            Key { ledger: "0", ..key },
            Key { tenant: "b", ..key },
            Key {
                meter: &output,
                ..key
            },
            Key {
                hour: Hour(1),
                ..key
            },
            Key { revision: 2, ..key },
            Key {
                generation: 1,
                ..key
            },
        ] {
            assert_ne!(identifier(&other), base, "{other:?}");
        }
    }

    #[track_caller]
    fn check(status: u16, message: &str, should_retry: Option<bool>, expected: Next) {
        let attempt = Attempt::Answered {
            status,
            message: message.into(),
            should_retry,
            retry_after_ms: None,
        };
        assert_eq!(after(&attempt), expected, "{attempt:?}");
    }

    #[test]
    fn answers_are_read_as_stripe_means_them() {
        check(200, "", None, Next::Accepted);
        let exists = "An event already exists with identifier weir_x.";
        check(400, exists, None, Next::Accepted);
        for status in [409, 500, 503] {
            check(status, "", None, Next::Unknown);
            check(status, "", Some(true), Next::Unknown);
            check(status, "", Some(false), Next::Reconcile);
        }
        check(429, "", None, Next::NotYet);
        check(429, "", Some(false), Next::Held("429: ".into()));
        for status in [401, 403] {
            check(status, "no", None, Next::NotYet);
        }
        for status in [400, 402, 404] {
            check(status, "no", None, Next::Held(format!("{status}: no")));
        }
        check(400, "no", Some(true), Next::NotYet);
        assert_eq!(after(&Attempt::Unanswered), Next::Unknown);
    }

    #[test]
    fn states_keep_their_names() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("x"), None);
    }
}
