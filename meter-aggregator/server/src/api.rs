//! What the paths of the aggregator share: its parts, and plain answers.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use weir_wire::keys::Keyring;

use crate::{books::Books, config::Producer, sender::Sender, stream::Stream, tail::LogState};

/// What every request shares.
pub struct Ingest {
    pub stream: Arc<Stream>,
    pub books: Books,
    pub sender: Arc<Sender>,
    pub producers: Vec<Producer>,
    /// The access logs that are followed.
    pub logs: Vec<Arc<LogState>>,
    pub admin_token: String,
    pub keys: Arc<Keyring>,
}

/// An answer for an operator or a producer: one line of text.
pub fn plain(status: StatusCode, message: &str) -> Response {
    (status, format!("{message}\n")).into_response()
}
