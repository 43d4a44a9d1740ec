//! What the ledger says of itself.

use rusqlite::Row;
use serde::Serialize;

use super::{Ledger, LedgerError};

/// One tenant's use on one meter in one hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub tenant: String,
    pub meter: String,
    /// The hour's first second, seconds of the Unix epoch.
    pub hour_start_s: i64,
    /// What was used.
    pub total: i64,
    /// What Stripe has.
    pub accepted: i64,
}

/// How many intents are in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IntentCount {
    pub state: String,
    pub count: i64,
}

/// An intent that waits for the operator, and keeps its line from growing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stuck {
    pub tenant: String,
    pub meter: String,
    /// The hour's first second, seconds of the Unix epoch.
    pub hour_start_s: i64,
    /// `held` or `reconcile`.
    pub state: String,
    /// What Stripe said, where it said something.
    pub reason: Option<String>,
}

/// The most intents that are listed.
const STUCK_MAX: i64 = 100;

impl Ledger {
    /// The oldest intents that wait for the operator, a hundred at the most.
    pub fn stuck(&self) -> Result<Vec<Stuck>, LedgerError> {
        self.rows(
            "SELECT tenant, meter, hour * 3600, state, reason FROM intent
             WHERE state IN ('held', 'reconcile') ORDER BY id LIMIT ?1",
            &STUCK_MAX,
            |row| {
                Ok(Stuck {
                    tenant: row.get(0)?,
                    meter: row.get(1)?,
                    hour_start_s: row.get(2)?,
                    state: row.get(3)?,
                    reason: row.get(4)?,
                })
            },
        )
    }

    /// Every hour that is not yet wholly with Stripe, or changed since
    /// `since_hour`, in the order of hours.
    pub fn summary(&self, since_hour: i64) -> Result<Vec<Line>, LedgerError> {
        self.rows(
            "SELECT bucket.tenant, bucket.meter, bucket.hour * 3600, total,
                    COALESCE(SUM(intent.delta), 0) AS accepted
             FROM bucket LEFT JOIN intent ON intent.tenant = bucket.tenant
               AND intent.meter = bucket.meter AND intent.hour = bucket.hour
               AND intent.state = 'accepted'
             GROUP BY bucket.hour, bucket.tenant, bucket.meter
             HAVING bucket.hour >= ?1 OR accepted <> total",
            &since_hour,
            |row| {
                Ok(Line {
                    tenant: row.get(0)?,
                    meter: row.get(1)?,
                    hour_start_s: row.get(2)?,
                    total: row.get(3)?,
                    accepted: row.get(4)?,
                })
            },
        )
    }

    /// Intents by state.
    pub fn intent_counts(&self) -> Result<Vec<IntentCount>, LedgerError> {
        self.rows(
            "SELECT state, COUNT(*) FROM intent WHERE id > ?1 GROUP BY state",
            &0,
            |row| {
                Ok(IntentCount {
                    state: row.get(0)?,
                    count: row.get(1)?,
                })
            },
        )
    }

    /// Witnesses that contradicted themselves.
    pub fn conflicts(&self) -> Result<i64, LedgerError> {
        Ok(self
            .connection
            .query_row("SELECT COUNT(*) FROM conflict", [], |row| row.get(0))?)
    }

    pub(super) fn rows<T>(
        &self,
        query: &str,
        parameter: &i64,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, LedgerError> {
        Ok(self
            .connection
            .prepare_cached(query)?
            .query_map([parameter], read)?
            .collect::<rusqlite::Result<_>>()?)
    }
}
