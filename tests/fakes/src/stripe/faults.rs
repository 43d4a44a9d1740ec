//! Faults on demand: what goes wrong, at which path, and how often.

use serde::{Deserialize, Serialize};

use crate::control;

/// One fault. Of several that match a request, the oldest acts, alone.
///
/// A replayed idempotent answer and a request that is refused before it is
/// carried out use up none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Acts on this path only.
    pub path: Option<String>,
    /// Acts on this method only.
    pub method: Option<String>,
    /// How many requests it acts on; all of them until cleared where absent.
    pub times: Option<u64>,
    /// Wait before the work; it is done even if the client leaves meanwhile.
    pub delay_ms: Option<u64>,
    /// Answer with this error, 400 to 599, instead of doing the work.
    pub status: Option<u16>,
    /// Do the work, then cut the connection without an answer.
    pub accept_then_drop: bool,
    /// Answer as if a meter event was accepted, and never count it; its identifier stays taken.
    pub accept_then_lose: bool,
    /// Do the work, then answer with this error.
    pub accept_then_status: Option<u16>,
    /// Adds `Stripe-Should-Retry`.
    pub should_retry: Option<bool>,
    /// Adds `Retry-After`, in seconds.
    pub retry_after_s: Option<u64>,
}

impl control::Fault for Fault {
    fn validate(&self) -> Result<(), String> {
        for (name, status) in [
            ("status", self.status),
            ("accept_then_status", self.accept_then_status),
        ] {
            if let Some(status) = status.filter(|status| !(400..=599).contains(status)) {
                return Err(format!("{name} is {status}; it must be 400 to 599"));
            }
        }
        let ways = [
            self.status.is_some(),
            self.accept_then_drop,
            self.accept_then_lose,
            self.accept_then_status.is_some(),
        ];
        if ways.iter().filter(|way| **way).count() > 1 {
            return Err(
                "status, accept_then_drop, accept_then_lose and accept_then_status exclude each other".to_owned(),
            );
        }
        if self.times == Some(0) {
            return Err("times is 0; it must be 1 or more, or absent".to_owned());
        }
        Ok(())
    }

    fn times(&mut self) -> &mut Option<u64> {
        &mut self.times
    }
}

impl Fault {
    /// Whether it acts on this request.
    pub(super) fn matches(&self, method: &str, path: &str) -> bool {
        self.path.as_deref().is_none_or(|wanted| wanted == path)
            && self
                .method
                .as_deref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
    }
}
