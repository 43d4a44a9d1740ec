//! One request through the router: context, plan, provider, witness.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use weir_dialects::routes::RequestClass;
use weir_router_core::{
    meter::{self, Attempt, Ending},
    refusal::Refusal,
    relay::Seen,
    request,
    used_once::{Use, UsedOnce},
};
use weir_wire::{
    context::{self, Verified},
    headers,
    proto::usage::Outcome,
};

use crate::{call::Call, config::Settings, witness::Witnesses};

/// Request ids remembered in each generation: 8,000 a second.
const USED_ONCE_MAX: usize = 520_000;

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
    pub started: Instant,
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

    /// Hands the witness of a request to its queue.
    pub fn tell(
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

/// How a request of that caller ended, now.
pub fn ending(caller: &Caller, outcome: Outcome, status: u16, first: Option<u64>) -> Ending {
    Ending {
        outcome,
        status,
        started_ms: caller.started_ms,
        first_token_ms: first,
        duration_ms: millis_since(caller.started),
    }
}

/// Milliseconds since then.
pub fn millis_since(start: Instant) -> u64 {
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
