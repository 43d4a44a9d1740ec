//! Calls to Weir's services: HTTP POST with a protobuf body (the shape of unary
//! Connect) and the service's token.

use std::time::Duration;

use proxy_wasm::{hostcalls, types::BufferType};
use weir_wire::usage::PROTO_CONTENT_TYPE;

/// A service that is called, and how.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    /// Its cluster (Envoy) or its address (Kong).
    pub cluster: &'a str,
    /// The authority of the calls.
    pub authority: &'a str,
    /// `Bearer …`
    pub authorization: &'a str,
    /// How long one call may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Service<'_> {
    /// Makes a call from the context that is in effect; gives its number, or `None`
    /// where the host makes none.
    #[must_use]
    pub fn post(&self, path: &str, body: &[u8]) -> Option<u32> {
        hostcalls::dispatch_http_call(
            self.cluster,
            vec![
                (":method", "POST"),
                (":path", path),
                (":authority", self.authority),
                ("content-type", PROTO_CONTENT_TYPE),
                ("authorization", self.authorization),
            ],
            Some(body),
            vec![],
            Duration::from_millis(self.timeout_ms),
        )
        .ok()
    }
}

/// The body of an answer that has so many bytes; at most `most` of them are read.
#[must_use]
pub fn body(size: usize, most: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size.min(most))
        .ok()
        .flatten()
        .unwrap_or_default()
}
