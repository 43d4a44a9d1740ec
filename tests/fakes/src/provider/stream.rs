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
    error::ApiError,
    faults::Fault,
    log::{Outcome, Recorder},
};
use crate::server::Cut;

/// Lets what was written reach the socket before the connection is cut:
/// hyper and h2 throw away what is still buffered then.
const CUT_GRACE: Duration = Duration::from_millis(20);

/// One chunk object.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) chunk: Value,
    /// Tokens of the answer in it.
    pub(super) tokens: u64,
    /// Whether it is the one with the usage.
    pub(super) usage: bool,
}

/// A stream to be played.
#[derive(Debug)]
pub(super) struct Plan {
    events: VecDeque<Event>,
    reasoning_tokens: u64,
    fault: Fault,
}

impl Plan {
    pub(super) fn new(events: Vec<Event>, reasoning_tokens: u64, fault: Fault) -> Self {
        Self {
            events: events.into(),
            reasoning_tokens,
            fault,
        }
    }

    /// The response; `recorder` lives in its body and finishes with it.
    pub(super) fn play(self: Box<Self>, recorder: Recorder) -> Response {
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
pub(super) fn half(value: &Value) -> Response {
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
            let error = ApiError::fault(500, None).body();
            return Some((Ok(frame(&error)), self));
        }
        self.wait(sent == 0).await;
        match self.plan.events.pop_front() {
            Some(event) => {
                if sent == 0 {
                    self.recorder.reasoned(self.plan.reasoning_tokens);
                }
                self.recorder.chunk_sent();
                self.recorder.generated(event.tokens);
                if event.usage {
                    self.recorder.usage_sent();
                }
                Some((Ok(frame(&event.chunk)), self))
            }
            None => {
                self.ended = true;
                // Before the client can see the end, so that the log has it by then.
                self.recorder.finish(Outcome::Completed);
                Some((Ok(Bytes::from_static(b"data: [DONE]\n\n")), self))
            }
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

fn frame(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}
