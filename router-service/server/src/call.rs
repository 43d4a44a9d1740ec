//! One call of a provider: its answer on the way to the client, whole or as it
//! comes, and the witness at its end.

mod refusals;
mod stream;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::{sync::oneshot, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use weir_router_core::{
    meter::Attempt,
    offer::Decision,
    refusal::Refusal,
    relay::Passage,
    seen::{Seen, Wire},
};
use weir_wire::proto::usage::Outcome;

use self::refusals::{late, provider_failed, provider_refusal, stopped, unavailable};
use crate::{
    exchange::Exchange,
    provider::{self, Provider},
};

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
    /// When the request was there as a whole.
    pub began: Instant,
    pub decision: Decision,
    pub attempt: Attempt,
    pub passage: Passage,
    /// Whether an event stream was asked for.
    pub stream: bool,
    /// What the answer's headers say of how it was served.
    pub shown: HeaderMap,
    /// How long the provider is read on after the client left.
    pub drain: Duration,
    /// From when on nothing is waited for: the router stops.
    pub stopping: CancellationToken,
}

impl Call {
    /// Calls the provider and relays what it answers.
    pub async fn run(self, provider: &Provider, passed: &HeaderMap, body: Bytes, answer: Answered) {
        let underway = provider.health.begin();
        let deadline = self.deadline(self.decision.timeout);
        let posted = provider.post(self.passage.from, passed, body);
        let posted = tokio::time::timeout_at(deadline, posted);
        let Some(posted) = self.stopping.run_until_cancelled(posted).await else {
            return self.fail(stopped(), answer);
        };
        let well = match posted {
            Ok(Ok(response)) if self.stream && is_event_stream(&response) => {
                self.relay_stream(response, answer).await
            }
            // A stream was asked for, and this is no stream; nobody who reads one
            // would know what to do with it.
            Ok(Ok(response)) if self.stream && response.status().is_success() => {
                self.fail(unavailable(502, "answered without a stream"), answer);
                false
            }
            Ok(Ok(response)) => self.relay_whole(response, answer).await,
            Ok(Err(_)) => {
                self.fail(unavailable(502, "could not be reached"), answer);
                false
            }
            Err(_) => {
                let refusal = late(&self.exchange, self.decision.timeout);
                self.fail(refusal, answer);
                false
            }
        };
        underway.end(well);
    }

    /// So long after the request was there as a whole.
    fn deadline(&self, time: Duration) -> Instant {
        self.began.checked_add(time).unwrap_or(self.began)
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

    /// Gives whether the provider did its part.
    async fn relay_whole(self, response: reqwest::Response, answer: Answered) -> bool {
        let status = response.status();
        let headers = self.answer_headers(&response);
        let deadline = self.deadline(self.decision.timeout);
        let read = tokio::time::timeout_at(deadline, read_whole(response));
        let Some(read) = self.stopping.run_until_cancelled(read).await else {
            self.fail(stopped(), answer);
            return true;
        };
        let body = match read {
            Ok(Some(body)) => body,
            Ok(None) => {
                self.fail(provider_failed(), answer);
                return false;
            }
            Err(_) => {
                let refusal = late(&self.exchange, self.decision.timeout);
                self.fail(refusal, answer);
                return false;
            }
        };
        let first = Some(self.exchange.millis());
        let seen = Seen::of_json(Wire::of(self.passage.from), &body);
        let whole = body.clone();
        if !status.is_success() {
            self.tell(&seen, Outcome::UpstreamError, status.as_u16(), first);
            let told = provider_refusal(&self.passage, status, headers, body, seen.error);
            let _ = answer.send(told);
            return !provider::is_fault(status);
        }
        let translated = if seen.understood {
            self.translated(body)
        } else {
            None
        };
        let Some(body) = translated else {
            tracing::error!(
                provider = self.decision.provider,
                "an answer is not of its dialect"
            );
            let error = seen.error.then(|| self.passage.error(&whole)).flatten();
            let refusal = match error {
                Some(error) => refusals::in_stream(Some(&error)),
                None => unavailable(502, "answered with what is no answer"),
            };
            self.tell(&seen, Outcome::UpstreamError, refusal.status, first);
            let _ = answer.send(Err(refusal));
            return false;
        };
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
        !seen.error
    }

    fn translated(&self, body: Bytes) -> Option<Bytes> {
        if self.passage.is_plain() {
            return Some(body);
        }
        self.passage.whole(&body).map(Bytes::from)
    }

    fn tell(&self, seen: &Seen, outcome: Outcome, status: u16, first: Option<u64>) {
        let attempt = Some(&self.attempt);
        self.exchange.tell(attempt, seen, outcome, status, first);
    }

    fn answer_headers(&self, response: &reqwest::Response) -> HeaderMap {
        let mut headers = self.shown.clone();
        for name in PASSED.iter().map(|n| http::HeaderName::from_static(n)) {
            if let Some(value) = response.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let json = HeaderValue::from_static("application/json");
        let content_type = match response.headers().get(header::CONTENT_TYPE) {
            Some(value) if self.passage.is_plain() || is_event_stream(response) => value.clone(),
            _ => json,
        };
        headers.insert(header::CONTENT_TYPE, content_type);
        headers
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

fn is_event_stream(response: &reqwest::Response) -> bool {
    response.status().is_success()
        && response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.trim_start().starts_with("text/event-stream"))
}
