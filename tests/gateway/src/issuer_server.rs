//! A server of key sets, as an issuer of tokens has one, and as it may fail.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use serde_json::Value;

use crate::server::Server;

/// What it does next, and from then on.
#[derive(Debug, Clone)]
pub enum Keys {
    /// Answers with this set.
    Set(Value),
    /// The same after a while.
    Late(Value, Duration),
    /// Answers with that status.
    Status(u16),
    /// Never answers.
    Hang,
    /// Breaks off in the middle.
    Cut,
    /// Answers with what is no set.
    Garbage,
}

struct Memory {
    keys: Keys,
    fetches: usize,
}

/// The server. Dropping it stops it.
pub struct IssuerServer {
    /// `host:port`.
    pub address: String,
    memory: Arc<Mutex<Memory>>,
    _server: Server,
}

impl IssuerServer {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start(keys: Keys) -> Self {
        let memory = Arc::new(Mutex::new(Memory { keys, fetches: 0 }));
        let app = Router::new()
            .route("/jwks", get(answer))
            .with_state(Arc::clone(&memory));
        let server = Server::start(app);
        Self {
            address: server.address.clone(),
            memory,
            _server: server,
        }
    }

    /// What it does from now on.
    ///
    /// # Panics
    /// Never: the lock is held for moments only.
    pub fn set(&self, keys: Keys) {
        self.memory.lock().expect("the lock").keys = keys;
    }

    /// How often it was asked.
    ///
    /// # Panics
    /// Never: the lock is held for moments only.
    #[must_use]
    pub fn fetches(&self) -> usize {
        self.memory.lock().expect("the lock").fetches
    }
}

async fn answer(State(memory): State<Arc<Mutex<Memory>>>) -> Response {
    let keys = {
        let mut memory = memory.lock().expect("the lock");
        memory.fetches += 1;
        memory.keys.clone()
    };
    match keys {
        Keys::Set(set) => axum::Json(set).into_response(),
        Keys::Late(set, wait) => {
            tokio::time::sleep(wait).await;
            axum::Json(set).into_response()
        }
        Keys::Status(status) => StatusCode::from_u16(status)
            .expect("a status")
            .into_response(),
        Keys::Hang => std::future::pending().await,
        Keys::Cut => {
            let parts = [
                Ok(Bytes::from_static(b"{\"keys\":[")),
                Err(std::io::Error::other("cut")),
            ];
            Response::new(Body::from_stream(stream::iter(parts)))
        }
        Keys::Garbage => "<html>".into_response(),
    }
}
