//! One transaction on the ledger, as the core's procedures see it.

use std::collections::BTreeSet;

use weir_meter_core::{
    hour::Hour,
    journal::Line,
    ledger::{
        Adjustment, Books, Bucket, BucketKey, Discrepancy, DiscrepancyKind, Intent, RequestKey,
        RequestRow,
    },
    meter::Meter,
};
use weir_wire::ids::TenantId;

use super::{LedgerError, columns, discrepancies::Place, partitions, postgres};
use crate::sql::{self, Transaction};

/// One transaction; undone where it is dropped before it is committed.
pub struct Change<'a> {
    pub(super) transaction: Transaction<'a>,
    /// The days that have a table, those that this transaction made among them.
    pub(super) partitions: BTreeSet<i64>,
    /// Whether these are all there are.
    pub(super) has_looked: bool,
    /// What is to be marked as resolved before it is committed.
    pub(super) resolved: Vec<Resolved>,
}

/// A discrepancy that is resolved: kind, tenant, place, and when.
pub(super) type Resolved = (DiscrepancyKind, String, Place, i64);

type Result<T> = std::result::Result<T, LedgerError>;

impl Change<'_> {
    /// Looks which days have a table.
    pub(super) fn look_for_days(&mut self) -> sql::Result<()> {
        self.partitions = partitions::days(&self.transaction)?;
        self.has_looked = true;
        Ok(())
    }

    /// Whether a day has a table. That it has none is never taken from memory: what was
    /// billed would be billed again.
    pub(super) fn has_day(&mut self, day: i64) -> sql::Result<bool> {
        if !self.partitions.contains(&day) && !self.has_looked {
            self.look_for_days()?;
        }
        Ok(self.partitions.contains(&day))
    }

    /// Writes what was put off.
    pub(super) fn finish(&mut self) -> sql::Result<()> {
        let resolved = std::mem::take(&mut self.resolved);
        match self.transaction.postgres() {
            Some(mut session) if !resolved.is_empty() => postgres::resolve(&mut session, &resolved),
            _ => Ok(()),
        }
    }
}

impl Books for Change<'_> {
    type Error = LedgerError;

    fn identity(&mut self) -> Result<String> {
        let query = "SELECT id FROM identity";
        Ok(self.transaction.query_row(query, [], |row| row.get(0))?)
    }

    fn progress(&mut self, name: &str) -> Result<i64> {
        Ok(columns::progress(&self.transaction, name)?)
    }

    fn set_progress(&mut self, name: &str, number: i64) -> Result<()> {
        Ok(columns::set_progress(&self.transaction, name, number)?)
    }

    fn requests(&mut self, keys: &[RequestKey]) -> Result<Vec<Option<RequestRow>>> {
        Ok(self.read_requests(keys)?)
    }

    fn put_requests(&mut self, rows: &[(RequestKey, RequestRow)]) -> Result<()> {
        Ok(self.write_requests(rows)?)
    }

    fn due_requests(&mut self, now_ms: i64, limit: usize) -> Result<Vec<RequestKey>> {
        Ok(self.read_due(now_ms, limit)?)
    }

    fn journal_end(&mut self) -> Result<[u8; 32]> {
        Ok(self.read_end()?)
    }

    fn append_journal(&mut self, lines: &[(Line, [u8; 32])]) -> Result<()> {
        Ok(self.append(lines)?)
    }

    fn add_to_buckets(&mut self, changes: &[(BucketKey, i64)]) -> Result<()> {
        Ok(self.add(changes)?)
    }

    fn bucket(&mut self, key: &BucketKey) -> Result<Bucket> {
        Ok(self.read_bucket(key)?)
    }

    fn set_planned(&mut self, key: &BucketKey, planned: i64, revision: i64) -> Result<()> {
        Ok(self.write_planned(key, planned, revision)?)
    }

    fn unplanned(&mut self, upto: Hour) -> Result<Vec<(BucketKey, Bucket)>> {
        Ok(self.read_unplanned(upto)?)
    }

    fn insert_intent(&mut self, intent: &Intent) -> Result<i64> {
        Ok(self.write_intent(intent)?)
    }

    fn update_intent(&mut self, intent: &Intent) -> Result<()> {
        Ok(self.replace_intent(intent)?)
    }

    fn intent(&mut self, id: i64) -> Result<Option<Intent>> {
        Ok(self.read_intent(id)?)
    }

    fn open_intent(&mut self, key: &BucketKey) -> Result<Option<Intent>> {
        Ok(self.read_open(key)?)
    }

    fn sendable(&mut self, now_ms: i64, limit: usize) -> Result<Vec<Intent>> {
        Ok(self.read_sendable(now_ms, limit)?)
    }

    fn unsettled(&mut self, tried_ms: i64, now_ms: i64, limit: usize) -> Result<Vec<Intent>> {
        Ok(self.read_unsettled(tried_ms, now_ms, limit)?)
    }

    fn intents_at(&mut self, tenant: &TenantId, meter: &Meter, hour: Hour) -> Result<Vec<Intent>> {
        Ok(self.read_intents_at(tenant, meter, hour)?)
    }

    fn aged(&mut self, before_s: i64, limit: usize) -> Result<Vec<Intent>> {
        Ok(self.read_aged(before_s, limit)?)
    }

    fn confirmed(&mut self, meter: &Meter, from_s: i64, to_s: i64) -> Result<Vec<Intent>> {
        Ok(self.read_confirmed(meter, (from_s, to_s))?)
    }

    fn note(&mut self, found: &[Discrepancy], now_ms: i64) -> Result<()> {
        Ok(self.write_found(found, now_ms)?)
    }

    fn resolve(
        &mut self,
        kind: DiscrepancyKind,
        tenant: &TenantId,
        request: Option<&RequestKey>,
        bucket: Option<&BucketKey>,
        now_ms: i64,
    ) -> Result<()> {
        Ok(self.write_resolved(kind, tenant, (request, bucket), now_ms)?)
    }

    fn adjustment(&mut self, id: i64) -> Result<Option<Adjustment>> {
        Ok(self.read_adjustment(id)?)
    }

    fn proposal(&mut self, key: &BucketKey) -> Result<Option<Adjustment>> {
        Ok(self.read_proposal(key)?)
    }

    fn proposals(&mut self) -> Result<Vec<Adjustment>> {
        Ok(self.read_proposals()?)
    }

    fn insert_adjustment(&mut self, adjustment: &Adjustment) -> Result<i64> {
        Ok(self.write_adjustment(adjustment)?)
    }

    fn update_adjustment(&mut self, adjustment: &Adjustment) -> Result<()> {
        Ok(self.replace_adjustment(adjustment)?)
    }
}
