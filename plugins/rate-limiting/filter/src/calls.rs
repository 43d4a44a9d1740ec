//! The calls to the quota service, as bytes.

use prost::Message as _;
use weir_plugin_host::{
    callout::{self, Service},
    clock, headers,
};
use weir_rate_limiting_core::lease::{self, Call, Closed};
use weir_wire::{
    proto::quota::{AcquireRequest, AcquireResponse, CloseRequest, ClosedLease},
    quota::{ACQUIRE_PATH, CLOSE_PATH},
};

use crate::{
    epoch,
    state::{State, Subject},
};

/// The most closed leases that one call tells of.
pub const CLOSED_MAX: usize = 64;

/// The most bytes of an answer that are read; a real one has a few hundred.
const ANSWER_MAX_BYTES: usize = 16 << 10;

/// Asks for a lease, from the context that is in effect.
pub fn acquire(state: &State, subject: &Subject, call: &Call) -> Option<u32> {
    let now_ms = clock::monotonic_ms();
    let closed = state.take_reports(&subject.tenant, CLOSED_MAX);
    let request = AcquireRequest {
        tenant: subject.tenant.clone(),
        plan: subject.plan.clone(),
        class: subject.class.clone(),
        acquire_id: call.id.to_vec(),
        wanted: call.wanted,
        life_ms: call.life_ms,
        gateway: state.gateway,
        epoch: match call.epoch.is_empty() {
            true => epoch::read(&subject.tenant, now_ms).unwrap_or_default(),
            false => call.epoch.clone(),
        },
        closed: closed.iter().map(|c| told("", c, now_ms)).collect(),
    };
    state.metrics.calls.increment();
    let sent = send(state, ACQUIRE_PATH, &request.encode_to_vec());
    if sent.is_none() {
        state.report(&subject.tenant, &closed);
    }
    sent
}

/// Gives leases back, from the context that is in effect.
pub fn close(state: &State, closed: &[(String, Closed)]) -> Option<u32> {
    let now_ms = clock::monotonic_ms();
    let request = CloseRequest {
        closed: closed.iter().map(|(t, c)| told(t, c, now_ms)).collect(),
    };
    state.metrics.calls.increment();
    send(state, CLOSE_PATH, &request.encode_to_vec())
}

/// The answer to an acquire; `None` where there was none that can be used.
pub fn answer(num_headers: usize, size: usize) -> Option<AcquireResponse> {
    if headers::callout_status(num_headers) != Some(200) {
        return None;
    }
    AcquireResponse::decode(callout::body(size, ANSWER_MAX_BYTES).as_slice())
        .ok()
        .filter(lease::is_usable)
}

fn told(tenant: &str, closed: &Closed, now_ms: u64) -> ClosedLease {
    ClosedLease {
        tenant: tenant.to_owned(),
        lease_id: closed.id.to_vec(),
        spent: closed.spent,
        age_ms: closed.age_ms(now_ms),
    }
}

fn send(state: &State, path: &str, body: &[u8]) -> Option<u32> {
    let quota = state.config.quota.as_ref()?;
    let service = Service {
        cluster: &quota.cluster,
        authority: quota.authority.as_deref().unwrap_or(&quota.cluster),
        authorization: &state.authorization,
        timeout_ms: quota.timeout_ms,
    };
    service.post(path, body)
}
