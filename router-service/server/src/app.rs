//! What every request shares, and its way to a provider: context, plan, model.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_dialects::routes::Endpoint;
use weir_router_core::{
    meter::Attempt,
    offer::{Decision, Offer},
    refusal::Refusal,
    relay::Passage,
    request::{Asked, Body},
    used_once::{Use, UsedOnce},
};
use weir_wire::{
    context::{self, Verified},
    headers,
    ids::RequestId,
    proto::{context::TenantContext, usage::Outcome},
};

use crate::{
    call::{Answer, Call},
    config::Settings,
    exchange::{Caller, Exchange},
    provider::Provider,
    witness::Witnesses,
};

/// Request ids remembered in each generation: 8,000 a second.
const USED_ONCE_MAX: usize = 520_000;

/// What every request shares.
pub struct App {
    pub settings: Settings,
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

/// A request that was decided on, ready to be sent.
struct Prepared {
    asked: Asked,
    decision: Decision,
    body: Bytes,
}

impl App {
    /// `tasks` are the calls under way; those that still are when `stopping`
    /// is cancelled end then.
    pub fn new(
        settings: Settings,
        witnesses: Witnesses,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            settings,
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
        let Request {
            exchange,
            endpoint,
            headers,
            body,
        } = request;
        let plan = &exchange.caller.verified.plan;
        let prepared = body.and_then(|body| prepare(&self.offer(), plan, endpoint, body));
        let prepared = prepared.and_then(|prepared| {
            let provider = self.provider(&prepared.decision)?;
            Ok((prepared, provider))
        });
        let (prepared, provider) = match prepared {
            Ok(found) => found,
            Err(refusal) => {
                let outcome = if refusal.status < 500 {
                    Outcome::Rejected
                } else {
                    Outcome::UpstreamError
                };
                exchange.tell_alone(outcome, refusal.status);
                return Err(refusal);
            }
        };
        let Prepared {
            asked,
            decision,
            body,
        } = prepared;
        let (answer, answered) = oneshot::channel();
        let call = Call {
            attempt: Attempt {
                model_asked: asked.model,
                model: decision.model.clone(),
                provider: decision.provider.clone(),
                input_bytes: asked.input_bytes,
            },
            passage: Passage {
                from: decision.endpoint,
                to: endpoint,
                usage_asked: asked.usage_asked,
                created_s: exchange.caller.started_ms.div_euclid(1_000),
            },
            shown: shown(&decision),
            began: tokio::time::Instant::now(),
            decision,
            exchange,
            stream: asked.stream,
            drain: self.settings.drain,
            stopping: self.stopping.clone(),
        };
        let passed = match call.passage.is_plain() {
            true => headers,
            // The body is the router's own.
            false => HeaderMap::new(),
        };
        // A task of its own: a client that leaves must not take the knowledge
        // of what its request used along.
        self.tasks
            .spawn(async move { call.run(&provider, &passed, body, answer).await });
        answered.await.unwrap_or_else(|_| {
            Err(Refusal::server(
                500,
                "internal_error",
                "The router failed to serve the request.",
            ))
        })
    }

    fn provider(&self, decision: &Decision) -> Result<Arc<Provider>, Refusal> {
        let refuse = |what: &str| {
            Refusal::server(
                503,
                "provider_unavailable",
                format!("The provider of the model `{}` {what}.", decision.model),
            )
        };
        let Some(provider) = self.settings.providers.get(&decision.provider) else {
            tracing::error!(
                provider = decision.provider,
                "the catalogue names an unknown provider"
            );
            return Err(refuse("is not known"));
        };
        if provider
            .health
            .drained
            .load(std::sync::atomic::Ordering::Relaxed)
        {
            return Err(refuse("takes no requests just now"));
        }
        Ok(Arc::clone(provider))
    }
}

fn not_believed(why: &str) -> Refusal {
    tracing::warn!(why, "tenant context refused");
    Refusal::invalid(
        401,
        "invalid_tenant_context",
        "The request did not come through the gateway.",
    )
}

fn prepare(
    offer: &Offer,
    plan: &weir_wire::ids::PlanName,
    endpoint: Endpoint,
    bytes: Bytes,
) -> Result<Prepared, Refusal> {
    let body = Body::read(endpoint, &bytes)?;
    let decision = offer.decide(plan, &body.asked)?;
    let changed = match body.for_provider(&decision)? {
        std::borrow::Cow::Borrowed(_) => None,
        std::borrow::Cow::Owned(changed) => Some(changed),
    };
    let asked = body.asked;
    Ok(Prepared {
        asked,
        decision,
        body: changed.map_or(bytes, Bytes::from),
    })
}

/// What an answer says of how it was served.
fn shown(decision: &Decision) -> HeaderMap {
    let mut shown = HeaderMap::with_capacity(8);
    let mut show = |name: &'static str, value: &str| {
        // Names of the catalogue are visible ASCII, those of providers mostly.
        if let Ok(value) = HeaderValue::from_str(value) {
            shown.insert(name, value);
        }
    };
    show(headers::MODEL, &decision.model);
    show(headers::PROVIDER, &decision.provider);
    if let Some(instead) = decision.instead {
        show(headers::MODEL_REASON, instead.as_str());
    }
    if let Some(tokens) = decision.bound() {
        show(headers::MAX_TOKENS, &tokens.to_string());
    }
    shown
}
