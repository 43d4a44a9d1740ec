//! The error object of OpenAI's API, which is what a tenant's SDK reads.
//!
//! Format: `{"error":{"message":…,"type":…,"param":…,"code":…}}`, as OpenAI's
//! API reference shows it.

use serde::{Deserialize, Serialize};

/// What went wrong, in the words the caller may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// For a person. Names the field or header.
    pub message: String,
    /// The family, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The parameter at fault.
    pub param: Option<String>,
    /// For a program, such as `model_not_found`.
    pub code: Option<String>,
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

    /// The JSON body.
    #[must_use]
    pub fn body(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a ApiError,
        }
        // Strings and options always serialise; the fallback is unreachable.
        serde_json::to_string(&Body { error: self }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn has_openais_shape() {
        let error = ApiError::new("invalid_request_error", "model_not_found", "no \"x\"");
        assert_eq!(
            error.at("model").body(),
            r#"{"error":{"message":"no \"x\"","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
        );
    }
}
