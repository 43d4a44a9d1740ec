//! The work between requests: the directory, the issuers' keys, and the requests
//! that wait for them.

use std::{collections::HashMap, rc::Rc, time::Duration};

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::{ContextType, LogLevel},
};
use weir_plugin_host::{
    callout::{self, Service},
    clock, config, headers, turn,
};
use weir_tenant_identification_core::{
    Decision,
    jwt::{Ask, Fetch},
    tenants::{Answer, Follower, Outcome, Step},
};
use weir_wire::directory::SNAPSHOT_PATH;

use crate::{
    NAME,
    request::{self, Request},
    state::{State, Waiting},
};

/// Between two looks where issuers' keys are fetched: how long a request that
/// needs a fetch waits for it to begin.
const KEYS_MS: u64 = 50;

/// The same while there are more requests that can go on.
const MORE_MS: u64 = 1;

/// Between two looks where nothing is fetched, for the cache's counters.
const IDLE_MS: u64 = 1000;

/// What an outstanding call is for.
enum Call {
    Directory(u64),
    Keys(usize),
}

/// The root context.
pub struct Root {
    id: u32,
    state: Option<Rc<State>>,
    calls: HashMap<u32, Call>,
}

impl Root {
    /// Before its configuration.
    pub fn new(id: u32) -> Self {
        Self {
            id,
            state: None,
            calls: HashMap::new(),
        }
    }

    fn configure(&mut self) -> Result<(), String> {
        let state = State::load(self.get_plugin_configuration())?;
        if state.setup.trusts_hosts() {
            config::log(
                LogLevel::Warn,
                &format!(
                    "{NAME}: trust_unauthenticated_host is on: a host alone names the tenant, without a credential"
                ),
            );
        }
        self.state = Some(Rc::new(state));
        self.tick_in(Follower::SOON_MS);
        Ok(())
    }

    fn tick_in(&self, ms: u64) {
        if let Some(state) = &self.state {
            state.tick.every(ms);
        }
    }

    /// Follows the directory; says in how many milliseconds to look again.
    fn follow_directory(&mut self, state: &State, now_ms: u64) -> u64 {
        let Some(follower) = &state.follower else {
            return IDLE_MS;
        };
        let random = clock::random().map_or(0, u64::from_le_bytes);
        let step = follower.borrow_mut().tick(&state.board, now_ms, random);
        self.take_step(state, step, now_ms)
    }

    fn take_step(&mut self, state: &State, step: Step, now_ms: u64) -> u64 {
        let Some(follower) = &state.follower else {
            return IDLE_MS;
        };
        let outcome = follower.borrow_mut().take_outcome();
        if let Some(outcome) = outcome {
            tell(state, &outcome);
        }
        match step {
            Step::Behind => Follower::SOON_MS,
            Step::Idle => follower.borrow().tick_ms(),
            Step::Ask(question) => match self.ask_directory(state, &question.body) {
                Some(call) => {
                    self.calls.insert(call, Call::Directory(question.ticket));
                    follower.borrow().tick_ms()
                }
                None => self.directory_answered(state, question.ticket, Answer::Failed, now_ms),
            },
        }
    }

    fn directory_answered(
        &mut self,
        state: &State,
        ticket: u64,
        answer: Answer<'_>,
        now_ms: u64,
    ) -> u64 {
        let Some(follower) = &state.follower else {
            return IDLE_MS;
        };
        let step = follower
            .borrow_mut()
            .answered(&state.board, now_ms, ticket, answer);
        self.take_step(state, step, now_ms)
    }

    fn ask_directory(&self, state: &State, body: &[u8]) -> Option<u32> {
        let directory = state.directory.as_ref()?;
        let config = &directory.config;
        let service = Service {
            cluster: &config.cluster,
            authority: config.authority.as_deref().unwrap_or(&config.cluster),
            authorization: &directory.authorization,
            timeout_ms: config.timeout_ms,
        };
        service.post(SNAPSHOT_PATH, body)
    }

    /// Fetches the keys that are due or asked for.
    fn follow_keys(&mut self, state: &State, now_ms: u64) {
        let mut fetches = {
            let issuers = &mut state.tokens.borrow_mut().issuers;
            state.shared_keys.due(&state.board, issuers, now_ms)
        };
        let wanted = std::mem::take(&mut *state.wanted.borrow_mut());
        for (issuer, found) in wanted {
            let issuers = &mut state.tokens.borrow_mut().issuers;
            // Another worker had fetched others by then.
            if issuers.generation(issuer) != found {
                continue;
            }
            match state.shared_keys.ask(&state.board, issuers, issuer, now_ms) {
                Ask::Begun(fetch) => fetches.push(fetch),
                Ask::UnderWay | Ask::Arrived | Ask::Paused => {}
            }
        }
        for fetch in fetches {
            match self.ask_keys(&fetch) {
                Some(call) => {
                    self.calls.insert(call, Call::Keys(fetch.issuer));
                }
                None => self.keys_arrived(state, fetch.issuer, None, now_ms),
            }
        }
    }

    fn ask_keys(&self, fetch: &Fetch) -> Option<u32> {
        self.dispatch_http_call(
            &fetch.uri.cluster,
            vec![
                (":method", "GET"),
                (":path", &fetch.uri.path),
                (":authority", &fetch.uri.authority),
                ("accept", "application/json"),
            ],
            None,
            vec![],
            Duration::from_millis(fetch.uri.timeout_ms),
        )
        .ok()
    }

    fn keys_arrived(&self, state: &State, issuer: usize, body: Option<&[u8]>, now_ms: u64) {
        let issuers = &mut state.tokens.borrow_mut().issuers;
        let outcome = state
            .shared_keys
            .arrived(&state.board, issuers, issuer, now_ms, body);
        if let Err(error) = outcome {
            state.metrics.jwks_failed.increment();
            let name = issuers.name(issuer).unwrap_or_default();
            config::log(
                LogLevel::Warn,
                &format!("{NAME}: the keys of {name} were not fetched: {error}"),
            );
        }
    }

    /// Decides again on the requests whose issuer's fetch has ended, on so many in
    /// one turn; says whether there are more.
    fn resume(&self, state: &State, now_ms: u64) -> bool {
        let ready: Vec<Waiting> = {
            let mut waiting = state.waiting.borrow_mut();
            if waiting.is_empty() {
                return false;
            }
            let issuers = &state.tokens.borrow().issuers;
            let under_way: Vec<bool> = (0..issuers.len())
                .map(|issuer| {
                    state
                        .shared_keys
                        .is_under_way(&state.board, issuers, issuer, now_ms)
                })
                .collect();
            turn::take(&mut waiting, |one| under_way.get(one.issuer) != Some(&true))
        };
        turn::run(self.id, ready, |one| one.id, |_| resume_one(state))
    }

    fn report(&self, state: &State, now_ms: u64) {
        let tokens = state.tokens.borrow();
        state.metrics.cache(tokens.cache_counts());
        for (issuer, gauge) in state.metrics.jwks_age_ms.iter().enumerate() {
            if let Some(age_ms) = tokens.issuers.keys_age_ms(issuer, now_ms) {
                gauge.set(age_ms);
            }
        }
        if let Some(follower) = &state.follower {
            let follower = follower.borrow();
            if let Some(age_ms) = follower.age_ms(now_ms) {
                state.metrics.directory_age_ms.set(age_ms);
            }
            if let Some(version) = follower.version() {
                state.metrics.directory_version.set(version.number);
            }
            let tenants = u64::try_from(follower.store().tenants()).unwrap_or(u64::MAX);
            state.metrics.directory_tenants.set(tenants);
            if follower.ready() && !state.loaded.replace(true) {
                state.metrics.directory_loaded.increment();
            }
        }
    }
}

/// Counts and logs how a poll ended; the same trouble once.
fn tell(state: &State, outcome: &Outcome) {
    let mut told = state.told.borrow_mut();
    if outcome.is_success() {
        told.clear();
        return;
    }
    state.metrics.directory_failed.increment();
    let now = outcome.to_string();
    if *told != now {
        config::log(
            LogLevel::Warn,
            &format!("{NAME}: the directory: {now}; what is held serves on"),
        );
        *told = now;
    }
}

fn resume_one(state: &State) {
    match request::decide(state) {
        None => {
            let _ = request::refuse_without_randomness();
        }
        Some(decision) => {
            let goes_on = matches!(decision, Decision::Allow(_) | Decision::Open(_));
            let _ = request::settle(state, decision);
            if goes_on {
                let _ = hostcalls::resume_http_request();
            }
        }
    }
}

/// The most bytes of an answer that are looked at: beyond the bound of a key set
/// and of a page, so that what is too large is seen to be.
const BODY_MAX_BYTES: usize = 128 << 10;

impl Context for Root {
    fn on_http_call_response(&mut self, call: u32, num_headers: usize, size: usize, _: usize) {
        let (Some(call), Some(state)) = (self.calls.remove(&call), self.state.clone()) else {
            return;
        };
        let now_ms = clock::monotonic_ms();
        let status = headers::callout_status(num_headers);
        // A call that broke off has no body that could be read.
        let body = (status == Some(200)).then(|| callout::body(size, BODY_MAX_BYTES));
        match call {
            Call::Keys(issuer) => {
                self.keys_arrived(&state, issuer, body.as_deref(), now_ms);
                if self.resume(&state, now_ms) {
                    self.tick_in(MORE_MS);
                }
            }
            Call::Directory(ticket) => {
                let answer = match (status, &body) {
                    (Some(200), Some(body)) => Answer::Page(body),
                    (Some(410), _) => Answer::Gone,
                    _ => Answer::Failed,
                };
                let next_ms = self.directory_answered(&state, ticket, answer, now_ms);
                if next_ms < state.tick.ms() {
                    self.tick_in(next_ms);
                }
            }
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        config::accept(self.configure())
    }

    fn on_tick(&mut self) {
        let Some(state) = self.state.clone() else {
            return;
        };
        let now_ms = clock::monotonic_ms();
        let mut next_ms = self.follow_directory(&state, now_ms);
        let any_remote = state.tokens.borrow().issuers.any_remote();
        if any_remote || !state.waiting.borrow().is_empty() {
            self.follow_keys(&state, now_ms);
            let has_more = self.resume(&state, now_ms);
            next_ms = next_ms.min(if has_more { MORE_MS } else { KEYS_MS });
        }
        self.report(&state, now_ms);
        self.tick_in(next_ms);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request {
            state: self.state.clone()?,
            id,
        }))
    }
}
