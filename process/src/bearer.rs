//! The credential of those who call a service: a bearer token (RFC 6750).

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Whether the request carries that bearer token; compared in constant time,
/// by hashes, so that neither length nor content shows.
#[must_use]
pub fn bears(headers: &HeaderMap, token: &str) -> bool {
    let presented = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.as_bytes().strip_prefix(b"Bearer "))
        .unwrap_or_default();
    Sha256::digest(presented)
        .ct_eq(&Sha256::digest(token))
        .into()
}
