//! How all fakes are served: as every service is, and with connections that can be dropped unanswered.

use std::{fmt, future::Future, time::Duration};

use axum::{Router, body::Body, response::Response};
use http::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tower::ServiceExt;

/// How long open connections may finish their request after the shutdown signal.
const DRAIN: Duration = Duration::from_secs(1);

/// Marks a response that must never be sent: the connection is cut instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DropConnection;

/// The error with which a handler makes hyper drop a connection.
#[derive(Debug)]
pub(crate) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection cut on demand")
    }
}

impl std::error::Error for Cut {}

/// Serves `router` on `listener` until `shutdown` resolves, then gives open
/// connections a second to finish. Dropping the future closes them at once.
pub async fn serve_until(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let answer = move |request| answer(router.clone(), request);
    if weir_process::serve_with(listener, answer, shutdown, DRAIN)
        .await
        .is_some()
    {
        tracing::info!("closed connections that were still busy");
    }
}

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response, Cut> {
    let response = match router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if response.extensions().get::<DropConnection>().is_some() {
        return Err(Cut);
    }
    Ok(response)
}
