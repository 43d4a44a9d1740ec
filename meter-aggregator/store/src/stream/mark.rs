//! How much is spooled, counted as it changes, and from where on producers have to
//! wait.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use rusqlite::Connection;

/// The longest that a producer is told to stay away, in seconds.
const RETRY_MAX_S: u64 = 30;

/// From where on nothing is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Events that are durable and not booked.
    pub events_max: u64,
    /// Bytes of the stream's file that are in use, but for those of quarantine, which no
    /// booking makes less.
    pub bytes_max: u64,
}

impl Mark {
    /// Takes all there is, such as what an operator brings in where nobody listens.
    pub const NONE: Self = Self {
        events_max: u64::MAX,
        bytes_max: u64::MAX,
    };

    /// Where more is spooled: when to come back, 1 to 30 s, a second for each percent
    /// above the mark.
    pub fn above(self, spooled: &Spooled) -> Option<u64> {
        let pairs = [
            (spooled.events(), self.events_max),
            (spooled.bytes(), self.bytes_max),
        ];
        let waits = pairs.into_iter().filter_map(|(found, max)| {
            let excess = found.checked_sub(max)?;
            let percent = excess.saturating_mul(100).checked_div(max).unwrap_or(100);
            Some(percent.saturating_add(1).min(RETRY_MAX_S))
        });
        waits.max()
    }
}

/// What is in the stream; readers and the writer keep it.
#[derive(Debug)]
pub struct Spooled {
    /// The number of the last event that is durable.
    last: AtomicI64,
    /// The number of the last event that is booked.
    booked: AtomicI64,
    /// The last number in `noted` that the ledger has.
    noted: AtomicI64,
    /// Bytes of the file that are in use.
    bytes: AtomicU64,
    /// About how many of them are quarantine's.
    aside: AtomicU64,
    /// Bytes that wait for the writer.
    queued: AtomicU64,
}

impl Spooled {
    /// Of a stream that holds these numbers; none where the first is beyond the last.
    pub(super) fn new(first: i64, last: i64) -> Self {
        Self {
            last: last.into(),
            booked: first.saturating_sub(1).into(),
            noted: 0.into(),
            bytes: 0.into(),
            aside: 0.into(),
            queued: 0.into(),
        }
    }

    /// Events that are durable and not booked.
    pub fn events(&self) -> u64 {
        let waiting = self
            .last
            .load(Relaxed)
            .saturating_sub(self.booked.load(Relaxed));
        u64::try_from(waiting).unwrap_or(0)
    }

    /// The number of the last event that is booked.
    pub fn booked(&self) -> i64 {
        self.booked.load(Relaxed)
    }

    /// Bytes of the file that are in use, but for about those of quarantine.
    pub fn bytes(&self) -> u64 {
        let aside = self.aside.load(Relaxed);
        self.bytes.load(Relaxed).saturating_sub(aside)
    }

    pub(super) fn set_aside(&self, bytes: u64) {
        self.aside.fetch_add(bytes, Relaxed);
    }

    pub(super) fn appended(&self, last: i64) {
        self.last.fetch_max(last, Relaxed);
    }

    pub(super) fn book(&self, upto: i64) {
        self.booked.fetch_max(upto, Relaxed);
    }

    pub(super) fn note(&self, upto: i64) {
        self.noted.fetch_max(upto, Relaxed);
    }

    /// Up to where `event` and `noted` may be trimmed.
    pub(super) fn trimmable(&self) -> (i64, i64) {
        (self.booked.load(Relaxed), self.noted.load(Relaxed))
    }

    /// Adds to what waits for the writer; gives how much that is now.
    pub(super) fn queue(&self, bytes: u64) -> u64 {
        self.queued.fetch_add(bytes, Relaxed).saturating_add(bytes)
    }

    /// What waits for the writer.
    #[cfg(test)]
    pub(super) fn queued(&self) -> u64 {
        self.queued.load(Relaxed)
    }

    pub(super) fn unqueue(&self, bytes: u64) {
        self.queued.fetch_sub(bytes, Relaxed);
    }

    /// Asks SQLite how large the file is; two numbers of its header.
    pub(super) fn measure(&self, connection: &Connection) -> rusqlite::Result<()> {
        let number = |name: &str| {
            connection
                .prepare_cached(&format!("PRAGMA {name}"))?
                .query_row([], |row| row.get::<_, i64>(0))
        };
        let used = number("page_count")?.saturating_sub(number("freelist_count")?);
        let bytes = used.saturating_mul(number("page_size")?);
        self.bytes.store(u64::try_from(bytes).unwrap_or(0), Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_wait_the_longer_the_more_is_above() {
        let mark = Mark {
            events_max: 1_000,
            bytes_max: 10_000,
        };
        let check = |waiting: i64, bytes: u64, expected: Option<u64>| {
            let spooled = Spooled::new(1, waiting);
            spooled.bytes.store(bytes, Relaxed);
            assert_eq!(mark.above(&spooled), expected, "{waiting} {bytes}");
        };
        check(0, 0, None);
        check(999, 9_999, None);
        check(1_000, 0, Some(1));
        check(1_050, 0, Some(6));
        check(0, 10_000, Some(1));
        check(1_000, 11_000, Some(11));
        check(i64::MAX, u64::MAX, Some(30));
        let spooled = Spooled::new(1, i64::MAX);
        assert_eq!(Mark::NONE.above(&spooled), None);
    }

    #[test]
    fn what_is_booked_no_longer_counts() {
        let spooled = Spooled::new(5, 9);
        assert_eq!(spooled.events(), 5);
        spooled.appended(12);
        spooled.book(10);
        spooled.book(7);
        assert_eq!(spooled.events(), 2);
    }
}
