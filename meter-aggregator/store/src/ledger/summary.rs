//! What the ledger says of itself. All of it is cheap, however much there is: what is
//! whole is not looked at, and counts are kept as they change.

use serde::Serialize;
use weir_meter_core::{hour::Hour, meter::Meter};
use weir_wire::ids::TenantId;

use super::{Ledger, LedgerError, columns, schema::open_states};
use crate::sql::{self, Row, params};

/// One tenant's use on one meter in one hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Whose.
    pub tenant: String,
    /// On which meter.
    pub meter: String,
    /// The hour's first second, seconds of the Unix epoch.
    pub hour_start_s: i64,
    /// What was used.
    pub total: i64,
    /// What Stripe has.
    pub accepted: i64,
    /// What the operator decided not to bill.
    pub waived: i64,
}

/// How many there are of a kind or in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Which.
    pub state: String,
    /// How many.
    pub count: i64,
}

/// An intent that waits for the operator or for Stripe's sums, and keeps its line from
/// growing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub tenant: String,
    /// On which meter.
    pub meter: String,
    /// The hour's first second, seconds of the Unix epoch.
    pub hour_start_s: i64,
    /// `held`, `quarantined` or `reconcile`.
    pub state: String,
    /// What Stripe said, where it said something.
    pub reason: Option<String>,
}

/// The most intents that are listed.
const STUCK_MAX: i64 = 100;

/// The most lines that are not whole and are listed.
const LINES_MAX: i64 = 50_000;

impl Ledger {
    /// The oldest intents that wait for the operator or for Stripe's sums, a hundred at the
    /// most.
    pub fn stuck(&self) -> Result<Vec<Stuck>, LedgerError> {
        let rows = self
            .connection
            .prepare_cached(concat!(
                "SELECT id, tenant, meter, hour, state, reason
                 FROM intent INDEXED BY intent_open
                 WHERE ",
                open_states!(),
                " AND state IN ('held', 'quarantined', 'reconcile') ORDER BY id LIMIT ?1"
            ))?
            .query_map([STUCK_MAX], |row| {
                Ok(Stuck {
                    id: row.get(0)?,
                    tenant: row.get(1)?,
                    meter: row.get(2)?,
                    hour_start_s: columns::hour(row, 3).map(Hour::start_s)?,
                    state: row.get(4)?,
                    reason: row.get(5)?,
                })
            })?
            .collect::<sql::Result<_>>()?;
        Ok(rows)
    }

    /// Every hour since `since_hour`, and the first 50,000 lines before it that are neither
    /// with Stripe nor waived, in the order of hours.
    pub fn summary(&self, since_hour: i64) -> Result<Vec<Line>, LedgerError> {
        let mut lines: Vec<Line> = self
            .connection
            .prepare_cached(
                "SELECT hour, tenant, meter, total, accepted, waived
                 FROM bucket INDEXED BY bucket_open
                 WHERE is_open AND hour < ?1 AND total <> accepted + waived
                 ORDER BY hour, tenant, meter LIMIT ?2",
            )?
            .query_map(params![since_hour, LINES_MAX], line)?
            .collect::<sql::Result<_>>()?;
        let mut since = self.connection.prepare_cached(
            "SELECT hour, tenant, meter, total, accepted, waived FROM bucket
             WHERE hour >= ?1 ORDER BY hour, tenant, meter",
        )?;
        for one in since.query_map([since_hour], line)? {
            lines.push(one?);
        }
        Ok(lines)
    }

    /// Of each tenant and meter the oldest hour before that one that Stripe does not wholly
    /// have, without what was waived. What waits for the operator is none.
    pub fn unbilled(&self, before: Hour) -> Result<Vec<(TenantId, Meter, Hour)>, LedgerError> {
        let query = "SELECT tenant, meter, MIN(hour) FROM bucket INDEXED BY bucket_open
                     WHERE is_open AND hour < ?1 AND total <> accepted + waived
                       AND NOT EXISTS (SELECT 1 FROM intent WHERE intent.hour = bucket.hour
                         AND intent.tenant = bucket.tenant AND intent.meter = bucket.meter
                         AND intent.state IN ('held', 'quarantined'))
                       AND NOT EXISTS (SELECT 1 FROM adjustment
                         WHERE adjustment.hour = bucket.hour
                         AND adjustment.tenant = bucket.tenant
                         AND adjustment.meter = bucket.meter AND adjustment.state = 'proposed')
                     GROUP BY tenant, meter";
        let rows = self
            .connection
            .prepare_cached(query)?
            .query_map([before.0], |row| {
                Ok((
                    columns::tenant(row, 0)?,
                    columns::meter(row, 1)?,
                    columns::hour(row, 2)?,
                ))
            })?
            .collect::<sql::Result<_>>()?;
        Ok(rows)
    }

    /// Intents by state.
    pub fn intent_counts(&self) -> Result<Vec<Count>, LedgerError> {
        let query = "SELECT state, CAST(SUM(count) AS BIGINT) FROM intent_count GROUP BY state
                     HAVING SUM(count) <> 0 ORDER BY state";
        Ok(columns::all(&self.connection, query, count)?)
    }

    /// Open discrepancies by kind.
    pub fn discrepancy_counts(&self) -> Result<Vec<Count>, LedgerError> {
        let query = "SELECT kind, COUNT(*) FROM discrepancy INDEXED BY discrepancy_open
                     WHERE resolved_ms IS NULL GROUP BY kind ORDER BY kind";
        Ok(columns::all(&self.connection, query, count)?)
    }

    /// Witnesses that contradicted themselves.
    pub fn conflicts(&self) -> Result<i64, LedgerError> {
        let counts = self.discrepancy_counts()?;
        let conflicts = counts.iter().find(|count| count.state == "conflict");
        Ok(conflicts.map_or(0, |count| count.count))
    }

    /// Adjustments that wait for the operator.
    pub fn proposed(&self) -> Result<i64, LedgerError> {
        let query = "SELECT COUNT(*) FROM adjustment INDEXED BY adjustment_proposed
                     WHERE state = 'proposed'";
        Ok(self.connection.query_row(query, [], |row| row.get(0))?)
    }
}

fn line(row: &Row<'_>) -> sql::Result<Line> {
    Ok(Line {
        hour_start_s: columns::hour(row, 0).map(Hour::start_s)?,
        tenant: row.get(1)?,
        meter: row.get(2)?,
        total: row.get(3)?,
        accepted: row.get(4)?,
        waived: row.get(5)?,
    })
}

fn count(row: &Row<'_>) -> sql::Result<Count> {
    Ok(Count {
        state: row.get(0)?,
        count: row.get(1)?,
    })
}
