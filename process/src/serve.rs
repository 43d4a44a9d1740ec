//! The accept loop of a service: HTTP/1.1 and HTTP/2 on one port, plain or over
//! TLS, bounded in what a client may send as headers and in how long it may take to
//! shake hands and to stop.

use std::{future::Future, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tower::ServiceExt as _;

use crate::tls::{ClientCertificate, Tls};

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
    serve_tls(listener, None, router, stop, grace).await
}

/// The same over TLS, where there is some: each request of a client that showed a
/// certificate has a [`ClientCertificate`] among its extensions.
pub async fn serve_tls(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Option<StillOpen> {
    let answer = move |request: Request<Incoming>| router.clone().oneshot(request.map(Body::new));
    serve_tls_with(listener, tls, answer, stop, grace).await
}

/// As [`serve`], by a function that answers; where that fails, the connection is
/// cut without an answer.
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
    serve_tls_with(listener, None, answer, stop, grace).await
}

/// As [`serve_tls`], by a function that answers.
pub async fn serve_tls_with<F, E>(
    listener: TcpListener,
    tls: Option<Tls>,
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
    // Handshakes end when it is dropped: there is no request that they would cut.
    let (serving, stopped) = watch::channel(());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = Connection {
                        watcher: graceful.watcher(),
                        answer: answer.clone(),
                    };
                    let stopped = stopped.clone();
                    connections.spawn(connection.begin(stream, tls.clone(), stopped));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // Reaps finished connections, which would pile up otherwise.
            Some(_) = connections.join_next() => {}
        }
    }
    drop((listener, serving));
    let ended = tokio::time::timeout(grace, graceful.shutdown()).await;
    ended.is_err().then_some(StillOpen(connections))
}

/// What one client's connection is served by.
struct Connection<A> {
    watcher: Watcher,
    answer: A,
}

impl<A, F, E> Connection<A>
where
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Result<Response<Body>, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    /// Shakes hands where there is TLS, beside the accept loop, and serves.
    async fn begin(self, stream: TcpStream, tls: Option<Tls>, mut stopped: watch::Receiver<()>) {
        // Without this, small events of a stream wait for an acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "nodelay");
        }
        let Some(tls) = tls else {
            return self.serve(stream, None).await;
        };
        let shaken = tokio::select! {
            // Fails when the service stops.
            _ = stopped.changed() => return,
            shaken = tls.accept(stream) => shaken,
        };
        match shaken {
            Ok((stream, client)) => self.serve(stream, client).await,
            Err(error) => tracing::debug!(%error, "no TLS handshake"),
        }
    }

    async fn serve<S>(self, stream: S, client: Option<ClientCertificate>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
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
        let Self { watcher, answer } = self;
        let answer = move |mut request: Request<Incoming>| {
            if let Some(client) = &client {
                request.extensions_mut().insert(client.clone());
            }
            answer(request)
        };
        let connection = builder
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "connection ended early");
        }
    }
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
