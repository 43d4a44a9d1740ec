//! An intent: one meter event that Stripe is to have, from its plan to its
//! acceptance.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::{hour::Hour, meter::Meter};

/// After so long without an answer the same identifier is no longer safe:
/// Stripe promises its uniqueness for 24 hours, four are for clocks and queues.
pub const SAME_IDENTIFIER_MS: i64 = 20 * 3_600_000;

/// Where an intent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Planned, never sent.
    Planned,
    /// Sent at least once, without a final answer.
    Sending,
    /// Stripe has it.
    Accepted,
    /// Stripe refused it; the operator decides.
    Held,
    /// Unknown for too long: the summaries must be asked before anything else.
    Reconcile,
}

impl State {
    /// Its name in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Sending => "sending",
            Self::Accepted => "accepted",
            Self::Held => "held",
            Self::Reconcile => "reconcile",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Planned,
            Self::Sending,
            Self::Accepted,
            Self::Held,
            Self::Reconcile,
        ]
        .into_iter()
        .find(|s| s.as_str() == name)
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
    pub meter: Meter,
    /// In which hour.
    pub hour: Hour,
    /// 1 for the first intent of that hour.
    pub revision: i64,
    /// 0, and one more each time that reconciliation proved a loss.
    pub generation: i64,
}

/// The meter event's identifier: the same for every attempt at an intent, and
/// for no other. 45 characters; Stripe allows 100.
#[must_use]
pub fn identifier(key: &Key<'_>) -> String {
    let mut hash = Sha256::new();
    for text in [key.account, key.ledger, key.tenant, key.meter.as_str()] {
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
    },
    /// No answer came: it may or may not have been taken.
    Unanswered,
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Stripe has it.
    Accepted,
    /// Again later, with the same identifier.
    Again,
    /// The operator decides; with the reason.
    Held(String),
    /// Ask the summaries first.
    Reconcile,
}

/// Decides on an attempt at `now_ms` of an intent first tried at
/// `first_attempt_ms`.
#[must_use]
pub fn after(attempt: &Attempt, first_attempt_ms: i64, now_ms: i64) -> Next {
    let again = if now_ms.saturating_sub(first_attempt_ms) < SAME_IDENTIFIER_MS {
        Next::Again
    } else {
        Next::Reconcile
    };
    let Attempt::Answered {
        status,
        message,
        should_retry,
    } = attempt
    else {
        return again;
    };
    match (status, should_retry) {
        (200..=299, _) => Next::Accepted,
        // An earlier attempt was taken, and its answer lost.
        (400, _) if message.starts_with("An event already exists with identifier") => {
            Next::Accepted
        }
        (_, Some(true)) => again,
        (_, Some(false)) => Next::Held(format!("{status}: {message}")),
        (409 | 429 | 500..=599, None) => again,
        _ => Next::Held(format!("{status}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn key() -> Key<'static> {
        Key {
            account: "acct",
            ledger: "0123456789abcdef",
            tenant: "acme",
            meter: Meter::InputTokens,
            hour: Hour(498_611),
            revision: 1,
            generation: 0,
        }
    }

    /// What was sent by one version must be known by the next.
    #[test]
    fn the_identifier_is_golden() {
        assert_eq!(
            identifier(&key()),
            "weir_00bbe7de4a35b3341234ac6608a603dc43452d29"
        );
        assert!(identifier(&key()).len() <= 100);
    }

    #[test]
    fn each_part_makes_another_identifier() {
        let base = identifier(&key());
        for other in [
            Key {
                account: "acc",
                tenant: "tacme",
                ..key()
            },
            Key {
                ledger: "0",
                ..key()
            },
            Key {
                tenant: "b",
                ..key()
            },
            Key {
                meter: Meter::OutputTokens,
                ..key()
            },
            Key {
                hour: Hour(1),
                ..key()
            },
            Key {
                revision: 2,
                ..key()
            },
            Key {
                generation: 1,
                ..key()
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
        };
        assert_eq!(after(&attempt, 0, 1), expected, "{attempt:?}");
    }

    #[test]
    fn answers_are_read_as_stripe_means_them() {
        check(200, "", None, Next::Accepted);
        let exists = "An event already exists with identifier weir_x.";
        check(400, exists, None, Next::Accepted);
        for status in [409, 429, 500, 503] {
            check(status, "", None, Next::Again);
        }
        for status in [400, 401, 402, 403, 404] {
            check(status, "no", None, Next::Held(format!("{status}: no")));
        }
        check(500, "no", Some(false), Next::Held("500: no".into()));
        check(400, "no", Some(true), Next::Again);
    }

    #[test]
    fn an_identifier_is_not_reused_beyond_its_time() {
        let late = SAME_IDENTIFIER_MS;
        assert_eq!(after(&Attempt::Unanswered, 0, late - 1), Next::Again);
        assert_eq!(after(&Attempt::Unanswered, 0, late), Next::Reconcile);
    }

    #[test]
    fn states_keep_their_names() {
        for state in [
            State::Planned,
            State::Sending,
            State::Accepted,
            State::Held,
            State::Reconcile,
        ] {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("x"), None);
    }
}
