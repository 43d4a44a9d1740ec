//! Answers that refuse.

use weir_dialects::json::Broken;
use weir_wire::error::ApiError;

/// An answer that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// HTTP status.
    pub status: u32,
    /// For the caller.
    pub error: ApiError,
    /// The `allow` header of a 405.
    pub allow: Option<&'static str>,
}

impl Denial {
    fn new(status: u32, code: &str, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            status,
            error: ApiError::new("invalid_request_error", code, message),
            allow: None,
        })
    }

    fn at(mut self: Box<Self>, param: &str) -> Box<Self> {
        self.error = self.error.at(param);
        self
    }

    pub(crate) fn unknown_url(method: &str, path: &str) -> Box<Self> {
        let message = format!("Invalid URL ({method} {}).", shown(path));
        Self::new(404, "unknown_url", message)
    }

    pub(crate) fn method_not_allowed(method: &str, path: &str, allow: &'static str) -> Box<Self> {
        let message = format!("Not allowed to {method} on {}.", shown(path));
        let mut denial = Self::new(405, "method_not_allowed", message);
        denial.allow = Some(allow);
        denial
    }

    pub(crate) fn no_length() -> Box<Self> {
        let message = "The header content-length is no number.";
        Self::new(400, "invalid_header", message)
    }

    /// A body has more bytes than that.
    #[must_use]
    pub fn too_large(max_bytes: u64) -> Box<Self> {
        let message = format!("The request body exceeds {max_bytes} bytes.");
        Self::new(413, "request_too_large", message)
    }

    pub(crate) fn invalid_json(broken: Broken) -> Box<Self> {
        let message = format!("The request body is no JSON: {broken}.");
        Self::new(400, "invalid_json", message)
    }

    pub(crate) fn no_object() -> Box<Self> {
        let message = "The request body must be a JSON object.";
        Self::new(400, "invalid_json", message)
    }

    pub(crate) fn wrong_type(param: &str, due: &str) -> Box<Self> {
        let message = format!("The parameter {param} must be {due}.");
        Self::new(400, "invalid_type", message).at(param)
    }

    /// What comes twice can be read in two ways: the gateway's and the upstream's.
    pub(crate) fn twice(pointer: &str) -> Box<Self> {
        let param = pointer.trim_start_matches('/').replace('/', ".");
        let message = format!("The parameter {param} is there twice.");
        Self::new(400, "invalid_json", message).at(&param)
    }

    pub(crate) fn not_served(param: &str) -> Box<Self> {
        let message = format!("The parameter {param} is not supported here.");
        Self::new(400, "unsupported_parameter", message).at(param)
    }

    pub(crate) fn unreadable() -> Box<Self> {
        let message =
            "The request body can't be read: it has a content-encoding, or is not kept in memory.";
        Self::new(415, "unsupported_content_encoding", message)
    }
}

/// The path without its query, as far as it makes sense to repeat it.
fn shown(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    path.chars().take(100).collect()
}
