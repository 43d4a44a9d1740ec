//! Keeps the time-out of a store that is away out of the way of requests.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// So many failures in a row open it.
const FAILURES_MAX: u32 = 3;

/// How long it stays open at least, in milliseconds; up to a half is added by
/// chance, so that routers don't come back all at once.
const OPEN_MS: u32 = 1_000;

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
    is_probing: bool,
}

/// Closed, calls pass. Open, none does; after a while one passes and decides.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

/// A call that may be made. Dropped without a verdict, it leaves things as they
/// were: another may be the one that decides.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
}

impl Breaker {
    /// Lets a call pass, or not.
    pub(crate) fn enter(&self) -> Option<Pass<'_>> {
        let mut state = self.state();
        let is_probe = match state.open_until {
            None => false,
            Some(until) if Instant::now() < until || state.is_probing => return None,
            Some(_) => {
                state.is_probing = true;
                true
            }
        };
        Some(Pass {
            breaker: self,
            is_probe,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// The store answered.
    pub(crate) fn succeeded(self) {
        let mut state = self.breaker.state();
        // What was sent before it opened says nothing of now.
        if self.is_probe || state.open_until.is_none() {
            state.failures = 0;
            state.open_until = None;
        }
    }

    /// It did not. Says whether that opened the breaker.
    pub(crate) fn failed(self) -> bool {
        let mut state = self.breaker.state();
        if !self.is_probe && state.open_until.is_some() {
            return false;
        }
        state.failures = state.failures.saturating_add(1);
        let is_opened = self.is_probe || state.failures >= FAILURES_MAX;
        if is_opened {
            let random = getrandom::u32().unwrap_or(0);
            let more = random.checked_rem(OPEN_MS / 2).unwrap_or(0);
            let open = Duration::from_millis(u64::from(OPEN_MS.saturating_add(more)));
            state.open_until = Instant::now().checked_add(open);
        }
        is_opened
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.state().is_probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_open_it_and_one_call_decides() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            assert!(!breaker.enter().unwrap().failed());
            breaker.enter().unwrap().succeeded();
        }
        let late = breaker.enter().unwrap();
        let outcomes: Vec<bool> = (0..3).map(|_| breaker.enter().unwrap().failed()).collect();
        assert_eq!(outcomes, [false, false, true]);
        assert!(breaker.enter().is_none());
        late.succeeded();
        assert!(breaker.enter().is_none(), "sent before it opened");

        tokio::time::advance(Duration::from_millis(1_500)).await;
        let probe = breaker.enter().unwrap();
        assert!(breaker.enter().is_none(), "one probes");
        assert!(probe.failed());
        assert!(breaker.enter().is_none());

        tokio::time::advance(Duration::from_millis(1_500)).await;
        drop(breaker.enter().unwrap());
        let probe = breaker.enter().expect("the one before was given up");
        probe.succeeded();
        assert!(breaker.enter().is_some() && breaker.enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn it_stays_open_for_a_second_at_least() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            breaker.enter().unwrap().failed();
        }
        tokio::time::advance(Duration::from_millis(999)).await;
        assert!(breaker.enter().is_none());
    }
}
