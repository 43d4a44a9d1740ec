//! One call of a provider up to the point from which on there is no other one: its
//! whole answer, or the first content of its stream.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_router_core::{
    health::Fault,
    refusal::Refusal,
    relay::{Passage, StreamRelay},
    seen::{Seen, Wire},
};
use weir_wire::ids::PlanName;

use super::{
    Answer, AnswerBody,
    refusals::{self, Verdict, in_stream, late, provider_failed, stopped, unavailable},
};
use crate::{
    client::in_future,
    provider::{Provider, SILENCE_MAX},
};

/// The largest answer that is no stream, in bytes.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// The most bytes of events without content that wait for the first one with
/// some: a provider that sends what is not known does not wait for ever.
const HELD_MAX_BYTES: usize = 16 << 10;

/// The most of those events: OpenAI's streams begin with one for each choice,
/// Anthropic's and those of `responses` with three or four.
const HELD_MAX_EVENTS: usize = 8;

/// What is asked of whom.
pub struct Start<'a> {
    pub provider: &'a Provider,
    pub passage: Passage,
    /// Whether an event stream was asked for.
    pub stream: bool,
    /// Headers of the client's that go along.
    pub passed: &'a HeaderMap,
    pub body: Bytes,
    /// When it must have started.
    pub deadline: Instant,
    /// The plan and its time, for who is told that it is over.
    pub plan: &'a PlanName,
    pub time: Duration,
    /// Whether the client is gone, and how long is waited then.
    pub gone: &'a CancellationToken,
    pub drain: Duration,
    /// From when on nothing is waited for: the router stops.
    pub stopping: &'a CancellationToken,
}

/// What came.
pub enum Started {
    Stream(Box<Begun>),
    Whole {
        answer: Answer,
        seen: Seen,
    },
    /// The request is at fault, by the provider's word.
    Refused {
        answer: Answer,
        seen: Seen,
    },
}

/// A stream that has begun.
pub struct Begun {
    pub response: reqwest::Response,
    pub relay: StreamRelay,
    /// For the client, as far as it came.
    pub held: Vec<u8>,
    /// Whether that is all.
    pub ended: bool,
}

/// Nothing came that a client could be given.
pub struct Failed {
    /// What of it is the provider's fault; `None` where nothing is: the router
    /// stops, or the client is gone.
    pub fault: Option<Fault>,
    /// What the client is told if nobody else serves.
    pub refusal: Refusal,
    pub seen: Seen,
    /// Whether the provider was asked at all.
    pub was_called: bool,
}

impl Failed {
    pub fn new(fault: Fault, refusal: Refusal) -> Self {
        Self {
            fault: Some(fault),
            refusal,
            seen: Seen::default(),
            was_called: true,
        }
    }

    pub fn faultless(refusal: Refusal) -> Self {
        Self {
            fault: None,
            refusal,
            seen: Seen::default(),
            was_called: true,
        }
    }
}

impl Start<'_> {
    /// Calls, and waits until there is something to give to the client.
    pub async fn run(self) -> Result<Started, Failed> {
        let posted = self
            .provider
            .post(self.passage.from, self.passed, self.body.clone());
        let response = match self.in_time(posted).await? {
            Ok(response) => response,
            Err(_) => {
                let refusal = unavailable(502, "could not be reached");
                return Err(Failed::new(Fault::Unreachable, refusal));
            }
        };
        if self.stream && is_event_stream(&response) {
            return self.begin(response).await;
        }
        if self.stream && response.status().is_success() {
            // Nobody who reads a stream would know what to do with it.
            let refusal = unavailable(502, "answered without a stream");
            return Err(Failed::new(Fault::Server, refusal));
        }
        self.whole(response).await
    }

    /// Waits for something of the provider's, within all bounds.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Failed> {
        let mut work = std::pin::pin!(work);
        let mut deadline = self.deadline;
        let mut is_gone = false;
        loop {
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return Err(Failed::faultless(stopped())),
                done = &mut work => return Ok(done),
                // What is no stream is waited for: it costs what it costs.
                () = self.gone.cancelled(), if self.stream && !is_gone => {
                    is_gone = true;
                    deadline = deadline.min(in_future(self.drain));
                }
                () = tokio::time::sleep_until(deadline) => {
                    let refusal = late(self.plan, self.time);
                    return Err(match is_gone {
                        true => Failed::faultless(refusal),
                        false => Failed::new(Fault::TimedOut, refusal),
                    });
                }
            }
        }
    }

    async fn whole(&self, response: reqwest::Response) -> Result<Started, Failed> {
        let status = response.status();
        let headers = answer_headers(&self.passage, &response);
        let retry_after_ms = refusals::retry_after_ms(response.headers());
        let read = self.in_time(read_whole(response)).await?;
        let Some(body) = read else {
            return Err(Failed::new(Fault::BrokenStream, provider_failed()));
        };
        let seen = Seen::of_json(Wire::of(self.passage.from), &body);
        if !status.is_success() {
            let told = refusals::Told {
                status,
                headers,
                body,
                has_error: seen.error,
                retry_after_ms,
            };
            return match refusals::verdict(&self.passage, told) {
                Verdict::Request(answer) => Ok(Started::Refused { answer, seen }),
                Verdict::Provider(fault, refusal) => Err(Failed {
                    fault: Some(fault),
                    refusal,
                    seen,
                    was_called: true,
                }),
            };
        }
        let translated = match (seen.understood, self.passage.is_plain()) {
            (false, _) => None,
            (true, true) => Some(body.clone()),
            (true, false) => self.passage.whole(&body).map(Bytes::from),
        };
        let Some(translated) = translated else {
            tracing::error!(
                provider = self.provider.name,
                "an answer is not of its dialect"
            );
            let error = seen.error.then(|| self.passage.error(&body)).flatten();
            let (fault, refusal) = match error {
                Some(error) => in_stream(Some(&error)),
                None => {
                    let refusal = unavailable(502, "answered with what is no answer");
                    (Some(Fault::Server), refusal)
                }
            };
            return Err(Failed {
                fault,
                refusal,
                seen,
                was_called: true,
            });
        };
        let answer = Answer {
            status,
            headers,
            body: AnswerBody::Whole(translated),
        };
        Ok(Started::Whole { answer, seen })
    }

    /// Reads until there is content, or the end.
    async fn begin(&self, mut response: reqwest::Response) -> Result<Started, Failed> {
        let mut relay = StreamRelay::new(self.passage);
        let mut held = Vec::new();
        let failed = |relay: &StreamRelay, (fault, refusal): (Option<Fault>, Refusal)| Failed {
            fault,
            refusal,
            seen: relay.seen().clone(),
            was_called: true,
        };
        let broken = || (Some(Fault::BrokenStream), provider_failed());
        loop {
            let chunk = tokio::time::timeout(SILENCE_MAX, response.chunk());
            let chunk = match self.in_time(chunk).await {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(_)) => {
                    let refusal = late(self.plan, self.time);
                    return Err(failed(&relay, (Some(Fault::TimedOut), refusal)));
                }
                Err(early) => {
                    let seen = relay.seen().clone();
                    return Err(Failed { seen, ..early });
                }
            };
            match chunk {
                Ok(Some(chunk)) => match relay.feed(&chunk) {
                    Ok(pass) => held.extend(pass),
                    Err(_) => return Err(failed(&relay, broken())),
                },
                Ok(None) if relay.seen().done => {}
                Ok(None) | Err(_) => return Err(failed(&relay, broken())),
            }
            let seen = relay.seen();
            if seen.error && seen.output_bytes == 0 {
                let told = in_stream(relay.error());
                return Err(failed(&relay, told));
            }
            let ended = seen.done;
            let held_enough = held.len() > HELD_MAX_BYTES || relay.events() > HELD_MAX_EVENTS;
            if ended || seen.output_bytes > 0 || held_enough {
                return Ok(Started::Stream(Box::new(Begun {
                    response,
                    relay,
                    held,
                    ended,
                })));
            }
        }
    }
}

/// Headers of a provider's answer that reach the client.
const PASSED: [&str; 3] = ["retry-after", "openai-processing-ms", "openai-version"];

/// What of a provider's headers goes on.
pub fn answer_headers(passage: &Passage, response: &reqwest::Response) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    for name in PASSED.iter().map(|n| http::HeaderName::from_static(n)) {
        if let Some(value) = response.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let content_type = match response.headers().get(header::CONTENT_TYPE) {
        Some(value) if passage.is_plain() || is_event_stream(response) => value.clone(),
        _ => http::HeaderValue::from_static("application/json"),
    };
    headers.insert(header::CONTENT_TYPE, content_type);
    headers
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
    response.status() == StatusCode::OK
        && response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.trim_start().starts_with("text/event-stream"))
}
