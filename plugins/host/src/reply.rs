//! Answers that a filter gives itself.

use proxy_wasm::{hostcalls, types::Action};
use weir_wire::{
    error::{ApiError, Dialect},
    headers as names,
};

use crate::headers;

/// Who gets an answer, as the request's headers say it.
#[derive(Debug, Clone)]
pub struct Caller {
    dialect: Dialect,
    request_id: Option<String>,
}

impl Caller {
    /// Of the request at hand, whose headers can still be read.
    #[must_use]
    pub fn read() -> Self {
        let path = headers::request_text(":path").unwrap_or_default();
        Self {
            dialect: Dialect::of_path(&path),
            request_id: headers::request_text(names::REQUEST_ID),
        }
    }

    /// Of a request with these headers.
    #[must_use]
    pub fn of(headers: &[(&str, &[u8])]) -> Self {
        let text = |name| {
            let found = headers.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| String::from_utf8_lossy(value))
        };
        Self {
            dialect: Dialect::of_path(&text(":path").unwrap_or_default()),
            request_id: text(names::REQUEST_ID).map(std::borrow::Cow::into_owned),
        }
    }

    /// Answers with the error object of the caller's dialect, and the request's name,
    /// so that a tenant can quote it; ends the filter chain.
    #[must_use]
    pub fn refuse(&self, status: u32, error: &ApiError, extra: &[(&str, &str)]) -> Action {
        let body = error.body_in(self.dialect, u16::try_from(status).unwrap_or(500));
        let mut fields = vec![("content-type", "application/json")];
        if let Some(id) = &self.request_id {
            fields.push((names::REQUEST_ID, id));
        }
        fields.extend_from_slice(extra);
        let _ = hostcalls::send_http_response(status, fields, Some(body.as_bytes()));
        Action::Pause
    }
}

/// Refuses the request at hand. Called while its headers can still be read.
#[must_use]
pub fn refuse(status: u32, error: &ApiError, extra: &[(&str, &str)]) -> Action {
    Caller::read().refuse(status, error, extra)
}
