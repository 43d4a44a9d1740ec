//! Time and randomness, read here and handed to the cores as arguments.

use std::time::UNIX_EPOCH;

use proxy_wasm::hostcalls;

/// Milliseconds of the Unix epoch, UTC.
#[must_use]
pub fn wall_ms() -> u64 {
    hostcalls::get_current_time()
        .ok()
        .and_then(|now| now.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// Milliseconds of the host's monotonic clock, the same for all its workers.
///
/// The SDK offers only the wall clock, which leaps; WASI has this one.
#[cfg(target_os = "wasi")]
#[must_use]
#[allow(unsafe_code)]
pub fn monotonic_ms() -> u64 {
    // SAFETY: the call takes plain numbers and writes to a local.
    let nanos = unsafe { wasi::clock_time_get(wasi::CLOCKID_MONOTONIC, 1_000_000) };
    nanos.unwrap_or(0) / 1_000_000
}

/// Random bytes that were asked for ahead: to ask costs more than what comes.
#[derive(Debug)]
pub struct Randomness {
    ahead: [u8; 512],
    left: usize,
}

impl Default for Randomness {
    fn default() -> Self {
        Self {
            ahead: [0; 512],
            left: 0,
        }
    }
}

#[cfg(target_os = "wasi")]
impl Randomness {
    /// `N` bytes, at most 512, that nobody had before; `None` where the host has
    /// none.
    #[must_use]
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.left < N {
            self.ahead = random()?;
            self.left = self.ahead.len();
        }
        let rest = self.ahead.get_mut(..self.left)?;
        let bytes = rest.last_chunk_mut::<N>()?;
        self.left = self.left.saturating_sub(N);
        Some(std::mem::replace(bytes, [0; N]))
    }
}

/// `N` bytes from the host's generator (BoringSSL's in Envoy), or `None` where
/// it has none.
#[cfg(target_os = "wasi")]
#[must_use]
#[allow(unsafe_code)]
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the pointer and the length are those of a local array.
    unsafe { wasi::random_get(bytes.as_mut_ptr(), N) }.ok()?;
    Some(bytes)
}
