//! Answers that the router gives itself.

use weir_wire::{error::ApiError, ids::PlanName};

use crate::budget::Month;

/// Headers by name. (Two boxes, for a refusal that has none is moved often.)
pub type Headers = Option<Box<Vec<(&'static str, String)>>>;

/// A status and OpenAI's error object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// For the caller.
    pub error: ApiError,
    /// Headers of the answer, such as when to come again.
    pub headers: Headers,
}

impl Refusal {
    /// What the caller got wrong.
    #[must_use]
    pub fn invalid(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            error: ApiError::new("invalid_request_error", code, message),
            headers: None,
        }
    }

    /// What is no fault of the caller's.
    #[must_use]
    pub fn server(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            error: ApiError::new("server_error", code, message),
            headers: None,
        }
    }

    /// What somebody else said.
    #[must_use]
    pub fn of(status: u16, error: ApiError) -> Self {
        Self {
            status,
            error,
            headers: None,
        }
    }

    /// The same, with a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers
            .get_or_insert_default()
            .push((name, value.to_string()));
        self
    }

    /// The same, to be tried again in so many milliseconds.
    #[must_use]
    pub fn retry_after(self, retry_ms: u64) -> Self {
        self.with("retry-after", retry_ms.div_ceil(1_000).max(1))
    }

    /// 402: the plan's budget of that month is spent. In the words by which OpenAI's
    /// clients know that it is about money.
    #[must_use]
    pub fn budget_exhausted(plan: &PlanName, month: Month) -> Self {
        Self::insufficient_quota(format!(
            "The month's budget of the plan {plan} is spent; the next one begins on {}, in UTC.",
            month.next().first_day()
        ))
    }

    /// 402, in those words.
    #[must_use]
    pub fn insufficient_quota(message: impl Into<String>) -> Self {
        let word = "insufficient_quota";
        Self::of(402, ApiError::new(word, word, message))
    }

    /// The same, naming the parameter at fault.
    #[must_use]
    pub fn at(mut self, param: &str) -> Self {
        self.error = self.error.at(param);
        self
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_spent_budget_says_when_the_next_begins() {
        let plan = PlanName::new("pro").unwrap();
        for (month, day) in [
            (2026 * 12 + 10, "2026-12-01"),
            (2026 * 12 + 11, "2027-01-01"),
            (2027 * 12, "2027-02-01"),
        ] {
            let refusal = Refusal::budget_exhausted(&plan, Month(month));
            assert_eq!(refusal.status, 402);
            let message = &refusal.error.message;
            assert!(message.contains(day), "{message}");
            assert_eq!(refusal.error.code.as_deref(), Some("insufficient_quota"));
        }
    }
}
