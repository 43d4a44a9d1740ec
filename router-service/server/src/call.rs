//! One call of a provider: its answer on the way to the client, whole or as it
//! comes, and the witness at its end.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use weir_router_core::{
    meter::Attempt,
    refusal::Refusal,
    relay::{self, Seen, StreamRelay},
    request::Prepared,
};
use weir_wire::proto::usage::Outcome;

use crate::{
    client::{Client, Next},
    exchange::Exchange,
    provider::{CallError, Provider, SILENCE_MAX},
};

/// Chunks that wait for a slow client before the provider is read no further.
const CHUNKS_WAITING: usize = 16;

/// The largest answer that is no stream, in bytes.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Headers of a provider's answer that reach the client.
const PASSED: [&str; 3] = ["retry-after", "openai-processing-ms", "openai-version"];

/// What goes back to the client.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: AnswerBody,
}

/// Whole or as it comes.
pub enum AnswerBody {
    Whole(Bytes),
    Stream(ReceiverStream<Result<Bytes, std::io::Error>>),
}

/// Where the answer goes, as soon as there is one.
pub type Answered = oneshot::Sender<Result<Answer, Refusal>>;

/// One call of a provider, from its start to its witness.
pub struct Call {
    pub exchange: Exchange,
    pub attempt: Attempt,
    /// How long the provider is read on after the client left.
    pub drain: Duration,
    /// From when on nothing is waited for: the router stops.
    pub stopping: CancellationToken,
}

impl Call {
    /// Calls the provider and relays what it answers.
    pub async fn run(self, provider: &Provider, prepared: Prepared, answer: Answered) {
        let stream = prepared.stream;
        let hide_usage = !prepared.usage_asked;
        let posted = provider.post(self.exchange.class, prepared.body);
        let Some(posted) = self.stopping.run_until_cancelled(posted).await else {
            return self.fail(stopped(), answer);
        };
        match posted {
            Ok(response) if stream && is_event_stream(&response) => {
                self.relay_stream(response, hide_usage, answer).await;
            }
            Ok(response) => self.relay_whole(response, answer).await,
            Err(error) => {
                let refusal = match error {
                    CallError::Unreachable => unavailable(502, "could not be reached"),
                    CallError::Silent => unavailable(504, "did not answer in time"),
                };
                self.fail(refusal, answer);
            }
        }
    }

    fn fail(self, refusal: Refusal, answer: Answered) {
        self.tell(
            &Seen::default(),
            Outcome::UpstreamError,
            refusal.status,
            None,
        );
        let _ = answer.send(Err(refusal));
    }

    async fn relay_whole(self, response: reqwest::Response, answer: Answered) {
        let status = response.status();
        let headers = answer_headers(&response);
        let read = tokio::time::timeout(SILENCE_MAX, read_whole(response));
        let Some(read) = self.stopping.run_until_cancelled(read).await else {
            return self.fail(stopped(), answer);
        };
        let body = match read {
            Ok(Some(body)) => body,
            Ok(None) => return self.fail(provider_failed(), answer),
            Err(_) => return self.fail(unavailable(504, "did not answer in time"), answer),
        };
        let first = Some(self.exchange.millis());
        let seen = Seen::of_json(&body);
        if !status.is_success() {
            self.tell(&seen, Outcome::UpstreamError, status.as_u16(), first);
            let _ = answer.send(provider_refusal(status, headers, body, seen.error));
            return;
        }
        let sent = answer.send(Ok(Answer {
            status,
            headers,
            body: AnswerBody::Whole(body),
        }));
        let outcome = match (seen.error, sent) {
            (true, _) => Outcome::UpstreamError,
            (false, Ok(())) => Outcome::Completed,
            (false, Err(_)) => Outcome::ClientDisconnected,
        };
        self.tell(&seen, outcome, status.as_u16(), first);
    }

    async fn relay_stream(self, mut response: reqwest::Response, hide: bool, answer: Answered) {
        let status = response.status();
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
        let gone = answer
            .send(Ok(Answer {
                status,
                headers: answer_headers(&response),
                body: AnswerBody::Stream(ReceiverStream::new(receiver)),
            }))
            .is_err();
        let mut client = Client::new(chunks, gone, self.drain, self.stopping.clone());
        let mut relay = StreamRelay::new(hide);
        let mut first = None;
        let broken = loop {
            match client.next(&mut response).await {
                Next::Chunk(chunk) => match relay.feed(&chunk) {
                    Ok(pass) => {
                        if relay.seen().output_bytes > 0 && first.is_none() {
                            first = Some(self.exchange.millis());
                        }
                        client.pass(pass).await;
                    }
                    Err(_) => break Some(provider_failed()),
                },
                Next::End if relay.seen().done || relay.seen().error => break None,
                Next::End | Next::Broken => break Some(provider_failed()),
                Next::Drained => break None,
                Next::Stopping => break Some(stopped()),
            }
        };
        let seen = relay.seen();
        let outcome = if client.is_gone() {
            Outcome::ClientDisconnected
        } else if broken.is_some() || seen.error {
            Outcome::UpstreamError
        } else {
            Outcome::Completed
        };
        self.tell(seen, outcome, status.as_u16(), first);
        if let Some(refusal) = broken {
            client.abort(relay::error_event(&refusal.error)).await;
        }
    }

    fn tell(&self, seen: &Seen, outcome: Outcome, status: u16, first: Option<u64>) {
        let attempt = Some(&self.attempt);
        self.exchange.tell(attempt, seen, outcome, status, first);
    }
}

async fn read_whole(mut response: reqwest::Response) -> Option<Bytes> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len().saturating_add(chunk.len()) > ANSWER_MAX_BYTES {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body.into())
}

/// What a client is told of a provider's refusal. That our own key was refused
/// is no news for a tenant, whose key is good.
fn provider_refusal(
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    has_error: bool,
) -> Result<Answer, Refusal> {
    match status.as_u16() {
        401 | 403 => {
            tracing::error!(%status, "the provider refused the router's key");
            Err(unavailable(502, "refused the router"))
        }
        300..=399 => Err(unavailable(502, "answered with a redirect")),
        _ if has_error => Ok(Answer {
            status,
            headers,
            body: AnswerBody::Whole(body),
        }),
        code => Err(unavailable(code, "answered with an error")),
    }
}

fn unavailable(status: u16, what: &str) -> Refusal {
    Refusal::server(
        status,
        "provider_error",
        format!("The model's provider {what}."),
    )
}

fn provider_failed() -> Refusal {
    unavailable(502, "broke off its answer")
}

fn stopped() -> Refusal {
    Refusal::server(
        503,
        "router_stopping",
        "The router stops; send the request again.",
    )
}

fn is_event_stream(response: &reqwest::Response) -> bool {
    response.status().is_success()
        && response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.trim_start().starts_with("text/event-stream"))
}

fn answer_headers(response: &reqwest::Response) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in PASSED.iter().map(|n| http::HeaderName::from_static(n)) {
        if let Some(value) = response.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    if let Some(value) = response.headers().get(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, value.clone());
    }
    headers
}
