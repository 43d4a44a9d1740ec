//! What the paths of the aggregator share: its parts, credentials, and plain
//! answers.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use weir_wire::keys::Keyring;

use crate::{books::Books, config::Producer, sender::Sender, stream::Stream};

/// What every request shares.
pub struct Ingest {
    pub stream: Arc<Stream>,
    pub books: Books,
    pub sender: Arc<Sender>,
    pub producers: Vec<Producer>,
    pub admin_token: String,
    pub keys: Keyring,
}

/// Whether the request carries that bearer token; compared in constant time,
/// by hashes, so that neither length nor content shows.
pub fn bears(headers: &HeaderMap, token: &str) -> bool {
    let presented = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.as_bytes().strip_prefix(b"Bearer "))
        .unwrap_or_default();
    Sha256::digest(presented)
        .ct_eq(&Sha256::digest(token))
        .into()
}

/// An answer for an operator or a producer: one line of text.
pub fn plain(status: StatusCode, message: &str) -> Response {
    (status, format!("{message}\n")).into_response()
}
