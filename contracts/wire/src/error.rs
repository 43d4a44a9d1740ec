//! The error objects that tenants' SDKs read: OpenAI's and Anthropic's.
//!
//! Formats: `{"error":{"message":…,"type":…,"param":…,"code":…}}`, as OpenAI's
//! API reference shows it; `{"type":"error","error":{"type":…,"message":…}}`, as
//! Anthropic's does ("Errors").

use serde::{Deserialize, Serialize};

/// Whose wire format somebody speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// OpenAI's, and that of everybody who copies it.
    OpenAi,
    /// Anthropic's Messages API.
    Anthropic,
}

impl Dialect {
    /// What a client of that path speaks, with or without a query; OpenAI's
    /// dialect wherever Anthropic's has no such path.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        match path.strip_prefix("/v1/messages") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Self::Anthropic,
            _ => Self::OpenAi,
        }
    }
}

/// What went wrong, in the words the caller may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// For a person. Names the field or header.
    pub message: String,
    /// The family in OpenAI's words, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The parameter at fault.
    pub param: Option<String>,
    /// For a program, such as `model_not_found`.
    pub code: Option<String>,
}

#[derive(Serialize)]
struct OpenAiBody<'a> {
    error: &'a ApiError,
}

#[derive(Serialize)]
struct AnthropicBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: AnthropicError<'a>,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

impl ApiError {
    /// An error without a parameter.
    #[must_use]
    pub fn new(kind: &str, code: &str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: kind.to_owned(),
            param: None,
            code: Some(code.to_owned()),
        }
    }

    /// The same, naming the parameter at fault.
    #[must_use]
    pub fn at(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// The JSON body, as OpenAI's.
    #[must_use]
    pub fn body(&self) -> String {
        // Strings and options always serialise; the fallback is unreachable.
        serde_json::to_string(&OpenAiBody { error: self }).unwrap_or_default()
    }

    /// The JSON body for a client of that dialect, of an answer with that HTTP
    /// status. Anthropic's has neither parameter nor code: its message says all.
    #[must_use]
    pub fn body_in(&self, dialect: Dialect, status: u16) -> String {
        match dialect {
            Dialect::OpenAi => self.body(),
            Dialect::Anthropic => serde_json::to_string(&AnthropicBody {
                kind: "error",
                error: AnthropicError {
                    kind: anthropic_kind(status),
                    message: &self.message,
                },
            })
            .unwrap_or_default(),
        }
    }
}

/// The `type` of Anthropic's error object for a status (Anthropic API reference,
/// "Errors").
#[must_use]
pub fn anthropic_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 | 405 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn has_each_dialects_shape() {
        let error = ApiError::new("invalid_request_error", "model_not_found", "no \"x\"");
        let error = error.at("model");
        let openai = r#"{"error":{"message":"no \"x\"","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#;
        assert_eq!(error.body(), openai);
        assert_eq!(error.body_in(Dialect::OpenAi, 404), openai);
        assert_eq!(
            error.body_in(Dialect::Anthropic, 404),
            r#"{"type":"error","error":{"type":"not_found_error","message":"no \"x\""}}"#
        );
    }

    #[test]
    fn a_status_has_anthropics_type() {
        for (status, kind) in [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (413, "request_too_large"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (502, "api_error"),
            (529, "overloaded_error"),
        ] {
            assert_eq!(anthropic_kind(status), kind);
        }
    }

    #[test]
    fn a_path_has_one_dialect() {
        for path in [
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/messages?beta=true",
        ] {
            assert_eq!(Dialect::of_path(path), Dialect::Anthropic, "{path}");
        }
        for path in ["/v1/chat/completions", "/v1/messagesx", "/", ""] {
            assert_eq!(Dialect::of_path(path), Dialect::OpenAi, "{path}");
        }
    }
}
