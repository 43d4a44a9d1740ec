//! One request on its way through the providers that may serve it: attempts, one
//! answer, and its settlement and witness at the end.

mod attempt;
mod deliver;
mod refusals;
mod start;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::{sync::oneshot, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use weir_router_core::{
    attempts::{Attempts, GaveUp, Next},
    count::Input,
    offer::Decision,
    refusal::Refusal,
    request::Asked,
};
use weir_wire::proto::usage::Outcome;

pub use self::attempt::Going;
use self::{
    refusals::{all_down, late},
    start::{Failed, Started},
};
use crate::{
    exchange::Exchange,
    money::{Certain, Hold, Terms},
    ways::Ways,
};

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

/// How far a stream is read on after its client left, to learn what it used.
#[derive(Debug, Clone, Copy)]
pub struct WayOut {
    pub drain: Duration,
    /// The most tokens, roughly.
    pub tokens: usize,
}

/// One request, from its first attempt to its witness.
pub struct Call {
    pub exchange: Exchange,
    pub asked: Asked,
    /// The body as the client sent it.
    pub bytes: Bytes,
    /// Headers of the client's that a provider of its dialect gets.
    pub passed: HeaderMap,
    /// For estimates: the body, and its tokens roughly.
    pub input: (Input, u64),
    /// Who may serve it, the best first.
    pub candidates: Vec<Decision>,
    /// The first of them.
    pub first: Decision,
    /// The body as that one's provider is sent it.
    pub first_body: Bytes,
    pub terms: Terms,
    pub ways: Arc<Ways>,
    /// When the request was there as a whole.
    pub began: Instant,
    pub way_out: WayOut,
    /// What each candidate's attempt may come to, see [`Hold::cover`].
    pub bounds: Vec<u64>,
    /// After so long without a first token a second attempt begins.
    pub hedge: Option<Duration>,
    /// From when on nothing is waited for: the router stops.
    pub stopping: CancellationToken,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub outcome: Outcome,
    pub status: u16,
    pub first_token_ms: Option<u64>,
}

impl Call {
    /// Serves it, and tells what became of it.
    pub async fn run(self, mut hold: Hold, answer: Answered) {
        let ended = self.serve(&mut hold, answer).await;
        self.close(&mut hold, ended).await;
    }

    /// Witnesses and settles, each once. In this order: a router that is killed
    /// between the two settles by the witness when it starts again.
    async fn close(&self, hold: &mut Hold, ended: Ended) {
        self.tell(hold, ended).await;
        if !hold.is_settled() {
            hold.settle().await;
        }
    }

    /// Witnesses, once: before the end of an answer goes to its client, so that
    /// nothing that was answered is lost with this process.
    async fn tell(&self, hold: &mut Hold, ended: Ended) {
        if std::mem::replace(&mut hold.is_told, true) {
            return;
        }
        let usage = hold.live.usage();
        let (class, model) = (self.exchange.class, &self.asked.model);
        self.ways.metrics.request(class, ended.outcome);
        self.exchange.tell(model, usage, &ended).await;
    }

    async fn serve(&self, hold: &mut Hold, mut answer: Answered) -> Ended {
        let gone = CancellationToken::new();
        let mut attempts = self.ways.attempts(&self.candidates, self.left());
        let mut last: Option<Failed> = None;
        loop {
            let (candidate, pause) = match self.next(&mut attempts, hold).await {
                Next::Call {
                    candidate,
                    after_ms,
                } => (candidate, Duration::from_millis(after_ms)),
                Next::GiveUp {
                    why,
                    retry_after_ms,
                } => {
                    return self.give_up(last, why, retry_after_ms, answer);
                }
            };
            if !pause.is_zero() {
                tokio::select! {
                    () = self.stopping.cancelled() => {}
                    () = answer.closed() => gone.cancel(),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            let went = self
                .go(candidate, &mut attempts, hold, &gone, &mut answer)
                .await;
            let failed = match went {
                Ok((going, started)) => match hold.certain().await {
                    Certain::Refused(why) => {
                        // It was called beside its hold, which there is not.
                        going.withdraw(self, hold);
                        return self.fail(hold.refusal(why), answer);
                    }
                    Certain::Held | Certain::Unavailable => {
                        return self.deliver(going, started, hold, answer).await;
                    }
                },
                Err(failed) => failed,
            };
            let Some(fault) = failed.fault.filter(|_| !answer.is_closed()) else {
                return self.fail(failed.refusal, answer);
            };
            match failed.was_called {
                true => attempts.failed(candidate, fault),
                // It has no room: asking it again takes others' retries.
                false => attempts.lost(candidate),
            }
            if candidate == 0 && self.candidates.len() > 1 {
                self.ways.metrics.failed_over();
            }
            last = Some(failed);
        }
    }

    /// Who is next, among those that the budget covers.
    async fn next(&self, attempts: &mut Attempts, hold: &mut Hold) -> Next {
        loop {
            let next = self.ways.next(attempts, &self.candidates);
            let Next::Call { candidate, .. } = next else {
                return next;
            };
            let is_held = candidate == 0 && attempts.made() == 1;
            if is_held {
                return next;
            }
            let can_be_sent = candidate == 0 || self.body_for(candidate).is_ok();
            if can_be_sent && hold.cover(self.bound(candidate)).await {
                return next;
            }
            attempts.lost(candidate);
        }
    }

    async fn deliver(
        &self,
        mut going: Going,
        started: Started,
        hold: &mut Hold,
        answer: Answered,
    ) -> Ended {
        let (mut answered, seen, outcome) = match started {
            Started::Stream(begun) => {
                return self.deliver_stream(going, *begun, hold, answer).await;
            }
            Started::Whole { answer, seen } => (answer, seen, Outcome::Completed),
            Started::Refused { answer, seen } => (answer, seen, Outcome::Rejected),
        };
        self.show(&mut answered.headers, &going, hold);
        let outcome = match (outcome, answer.is_closed()) {
            (Outcome::Completed, true) => Outcome::ClientDisconnected,
            (outcome, _) => outcome,
        };
        self.made(&mut going, &seen, outcome, hold);
        going.end(None);
        let ended = Ended {
            outcome,
            status: answered.status.as_u16(),
            first_token_ms: Some(self.exchange.millis()),
        };
        self.tell(hold, ended).await;
        if hold.is_near() {
            // The tenant's next request is to see what this one came to.
            self.close(hold, ended).await;
        }
        let outcome = match (outcome, answer.send(Ok(answered))) {
            (Outcome::Completed, Err(_)) => Outcome::ClientDisconnected,
            (outcome, _) => outcome,
        };
        Ended { outcome, ..ended }
    }

    /// Nobody serves.
    fn give_up(
        &self,
        last: Option<Failed>,
        why: GaveUp,
        retry_after_ms: u64,
        answer: Answered,
    ) -> Ended {
        let is_over = why == GaveUp::Deadline || self.left().is_zero();
        let refusal = match last {
            Some(failed) if is_over && failed.refusal.status != 504 => {
                late(&self.terms.plan, self.timeout())
            }
            // There was nobody else to ask: it is told as it was.
            Some(failed) if is_over || self.candidates.len() == 1 => failed.refusal,
            _ => all_down(retry_after_ms),
        };
        self.fail(refusal, answer)
    }

    fn fail(&self, refusal: Refusal, answer: Answered) -> Ended {
        let outcome = match answer.is_closed() {
            true => Outcome::ClientDisconnected,
            false => Outcome::UpstreamError,
        };
        let status = refusal.status;
        let _ = answer.send(Err(refusal));
        Ended {
            outcome,
            status,
            first_token_ms: None,
        }
    }

    /// A candidate; `Attempts` gives none beyond those that it was told of.
    fn decision(&self, candidate: usize) -> &Decision {
        self.candidates.get(candidate).unwrap_or(&self.first)
    }

    fn bound(&self, candidate: usize) -> u64 {
        self.bounds.get(candidate).copied().unwrap_or(0)
    }

    /// The plan's time to a first token, or to a whole answer.
    fn timeout(&self) -> Duration {
        self.decision(0).timeout
    }

    /// So long after the request was there as a whole.
    fn deadline(&self, time: Duration) -> Instant {
        self.began.checked_add(time).unwrap_or(self.began)
    }

    /// What of the plan's time is left.
    fn left(&self) -> Duration {
        let end = self.deadline(self.timeout());
        end.saturating_duration_since(Instant::now())
    }
}
