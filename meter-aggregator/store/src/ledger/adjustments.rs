//! Adjustments: changes of final hours, which an operator approves.

use serde::Serialize;
use weir_meter_core::ledger::{Adjustment, AdjustmentKind, AdjustmentState, BucketKey};
use weir_wire::ids::TenantId;

use super::{
    Change, Ledger, LedgerError,
    buckets::bucket_key,
    columns,
    listing::{self, Filter},
};
use crate::sql::{self, OptionalExtension as _, Row, of_shard, params};

/// What [`adjustment`] reads.
macro_rules! columns {
    () => {
        "id, hour, tenant, meter, delta, kind, source, state, intent, proposed_ms, decided_ms"
    };
}

fn adjustment(row: &Row<'_>) -> sql::Result<Adjustment> {
    Ok(Adjustment {
        id: row.get(0)?,
        bucket: bucket_key(row, 1)?,
        delta: row.get(4)?,
        kind: columns::parsed(row, 5, AdjustmentKind::parse)?,
        source: row.get(6)?,
        state: columns::parsed(row, 7, AdjustmentState::parse)?,
        intent: row.get(8)?,
        proposed_ms: row.get(9)?,
        decided_ms: row.get(10)?,
    })
}

impl Change<'_> {
    pub(super) fn read_adjustment(&self, id: i64) -> sql::Result<Option<Adjustment>> {
        self.transaction
            .prepare_cached(concat!(
                "SELECT ",
                columns!(),
                " FROM adjustment WHERE id = ?1 ",
                of_shard!()
            ))?
            .query_row([id], adjustment)
            .optional()
    }

    pub(super) fn read_proposal(&self, key: &BucketKey) -> sql::Result<Option<Adjustment>> {
        self.transaction
            .prepare_cached(concat!(
                "SELECT ",
                columns!(),
                " FROM adjustment INDEXED BY adjustment_proposed
                 WHERE hour = ?1 AND tenant = ?2 AND meter = ?3 AND state = 'proposed'"
            ))?
            .query_row(
                params![key.hour.0, key.tenant.as_str(), key.meter.to_string()],
                adjustment,
            )
            .optional()
    }

    pub(super) fn read_proposals(&self) -> sql::Result<Vec<Adjustment>> {
        let query = concat!(
            "SELECT ",
            columns!(),
            " FROM adjustment INDEXED BY adjustment_proposed WHERE state = 'proposed' ",
            of_shard!()
        );
        columns::all(&self.transaction, query, adjustment)
    }

    /// Writes a new adjustment, and gives its id.
    pub(super) fn write_adjustment(&self, adjustment: &Adjustment) -> sql::Result<i64> {
        let key = &adjustment.bucket;
        self.transaction
            .prepare_cached(
                "INSERT INTO adjustment (hour, tenant, meter, delta, kind, source, state, intent,
                   proposed_ms, decided_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING id",
            )?
            .query_row(
                params![
                    key.hour.0,
                    key.tenant.as_str(),
                    key.meter.to_string(),
                    adjustment.delta,
                    adjustment.kind.as_str(),
                    adjustment.source,
                    adjustment.state.as_str(),
                    adjustment.intent,
                    adjustment.proposed_ms,
                    adjustment.decided_ms
                ],
                |row| row.get(0),
            )
    }

    /// Writes an adjustment in the place of the one that has its id.
    pub(super) fn replace_adjustment(&self, adjustment: &Adjustment) -> sql::Result<()> {
        self.transaction
            .prepare_cached(
                "UPDATE adjustment SET delta = ?2, kind = ?3, source = ?4, state = ?5,
                   intent = ?6, proposed_ms = ?7, decided_ms = ?8 WHERE id = ?1",
            )?
            .execute(params![
                adjustment.id,
                adjustment.delta,
                adjustment.kind.as_str(),
                adjustment.source,
                adjustment.state.as_str(),
                adjustment.intent,
                adjustment.proposed_ms,
                adjustment.decided_ms
            ])?;
        Ok(())
    }
}

/// Which adjustments are listed.
pub type AdjustmentFilter = Filter<AdjustmentState>;

/// An adjustment as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownAdjustment {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub tenant: String,
    /// On which meter.
    pub meter: String,
    /// The hour's first second, seconds of the Unix epoch.
    pub hour_start_s: i64,
    /// How much.
    pub delta: i64,
    /// Why.
    pub kind: AdjustmentKind,
    /// The intent that was too old, where that is why.
    pub source: Option<i64>,
    /// Where it stands.
    pub state: AdjustmentState,
    /// The intent that it became.
    pub intent: Option<i64>,
    /// Milliseconds of the Unix epoch.
    pub proposed_ms: i64,
    /// Milliseconds of the Unix epoch.
    pub decided_ms: Option<i64>,
}

impl From<Adjustment> for ShownAdjustment {
    fn from(adjustment: Adjustment) -> Self {
        Self {
            id: adjustment.id,
            tenant: adjustment.bucket.tenant.to_string(),
            meter: adjustment.bucket.meter.to_string(),
            hour_start_s: adjustment.bucket.hour.start_s(),
            delta: adjustment.delta,
            kind: adjustment.kind,
            source: adjustment.source,
            state: adjustment.state,
            intent: adjustment.intent,
            proposed_ms: adjustment.proposed_ms,
            decided_ms: adjustment.decided_ms,
        }
    }
}

impl Ledger {
    /// The newest adjustments that are wanted, the newest first.
    pub fn adjustments(
        &self,
        filter: &AdjustmentFilter,
    ) -> Result<Vec<ShownAdjustment>, LedgerError> {
        let select = concat!("SELECT ", columns!(), " FROM adjustment");
        listing::newest(
            &self.connection,
            select,
            filter,
            |s| s.as_str(),
            |row| adjustment(row).map(ShownAdjustment::from),
        )
    }

    /// Whose an adjustment is: which shard an operator's word is about.
    pub fn tenant_of_adjustment(&self, id: i64) -> Result<Option<TenantId>, LedgerError> {
        listing::tenant_of(&self.connection, "adjustment", id)
    }
}
