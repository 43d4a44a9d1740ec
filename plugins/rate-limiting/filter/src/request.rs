//! One request: what it finds, and what becomes of it.

use std::{cell::RefCell, rc::Rc};

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext},
    types::{Action, LogLevel},
};
use weir_dialects::routes::{Route, route};
use weir_plugin_host::{
    clock, config, headers, reply,
    shared::{self, Change},
};
use weir_rate_limiting_core::{
    OnFailure,
    lease::{self, Call, Step, Taken},
    record::Told,
    shown,
};
use weir_wire::{error::ApiError, headers as names, host::HostKind, proto::quota::AcquireResponse};

use crate::{
    NAME, calls, epoch,
    local::{self, Counted},
    state::{Shown, State, Subject, Waiting},
};

/// How much longer than two calls a request waits, in milliseconds: the worker that
/// makes the call may be gone.
const GONE_MS: u64 = 300;

/// How often a request on Kong asks the service before the policy decides.
const OWN_CALLS: u32 = 2;

/// The context of one request.
pub struct Request {
    pub state: Rc<State>,
    pub id: u32,
    shown: Shown,
    subject: Option<Rc<Subject>>,
    /// The call that it made itself, on Kong.
    own: Option<Call>,
    own_calls: u32,
}

impl Request {
    pub fn new(state: Rc<State>, id: u32) -> Self {
        Self {
            state,
            id,
            shown: Rc::new(RefCell::new(Vec::new())),
            subject: None,
            own: None,
            own_calls: 0,
        }
    }

    fn go(&mut self, subject: &Rc<Subject>, is_again: bool) -> Action {
        let state = self.state.clone();
        let taken = state.take(subject, is_again);
        match decide(&state, subject, &self.shown, taken) {
            Decided::Passes => Action::Continue,
            Decided::Refused => Action::Pause,
            Decided::Waits(call) => match call {
                Some(call) if self.own_calls < OWN_CALLS => self.call(subject, call),
                None if state.config.host == HostKind::Envoy && self.wait(subject) => Action::Pause,
                _ => act(unavailable(&state, subject, &self.shown, &[], None)),
            },
        }
    }

    /// On Kong a request waits for a call of its own.
    fn call(&mut self, subject: &Rc<Subject>, call: Call) -> Action {
        self.own_calls = self.own_calls.saturating_add(1);
        self.state.calls();
        match calls::acquire(&self.state, subject, &call) {
            Some(_) => {
                self.own = Some(call);
                Action::Pause
            }
            None => {
                failed(&self.state, subject, &call);
                act(unavailable(&self.state, subject, &self.shown, &[], None))
            }
        }
    }

    fn wait(&self, subject: &Rc<Subject>) -> bool {
        let longest_ms = self
            .state
            .timeout_ms()
            .saturating_mul(2)
            .saturating_add(GONE_MS);
        self.state.wait(Waiting {
            id: self.id,
            subject: subject.clone(),
            shown: self.shown.clone(),
            until_ms: clock::monotonic_ms().saturating_add(longest_ms),
        })
    }
}

impl Context for Request {
    fn on_http_call_response(&mut self, _: u32, num_headers: usize, size: usize, _: usize) {
        let (Some(call), Some(subject)) = (self.own.take(), self.subject.clone()) else {
            return;
        };
        match calls::answer(num_headers, size) {
            Some(answer) => answered(&self.state, &subject, &call, &answer),
            None => failed(&self.state, &subject, &call),
        }
        if self.go(&subject, true) == Action::Continue {
            let _ = hostcalls::resume_http_request();
        }
    }
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let subject = {
            let headers = headers::Request::read();
            match read(&headers.pairs()) {
                Read::Open => return Action::Continue,
                Read::Subject(subject) => Rc::new(subject),
                Read::Nobody => {
                    let why = "the filter tenant-identification must come before it";
                    return misconfigured(&self.state, why);
                }
            }
        };
        if self.state.config.quota.is_none() {
            return match local::by_plan(&self.state, &subject) {
                Some(counted) => act(apply(&self.state, &subject, &self.shown, counted)),
                None => {
                    let why = format!("plans: {} is not among them", subject.plan);
                    misconfigured(&self.state, &why)
                }
            };
        }
        self.subject = Some(subject.clone());
        self.go(&subject, false)
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        let limits = self.shown.take();
        if limits.is_empty() {
            return Action::Continue;
        }
        let class = self.subject.as_ref().map_or("", |s| s.class.as_str());
        for (name, value) in shown::headers(&limits, class, clock::monotonic_ms()) {
            headers::give_response(self.state.config.host, name, &value);
        }
        Action::Continue
    }
}

enum Read {
    Subject(Subject),
    Open,
    Nobody,
}

/// Whose a request is, and of which class as far as its path shows.
fn read(pairs: &[(&str, &[u8])]) -> Read {
    let (mut tenant, mut plan, mut method, mut path) = (None, None, "", "");
    for (name, value) in pairs {
        let text = || std::str::from_utf8(value).unwrap_or_default();
        match *name {
            names::TENANT_ID => tenant = Some(text()),
            names::TENANT_PLAN => plan = Some(text()),
            ":method" => method = text(),
            ":path" => path = text(),
            names::OPEN => return Read::Open,
            _ => {}
        }
    }
    let (Some(tenant), Some(plan)) = (tenant, plan) else {
        return Read::Nobody;
    };
    let class = match route(method, path) {
        Route::Endpoint(endpoint) => endpoint.class().as_str(),
        Route::MethodNotAllowed { .. } | Route::NotFound => "",
    };
    Read::Subject(Subject::new(tenant, plan, class))
}

/// What was decided on a request.
pub enum Decided {
    /// It goes on.
    Passes,
    /// It was answered.
    Refused,
    /// For an answer of the service; on Kong for that of this call.
    Waits(Option<Call>),
}

fn act(decided: Decided) -> Action {
    match decided {
        Decided::Passes => Action::Continue,
        Decided::Refused | Decided::Waits(_) => Action::Pause,
    }
}

/// From what was found to what becomes of the request that the host is at.
pub fn decide(state: &State, subject: &Subject, shown: &Shown, taken: Option<Taken>) -> Decided {
    let Some(taken) = taken else {
        // What can't be counted: as if the service were away.
        return unavailable(state, subject, shown, &[], None);
    };
    let limits = taken.limits;
    match taken.step {
        Step::Admit { .. } | Step::Unlimited => {
            state.metrics.admitted.increment();
            *shown.borrow_mut() = limits;
            Decided::Passes
        }
        Step::Refuse { retry_at_ms } => refuse(state, subject, shown, limits, retry_at_ms),
        Step::Wait => Decided::Waits(taken.call),
        Step::Unavailable { retry_at_ms } => {
            unavailable(state, subject, shown, &limits, retry_at_ms)
        }
        Step::UnknownPlan => {
            let why = format!("the quota service knows no plan {}", subject.plan);
            let _ = misconfigured(state, &why);
            Decided::Refused
        }
    }
}

/// What the policy says while the service can't be asked.
pub fn unavailable(
    state: &State,
    subject: &Subject,
    shown: &Shown,
    limits: &[Told],
    retry_at_ms: Option<u64>,
) -> Decided {
    state.metrics.degraded.increment();
    let policy = state.config.quota.as_ref().map(|q| q.on_failure);
    let counted = match policy.unwrap_or_default() {
        OnFailure::Allow => return Decided::Passes,
        OnFailure::Local => local::by_limits(state, subject, limits),
        OnFailure::Deny => None,
    };
    if let Some(counted) = counted {
        return apply(state, subject, shown, counted);
    }
    if state.config.shadow {
        return shadow(state, subject, "the quota service is not available");
    }
    let now_ms = clock::monotonic_ms();
    let wait_s = shown::retry_after_s(retry_at_ms.unwrap_or(0), now_ms);
    let error = ApiError::new(
        "server_error",
        "rate_limit_unavailable",
        format!("The gateway can't count requests just now. Please try again in {wait_s} s."),
    );
    let _ = reply::refuse(503, &error, &[("retry-after", &wait_s.to_string())]);
    Decided::Refused
}

/// Does what a gateway that counts for itself found.
fn apply(state: &State, subject: &Subject, shown: &Shown, counted: Counted) -> Decided {
    match counted.retry_at_ms {
        None => {
            state.metrics.admitted.increment();
            *shown.borrow_mut() = counted.limits;
            Decided::Passes
        }
        Some(retry_at_ms) => refuse(state, subject, shown, counted.limits, retry_at_ms),
    }
}

fn refuse(
    state: &State,
    subject: &Subject,
    shown: &Shown,
    limits: Vec<Told>,
    retry_at_ms: u64,
) -> Decided {
    if state.config.shadow {
        *shown.borrow_mut() = limits;
        return shadow(state, subject, "a limit is reached");
    }
    state.metrics.refused.increment();
    let now_ms = clock::monotonic_ms();
    let wait_s = shown::retry_after_s(retry_at_ms, now_ms);
    let reached: Vec<String> = limits
        .iter()
        .filter(|limit| limit.remaining == 0)
        .map(|limit| format!("{} requests in {} s", limit.requests, limit.window_s))
        .collect();
    let error = ApiError::new(
        "requests",
        "rate_limit_exceeded",
        format!(
            "Rate limit reached: {}. Please try again in {wait_s} s.",
            reached.join(", ")
        ),
    );
    let wait = wait_s.to_string();
    let told = shown::headers(&limits, &subject.class, now_ms);
    let mut extra = vec![("retry-after", wait.as_str())];
    extra.extend(told.iter().map(|(name, value)| (*name, value.as_str())));
    let _ = reply::refuse(429, &error, &extra);
    Decided::Refused
}

fn shadow(state: &State, subject: &Subject, why: &str) -> Decided {
    state.metrics.shadow.increment();
    state.say(
        LogLevel::Info,
        &format!(
            "shadow: {} of {} would be refused: {why}",
            subject.class, subject.tenant
        ),
    );
    Decided::Passes
}

/// Takes the answer to a call of this worker's.
pub fn answered(state: &State, subject: &Subject, call: &Call, answer: &AcquireResponse) {
    let now_ms = clock::monotonic_ms();
    let mut breaker = state.breaker.get();
    breaker.succeeded();
    state.breaker.set(breaker);
    let change = shared::change(state.config.host, &subject.key, |record| {
        lease::answered(record, call, answer, now_ms)
    });
    if answer.granted > 0 {
        state.metrics.leases.increment();
        epoch::write(state.config.host, &subject.tenant, &answer.epoch, now_ms);
        let granted = usize::try_from(answer.granted).unwrap_or(usize::MAX);
        state.metrics.leased.add(granted);
        let end_ms = u64::from(answer.life_ms);
        state.sweep_at(subject, call.first_sent_ms.saturating_add(end_ms));
    }
    if let Change::Done(closed) = change {
        if closed.iter().any(|closed| closed.id == call.id) {
            state.metrics.strays.increment();
        }
        state.report(&subject.tenant, &closed);
    }
}

/// Notes that a call of this worker's was not answered.
pub fn failed(state: &State, subject: &Subject, call: &Call) {
    let now_ms = clock::monotonic_ms();
    state.metrics.calls_failed.increment();
    let random = state.randomness.borrow_mut().take();
    let mut breaker = state.breaker.get();
    let was_closed = breaker.is_closed();
    breaker.failed(now_ms, random.map_or(0, u64::from_le_bytes));
    state.breaker.set(breaker);
    if was_closed && !breaker.is_closed() {
        config::log(
            LogLevel::Warn,
            &format!("{NAME}: the quota service does not answer; the policy decides"),
        );
    }
    let _ = shared::change(state.config.host, &subject.key, |record| {
        lease::failed(record, call)
    });
    // The lease may have been granted all the same.
    state.sweep_at(subject, now_ms.saturating_add(u64::from(call.life_ms)));
}

fn misconfigured(state: &State, why: &str) -> Action {
    state.say(LogLevel::Error, why);
    let error = ApiError::new(
        "server_error",
        "internal_error",
        "The gateway has no request limit for this tenant's plan.",
    );
    reply::refuse(500, &error, &[])
}
