//! One attempt at a request, or two where it is hedged.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_router_core::{
    attempts::Attempts,
    health::Fault,
    meter::{self, Attempt},
    refusal::Refusal,
    relay::Passage,
    request::Body,
    seen::Seen,
};
use weir_wire::{headers, proto::usage::Outcome};

use super::{
    Answered, Call,
    refusals::{all_down, late, stopped, unavailable},
    start::{Failed, Start, Started},
};
use crate::{
    client::in_future,
    money::{Certain, Hold, Live},
    provider::Provider,
    ways::{Turn, Underway, queue_full},
};

/// What of the time that is left one candidate gets, in percent, while there are
/// others that could be asked after it.
const SHARE_PERCENT: u32 = 60;

/// A first token that takes longer than that is no short plan's fault.
const FIRST_TOKEN: Duration = Duration::from_secs(5);

/// Nor is a whole answer.
const WHOLE_ANSWER: Duration = Duration::from_secs(60);

/// An attempt whose answer the client gets.
pub struct Going {
    /// Which candidate.
    pub candidate: usize,
    /// Which attempt, from 1.
    pub number: u32,
    underway: Underway,
    /// Its place at a backend that is shared, until the end.
    turn: Option<Turn>,
}

impl Going {
    /// It ended: well, or by that fault of the provider's.
    pub fn end(self, fault: Option<Fault>) {
        self.underway.end(fault);
        drop(self.turn);
    }

    /// Nobody gets what it gave.
    pub(super) fn withdraw(self, call: &Call, hold: &Hold) {
        let attempt = call.attempt(self.candidate, self.number, true);
        hold.live.made(self.number, attempt.so_far(0));
        self.end(None);
    }
}

/// An attempt until it is known what it is: where it is dropped before, another one
/// was faster, and nobody pays for what it read.
struct Trying<'a> {
    call: &'a Call,
    live: &'a Live,
    candidate: usize,
    number: u32,
    is_known: bool,
}

impl Trying<'_> {
    fn failed(&mut self, failed: &Failed) {
        self.is_known = true;
        let attempt = self.call.attempt(self.candidate, self.number, true);
        let usage = match failed.fault {
            // It may well have read everything, and thought for long.
            Some(Fault::TimedOut) => attempt.so_far(0),
            _ => meter::usage(&attempt, &failed.seen, Outcome::UpstreamError),
        };
        self.live.made(self.number, usage);
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if !self.is_known {
            let attempt = self.call.attempt(self.candidate, self.number, true);
            self.live.made(self.number, attempt.so_far(0));
        }
    }
}

/// Who is asked, and which attempt it is.
#[derive(Debug, Clone, Copy)]
struct Which {
    candidate: usize,
    number: u32,
}

impl Call {
    /// Makes an attempt; a second one beside it where the first is slow and the
    /// plan hedges.
    pub(super) async fn go(
        &self,
        candidate: usize,
        attempts: &mut Attempts,
        hold: &mut Hold,
        gone: &CancellationToken,
        answer: &mut Answered,
    ) -> Result<(Going, Started), Failed> {
        let live = Arc::clone(&hold.live);
        let number = attempts.made();
        let first = Which { candidate, number };
        let mut first = std::pin::pin!(self.attempt_once(first, &live, gone));
        let mut hedge_at = self.hedge.map(in_future);
        let other = loop {
            let at = hedge_at.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                went = &mut first => return went,
                () = answer.closed(), if !gone.is_cancelled() => gone.cancel(),
                () = tokio::time::sleep_until(at), if hedge_at.is_some() => {
                    hedge_at = None;
                    if let Some(other) = self.beside(candidate, attempts, hold, gone).await {
                        break other;
                    }
                }
            }
        };
        self.ways.metrics.hedged();
        let second = Which {
            candidate: other,
            number: attempts.made(),
        };
        let mut second = std::pin::pin!(self.attempt_once(second, &live, gone));
        // Of two that failed the one that is nobody's fault ends the request.
        let failed = loop {
            tokio::select! {
                biased;
                () = answer.closed(), if !gone.is_cancelled() => gone.cancel(),
                went = &mut first => match went {
                    Ok(won) => return Ok(won),
                    Err(failed) => break (failed, second.await),
                },
                went = &mut second => match went {
                    Ok(won) => {
                        self.ways.metrics.hedge_won();
                        return Ok(won);
                    }
                    Err(failed) => break (failed, first.await),
                },
            }
        };
        match failed {
            (_, Ok(won)) => Ok(won),
            (one, Err(beside)) => {
                if let Some(fault) = beside.fault {
                    attempts.failed(other, fault);
                    return Err(one);
                }
                Err(beside)
            }
        }
    }

    /// Whom to ask beside an attempt that is slow, if anybody.
    async fn beside(
        &self,
        candidate: usize,
        attempts: &mut Attempts,
        hold: &mut Hold,
        gone: &CancellationToken,
    ) -> Option<usize> {
        if gone.is_cancelled() || !matches!(hold.certain().await, Certain::Held) {
            return None;
        }
        let other = self.ways.hedge(attempts, &self.candidates)?;
        let both = self.bound(candidate).saturating_add(self.bound(other));
        let can_be_sent = other == 0 || self.body_for(other).is_ok();
        if can_be_sent && hold.cover(both).await {
            return Some(other);
        }
        attempts.lost(other);
        None
    }

    async fn attempt_once(
        &self,
        which: Which,
        live: &Live,
        gone: &CancellationToken,
    ) -> Result<(Going, Started), Failed> {
        let Which { candidate, number } = which;
        let decision = self.decision(candidate);
        let passage = self.passage(candidate);
        let began = Instant::now();
        live.begin(self.attempt(candidate, number, false));
        let mut trying = Trying {
            call: self,
            live,
            candidate,
            number,
            is_known: false,
        };
        let prepared = self.prepare(candidate).map_err(Failed::faultless);
        let (provider, body) = match prepared {
            Ok(prepared) => prepared,
            Err(failed) => {
                trying.failed(&failed);
                return Err(failed);
            }
        };
        let deadline = self.deadline_of(candidate);
        let turn = match self.queue(candidate, deadline, gone).await {
            Ok(turn) => turn,
            Err(failed) => {
                trying.failed(&failed);
                return Err(failed);
            }
        };
        let Some(mut underway) = self.ways.begin(&provider, &decision.model) else {
            let closed = Fault::Overloaded {
                retry_after_ms: None,
            };
            let failed = Failed {
                was_called: false,
                ..Failed::new(closed, all_down(1_000))
            };
            trying.failed(&failed);
            return Err(failed);
        };
        let none = HeaderMap::new();
        let start = Start {
            provider: &provider,
            passage,
            stream: self.asked.stream,
            // A translated body is the router's own.
            passed: match passage.is_plain() {
                true => &self.passed,
                false => &none,
            },
            body,
            deadline,
            plan: &self.terms.plan,
            time: self.timeout(),
            gone,
            drain: self.way_out.drain,
            stopping: &self.stopping,
        };
        match start.run().await {
            Ok(started) => {
                trying.is_known = true;
                let after = began.elapsed();
                if self.asked.stream {
                    underway.started(after);
                }
                let (name, model) = (&provider.name, &decision.model);
                self.ways.metrics.first_token(name, model, after);
                let going = Going {
                    candidate,
                    number,
                    underway,
                    turn,
                };
                Ok((going, started))
            }
            Err(failed) => {
                trying.failed(&failed);
                match failed.fault {
                    // A plan's own time says nothing of others'.
                    Some(Fault::TimedOut) if began.elapsed() < self.long_enough() => {
                        underway.dismiss();
                    }
                    Some(fault) => underway.end(Some(fault)),
                    None => underway.dismiss(),
                }
                Err(failed)
            }
        }
    }

    /// Waits for a place where the backend is shared.
    async fn queue(
        &self,
        candidate: usize,
        deadline: Instant,
        gone: &CancellationToken,
    ) -> Result<Option<Turn>, Failed> {
        let decision = self.decision(candidate);
        let Some(share) = self.ways.share(&decision.provider) else {
            return Ok(None);
        };
        let tenant = &self.exchange.caller.verified.tenant;
        let cost = decision.upper_output_tokens(self.asked.choices);
        let wait = share.enter(tenant, self.terms.weight, cost);
        tokio::select! {
            biased;
            turn = wait => turn.map(Some).map_err(|full| Failed {
                fault: Some(Fault::Overloaded { retry_after_ms: Some(full.retry_ms) }),
                refusal: queue_full(full.retry_ms),
                seen: Seen::default(),
                was_called: false,
            }),
            () = self.stopping.cancelled() => Err(Failed::faultless(stopped())),
            () = gone.cancelled() => {
                Err(Failed::faultless(late(&self.terms.plan, self.timeout())))
            }
            () = tokio::time::sleep_until(deadline) => {
                Err(Failed::new(Fault::TimedOut, late(&self.terms.plan, self.timeout())))
            }
        }
    }

    /// The provider, and the body for it.
    fn prepare(&self, candidate: usize) -> Result<(Arc<Provider>, Bytes), Refusal> {
        let decision = self.decision(candidate);
        let Some(provider) = self.ways.provider(&decision.provider) else {
            tracing::error!(
                provider = decision.provider,
                "the catalogue names an unknown provider"
            );
            return Err(unavailable(503, "is not known"));
        };
        Ok((provider, self.body_for(candidate)?))
    }

    /// The body as a candidate's provider is sent it.
    ///
    /// # Errors
    /// 400, naming the parameter, where its dialect has no word for something.
    pub fn body_for(&self, candidate: usize) -> Result<Bytes, Refusal> {
        if candidate == 0 {
            return Ok(self.first_body.clone());
        }
        let body = Body::read(self.asked.endpoint, &self.bytes)?;
        Ok(match body.for_provider(self.decision(candidate))? {
            std::borrow::Cow::Borrowed(_) => self.bytes.clone(),
            std::borrow::Cow::Owned(changed) => changed.into(),
        })
    }

    pub(super) fn passage(&self, candidate: usize) -> Passage {
        Passage {
            from: self.decision(candidate).endpoint,
            to: self.asked.endpoint,
            usage_asked: self.asked.usage_asked,
            created_s: self.exchange.caller.started_ms.div_euclid(1_000),
        }
    }

    /// What a candidate's attempt is witnessed by.
    pub fn attempt(&self, candidate: usize, number: u32, unbilled: bool) -> Attempt {
        Attempt::new(
            self.decision(candidate),
            number,
            self.terms.markup,
            self.input.clone(),
            unbilled || !self.exchange.class.is_billed(),
        )
    }

    /// Notes what the attempt used whose answer the client got.
    pub(super) fn made(&self, going: &mut Going, seen: &Seen, outcome: Outcome, hold: &Hold) {
        let attempt = self.attempt(going.candidate, going.number, false);
        let usage = meter::usage(&attempt, seen, outcome);
        if let Some(turn) = &mut going.turn {
            turn.took(usage.output_tokens.saturating_add(usage.reasoning_tokens));
        }
        hold.live.made(going.number, usage);
    }

    /// What an answer's headers say of how it was served.
    pub(super) fn show(&self, headers: &mut HeaderMap, going: &Going, hold: &Hold) {
        let decision = self.decision(going.candidate);
        let mut show = |name: &'static str, value: &str| {
            // Names of the catalogue are visible ASCII, those of providers mostly.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        show(headers::MODEL, &decision.model);
        show(headers::PROVIDER, &decision.provider);
        show(headers::ATTEMPTS, &going.number.to_string());
        if let Some(instead) = decision.instead {
            show(headers::MODEL_REASON, instead.as_str());
        }
        if let Some(tokens) = decision.bound() {
            show(headers::MAX_TOKENS, &tokens.to_string());
        }
        for (name, value) in hold.told() {
            show(name, &value);
        }
    }

    /// After so long without an answer a call speaks against its provider, whatever the
    /// plan's time is.
    fn long_enough(&self) -> Duration {
        match self.asked.stream {
            true => FIRST_TOKEN,
            false => WHOLE_ANSWER,
        }
    }

    /// When a candidate must have started.
    fn deadline_of(&self, candidate: usize) -> Instant {
        let end = self.deadline(self.timeout());
        let is_last = candidate.saturating_add(1) >= self.candidates.len();
        if is_last {
            return end;
        }
        let left = end.saturating_duration_since(Instant::now());
        let share = left.saturating_mul(SHARE_PERCENT).checked_div(100);
        in_future(share.unwrap_or(left))
    }
}
