//! The accept loop of both fakes: HTTP/1.1 and HTTP/2 on one port, and connections that can be dropped unanswered.

use std::{fmt, future::Future, io, time::Duration};

use axum::{Router, body::Body, response::Response};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::ServiceExt;

/// How long open connections may finish their request after the shutdown signal.
const DRAIN: Duration = Duration::from_secs(1);

/// A pause after a failed accept, so that a lack of descriptors does not spin the loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

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
///
/// # Errors
/// Fails only where the listener's own address can't be read.
pub async fn serve_until(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => spawn(&mut connections, &graceful, stream, router.clone()),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // Reaps finished connections, which would pile up otherwise.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::info!("closed connections that were still busy");
    }
    Ok(())
}

fn spawn(
    connections: &mut JoinSet<()>,
    graceful: &GracefulShutdown,
    stream: TcpStream,
    router: Router,
) {
    // Without this, small SSE chunks wait for the peer's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "nodelay");
    }
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    let watched = graceful.watch(connection);
    connections.spawn(async move {
        if let Err(error) = watched.await {
            tracing::debug!(%error, "connection ended early");
        }
    });
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
