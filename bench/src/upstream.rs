//! What the gateways send to: a router that answers at once, and an aggregator
//! that accepts every event.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::post,
    serve::ListenerExt as _,
};
use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, header::CONTENT_TYPE};
use prost::Message as _;
use weir_wire::{proto::usage::PublishRequest, usage::PUBLISH_PATH};

const JSON: &str = include_str!("../../contracts/fixtures/openai-chat.json");
const STREAM: &str = include_str!("../../contracts/fixtures/openai-chat-stream.txt");

/// A running upstream, the same one for every gateway. It ends with the
/// process.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens, for HTTP/1.1 and for HTTP/2 with prior knowledge.
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: AtomicU64,
    events: AtomicU64,
}

impl Upstream {
    /// Starts it on a thread of its own.
    ///
    /// # Errors
    /// Where it can't listen.
    pub fn start() -> anyhow::Result<Self> {
        let seen = Arc::new(Seen::default());
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route(PUBLISH_PATH, post(publish))
            .with_state(Arc::clone(&seen));
        let address = serve("upstream", router)?;
        Ok(Self { address, seen })
    }

    /// Chat requests answered until now.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.seen.requests.load(Relaxed)
    }

    /// Usage events accepted until now.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.seen.events.load(Relaxed)
    }
}

/// Serves on a thread of its own until the process ends; gives the address.
pub fn serve(name: &'static str, router: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|tcp| {
            // Slower is all that it can be without.
            let _ = tcp.set_nodelay(true);
        });
        axum::serve(listener, router).await
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(serve) {
                eprintln!("the {name} ended: {error}");
            }
        })
        .context("cannot start its thread")?;
    Ok(address)
}

async fn chat(State(seen): State<Arc<Seen>>, body: Bytes) -> Response {
    seen.requests.fetch_add(1, Relaxed);
    if memchr::memmem::find(&body, br#""stream":true"#).is_none() {
        return ([(CONTENT_TYPE, "application/json")], JSON).into_response();
    }
    let events = STREAM
        .split_inclusive("\n\n")
        .map(|event| Ok::<_, Infallible>(Bytes::from_static(event.as_bytes())));
    (
        [(CONTENT_TYPE, "text/event-stream; charset=utf-8")],
        Body::from_stream(stream::iter(events)),
    )
        .into_response()
}

async fn publish(State(seen): State<Arc<Seen>>, body: Bytes) -> StatusCode {
    let Ok(batch) = PublishRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let count = u64::try_from(batch.events.len()).unwrap_or(u64::MAX);
    seen.events.fetch_add(count, Relaxed);
    StatusCode::ACCEPTED
}
