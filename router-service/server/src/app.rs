//! What every request shares, and its way to a provider: context, plan, model.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_dialects::routes::Endpoint;
use weir_router_core::{
    allowance::Allowance,
    count::Input,
    meter,
    offer::{Decision, Offer},
    quota::service::Tenants,
    refusal::Refusal,
    request::{Asked, Body},
    used_once::{Use, UsedOnce},
};
use weir_router_store::spool::SpoolError;
use weir_wire::{
    context::{self, Verified},
    headers,
    ids::{RequestId, TenantId},
    proto::{
        context::TenantContext,
        usage::{Outcome, UsageEvent},
    },
};

use crate::{
    call::{Answer, Call},
    config::Settings,
    exchange::{Caller, Exchange},
    money::{Admission, Admitted, Hold, Money, Terms, most_input},
    witness::Witnesses,
};

/// Request ids remembered in each generation: 8,000 a second.
const USED_ONCE_MAX: usize = 520_000;

/// What every request shares.
pub struct App {
    pub settings: Settings,
    money: Arc<Money>,
    /// What the directory says of tenants.
    tenants: watch::Receiver<Arc<Tenants>>,
    witnesses: Witnesses,
    tasks: TaskTracker,
    stopping: CancellationToken,
    used: Mutex<UsedOnce>,
}

/// A request of a class that has a body, whose caller is believed.
pub struct Request {
    pub exchange: Exchange,
    pub endpoint: Endpoint,
    /// What of its headers a provider of its dialect may see.
    pub headers: HeaderMap,
    pub body: Result<Bytes, Refusal>,
}

impl App {
    /// `tasks` are the calls under way; those that still are when `stopping`
    /// is cancelled end then.
    pub fn new(
        settings: Settings,
        money: Arc<Money>,
        tenants: watch::Receiver<Arc<Tenants>>,
        witnesses: Witnesses,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            settings,
            money,
            tenants,
            witnesses,
            tasks,
            stopping,
            used: Mutex::new(UsedOnce::new(USED_ONCE_MAX)),
        }
    }

    /// What there is to be had just now.
    pub fn offer(&self) -> Arc<Offer> {
        self.settings.offers.current()
    }

    /// Believes the signed context of a request's headers or refuses; whatever
    /// else the request says of its tenant is not looked at.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let mut copies = headers.get_all(headers::TENANT_CONTEXT).iter();
        match (copies.next(), copies.next()) {
            (Some(value), None) => self.caller_by(value.as_bytes()),
            (None, _) if self.settings.trusts_headers => self.named_caller(headers),
            _ => Err(not_believed("not exactly one header")),
        }
    }

    /// Believes a signed context, once, or refuses.
    pub fn caller_by(&self, signed: &[u8]) -> Result<Caller, Refusal> {
        let verified = self.verify(signed)?;
        let started_ms = weir_process::now_ms();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match used.use_id(verified.request_id, started_ms) {
            Use::First => {}
            Use::Again => return Err(not_believed("used before")),
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
            header: String::from_utf8_lossy(signed).into_owned(),
            started: Instant::now(),
            started_ms,
        })
    }

    /// Believes a signed context without using it up.
    pub fn verify(&self, signed: &[u8]) -> Result<Verified, Refusal> {
        context::verify(signed, &self.settings.keys, weir_process::now_ms())
            .map_err(|e| not_believed(&e.to_string()))
    }

    /// For development: a caller as the bare headers name it, with a context that
    /// this router signs, so that all that follows is as with a gateway.
    fn named_caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let named = |name: &str| {
            let value = headers.get(name).and_then(|v| v.to_str().ok());
            value.map(str::to_owned).ok_or_else(|| {
                Refusal::invalid(
                    401,
                    "invalid_header",
                    format!("The header {name} is missing."),
                )
            })
        };
        let now_ms = weir_process::now_ms();
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|_| not_believed("no randomness"))?;
        let request_id = RequestId::mint(u64::try_from(now_ms).unwrap_or(0), random);
        let context = TenantContext {
            tenant: named(headers::TENANT_ID)?,
            plan: named(headers::TENANT_PLAN)?,
            request_id: request_id.to_string(),
            issued_at_ms: now_ms,
        };
        self.caller_by(context::sign(&context, &self.settings.keys).as_bytes())
    }

    /// A believed request.
    pub fn exchange(&self, caller: Caller, endpoint: Endpoint) -> Exchange {
        Exchange {
            caller,
            class: endpoint.class(),
            witnesses: self.witnesses.clone(),
        }
    }

    /// Serves a request of a class that has a body.
    pub async fn infer(self: Arc<Self>, request: Request) -> Result<Answer, Refusal> {
        let (answer, answered) = oneshot::channel();
        let app = Arc::clone(&self);
        // A task of its own: a client that leaves must not take the knowledge
        // of what its request used along.
        self.tasks.spawn(async move {
            match app.prepare(request).await {
                Ok((call, hold)) => call.run(hold, answer).await,
                Err(refusal) => drop(answer.send(Err(refusal))),
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

    /// Decides who may serve a request, and holds what it may come to. A refusal is
    /// witnessed.
    async fn prepare(self: &Arc<Self>, request: Request) -> Result<(Call, Hold), Refusal> {
        let Request {
            mut exchange,
            endpoint,
            headers,
            body,
        } = request;
        let ready = match body {
            Ok(body) => self.admit(&mut exchange, endpoint, body).await,
            Err(refusal) => Err(refusal),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(refusal) => {
                let outcome = match refusal.status {
                    503 => Outcome::UpstreamError,
                    _ => Outcome::Rejected,
                };
                let metrics = &self.settings.ways.metrics;
                metrics.request(exchange.class, outcome);
                exchange.tell_alone(outcome, refusal.status);
                return Err(refusal);
            }
        };
        let Ready {
            asked,
            bytes,
            first,
            first_body,
            input,
            terms,
            hedge,
            bounds,
            candidates,
            hold,
        } = ready;
        let call = Call {
            exchange,
            asked,
            bytes,
            first,
            first_body,
            passed: headers,
            input,
            candidates,
            terms,
            ways: Arc::clone(&self.settings.ways),
            began: tokio::time::Instant::now(),
            way_out: self.settings.way_out,
            bounds,
            hedge,
            stopping: self.stopping.clone(),
        };
        Ok((call, hold))
    }

    async fn admit(
        &self,
        exchange: &mut Exchange,
        endpoint: Endpoint,
        bytes: Bytes,
    ) -> Result<Ready, Refusal> {
        let body = Body::read(endpoint, &bytes)?;
        let asked = &body.asked;
        exchange.class = asked.class();
        let verified = &exchange.caller.verified;
        let offer = self.offer();
        // A plan that the offer does not have is refused by it, in its words.
        let plan = offer.plan(&verified.plan);
        let own = self.allowance(&verified.tenant);
        let terms = Terms::new(&verified.plan, plan, own.as_ref());
        let input = Input::new(endpoint, bytes.clone());
        let rough = meter::rough_input(asked, &input, terms.bounds.tokens_per_minute.is_some());
        let input = (input, rough);
        let admission = Admission {
            offer: &offer,
            terms: &terms,
            tenant: &verified.tenant,
            id: verified.request_id,
            asked,
            most_input: most_input(asked, &bytes),
            input: &input,
            is_billed: exchange.class.is_billed(),
            event: exchange.event(&asked.model),
        };
        let Admitted {
            candidates,
            mut hold,
        } = self.money.admit(&admission).await?;
        let bounds = candidates.iter().map(|c| admission.bound(c)).collect();
        let Some(first) = candidates.first().cloned() else {
            return Err(Refusal::server(
                500,
                "internal_error",
                "No model was chosen.",
            ));
        };
        let first_body = match body.for_provider(&first) {
            Ok(Cow::Owned(changed)) => changed.into(),
            Ok(Cow::Borrowed(_)) => bytes.clone(),
            Err(refusal) => {
                hold.settle().await;
                return Err(refusal);
            }
        };
        Ok(Ready {
            hedge: plan
                .and_then(|plan| plan.hedge_ms)
                .map(|ms| Duration::from_millis(ms.into())),
            bounds,
            asked: asked.clone(),
            first,
            first_body,
            input,
            terms,
            candidates,
            hold,
            bytes,
        })
    }

    /// Settles what a router before this one witnessed and may not have settled any
    /// more.
    ///
    /// # Errors
    /// Where the spool can't be read.
    pub async fn settle_again(&self) -> Result<(), SpoolError> {
        let mut last = 0;
        loop {
            let waiting = self.witnesses.waiting(last).await?;
            let Some((newest, _)) = waiting.last() else {
                return Ok(());
            };
            last = *newest;
            for (_, event) in &waiting {
                let Some(terms) = self.terms_of(event) else {
                    continue;
                };
                self.money.settle_again(event, &terms).await;
            }
        }
    }

    /// By what an event's tenant is held; `None` for one that no key of ours covers.
    fn terms_of(&self, event: &UsageEvent) -> Option<Terms> {
        let context = event.tenant_context.as_bytes();
        let verified = context::verify_signature(context, &self.settings.keys).ok()?;
        let offer = self.offer();
        let own = self.allowance(&verified.tenant);
        let plan = offer.plan(&verified.plan);
        Some(Terms::new(&verified.plan, plan, own.as_ref()))
    }

    /// What the directory allows a tenant in its plan's place.
    fn allowance(&self, tenant: &TenantId) -> Option<Allowance> {
        self.tenants.borrow().allowance(tenant).copied()
    }
}

/// What a request is served by once it may be.
struct Ready {
    asked: Asked,
    bytes: Bytes,
    first: Decision,
    first_body: Bytes,
    input: (Input, u64),
    terms: Terms,
    hedge: Option<Duration>,
    bounds: Vec<u64>,
    candidates: Vec<Decision>,
    hold: Hold,
}

fn not_believed(why: &str) -> Refusal {
    tracing::warn!(why, "tenant context refused");
    Refusal::invalid(
        401,
        "invalid_tenant_context",
        "The request did not come through the gateway.",
    )
}
