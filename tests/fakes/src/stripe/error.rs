//! Stripe's error object.

use serde_json::{Map, Value, json};

/// A refusal, in the shape in which Stripe sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StripeError {
    pub(super) status: u16,
    kind: &'static str,
    code: Option<&'static str>,
    message: String,
    param: Option<String>,
    /// The name under which `/__fake/state` counts it.
    pub(super) reason: &'static str,
    /// Whether the request got as far as being carried out: only then does
    /// Stripe keep the answer for its idempotency key.
    pub(super) executed: bool,
}

impl StripeError {
    /// 400 while carrying a request out, with a code.
    pub(super) fn invalid(code: &'static str, param: &str, message: String) -> Self {
        Self {
            code: Some(code),
            param: Some(param.to_owned()),
            executed: true,
            ..Self::plain(400, code, message)
        }
    }

    /// 400 while carrying a request out, without a code.
    pub(super) fn refused(reason: &'static str, param: &str, message: String) -> Self {
        Self {
            code: None,
            ..Self::invalid(reason, param, message)
        }
    }

    /// 400 before the request is carried out.
    pub(super) fn parameter(code: &'static str, param: &str, message: String) -> Self {
        Self {
            executed: false,
            ..Self::invalid(code, param, message)
        }
    }

    pub(super) fn unknown(param: &str) -> Self {
        Self::parameter(
            "parameter_unknown",
            param,
            format!("Received unknown parameter: {param}"),
        )
    }

    pub(super) fn missing(param: &str) -> Self {
        Self::parameter(
            "parameter_missing",
            param,
            format!("Missing required param: {param}."),
        )
    }

    pub(super) fn empty(param: &str) -> Self {
        let message = format!("{param} must not be an empty string.");
        Self::parameter("parameter_invalid_empty", param, message)
    }

    pub(super) fn malformed_key(key: &str) -> Self {
        Self::parameter(
            "parameter_invalid",
            key,
            format!("Invalid parameter name: {key}"),
        )
    }

    /// No such object: 404 where the path names it, 400 where a parameter does.
    pub(super) fn no_such(what: &str, id: &str, param: &str) -> Self {
        let status = if param == "id" { 404 } else { 400 };
        let message = format!("No such {what}: '{id}'");
        Self {
            status,
            ..Self::invalid("resource_missing", param, message)
        }
    }

    pub(super) fn no_key() -> Self {
        Self::plain(401, "api_key_missing", "No API key provided.".to_owned())
    }

    pub(super) fn wrong_key() -> Self {
        Self::plain(
            401,
            "api_key_invalid",
            "Invalid API Key provided.".to_owned(),
        )
    }

    pub(super) fn unknown_url(method: &str, path: &str) -> Self {
        let message = format!("Unrecognized request URL ({method}: {path}).");
        Self::plain(404, "url_unknown", message)
    }

    pub(super) fn wrong_version(version: &str) -> Self {
        Self::plain(
            400,
            "version_invalid",
            format!("Invalid Stripe API version: {version}"),
        )
    }

    pub(super) fn not_a_form(found: &str) -> Self {
        let message = format!(
            "Invalid request: the body must be application/x-www-form-urlencoded, not '{found}'."
        );
        Self::plain(400, "content_type", message)
    }

    pub(super) fn too_large() -> Self {
        Self::plain(
            413,
            "body_too_large",
            "The request body is too large.".to_owned(),
        )
    }

    pub(super) fn locked() -> Self {
        let message =
            "Another request holds this customer and meter; send one at a time.".to_owned();
        Self {
            code: Some("lock_timeout"),
            ..Self::plain(429, "lock_timeout", message)
        }
    }

    pub(super) fn too_many() -> Self {
        let message = "Request rate limit exceeded: a sandbox takes so many meter events a second."
            .to_owned();
        Self {
            code: Some("rate_limit"),
            ..Self::plain(429, "rate_limit", message)
        }
    }

    pub(super) fn no_preview() -> Self {
        let message = "No upcoming invoices for customer.".to_owned();
        Self {
            code: Some("invoice_upcoming_none"),
            executed: true,
            ..Self::plain(404, "invoice_upcoming_none", message)
        }
    }

    pub(super) fn key_too_long() -> Self {
        let message = "Idempotency keys are at most 255 characters long.".to_owned();
        Self {
            kind: "idempotency_error",
            ..Self::plain(400, "idempotency_key_long", message)
        }
    }

    pub(super) fn other_parameters(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the parameters they were first used with. Use another key than '{key}'."
        );
        Self {
            kind: "idempotency_error",
            ..Self::plain(400, "idempotency_parameters", message)
        }
    }

    pub(super) fn key_in_use() -> Self {
        let message = "Another request with this idempotency key is in progress.".to_owned();
        Self {
            kind: "idempotency_error",
            code: Some("idempotency_key_in_use"),
            ..Self::plain(409, "idempotency_key_in_use", message)
        }
    }

    /// What a fault asked for.
    pub(super) fn fault(status: u16) -> Self {
        let (kind, code) = match status {
            429 => ("invalid_request_error", Some("rate_limit")),
            409 => ("invalid_request_error", Some("lock_timeout")),
            500.. => ("api_error", None),
            _ => ("invalid_request_error", None),
        };
        // An error of the server comes from carrying the request out, so its key replays it.
        let executed = status >= 500;
        let plain = Self::plain(status, "fault", "Refused on demand.".to_owned());
        Self {
            kind,
            code,
            executed,
            ..plain
        }
    }

    pub(super) fn body(&self) -> Value {
        let mut error = Map::new();
        error.insert("type".to_owned(), json!(self.kind));
        error.insert("message".to_owned(), json!(self.message));
        if let Some(code) = self.code {
            error.insert("code".to_owned(), json!(code));
        }
        if let Some(param) = &self.param {
            error.insert("param".to_owned(), json!(param));
        }
        json!({"error": error})
    }

    fn plain(status: u16, reason: &'static str, message: String) -> Self {
        Self {
            status,
            kind: "invalid_request_error",
            code: None,
            message,
            param: None,
            reason,
            executed: false,
        }
    }
}
