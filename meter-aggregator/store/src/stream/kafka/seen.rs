//! What this process knows of a lane, whoever reads it.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicI64},
};

use weir_meter_core::lag::{Arrivals, Oldest};

/// Nothing is known of a lane's position.
pub(super) const UNKNOWN: i64 = -1;

/// What is known of a lane.
pub(super) struct Seen {
    /// What the ledger has, as far as it was told here; none below 0.
    pub(super) position: AtomicI64,
    arrivals: Mutex<Arrivals>,
    told: Mutex<Told>,
}

/// Up to which offset it was told what is missing, where the ledger had `after`.
#[derive(Default)]
struct Told {
    after: i64,
    upto: i64,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            position: AtomicI64::new(UNKNOWN),
            arrivals: Mutex::default(),
            told: Mutex::default(),
        }
    }
}

impl Seen {
    /// When the oldest came of what waits; see [`Arrivals::see`].
    pub(super) fn oldest(&self, now_ms: i64, booked: i64, end: i64) -> Option<Oldest> {
        locked(&self.arrivals).see(now_ms, booked, end)
    }

    /// What of a hole was not told yet. What was told is told again once the ledger has
    /// more: each reader that begins before it does finds the same.
    pub(super) fn untold(&self, after: i64, hole: Range<i64>) -> Option<Range<i64>> {
        let told = locked(&self.told);
        let start = match told.after == after {
            true => hole.start.max(told.upto),
            false => hole.start,
        };
        (start < hole.end).then_some(start..hole.end)
    }

    /// What is missing was told up to that offset.
    pub(super) fn tell(&self, after: i64, upto: i64) {
        *locked(&self.told) = Told { after, upto };
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_once_until_more_is_booked() {
        let seen = Seen::default();
        assert_eq!(seen.untold(0, 0..4), Some(0..4));
        assert_eq!(seen.untold(0, 0..4), Some(0..4));
        seen.tell(0, 4);
        assert_eq!(seen.untold(0, 0..4), None);
        assert_eq!(seen.untold(0, 0..9), Some(4..9));
        seen.tell(0, 9);
        assert_eq!(seen.untold(0, 0..9), None);
        // Another topic of that name, of which the ledger has something.
        assert_eq!(seen.untold(2, 2..6), Some(2..6));
    }
}
