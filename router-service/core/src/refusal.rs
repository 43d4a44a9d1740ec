//! Answers that the router gives itself.

use weir_wire::error::ApiError;

/// A status and OpenAI's error object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// For the caller.
    pub error: ApiError,
}

impl Refusal {
    /// What the caller got wrong.
    #[must_use]
    pub fn invalid(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            error: ApiError::new("invalid_request_error", code, message),
        }
    }

    /// What is no fault of the caller's.
    #[must_use]
    pub fn server(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            error: ApiError::new("server_error", code, message),
        }
    }

    /// The same, naming the parameter at fault.
    #[must_use]
    pub fn at(mut self, param: &str) -> Self {
        self.error = self.error.at(param);
        self
    }
}
