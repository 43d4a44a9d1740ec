//! Faults on demand: what goes wrong, at which path, and how often.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

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
    /// Do the work, then answer with this error.
    pub accept_then_status: Option<u16>,
    /// Adds `Stripe-Should-Retry`.
    pub should_retry: Option<bool>,
    /// Adds `Retry-After`, in seconds.
    pub retry_after_s: Option<u64>,
}

impl Fault {
    /// Says what is wrong with it, naming the field.
    ///
    /// # Errors
    /// Fails where a value is out of range or fields exclude each other.
    pub fn validate(&self) -> Result<(), String> {
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
            self.accept_then_status.is_some(),
        ];
        if ways.iter().filter(|way| **way).count() > 1 {
            return Err(
                "status, accept_then_drop and accept_then_status exclude each other".to_owned(),
            );
        }
        if self.times == Some(0) {
            return Err("times is 0; it must be 1 or more, or absent".to_owned());
        }
        Ok(())
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        self.path.as_deref().is_none_or(|wanted| wanted == path)
            && self
                .method
                .as_deref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
    }
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    pub(super) fn add(&self, fault: Fault) {
        self.lock().push(fault);
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        self.lock().clone()
    }

    /// The fault that acts on this request; counts it.
    pub(super) fn take(&self, method: &str, path: &str) -> Fault {
        let mut faults = self.lock();
        let Some(index) = faults.iter().position(|fault| fault.matches(method, path)) else {
            return Fault::default();
        };
        let Some(fault) = faults.get_mut(index) else {
            return Fault::default();
        };
        fault.times = fault.times.map(|times| times.saturating_sub(1));
        let taken = fault.clone();
        if taken.times == Some(0) {
            faults.remove(index);
        }
        taken
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
