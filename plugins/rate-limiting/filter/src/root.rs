//! The work between requests: calls, the requests that wait for them, and leases
//! that are over.

use std::{cell::Cell, collections::HashMap, rc::Rc};

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::ContextType,
};
use weir_plugin_host::{
    clock, config, headers,
    shared::{self, Change},
    turn,
};
use weir_rate_limiting_core::lease::{self, Closed};

use crate::{
    calls,
    request::{self, Decided, Request},
    state::{Queued, State, Waiting},
};

/// Between two looks while requests wait for the call of another worker, in
/// milliseconds.
const WAITING_MS: u64 = 3;

/// Between two looks otherwise: how long a report of a closed lease waits for an
/// acquire that takes it along.
const TICK_MS: u64 = 100;

/// So long after it was granted the service still remembers a lease, in
/// milliseconds.
const TOLD_MS: u64 = 30_000;

enum Outstanding {
    Acquire(Queued),
    Close(Vec<(String, Closed)>),
}

/// The root context.
pub struct Root {
    id: u32,
    state: Option<Rc<State>>,
    calls: HashMap<u32, Outstanding>,
    /// When reports were sent last.
    told_ms: u64,
    /// Whether the last turn left some that could have gone on.
    is_full: Cell<bool>,
}

impl Root {
    /// Before its configuration.
    pub fn new(id: u32) -> Self {
        Self {
            id,
            state: None,
            calls: HashMap::new(),
            told_ms: 0,
            is_full: Cell::new(false),
        }
    }

    /// Makes the calls that requests asked for; the host is at this context.
    fn make_calls(&mut self, state: &State) {
        let queue: Vec<Queued> = {
            let mut queue = state.queue.borrow_mut();
            let count = queue.len().min(turn::MAX);
            queue.drain(..count).collect()
        };
        for queued in queue {
            match calls::acquire(state, &queued.subject, &queued.call) {
                Some(call) => {
                    self.calls.insert(call, Outstanding::Acquire(queued));
                }
                None => request::failed(state, &queued.subject, &queued.call),
            }
        }
    }

    /// Sends the reports that no acquire took along.
    fn tell_closed(&mut self, state: &State, now_ms: u64) {
        let is_due = now_ms.saturating_sub(self.told_ms) >= TICK_MS;
        let is_busy = self
            .calls
            .values()
            .any(|call| matches!(call, Outstanding::Close(_)));
        if !is_due || is_busy || !state.breaker.get().is_closed() {
            return;
        }
        let batch: Vec<(String, Closed)> = {
            let mut closed = state.closed.borrow_mut();
            closed.retain(|(_, one)| now_ms.saturating_sub(one.first_sent_ms) < TOLD_MS);
            let count = closed.len().min(calls::CLOSED_MAX);
            closed.drain(..count).collect()
        };
        if batch.is_empty() {
            return;
        }
        self.told_ms = now_ms;
        match calls::close(state, &batch) {
            Some(call) => {
                self.calls.insert(call, Outstanding::Close(batch));
            }
            None => give_back(state, batch),
        }
    }

    /// Decides again on the requests that a call was made for.
    fn resume(&self, state: &State, now_ms: u64) {
        let ready: Vec<Waiting> = {
            let mut waiting = state.waiting.borrow_mut();
            if waiting.is_empty() {
                self.is_full.set(false);
                return;
            }
            let mut settled: HashMap<String, bool> = HashMap::new();
            let mut is_settled = |key: &str| match settled.get(key) {
                Some(known) => *known,
                None => {
                    let now = lease::is_settled(shared::read(key).as_deref(), now_ms);
                    settled.insert(key.to_owned(), now);
                    now
                }
            };
            turn::take(&mut waiting, |one| {
                one.until_ms <= now_ms || is_settled(&one.subject.key)
            })
        };
        let resume = |one| resume_one(state, one, now_ms);
        let is_full = turn::run(self.id, ready, |one| one.id, resume);
        self.is_full.set(is_full);
    }

    /// Closes leases of tenants that do not ask any more.
    fn sweep(&self, state: &State, now_ms: u64) {
        let due: Vec<(String, String)> = {
            let mut sweeps = state.sweeps.borrow_mut();
            let due = sweeps.iter().filter(|(_, (at_ms, _))| *at_ms <= now_ms);
            let due: Vec<(String, String)> = due
                .map(|(key, (_, tenant))| (key.clone(), tenant.clone()))
                .collect();
            for (key, _) in &due {
                sweeps.remove(key);
            }
            due
        };
        for (key, tenant) in due {
            let change = shared::change(state.config.host, &key, |record| {
                lease::sweep(record, now_ms)
            });
            let Change::Done(swept) = change else {
                continue;
            };
            state.report(&tenant, &swept.closed);
            if let Some(next_ms) = swept.next_ms {
                let at_ms = next_ms.max(now_ms.saturating_add(1));
                state.sweeps.borrow_mut().insert(key, (at_ms, tenant));
            }
        }
    }

    fn next_tick_ms(&self, state: &State) -> u64 {
        if !state.queue.borrow().is_empty() || self.is_full.get() {
            1
        } else if !state.waiting.borrow().is_empty() {
            WAITING_MS
        } else {
            TICK_MS
        }
    }
}

fn give_back(state: &State, batch: Vec<(String, Closed)>) {
    for (tenant, closed) in batch {
        state.report(&tenant, &[closed]);
    }
}

fn resume_one(state: &State, one: Waiting, now_ms: u64) {
    let taken = state.take(&one.subject, true);
    let decided = match request::decide(state, &one.subject, &one.shown, taken) {
        // It has waited for long enough.
        Decided::Waits(_) if one.until_ms <= now_ms => {
            request::unavailable(state, &one.subject, &one.shown, &[], None)
        }
        decided => decided,
    };
    match decided {
        Decided::Passes => {
            let _ = hostcalls::resume_http_request();
        }
        Decided::Refused => {}
        Decided::Waits(_) => state.waiting.borrow_mut().push(one),
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, call: u32, num_headers: usize, size: usize, _: usize) {
        let (Some(call), Some(state)) = (self.calls.remove(&call), self.state.clone()) else {
            return;
        };
        match call {
            Outstanding::Acquire(Queued { subject, call }) => {
                match calls::answer(num_headers, size) {
                    Some(answer) => request::answered(&state, &subject, &call, &answer),
                    None => request::failed(&state, &subject, &call),
                }
                self.resume(&state, clock::monotonic_ms());
                state.tick.every(self.next_tick_ms(&state));
            }
            Outstanding::Close(batch) => {
                // What the service refuses it refuses again.
                let status = headers::callout_status(num_headers).unwrap_or(503);
                if status >= 500 {
                    give_back(&state, batch);
                }
            }
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let loaded = State::load(self.get_plugin_configuration());
        config::accept(loaded.map(|state| {
            if state.config.quota.is_some() {
                state.tick.every(TICK_MS);
            }
            self.state = Some(Rc::new(state));
        }))
    }

    fn on_tick(&mut self) {
        let Some(state) = self.state.clone() else {
            return;
        };
        let now_ms = clock::monotonic_ms();
        self.make_calls(&state);
        self.resume(&state, now_ms);
        self.sweep(&state, now_ms);
        self.tell_closed(&state, now_ms);
        // What was resumed may have asked for more.
        state.tick.every(self.next_tick_ms(&state));
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request::new(self.state.clone()?, id)))
    }
}
