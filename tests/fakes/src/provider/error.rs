//! OpenAI's error object.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::inference::{
    body::Unreadable,
    faults::Failure,
    params::{Mistake, What},
};

/// A refusal, in the shape in which OpenAI sends it.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: u16,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    retry_after: Option<Duration>,
    /// Asked for by a fault, not deserved by the request.
    pub(super) on_demand: bool,
}

impl ApiError {
    /// 400 for this parameter.
    pub(super) fn invalid(param: &str, code: &'static str, message: String) -> Self {
        Self {
            code: Some(code),
            param: Some(param.to_owned()),
            ..Self::plain(400, message)
        }
    }

    /// 400 with neither parameter nor code.
    pub(super) fn bad(message: String) -> Self {
        Self::plain(400, message)
    }

    pub(super) fn wrong_type(param: &str, wanted: &str, found: &Value) -> Self {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(number) if number.is_f64() => "a decimal",
            Value::Number(_) => "an integer",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        let message =
            format!("Invalid type for '{param}': expected {wanted}, but got {found} instead.");
        Self::invalid(param, "invalid_type", message)
    }

    pub(super) fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::invalid(param, "missing_required_parameter", message)
    }

    /// 400 for this parameter, without a code.
    pub(super) fn refused(param: &str, message: String) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..Self::plain(400, message)
        }
    }

    /// Rewords the mistake of naming an argument that the body does not have
    /// as the older paths do.
    pub(super) fn of_argument(mistake: Mistake) -> Self {
        match mistake.what {
            What::Unknown => Self::bad(format!(
                "Unrecognized request argument supplied: {}",
                mistake.path
            )),
            _ => Self::from(mistake),
        }
    }

    pub(super) fn no_key() -> Self {
        let message = "No API key: send it as Authorization: Bearer KEY.".to_owned();
        Self {
            code: Some("invalid_api_key"),
            ..Self::plain(401, message)
        }
    }

    pub(super) fn wrong_key() -> Self {
        let message = "Incorrect API key provided.".to_owned();
        Self {
            code: Some("invalid_api_key"),
            ..Self::plain(401, message)
        }
    }

    pub(super) fn unknown_url(method: &Method, path: &str) -> Self {
        Self {
            code: Some("unknown_url"),
            ..Self::plain(404, format!("Invalid URL ({method} {path})"))
        }
    }

    pub(super) fn wrong_method(method: &Method, path: &str) -> Self {
        let message = format!("Not allowed to {method} on {path}.");
        Self {
            code: Some("method_not_supported"),
            ..Self::plain(405, message)
        }
    }

    pub(super) fn unknown_model(name: &str) -> Self {
        let message = format!("The model `{name}` does not exist or you do not have access to it.");
        Self {
            code: Some("model_not_found"),
            ..Self::plain(404, message)
        }
    }

    /// For a path that does not serve models of this kind.
    pub(super) fn wrong_model_kind(path: &str) -> Self {
        let message = format!("This model is not supported by {path}.");
        Self {
            param: Some("model".to_owned()),
            ..Self::plain(404, message)
        }
    }

    pub(super) fn not_an_embedding_model() -> Self {
        Self::plain(
            403,
            "You are not allowed to generate embeddings from this model".to_owned(),
        )
    }

    /// What a fault asked for.
    pub(super) fn fault(status: u16, retry_after_s: Option<u64>) -> Self {
        let (kind, code, message) = match status {
            401 => (
                "invalid_request_error",
                Some("invalid_api_key"),
                "Incorrect API key provided.",
            ),
            429 => (
                "requests",
                Some("rate_limit_exceeded"),
                "Rate limit reached.",
            ),
            500.. => (
                "server_error",
                None,
                "The server had an error. Retry your request.",
            ),
            _ => ("invalid_request_error", None, "Refused on demand."),
        };
        Self {
            kind,
            code,
            retry_after: retry_after_s.map(Duration::from_secs),
            on_demand: true,
            ..Self::plain(status, message.to_owned())
        }
    }

    /// The body, as it also stands in a stream's error event.
    pub(super) fn body(&self) -> Value {
        json!({"error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        }})
    }

    fn plain(status: u16, message: String) -> Self {
        Self {
            status,
            kind: "invalid_request_error",
            code: None,
            param: None,
            message,
            retry_after: None,
            on_demand: false,
        }
    }
}

impl ApiError {
    /// The response; vLLM's where `compatible`, which gives the status for a code.
    pub(super) fn respond(self, compatible: bool) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = if compatible {
            self.compatible_body()
        } else {
            self.body()
        };
        let mut response = (status, Json(body)).into_response();
        if let Some(wait) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        response
    }

    /// The body as vLLM words it.
    pub(super) fn compatible_body(&self) -> Value {
        let kind = match self.status {
            401 => "AuthenticationError",
            404 => "NotFoundError",
            500.. => "InternalServerError",
            _ => "BadRequestError",
        };
        json!({"error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.status,
        }})
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self::fault(failure.status, failure.retry_after_s)
    }
}

impl From<Mistake> for ApiError {
    fn from(Mistake { path, what }: Mistake) -> Self {
        match what {
            What::Unknown => {
                let message = format!("Unknown parameter: '{path}'.");
                Self::invalid(&path, "unknown_parameter", message)
            }
            What::Type(wanted, found) => Self::wrong_type(&path, wanted, &found),
            What::NotOneOf(allowed, found) => {
                let allowed = allowed.join(", ");
                let message = format!("Invalid value: '{found}'. Supported values are: {allowed}.");
                Self::invalid(&path, "invalid_value", message)
            }
            What::OutOfRange {
                below,
                whole,
                bound,
                found,
            } => {
                let code = match (below, whole) {
                    (true, true) => "integer_below_min_value",
                    (false, true) => "integer_above_max_value",
                    (true, false) => "decimal_below_min_value",
                    (false, false) => "decimal_above_max_value",
                };
                let relation = if below { ">=" } else { "<=" };
                let message = format!(
                    "Invalid '{path}': expected a value {relation} {bound}, but got {found} instead."
                );
                Self::invalid(&path, code, message)
            }
        }
    }
}

impl From<Unreadable> for ApiError {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::ContentType(found) => Self::bad(format!(
                "Unsupported Content-Type '{found}': send application/json."
            )),
            Unreadable::TooLarge(limit) => Self::plain(
                413,
                format!("The request body is larger than {limit} bytes."),
            ),
            Unreadable::Broken(what) => {
                Self::bad(format!("The request body is not valid JSON: {what}."))
            }
        }
    }
}
