//! What every request shares, and its way to a provider: context, plan, model.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_dialects::routes::RequestClass;
use weir_router_core::{
    meter::Attempt,
    refusal::Refusal,
    request,
    used_once::{Use, UsedOnce},
};
use weir_wire::{context, headers, proto::usage::Outcome};

use crate::{
    call::{Answer, Call},
    config::Settings,
    exchange::{Caller, Exchange},
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

    /// Believes the signed context or refuses; whatever else the request says
    /// of its tenant is not looked at.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let started_ms = weir_process::now_ms();
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

    /// A believed request for that class of work.
    pub fn exchange(&self, caller: Caller, class: RequestClass) -> Exchange {
        Exchange {
            caller,
            class,
            witnesses: self.witnesses.clone(),
        }
    }

    /// Serves a request of a class that has a body.
    pub async fn infer(
        self: Arc<Self>,
        exchange: Exchange,
        body: Result<Bytes, Refusal>,
    ) -> Result<Answer, Refusal> {
        let class = exchange.class;
        let prepared = body.and_then(|body| {
            let prepared = request::prepare(class, &body)?;
            let plan = &exchange.caller.verified.plan;
            let model = self.settings.offer.choose(plan, class, &prepared.model)?;
            let name = model.provider.clone();
            Ok((prepared, name))
        });
        let (prepared, provider) = match prepared {
            Ok(found) => found,
            Err(refusal) => {
                exchange.tell_alone(Outcome::Rejected, refusal.status);
                return Err(refusal);
            }
        };
        let (answer, answered) = oneshot::channel();
        // A task of its own: a client that leaves must not take the knowledge
        // of what its request used along.
        let call = Call {
            exchange,
            drain: self.settings.drain,
            stopping: self.stopping.clone(),
            attempt: Attempt {
                model: prepared.model.clone(),
                provider: provider.clone(),
                input_bytes: prepared.input_bytes,
            },
        };
        let app = self.clone();
        self.tasks.spawn(async move {
            match app.settings.providers.get(&provider) {
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
}
