//! An event stream on its way to the client.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use weir_router_core::{
    refusal::Refusal,
    relay::{self, StreamRelay},
};
use weir_wire::proto::usage::Outcome;

use super::{
    Answer, AnswerBody, Answered, Call,
    refusals::{in_stream, late, provider_failed, stopped},
};
use crate::{
    client::{Client, Next, Patience, in_future},
    provider::SILENCE_MAX,
};

/// Chunks that wait for a slow client before the provider is read no further.
const CHUNKS_WAITING: usize = 4;

/// The most bytes of events without content that wait for the first one with
/// some: a provider that sends what is not known does not wait for ever.
const HELD_MAX_BYTES: usize = 16 << 10;

/// The most of those events: OpenAI's streams begin with one for each choice,
/// Anthropic's and those of `responses` with three or four.
const HELD_MAX_EVENTS: usize = 8;

/// How long after its end a provider's answer is read on, so that its connection
/// can be used again.
const TAIL: Duration = Duration::from_millis(200);

/// How a stream began.
enum Begun {
    /// With these bytes for the client.
    Content(Vec<u8>),
    /// With its end, as far as it came: nothing more is to be read.
    Ended(Vec<u8>),
    /// Not at all.
    Failed(Refusal),
}

/// A stream that is read while nothing of it has gone to the client.
struct Beginning<'a> {
    relay: &'a mut StreamRelay,
    response: &'a mut reqwest::Response,
    answer: &'a mut Answered,
    deadline: Instant,
}

impl Call {
    /// Gives whether the provider did its part.
    pub(super) async fn relay_stream(
        self,
        mut response: reqwest::Response,
        mut answer: Answered,
    ) -> bool {
        let mut relay = StreamRelay::new(self.passage);
        let begun = self
            .begin(Beginning {
                relay: &mut relay,
                response: &mut response,
                answer: &mut answer,
                deadline: self.deadline(self.decision.timeout),
            })
            .await;
        let (held, ended) = match begun {
            Begun::Content(held) => (held, false),
            Begun::Ended(held) => (held, true),
            Begun::Failed(refusal) => {
                let outcome = match answer.is_closed() {
                    true => Outcome::ClientDisconnected,
                    false => Outcome::UpstreamError,
                };
                let fault = refusal.error.code.as_deref() != Some("router_stopping");
                self.tell(relay.seen(), outcome, refusal.status, None);
                let _ = answer.send(Err(refusal));
                return !fault;
            }
        };
        let first = Some(self.exchange.millis());
        let status = response.status();
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
        let gone = answer
            .send(Ok(Answer {
                status,
                headers: self.answer_headers(&response),
                body: AnswerBody::Stream(ReceiverStream::new(receiver)),
            }))
            .is_err();
        let patience = Patience {
            deadline: self.deadline(self.decision.stream_total),
            drain: self.drain,
            stopping: self.stopping.clone(),
        };
        let mut client = Client::new(chunks, gone, patience);
        client.pass(held).await;
        let broken = match ended {
            true => None,
            false => self.go_on(&mut client, &mut relay, &mut response).await,
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
        let well = !seen.error && broken.as_ref().is_none_or(|r| r.status == 503);
        match broken {
            Some(refusal) => {
                let event = relay::error_event(self.passage.to, &refusal.error, refusal.status);
                client.abort(event).await;
            }
            // The error went to the client already, as it came or translated; its
            // stream does not end as one that is complete.
            None if seen.error => client.abort(Vec::new()).await,
            None => {
                drop(client);
                let _ = tokio::time::timeout(TAIL, response.chunk()).await;
            }
        }
        well
    }

    /// Reads until there is content, or the end.
    async fn begin(&self, stream: Beginning<'_>) -> Begun {
        let Beginning {
            relay,
            response,
            answer,
            mut deadline,
        } = stream;
        let mut held = Vec::new();
        let mut gone = false;
        loop {
            let silent_at = in_future(SILENCE_MAX);
            let until = deadline.min(silent_at);
            let chunk = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return Begun::Failed(stopped()),
                chunk = response.chunk() => chunk,
                () = answer.closed(), if !gone => {
                    gone = true;
                    deadline = deadline.min(in_future(self.drain));
                    continue;
                }
                () = tokio::time::sleep_until(until) => {
                    return Begun::Failed(late(&self.exchange, self.decision.timeout));
                }
            };
            match chunk {
                Ok(Some(chunk)) => match relay.feed(&chunk) {
                    Ok(pass) => held.extend(pass),
                    Err(_) => return Begun::Failed(provider_failed()),
                },
                Ok(None) if relay.seen().done => return Begun::Ended(held),
                Ok(None) | Err(_) => return Begun::Failed(provider_failed()),
            }
            let seen = relay.seen();
            if seen.done {
                return Begun::Ended(held);
            }
            if seen.error && seen.output_bytes == 0 {
                return Begun::Failed(in_stream(relay.error()));
            }
            let held_enough = held.len() > HELD_MAX_BYTES || relay.events() > HELD_MAX_EVENTS;
            if seen.output_bytes > 0 || held_enough {
                return Begun::Content(held);
            }
        }
    }

    /// Reads on to the end; gives why there was none.
    async fn go_on(
        &self,
        client: &mut Client,
        relay: &mut StreamRelay,
        response: &mut reqwest::Response,
    ) -> Option<Refusal> {
        loop {
            match client.next(response).await {
                Next::Chunk(chunk) => {
                    match relay.feed(&chunk) {
                        Ok(pass) => client.pass(pass).await,
                        Err(_) => return Some(provider_failed()),
                    }
                    if relay.seen().done {
                        return None;
                    }
                }
                Next::End if relay.seen().error => return None,
                Next::End | Next::Broken => return Some(provider_failed()),
                Next::Drained => return None,
                Next::Late => return Some(late(&self.exchange, self.decision.stream_total)),
                Next::Stopping => return Some(stopped()),
            }
        }
    }
}
