//! Data that all workers of a gateway share, changed by compare-and-swap only.

use proxy_wasm::{hostcalls, types::Status};
use weir_wire::host::HostKind;

/// What Envoy takes as "only if absent": it compares no CAS value with a key
/// that is not there, and no key ever has this one. CAS 0 would overwrite
/// blindly, so that of two workers which both found nothing the second would
/// erase what the first had counted.
const ENVOY_CREATE: u32 = u32::MAX;

/// On Kong CAS 0 creates and never overwrites.
const KONG_CREATE: u32 = 0;

/// The outcome of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<T> {
    /// The value was written, or needed no write.
    Done(T),
    /// Other workers were faster each time.
    Contended,
}

/// The most attempts at one change before it counts as contended.
const ATTEMPTS: usize = 64;

/// The value of `key`, if it has one.
#[must_use]
pub fn read(key: &str) -> Option<Vec<u8>> {
    hostcalls::get_shared_data(key).ok()?.0
}

/// Reads the value of `key`, lets `decide` say what to write in its place, and
/// writes that if no other worker came between; else starts again.
///
/// Values must keep their size (a rule of Kong's).
pub fn change<T>(
    host: HostKind,
    key: &str,
    mut decide: impl FnMut(Option<&[u8]>) -> (T, Option<Vec<u8>>),
) -> Change<T> {
    for _ in 0..ATTEMPTS {
        let (found, cas) = hostcalls::get_shared_data(key).unwrap_or((None, None));
        let cas = match (cas, host) {
            (Some(cas), _) if found.is_some() => cas,
            (_, HostKind::Envoy) => ENVOY_CREATE,
            (_, HostKind::Kong) => KONG_CREATE,
        };
        let (outcome, write) = decide(found.as_deref());
        let Some(value) = write else {
            return Change::Done(outcome);
        };
        match hostcalls::set_shared_data(key, Some(&value), Some(cas)) {
            Ok(()) => return Change::Done(outcome),
            Err(Status::CasMismatch) => {}
            Err(_) => return Change::Contended,
        }
    }
    Change::Contended
}
