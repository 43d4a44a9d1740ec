//! The upstream: HTTP/1.1 and HTTP/2 on one port, in a thread of its own.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::{any, post},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, StatusCode};
use prost::Message as _;
use tokio::sync::mpsc;
use weir_wire::{
    proto::usage::{PublishRequest, UsageEvent},
    usage::PUBLISH_PATH,
};

use crate::server::Server;

/// A request as it reached the upstream.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; empty where it did not come whole.
    pub body: Bytes,
}

impl Seen {
    /// Every value of a header.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<String> {
        self.headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
            .collect()
    }
}

/// What the upstream answers next.
#[derive(Debug)]
pub enum Answer {
    /// That status, content type and body.
    Whole(u16, &'static str, String),
    /// Status 200, that content type, that content encoding and body.
    Encoded(&'static str, &'static str, Vec<u8>),
    /// Nothing, for as long as the gateway waits.
    Never,
    /// Status 200 and an event stream of what is sent here; it ends with the
    /// sender, or breaks off at a `None`.
    Stream(mpsc::UnboundedReceiver<Option<String>>),
}

/// Answers requests by what they are.
type AnswerAll = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// With which status a batch is refused, if it is.
type Judge = Box<dyn FnMut(&[UsageEvent]) -> Option<u16> + Send>;

#[derive(Default)]
struct Memory {
    requests: Vec<Seen>,
    answers: VecDeque<Answer>,
    /// Where no answer waits.
    answer_all: Option<AnswerAll>,
    judge: Option<Judge>,
    events: Vec<UsageEvent>,
    credentials: Vec<String>,
    /// Batches to refuse before the next is taken.
    refusals: usize,
    /// Batches whose answer breaks off, before one is taken.
    cuts: usize,
}

/// The upstream. Dropping it stops it.
pub struct Upstream {
    /// `host:port`.
    pub address: String,
    memory: Arc<Mutex<Memory>>,
    _server: Server,
}

/// The longest body that is kept.
const BODY_MAX_BYTES: usize = 64 << 20;

/// An answer of OpenAI's shape that reports its usage.
pub const CHAT: &str = include_str!("../../../contracts/fixtures/openai-chat.json");

/// The same as an event stream.
pub const CHAT_STREAM: &str = include_str!("../../../contracts/fixtures/openai-chat-stream.txt");

impl Upstream {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// Where there is no free port.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    /// Starts one on that address.
    ///
    /// # Panics
    /// Where it is not free.
    #[must_use]
    pub fn start_on(address: &str) -> Self {
        let memory: Arc<Mutex<Memory>> = Arc::default();
        let router = Router::new()
            .route(PUBLISH_PATH, post(publish))
            .fallback(any(serve))
            .with_state(memory.clone());
        let server = Server::start_on(address, router);
        Self {
            address: server.address.clone(),
            memory,
            _server: server,
        }
    }

    /// What to answer to the next request; [`CHAT`] where nothing is said.
    pub fn answer(&self, answer: Answer) {
        self.lock().answers.push_back(answer);
    }

    /// Answers the next request with a stream that the test feeds.
    #[must_use]
    pub fn stream(&self) -> mpsc::UnboundedSender<Option<String>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.answer(Answer::Stream(receiver));
        sender
    }

    /// What to answer to requests for which nothing was said.
    pub fn answer_all(&self, answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) {
        self.lock().answer_all = Some(Arc::new(answer));
    }

    /// Lets `judge` say with which status a batch of events is refused, if it is.
    pub fn judge_batches(&self, judge: impl FnMut(&[UsageEvent]) -> Option<u16> + Send + 'static) {
        self.lock().judge = Some(Box::new(judge));
    }

    /// Refuses the next batches of events.
    pub fn refuse_batches(&self, count: usize) {
        self.lock().refusals = count;
    }

    /// Breaks off the answers to the next batches of events.
    pub fn cut_batches(&self, count: usize) {
        self.lock().cuts = count;
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.lock().requests.clone()
    }

    /// The last request.
    ///
    /// # Panics
    /// Where there was none.
    #[must_use]
    pub fn last(&self) -> Seen {
        self.requests()
            .pop()
            .expect("a request reached the upstream")
    }

    /// Waits for `count` events and gives all there are then.
    ///
    /// # Panics
    /// Where they do not come within a minute.
    #[must_use]
    pub fn events(&self, count: usize) -> Vec<UsageEvent> {
        let start = Instant::now();
        loop {
            let events = self.lock().events.clone();
            if events.len() >= count {
                return events;
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{} events of {count}",
                events.len()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Forgets the events so far.
    pub fn forget_events(&self) {
        self.lock().events.clear();
    }

    /// The credentials that came with events.
    #[must_use]
    pub fn credentials(&self) -> Vec<String> {
        self.lock().credentials.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().expect("no test panics with the lock")
    }
}

async fn publish(
    State(memory): State<Arc<Mutex<Memory>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut memory = memory.lock().expect("no test panics with the lock");
    if memory.refusals > 0 {
        memory.refusals -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if memory.cuts > 0 {
        memory.cuts -= 1;
        let half = stream::once(async { Ok(Bytes::from_static(b"half")) });
        // The headers must have left before.
        let cut = stream::once(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(std::io::Error::other("cut on demand"))
        });
        let half = half.chain(cut);
        return (StatusCode::ACCEPTED, Body::from_stream(half)).into_response();
    }
    let credential = headers
        .get("authorization")
        .map(|v| v.to_str().unwrap_or_default().to_owned());
    memory.credentials.extend(credential);
    match PublishRequest::decode(body) {
        Ok(request) => {
            let refused = memory
                .judge
                .as_mut()
                .and_then(|judge| judge(&request.events));
            if let Some(status) = refused.and_then(|status| StatusCode::from_u16(status).ok()) {
                return status.into_response();
            }
            memory.events.extend(request.events);
            StatusCode::ACCEPTED
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
    .into_response()
}

async fn serve(State(memory): State<Arc<Mutex<Memory>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_MAX_BYTES)
        .await
        .unwrap_or_default();
    let seen = Seen {
        path: parts
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        headers: parts.headers,
        body,
    };
    let (answer, answer_all) = {
        let mut memory = memory.lock().expect("no test panics with the lock");
        memory.requests.push(seen.clone());
        (memory.answers.pop_front(), memory.answer_all.clone())
    };
    match answer.or_else(|| answer_all.map(|answer| answer(&seen))) {
        None => json(200, CHAT.to_owned()),
        Some(Answer::Never) => std::future::pending().await,
        Some(Answer::Encoded(content_type, encoding, body)) => (
            [
                ("content-type", content_type),
                ("content-encoding", encoding),
            ],
            body,
        )
            .into_response(),
        Some(Answer::Whole(status, content_type, body)) => {
            let mut response = json(status, body);
            response
                .headers_mut()
                .insert("content-type", http::HeaderValue::from_static(content_type));
            response
        }
        Some(Answer::Stream(chunks)) => {
            let stream = futures_util::stream::unfold(chunks, |mut chunks| async {
                let chunk = chunks.recv().await?;
                let item = chunk
                    .map(Bytes::from)
                    .ok_or_else(|| std::io::Error::other("broken off"));
                Some((item, chunks))
            });
            (
                [("content-type", "text/event-stream")],
                Body::from_stream(stream),
            )
                .into_response()
        }
    }
}

fn json(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("content-type", "application/json")], body).into_response()
}
