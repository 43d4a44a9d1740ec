//! Server-sent events: a stream that plays its chunks, misbehaves where asked, and is recorded to its last one.

use std::{collections::VecDeque, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::Value;

use super::{
    faults::Fault,
    log::{Outcome, Recorder},
};
use crate::server::Cut;

/// Lets what was written reach the socket before the connection is cut:
/// hyper and h2 throw away what is still buffered then.
const CUT_GRACE: Duration = Duration::from_millis(20);

/// One chunk or event.
#[derive(Debug)]
pub(crate) struct Event {
    frame: Bytes,
    /// Tokens of the answer in it.
    tokens: u64,
    /// Whether it is the one with the usage.
    usage: bool,
}

impl Event {
    /// An event without a name, and how many of the answer's tokens are in it.
    pub(crate) fn data(value: &Value, tokens: u64) -> Self {
        Self::raw(format!("data: {value}\n\n"), tokens)
    }

    /// An event whose name is its `type`, too.
    pub(crate) fn named(value: &Value, tokens: u64) -> Self {
        let name = value.get("type").and_then(Value::as_str);
        let name = name.unwrap_or_default();
        Self::raw(format!("event: {name}\ndata: {value}\n\n"), tokens)
    }

    /// What ends a stream of chat completions.
    pub(crate) fn done() -> Self {
        Self::raw("data: [DONE]\n\n".to_owned(), 0)
    }

    /// The same, known to tell the usage where `tells`.
    pub(crate) fn with_usage(self, tells: bool) -> Self {
        Self {
            usage: tells,
            ..self
        }
    }

    fn raw(frame: String, tokens: u64) -> Self {
        Self {
            frame: Bytes::from(frame),
            tokens,
            usage: false,
        }
    }
}

/// A stream to be played.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) events: VecDeque<Event>,
    /// What ends it; not counted as a chunk.
    pub(crate) end: Option<Event>,
    /// The error that a fault may put into it.
    pub(crate) error: Event,
    pub(crate) reasoning_tokens: u64,
    pub(crate) fault: Fault,
}

impl Plan {
    /// The response; `recorder` lives in its body and finishes with it.
    pub(crate) fn play(self: Box<Self>, recorder: Recorder) -> Response {
        let player = Player {
            plan: *self,
            recorder,
            ended: false,
        };
        let body = Body::from_stream(futures_util::stream::unfold(player, Player::next));
        let mut response = body.into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// A JSON answer that breaks off in the middle.
pub(crate) fn half(value: &Value) -> Response {
    let text = value.to_string();
    let length = text.len();
    let first = text
        .get(..length.div_euclid(2))
        .unwrap_or_default()
        .to_owned();
    let body = futures_util::stream::unfold(Some(first), |first| async {
        match first {
            Some(first) => Some((Ok(Bytes::from(first)), None)),
            None => {
                tokio::time::sleep(CUT_GRACE).await;
                Some((Err(Cut), None))
            }
        }
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

struct Player {
    plan: Plan,
    recorder: Recorder,
    ended: bool,
}

impl Player {
    async fn next(mut self) -> Option<(Result<Bytes, Cut>, Self)> {
        if self.ended {
            return None;
        }
        let sent = self.recorder.chunks_sent();
        let exhausted = self.plan.events.is_empty();
        let due = |after: Option<u64>| after.is_some_and(|after| sent >= after || exhausted);
        if due(self.plan.fault.cut_after_chunks) {
            return Some(self.cut().await);
        }
        if due(self.plan.fault.error_in_stream_after_chunks) {
            self.ended = true;
            self.recorder.finish(Outcome::Fault);
            return Some((Ok(self.plan.error.frame.clone()), self));
        }
        self.wait(sent == 0).await;
        if let Some(event) = self.plan.events.pop_front() {
            if sent == 0 {
                self.recorder.reasoned(self.plan.reasoning_tokens);
            }
            self.recorder.chunk_sent();
            self.note(&event);
            return Some((Ok(event.frame), self));
        }
        self.ended = true;
        let end = self.plan.end.take();
        if let Some(end) = &end {
            self.note(end);
        }
        // Before the client can see the end, so that the log has it by then.
        self.recorder.finish(Outcome::Completed);
        end.map(|end| (Ok(end.frame), self))
    }

    fn note(&mut self, event: &Event) {
        self.recorder.generated(event.tokens);
        if event.usage {
            self.recorder.usage_sent();
        }
    }

    async fn cut(mut self) -> (Result<Bytes, Cut>, Self) {
        self.ended = true;
        self.recorder.finish(Outcome::Cut);
        tokio::time::sleep(CUT_GRACE).await;
        (Err(Cut), self)
    }

    async fn wait(&self, first: bool) {
        let fault = &self.plan.fault;
        let delay_ms = if first {
            fault.first_token_delay_ms
        } else {
            fault.chunk_delay_ms
        };
        match delay_ms.filter(|delay_ms| *delay_ms > 0) {
            Some(delay_ms) => tokio::time::sleep(Duration::from_millis(delay_ms)).await,
            // Each chunk goes out by itself, as it would from a model.
            None => tokio::task::yield_now().await,
        }
    }
}
