//! How many meter events a second are taken.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A second's worth may come at once, then one for each that became free.
#[derive(Debug)]
pub(super) struct Bucket {
    since: Instant,
    interval: Duration,
    /// When all that was taken is paid off, after `since`.
    paid: Mutex<Duration>,
}

impl Bucket {
    /// So many a second; nothing takes any number.
    pub(super) fn new(per_second: u32) -> Option<Self> {
        Some(Self {
            since: Instant::now(),
            interval: Duration::from_secs(1).checked_div(per_second)?,
            paid: Mutex::default(),
        })
    }

    /// Whether one more is taken.
    pub(super) fn take(&self) -> bool {
        self.take_at(self.since.elapsed())
    }

    fn take_at(&self, now: Duration) -> bool {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*paid).max(now).saturating_add(self.interval);
        let taken = next <= now.saturating_add(Duration::from_secs(1));
        if taken {
            *paid = next;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_them_and_then_as_they_come_free() {
        let bucket = Bucket::new(25).unwrap();
        let count = |ms: u64, tries: usize| {
            (0..tries)
                .filter(|_| bucket.take_at(Duration::from_millis(ms)))
                .count()
        };
        assert_eq!(count(0, 100), 25);
        assert_eq!(count(39, 9), 0);
        assert_eq!(count(40, 9), 1);
        assert_eq!(count(540, 99), 12);
        assert_eq!(count(60_000, 99), 25);
        assert!(Bucket::new(0).is_none());
    }
}
