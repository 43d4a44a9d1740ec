//! The accept loop of a service: HTTP/1.1 and HTTP/2 on one port, bounded in
//! what a client may send as headers and in how long it may take to stop.

use std::{future::Future, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::ServiceExt as _;

/// The most bytes of headers over HTTP/2, as its `SETTINGS_MAX_HEADER_LIST_SIZE`
/// counts them (RFC 9113, section 6.5.2). Envoy passes on up to 60 KiB and adds
/// some; a service that takes less answers what the gateway passed with a 431
/// that has no body.
const HEADERS_MAX_BYTES: u32 = 128 << 10;

/// Streams that were reset before they were looked at, on one connection; beyond
/// that it is cut. Behind a gateway one connection is that of all clients: those that
/// leave at once must not take the others with them.
const RESETS_MAX: usize = 4_096;

/// How long the headers of a request over HTTP/1.1 may take.
const HEADERS_TIME: Duration = Duration::from_secs(30);

/// A pause after a failed accept, so that a lack of descriptors does not spin
/// the loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that were still open when a service had stopped. They go on, and
/// end when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the connections"]
pub struct StillOpen(#[expect(dead_code, reason = "held for its drop")] JoinSet<()>);

/// Serves `router` until `stop` resolves, then lets requests under way go on for
/// `grace` at the most; gives what was still open then. A client that is slow,
/// or silent, does not keep a process from stopping.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Option<StillOpen> {
    let answer = move |request: Request<Incoming>| router.clone().oneshot(request.map(Body::new));
    serve_with(listener, answer, stop, grace).await
}

/// The same by a function that answers; where that fails, the connection is cut
/// without an answer.
pub async fn serve_with<F, E>(
    listener: TcpListener,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Option<StillOpen>
where
    F: Future<Output = Result<Response<Body>, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => spawn(&mut connections, &graceful, stream, answer.clone()),
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
    let ended = tokio::time::timeout(grace, graceful.shutdown()).await;
    ended.is_err().then_some(StillOpen(connections))
}

fn spawn<F, E>(
    connections: &mut JoinSet<()>,
    graceful: &GracefulShutdown,
    stream: TcpStream,
    answer: impl Fn(Request<Incoming>) -> F + Send + 'static,
) where
    F: Future<Output = Result<Response<Body>, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    // Without this, small events of a stream wait for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "nodelay");
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIME);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADERS_MAX_BYTES)
        .max_pending_accept_reset_streams(RESETS_MAX);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .into_owned();
    let watched = graceful.watch(connection);
    connections.spawn(async move {
        if let Err(error) = watched.await {
            tracing::debug!(%error, "connection ended early");
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::oneshot,
    };

    use super::*;

    #[tokio::test]
    async fn silent_and_slow_clients_do_not_keep_a_service_from_stopping() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (signal, stop) = oneshot::channel::<()>();
        let router = Router::new()
            .route("/", get(|| async { "ok" }))
            .route("/body", axum::routing::post(|_: String| async { "read" }));
        let serving = tokio::spawn(serve(
            listener,
            router,
            async { stop.await.unwrap() },
            Duration::from_millis(200),
        ));
        let mut open = Vec::new();
        for sent in [
            "",
            "GET / HT",
            "GET / HTTP/1.1\r\nhost: a\r\n",
            "POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf",
        ] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent.as_bytes()).await.unwrap();
            open.push(client);
        }
        let mut served = TcpStream::connect(address).await.unwrap();
        served
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        served.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        signal.send(()).unwrap();
        let start = Instant::now();
        assert!(
            serving.await.unwrap().is_some(),
            "half a body is a request under way"
        );
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
