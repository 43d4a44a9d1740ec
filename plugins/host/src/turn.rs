//! The work of a root context between requests: when its turn comes, and how many
//! waiting requests go on in it.

use std::{cell::Cell, time::Duration};

use proxy_wasm::hostcalls;

/// The most waiting requests that go on, or are answered, and the most calls that
/// are made in one turn. Envoy does each such thing inside of the one before, and a
/// worker's stack has an end; more have the next turn.
pub const MAX: usize = 32;

/// The period of the tick that was set last.
#[derive(Debug, Default)]
pub struct Tick(Cell<u64>);

impl Tick {
    /// Has the next tick come after so many milliseconds, and further ones as often.
    pub fn every(&self, ms: u64) {
        if self.0.replace(ms) != ms {
            let _ = hostcalls::set_tick_period(Duration::from_millis(ms));
        }
    }

    /// The period, in milliseconds; 0 before the first.
    #[must_use]
    pub fn ms(&self) -> u64 {
        self.0.get()
    }
}

/// Takes out those that may go on, as many as have room in one turn.
pub fn take<T>(waiting: &mut Vec<T>, mut may: impl FnMut(&T) -> bool) -> Vec<T> {
    let mut count = 0_usize;
    let goes = |one: &mut T| {
        let goes = count < MAX && may(one);
        count = count.saturating_add(usize::from(goes));
        goes
    };
    waiting.extract_if(.., goes).collect()
}

/// Brings the host to the context of each, lets `resume` decide on it, and comes
/// back to the root's. Says whether the turn was full, so that there may be more.
pub fn run<T>(
    root: u32,
    turn: Vec<T>,
    context: impl Fn(&T) -> u32,
    mut resume: impl FnMut(T),
) -> bool {
    let count = turn.len();
    for one in turn {
        // An error says that its client has left.
        if hostcalls::set_effective_context(context(&one)).is_ok() {
            resume(one);
        }
    }
    if count > 0 {
        let _ = hostcalls::set_effective_context(root);
    }
    count == MAX
}
