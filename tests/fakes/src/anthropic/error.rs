//! Anthropic's error object.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::inference::{
    body::Unreadable,
    faults::Failure,
    params::{Mistake, What},
};

/// A refusal, in the shape in which Anthropic sends it.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: u16,
    kind: &'static str,
    message: String,
    retry_after_s: Option<u64>,
    /// Asked for by a fault, not deserved by the request.
    pub(super) on_demand: bool,
}

impl ApiError {
    /// 400: the message names the field.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::plain(400, message)
    }

    /// 400 for a field at this path.
    pub(super) fn at(path: &str, message: &str) -> Self {
        Self::invalid(format!("{path}: {message}"))
    }

    pub(super) fn missing(path: &str) -> Self {
        Self::at(path, "Field required")
    }

    pub(super) fn no_key() -> Self {
        Self::plain(401, "x-api-key header is required")
    }

    pub(super) fn wrong_key() -> Self {
        Self::plain(401, "invalid x-api-key")
    }

    pub(super) fn unknown_path() -> Self {
        Self::plain(404, "Not found")
    }

    pub(super) fn unknown_model(name: &str) -> Self {
        Self::plain(404, format!("model: {name}"))
    }

    pub(super) fn wrong_method() -> Self {
        Self::plain(405, "Method Not Allowed")
    }

    /// What a fault asked for.
    pub(super) fn fault(status: u16, retry_after_s: Option<u64>) -> Self {
        let message = match status {
            401 => "invalid x-api-key",
            429 => "This request would exceed your organization's rate limit.",
            529 => "Overloaded",
            500.. => "Internal server error",
            _ => "Refused on demand",
        };
        Self {
            retry_after_s,
            on_demand: true,
            ..Self::plain(status, message)
        }
    }

    /// The body, as it also stands in a stream's error event, there without an id.
    pub(super) fn body(&self, request_id: Option<&str>) -> Value {
        let error = json!({"type": self.kind, "message": self.message});
        match request_id {
            Some(id) => json!({"type": "error", "error": error, "request_id": id}),
            None => json!({"type": "error", "error": error}),
        }
    }

    pub(super) fn respond(&self, request_id: &str) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = (status, Json(self.body(Some(request_id)))).into_response();
        if let Some(wait) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        response
    }

    fn plain(status: u16, message: impl Into<String>) -> Self {
        let kind = match status {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        Self {
            status,
            kind,
            message: message.into(),
            retry_after_s: None,
            on_demand: false,
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self::fault(failure.status, failure.retry_after_s)
    }
}

impl From<Mistake> for ApiError {
    fn from(Mistake { path, what }: Mistake) -> Self {
        let message = match what {
            What::Unknown => "Extra inputs are not permitted".to_owned(),
            What::Type(wanted, _) => {
                let wanted = match wanted {
                    "a boolean" => "boolean",
                    "a string" => "string",
                    "an object" => "dictionary",
                    "an array" => "list",
                    "an integer" => "integer",
                    "a decimal" => "number",
                    other => other.trim_start_matches("a "),
                };
                format!("Input should be a valid {wanted}")
            }
            What::NotOneOf(allowed, _) => {
                let quoted: Vec<String> = allowed.iter().map(|one| format!("'{one}'")).collect();
                format!("Input should be {}", quoted.join(" or "))
            }
            What::OutOfRange { below, bound, .. } => {
                let relation = if below { "greater" } else { "less" };
                format!("Input should be {relation} than or equal to {bound}")
            }
        };
        Self::at(&path, &message)
    }
}

impl From<Unreadable> for ApiError {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::ContentType(_) => {
                Self::invalid("content-type: header must be application/json")
            }
            Unreadable::TooLarge(_) => Self::plain(413, "Request exceeds the maximum size"),
            Unreadable::Broken(what) => {
                Self::invalid(format!("The request body is not valid JSON: {what}"))
            }
        }
    }
}
