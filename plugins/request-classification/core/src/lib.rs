//! Decides what kind of work a request asks for, and refuses what is none.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

use serde::Deserialize;
use weir_dialects::routes::{RequestClass, Route, route};
use weir_wire::{error::ApiError, host::HostKind};

/// What the operator writes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway that runs the filter.
    pub host: HostKind,
    /// The largest request body, in bytes; what announces more is refused
    /// before it is read. 1 to 1 GiB.
    #[serde(default = "default_max_body_bytes")]
    pub max_body_bytes: u64,
}

/// Room for a few images in base64.
fn default_max_body_bytes() -> u64 {
    16 << 20
}

impl Config {
    /// Checks the whole.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if (1..=1 << 30).contains(&self.max_body_bytes) {
            Ok(())
        } else {
            Err(format!(
                "max_body_bytes: must be 1 to {}, found {}",
                1 << 30,
                self.max_body_bytes
            ))
        }
    }
}

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

/// Decides on one request by its method, path and `content-length`.
///
/// # Errors
/// A [`Denial`]: 404 for a path that is none of ours, 405 for a wrong method,
/// 413 for a body that announces more than the limit, 400 for a length that is
/// no number.
pub fn classify(
    config: &Config,
    method: &str,
    path: &str,
    content_length: Option<&[u8]>,
) -> Result<RequestClass, Box<Denial>> {
    let class = match route(method, path) {
        Route::Endpoint(endpoint) => endpoint.class(),
        Route::MethodNotAllowed { allow } => {
            return Err(deny(
                405,
                "method_not_allowed",
                format!("Not allowed to {method} on {}.", shown(path)),
                Some(allow),
            ));
        }
        Route::NotFound => {
            return Err(deny(
                404,
                "unknown_url",
                format!("Invalid URL ({method} {}).", shown(path)),
                None,
            ));
        }
    };
    let Some(length) = content_length else {
        return Ok(class);
    };
    match std::str::from_utf8(length).map(str::parse::<u64>) {
        Ok(Ok(length)) if length <= config.max_body_bytes => Ok(class),
        Ok(Ok(_)) => Err(deny(
            413,
            "request_too_large",
            format!("The request body exceeds {} bytes.", config.max_body_bytes),
            None,
        )),
        _ => Err(deny(
            400,
            "invalid_header",
            "The header content-length is no number.".to_owned(),
            None,
        )),
    }
}

/// The path without its query, as far as it makes sense to repeat it.
fn shown(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    path.chars().take(100).collect()
}

fn deny(status: u32, code: &str, message: String, allow: Option<&'static str>) -> Box<Denial> {
    Box::new(Denial {
        status,
        error: ApiError::new("invalid_request_error", code, message),
        allow,
    })
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn config() -> Config {
        serde_json::from_str(r#"{"host":"envoy","max_body_bytes":100}"#).unwrap()
    }

    #[track_caller]
    fn check(method: &str, path: &str, length: Option<&str>, expected: Result<&str, u32>) {
        let found = classify(&config(), method, path, length.map(str::as_bytes));
        let found = found.as_ref().map(|c| c.as_str()).map_err(|d| d.status);
        assert_eq!(found, expected, "{method} {path} {length:?}");
    }

    #[test]
    fn chat_and_embeddings_are_told_apart() {
        check("POST", "/v1/chat/completions", Some("100"), Ok("chat"));
        check("POST", "/v1/embeddings?x=1", None, Ok("embedding"));
        check("GET", "/v1/models", None, Ok("models"));
    }

    #[test]
    fn what_is_none_of_ours_is_refused() {
        check("POST", "/v1/chat", None, Err(404));
        check("GET", "/v1/chat/completions", None, Err(405));
        check("POST", "/v1/embeddings", Some("101"), Err(413));
        check("POST", "/v1/embeddings", Some("1,1"), Err(400));
        check(
            "POST",
            "/v1/embeddings",
            Some("99999999999999999999"),
            Err(400),
        );
    }

    #[test]
    fn a_refusal_says_what_is_allowed_and_repeats_no_query() {
        let denial = classify(&config(), "GET", "/v1/embeddings?key=secret", None).unwrap_err();
        assert_eq!(denial.allow, Some("POST"));
        assert!(!denial.error.message.contains("secret"), "{denial:?}");
    }

    #[test]
    fn what_is_wrong_in_the_config_is_named() {
        for (json, names) in [
            (r#"{"host":"envoy","max_body":1}"#, "max_body"),
            (r#"{"host":"envoy","max_body_bytes":0}"#, "max_body_bytes"),
            (r#"{}"#, "host"),
        ] {
            let error = serde_json::from_str::<Config>(json)
                .map_err(|e| e.to_string())
                .and_then(|c| c.validate())
                .unwrap_err();
            assert!(error.contains(names), "{error} should name {names}");
        }
    }
}
