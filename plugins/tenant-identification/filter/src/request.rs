//! One request: what it brings, and what becomes of it.

use std::rc::Rc;

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::{Action, LogLevel},
};
use weir_plugin_host::{clock, config, headers, property, reply};
use weir_tenant_identification_core::{
    Change, Decision, Denial, Now, Request as Brought, Worker, identify, sources::certificate::Peer,
};
use weir_wire::{error::ApiError, host::HostKind};

use crate::{NAME, state::State};

/// The context of one request.
pub struct Request {
    pub state: Rc<State>,
    pub id: u32,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let state = &self.state;
        match decide(state) {
            None => refuse_without_randomness(),
            Some(Decision::Fetch { issuer, denial }) => {
                // On Kong a request that pauses without a callout of its own hangs.
                if state.wait(self.id, issuer) {
                    Action::Pause
                } else {
                    deny(state, &denial)
                }
            }
            Some(decision) => settle(state, decision),
        }
    }
}

/// Decides on the request that the host is at; `None` without randomness.
pub fn decide(state: &State) -> Option<Decision> {
    let random = state.randomness.borrow_mut().take()?;
    let headers = headers::Request::read();
    let (needs_metadata, needs_peer) = state.setup.needs();
    let metadata = needs_metadata
        .then(|| property::get(&["metadata"]))
        .flatten();
    let peer = needs_peer.then(peer).flatten();
    let now = Now {
        wall_ms: clock::wall_ms(),
        monotonic_ms: &clock::monotonic_ms,
    };
    let follower = state.follower.as_ref().map(|follower| follower.borrow());
    let mut worker = Worker {
        setup: &state.setup,
        store: follower
            .as_ref()
            .map_or(&state.inline, |follower| follower.store()),
        ready: follower.as_ref().is_none_or(|follower| follower.ready()),
        key_hashes: &mut state.key_hashes.borrow_mut(),
        tokens: &mut state.tokens.borrow_mut(),
        checker: &state.checker,
        keys: &state.keys,
    };
    let brought = Brought {
        headers: &headers.pairs(),
        metadata: metadata.as_deref(),
        peer: peer.as_ref(),
    };
    Some(identify(&mut worker, &brought, now, random))
}

/// What the client's certificate says, if Envoy validated it: `mtls` alone only
/// says that one came.
fn peer() -> Option<Peer> {
    let valid = property::get(&["connection", "peer_certificate_valid"]);
    (valid.as_deref() == Some(&[1])).then(|| Peer {
        uri: property::get(&["connection", "uri_san_peer_certificate"]),
        dns: property::get(&["connection", "dns_san_peer_certificate"]),
    })
}

/// Does what was decided to the request that the host is at.
pub fn settle(state: &State, decision: Decision) -> Action {
    match decision {
        Decision::Allow(identification) => {
            state.metrics.identified(identification.source);
            apply(state.setup.host, &identification.change)
        }
        Decision::Open(change) => {
            state.metrics.open();
            apply(state.setup.host, &change)
        }
        Decision::Deny(denial) | Decision::Fetch { denial, .. } => deny(state, &denial),
    }
}

fn apply(host: HostKind, change: &Change) -> Action {
    for name in &change.strip {
        headers::remove_request(name);
    }
    for (name, value) in &change.set {
        headers::give_request(host, name, value);
    }
    Action::Continue
}

fn deny(state: &State, denial: &Denial) -> Action {
    state.metrics.refused(denial.reason);
    // A disagreement is an attack or a mistake that somebody must see; the rest
    // is in the counters.
    let (level, detail) = match &denial.detail {
        Some(detail) => (LogLevel::Warn, format!(": {detail}")),
        None => (LogLevel::Debug, String::new()),
    };
    config::log(
        level,
        &format!("{NAME}: refused: {}{detail}", denial.reason),
    );
    let retry_after = denial.retry_after_s.map(|s| s.to_string());
    let mut extra = Vec::new();
    if let Some(challenge) = denial.challenge {
        extra.push(("www-authenticate", challenge));
    }
    if let Some(seconds) = &retry_after {
        extra.push(("retry-after", seconds));
    }
    reply::refuse(denial.status, &denial.error, &extra)
}

/// Without it a request could not be named.
pub fn refuse_without_randomness() -> Action {
    config::log(
        LogLevel::Error,
        &format!("{NAME}: the host has no randomness"),
    );
    let error = ApiError::new(
        "server_error",
        "internal_error",
        "The gateway could not name this request.",
    );
    reply::refuse(500, &error, &[])
}

/// Whether a request may wait on this host.
#[must_use]
pub fn can_wait(host: HostKind) -> bool {
    host == HostKind::Envoy
}
