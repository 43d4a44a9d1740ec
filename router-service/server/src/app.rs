//! One request through the router: context, plan, provider, witness.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use weir_dialects::routes::RequestClass;
use weir_router_core::{
    meter::{self, Attempt, Ending},
    refusal::Refusal,
    relay::{self, Seen, StreamRelay},
    request::{self, Prepared},
    used_once::{Use, UsedOnce},
};
use weir_wire::{
    context::{self, Verified},
    headers,
    proto::usage::Outcome,
};

use crate::{
    config::Settings,
    provider::{CallError, Provider, SILENCE_MAX},
    witness::Witnesses,
};

/// Request ids remembered in each generation: 8,000 a second.
const USED_ONCE_MAX: usize = 520_000;

/// Chunks that wait for a slow client before the provider is read no further.
const CHUNKS_WAITING: usize = 16;

/// The largest answer that is no stream, in bytes.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// How long after its error event a broken stream is reset.
const ABORT_AFTER: std::time::Duration = std::time::Duration::from_millis(100);

/// Headers of a provider's answer that reach the client.
const PASSED: [&str; 3] = ["retry-after", "openai-processing-ms", "openai-version"];

/// What every request shares.
pub struct App {
    pub settings: Settings,
    witnesses: Witnesses,
    tasks: TaskTracker,
    used: Mutex<UsedOnce>,
}

/// A request whose context was believed.
#[derive(Clone)]
pub struct Caller {
    pub verified: Verified,
    header: String,
    started: Instant,
    started_ms: i64,
}

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

impl App {
    pub fn new(settings: Settings, witnesses: Witnesses, tasks: TaskTracker) -> Self {
        Self {
            settings,
            witnesses,
            tasks,
            used: Mutex::new(UsedOnce::new(USED_ONCE_MAX)),
        }
    }

    /// Believes the signed context or refuses; whatever else the request says
    /// of its tenant is not looked at.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let started_ms = now_ms();
        let refuse = |why: &str| {
            tracing::warn!(why, "tenant context refused");
            Refusal::invalid(
                401,
                "invalid_tenant_context",
                "The request did not come through the gateway.",
            )
        };
        let mut copies = headers.get_all(headers::TENANT_CONTEXT).iter();
        let (Some(value), None) = (copies.next(), copies.next()) else {
            return Err(refuse("not exactly one header"));
        };
        let verified = context::verify(value.as_bytes(), &self.settings.keys, started_ms)
            .map_err(|e| refuse(&e.to_string()))?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match used.use_id(verified.request_id, started_ms) {
            Use::First => {}
            Use::Again => return Err(refuse("used before")),
            Use::Full => {
                return Err(Refusal::server(
                    503,
                    "overloaded",
                    "The router serves too many requests just now.",
                ));
            }
        }
        Ok(Caller {
            verified,
            header: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            started: Instant::now(),
            started_ms,
        })
    }

    /// Serves a request of a class that has a body.
    pub async fn infer(
        self: Arc<Self>,
        caller: Caller,
        class: RequestClass,
        body: Result<Bytes, Refusal>,
    ) -> Result<Answer, Refusal> {
        let prepared = body.and_then(|body| {
            let prepared = request::prepare(class, &body)?;
            let plan = &caller.verified.plan;
            let model = self.settings.offer.choose(plan, class, &prepared.model)?;
            let name = model.provider.clone();
            Ok((prepared, name))
        });
        let (prepared, provider) = match prepared {
            Ok(found) => found,
            Err(refusal) => {
                self.tell_refused(&caller, class, refusal.status);
                return Err(refusal);
            }
        };
        let (answer, answered) = oneshot::channel();
        // A task of its own: a client that leaves must not take the knowledge
        // of what its request used along.
        let call = Call {
            app: self.clone(),
            caller,
            class,
            attempt: Attempt {
                model: prepared.model.clone(),
                provider: provider.clone(),
                input_bytes: prepared.input_bytes,
            },
        };
        self.tasks.spawn(async move {
            match call.app.clone().settings.providers.get(&provider) {
                Some(provider) => call.run(provider, prepared, answer).await,
                None => tracing::error!(provider, "the catalogue names an unknown provider"),
            }
        });
        answered.await.unwrap_or_else(|_| {
            Err(Refusal::server(
                500,
                "internal_error",
                "The router failed to serve the request.",
            ))
        })
    }

    /// Witnesses a request that no provider saw.
    pub fn tell_refused(&self, caller: &Caller, class: RequestClass, status: u16) {
        let ending = ending(caller, Outcome::Rejected, status, None);
        self.tell(caller, class, None, &Seen::default(), ending);
    }

    /// Witnesses a request that the router served by itself.
    pub fn tell_served(&self, caller: &Caller, class: RequestClass, status: u16) {
        let ending = ending(caller, Outcome::Completed, status, None);
        self.tell(caller, class, None, &Seen::default(), ending);
    }

    fn tell(
        &self,
        caller: &Caller,
        class: RequestClass,
        attempt: Option<&Attempt>,
        seen: &Seen,
        ending: Ending,
    ) {
        self.witnesses.tell(meter::witness(
            &caller.verified,
            &caller.header,
            class,
            attempt,
            seen,
            ending,
        ));
    }
}

type Answered = oneshot::Sender<Result<Answer, Refusal>>;

/// One call of a provider, from its start to its witness.
struct Call {
    app: Arc<App>,
    caller: Caller,
    class: RequestClass,
    attempt: Attempt,
}

impl Call {
    async fn run(self, provider: &Provider, prepared: Prepared, answer: Answered) {
        let stream = prepared.stream;
        let hide_usage = !prepared.usage_asked;
        match provider.post(self.class, prepared.body).await {
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
        let ending = ending(&self.caller, Outcome::UpstreamError, refusal.status, None);
        self.tell(&Seen::default(), ending);
        let _ = answer.send(Err(refusal));
    }

    async fn relay_whole(self, response: reqwest::Response, answer: Answered) {
        let status = response.status();
        let headers = answer_headers(&response);
        let body = match tokio::time::timeout(SILENCE_MAX, read_whole(response)).await {
            Ok(Some(body)) => body,
            Ok(None) => return self.fail(unavailable(502, "broke off its answer"), answer),
            Err(_) => return self.fail(unavailable(504, "did not answer in time"), answer),
        };
        let first = Some(millis_since(self.caller.started));
        let seen = Seen::of_json(&body);
        if !status.is_success() {
            let ending = ending(&self.caller, Outcome::UpstreamError, status.as_u16(), first);
            self.tell(&seen, ending);
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
        self.tell(&seen, ending(&self.caller, outcome, status.as_u16(), first));
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
        let mut client = Client {
            chunks,
            gone,
            drain_until: None,
            drain: self.app.settings.drain,
        };
        let mut relay = StreamRelay::new(hide);
        let mut first = None;
        let broken = loop {
            let Some(read) = client.read(&mut response).await else {
                break false; // The time to drain is over.
            };
            match read {
                Ok(Some(chunk)) => match relay.feed(&chunk) {
                    Ok(pass) => {
                        if relay.seen().output_bytes > 0 && first.is_none() {
                            first = Some(millis_since(self.caller.started));
                        }
                        client.pass(pass).await;
                    }
                    Err(_) => break true,
                },
                Ok(None) => break !relay.seen().done && !relay.seen().error,
                Err(()) => break true,
            }
        };
        if broken {
            let error = unavailable(502, "broke off its answer").error;
            client.pass(relay::error_event(&error)).await;
            client.abort().await;
        }
        let seen = relay.seen();
        let outcome = if client.gone {
            Outcome::ClientDisconnected
        } else if broken || seen.error {
            Outcome::UpstreamError
        } else {
            Outcome::Completed
        };
        self.tell(seen, ending(&self.caller, outcome, status.as_u16(), first));
    }

    fn tell(&self, seen: &Seen, ending: Ending) {
        self.app
            .tell(&self.caller, self.class, Some(&self.attempt), seen, ending);
    }
}

/// The client's end of a stream. After it is gone the provider is read on for
/// a while, to learn what the request used.
struct Client {
    chunks: mpsc::Sender<Result<Bytes, std::io::Error>>,
    gone: bool,
    drain_until: Option<tokio::time::Instant>,
    drain: std::time::Duration,
}

impl Client {
    /// The provider's next bytes; `None` once the time to drain is over.
    async fn read(
        &mut self,
        response: &mut reqwest::Response,
    ) -> Option<Result<Option<Bytes>, ()>> {
        loop {
            let silence = tokio::time::Instant::now() + SILENCE_MAX;
            if self.gone && self.drain_until.is_none() {
                self.drain_until = Some(tokio::time::Instant::now() + self.drain);
            }
            let until = self.drain_until.unwrap_or(silence);
            tokio::select! {
                biased;
                chunk = response.chunk() => return Some(chunk.map_err(|_| ())),
                () = self.chunks.closed(), if !self.gone => self.gone = true,
                () = tokio::time::sleep_until(until) => {
                    return if self.gone { None } else { Some(Err(())) };
                }
            }
        }
    }

    async fn pass(&mut self, bytes: Vec<u8>) {
        if !self.gone && !bytes.is_empty() {
            self.gone = self.chunks.send(Ok(bytes.into())).await.is_err();
        }
    }

    /// Ends the stream as one that failed, never as one that is complete.
    async fn abort(&mut self) {
        if !self.gone {
            // The reset discards what is still queued on the way: the error
            // event gets a moment to leave.
            tokio::time::sleep(ABORT_AFTER).await;
            let error = std::io::Error::other("the provider broke off its answer");
            let _ = self.chunks.send(Err(error)).await;
        }
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

fn ending(caller: &Caller, outcome: Outcome, status: u16, first: Option<u64>) -> Ending {
    Ending {
        outcome,
        status,
        started_ms: caller.started_ms,
        first_token_ms: first,
        duration_ms: millis_since(caller.started),
    }
}

fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds of the Unix epoch.
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_millis()).ok())
        .unwrap_or(0)
}
