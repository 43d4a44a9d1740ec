//! What does not fit, listed for the operator.

use prost::Message as _;
use serde::Serialize;
use weir_meter_core::{
    hour::Hour,
    ledger::{BucketKey, Discrepancy, DiscrepancyKind, RequestKey},
};
use weir_wire::ids::{RequestId, TenantId};

use super::{Change, Ledger, LedgerError, columns, postgres};
use crate::sql::{self, Row, params};

/// What tells one discrepancy of a kind and a tenant from another: hour, meter, request.
pub(super) struct Place(pub(super) i64, pub(super) String, pub(super) Vec<u8>);

impl Place {
    pub(super) fn of(request: Option<&RequestKey>, bucket: Option<&BucketKey>) -> Self {
        let hour = request
            .map(RequestKey::hour)
            .or(bucket.map(|bucket| bucket.hour));
        Self(
            hour.map_or(0, |hour| hour.0),
            bucket.map_or_else(String::new, |bucket| bucket.meter.to_string()),
            request.map_or_else(Vec::new, |key| columns::id_bytes(key.id).to_vec()),
        )
    }
}

impl Change<'_> {
    pub(super) fn write_found(&mut self, found: &[Discrepancy], now_ms: i64) -> sql::Result<()> {
        // In their order: what was resolved before may be found again.
        self.finish()?;
        if let Some(mut session) = self.transaction.postgres() {
            return postgres::note(&mut session, found, now_ms);
        }
        let mut statement = self.transaction.prepare_cached(
            "INSERT INTO discrepancy
               (hour, kind, tenant, meter, request_id, detail, event, noted_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (hour, kind, tenant, meter, request_id) DO UPDATE SET
               detail = excluded.detail, resolved_ms = NULL
             WHERE discrepancy.resolved_ms IS NOT NULL
               OR discrepancy.detail <> excluded.detail",
        )?;
        for one in found {
            let place = Place::of(one.request.as_ref(), one.bucket.as_ref());
            statement.execute(params![
                place.0,
                one.kind.as_str(),
                one.tenant.as_str(),
                place.1,
                place.2,
                one.detail,
                one.event.as_ref().map(|event| event.encode_to_vec()),
                now_ms
            ])?;
        }
        Ok(())
    }

    pub(super) fn write_resolved(
        &mut self,
        kind: DiscrepancyKind,
        tenant: &TenantId,
        place: (Option<&RequestKey>, Option<&BucketKey>),
        now_ms: i64,
    ) -> sql::Result<()> {
        let place = Place::of(place.0, place.1);
        if self.transaction.is_postgres() {
            // All of a batch at once.
            self.resolved
                .push((kind, tenant.to_string(), place, now_ms));
            return Ok(());
        }
        self.transaction
            .prepare_cached(
                "UPDATE discrepancy SET resolved_ms = ?6
                 WHERE hour = ?1 AND kind = ?2 AND tenant = ?3 AND meter = ?4
                   AND request_id = ?5 AND +resolved_ms IS NULL",
            )?
            .execute(params![
                place.0,
                kind.as_str(),
                tenant.as_str(),
                place.1,
                place.2,
                now_ms
            ])?;
        Ok(())
    }
}

/// Which discrepancies are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscrepancyFilter {
    /// Of that kind alone.
    pub kind: Option<DiscrepancyKind>,
    /// Of that tenant alone.
    pub tenant: Option<TenantId>,
    /// Those that were resolved, too.
    pub with_resolved: bool,
    /// Older than the one of that id.
    pub before: Option<i64>,
    /// How many at the most.
    pub limit: u32,
}

/// A discrepancy as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownDiscrepancy {
    /// Its number.
    pub id: i64,
    /// What.
    pub kind: DiscrepancyKind,
    /// Whose.
    pub tenant: String,
    /// Of which request, where it is about one.
    pub request_id: Option<String>,
    /// On which meter, where it is about one.
    pub meter: Option<String>,
    /// The first second of the hour that it is about, seconds of the Unix epoch.
    pub hour_start_s: i64,
    /// What was found.
    pub detail: String,
    /// Milliseconds of the Unix epoch.
    pub noted_ms: i64,
    /// Milliseconds of the Unix epoch; absent while it is open.
    pub resolved_ms: Option<i64>,
}

fn shown(row: &Row<'_>) -> sql::Result<ShownDiscrepancy> {
    let request: Vec<u8> = row.get(5)?;
    let request = <[u8; 16]>::try_from(request).ok();
    let id = request.and_then(|bytes| RequestId::from_u128(u128::from_be_bytes(bytes)));
    Ok(ShownDiscrepancy {
        id: row.get(0)?,
        hour_start_s: columns::hour(row, 1).map(Hour::start_s)?,
        kind: columns::parsed(row, 2, DiscrepancyKind::parse)?,
        tenant: row.get(3)?,
        meter: row.get(4).map(|m: String| (!m.is_empty()).then_some(m))?,
        request_id: id.map(|id| id.to_string()),
        detail: row.get(6)?,
        noted_ms: row.get(7)?,
        resolved_ms: row.get(8)?,
    })
}

impl Ledger {
    /// The newest discrepancies that are wanted, the newest first.
    pub fn discrepancies(
        &self,
        filter: &DiscrepancyFilter,
    ) -> Result<Vec<ShownDiscrepancy>, LedgerError> {
        let rows = self
            .connection
            .prepare_cached(
                "SELECT id, hour, kind, tenant, meter, request_id, detail, noted_ms, resolved_ms
                 FROM discrepancy WHERE id < ?1 AND (?2 IS NULL OR kind = ?2)
                   AND (?3 IS NULL OR tenant = ?3) AND (?4 OR resolved_ms IS NULL)
                 ORDER BY id DESC LIMIT ?5",
            )?
            .query_map(
                params![
                    filter.before.unwrap_or(i64::MAX),
                    filter.kind.map(DiscrepancyKind::as_str),
                    filter.tenant.as_ref().map(TenantId::as_str),
                    filter.with_resolved,
                    filter.limit
                ],
                shown,
            )?
            .collect::<sql::Result<_>>()?;
        Ok(rows)
    }
}
