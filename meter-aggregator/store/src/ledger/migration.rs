//! A ledger of the version before (witnesses and postings one by one, a journal line for
//! each meter) is moved to this one's form, in the transaction that opens it.
//!
//! Intents keep their ids, identifiers and states, so that nothing is sent twice. The
//! journal begins anew, with one line for each request that is billed: the old chain can't
//! be carried on.

use prost::Message as _;
use weir_meter_core::{
    fold::{Quantities, decisive},
    intent::State,
    journal::{self, Line},
    ledger::{
        BucketKey, Discrepancy, DiscrepancyKind, Intent, RequestKey, RequestRow, book::event_hash,
    },
};
use weir_wire::{ids::RequestId, proto::usage::UsageEvent};

use super::{Change, buckets::bucket_key, columns, partitions};
use crate::sql::{self, Row, Transaction, params};

/// Whether the file is of the version before.
pub(super) fn is_old(transaction: &Transaction<'_>) -> sql::Result<bool> {
    transaction
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'witness'")?
        .exists([])
}

/// Puts its tables aside.
pub(super) fn set_aside(transaction: &Transaction<'_>) -> sql::Result<()> {
    transaction.execute_batch(
        "DROP INDEX IF EXISTS bucket_unplanned;
         DROP INDEX IF EXISTS intent_one_open;
         DROP INDEX IF EXISTS intent_due;
         DROP TABLE journal;
         ALTER TABLE bucket RENAME TO old_bucket;
         ALTER TABLE intent RENAME TO old_intent;",
    )
}

/// Fills this version's tables from those that were put aside, which then go.
pub(super) fn take_over(transaction: Transaction<'_>) -> anyhow::Result<Transaction<'_>> {
    let mut change = Change {
        partitions: partitions::days(&transaction)?,
        has_looked: true,
        resolved: Vec::new(),
        transaction,
    };
    requests(&mut change)?;
    conflicts(&mut change)?;
    change.transaction.execute_batch(
        "INSERT INTO bucket (hour, tenant, meter, total, planned, revision)
           SELECT hour, tenant, meter, total, planned, revision FROM old_bucket",
    )?;
    intents(&change)?;
    change.transaction.execute_batch(
        "DROP TABLE witness; DROP TABLE posting; DROP TABLE conflict; DROP TABLE old_bucket;
         DROP TABLE old_intent;",
    )?;
    Ok(change.transaction)
}

/// How many requests are written at a time.
const BATCH: usize = 1_000;

fn requests(change: &mut Change<'_>) -> sql::Result<()> {
    let mut after = (String::new(), String::new());
    let mut end = journal::GENESIS;
    loop {
        let rows = some_requests(&change.transaction, &after)?;
        let Some((key, _)) = rows.last() else {
            return Ok(());
        };
        after = (key.tenant.to_string(), key.id.to_string());
        let mut lines = Vec::new();
        for (key, row) in &rows {
            if row.posted.is_empty() {
                continue;
            }
            let line = Line {
                tenant: key.tenant.clone(),
                request_id: key.id,
                event: decisive(&row.events).map(event_hash).unwrap_or_default(),
                deltas: row.posted.clone(),
            };
            end = journal::chain(&end, &line);
            lines.push((line, end));
        }
        change.write_requests(&rows)?;
        change.append(&lines)?;
    }
}

/// The next requests after that tenant's, with their witnesses and postings.
fn some_requests(
    transaction: &Transaction<'_>,
    after: &(String, String),
) -> sql::Result<Vec<(RequestKey, RequestRow)>> {
    let keys = transaction
        .prepare_cached(
            "SELECT DISTINCT tenant, request_id FROM witness
             WHERE (tenant, request_id) > (?1, ?2) ORDER BY tenant, request_id LIMIT ?3",
        )?
        .query_map(params![after.0, after.1, BATCH as i64], |row| {
            Ok(RequestKey {
                tenant: columns::tenant(row, 0)?,
                id: columns::parsed(row, 1, |id| RequestId::parse(id).ok())?,
            })
        })?
        .collect::<sql::Result<Vec<_>>>()?;
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let of = params![key.tenant.as_str(), key.id.to_string()];
        let events = transaction
            .prepare_cached(
                "SELECT event FROM witness WHERE tenant = ?1 AND request_id = ?2 ORDER BY witness",
            )?
            .query_map(of, |row| event(row, 0))?
            .collect::<sql::Result<_>>()?;
        let posted: Quantities = transaction
            .prepare_cached(
                "SELECT meter, quantity FROM posting
                 WHERE tenant = ?1 AND request_id = ?2 AND quantity <> 0",
            )?
            .query_map(of, |row| Ok((columns::meter(row, 0)?, row.get(1)?)))?
            .collect::<sql::Result<_>>()?;
        let row = RequestRow {
            events,
            posted,
            due_ms: None,
        };
        rows.push((key, row));
    }
    Ok(rows)
}

/// An event, without the context that it bore then.
fn event(row: &Row<'_>, column: usize) -> sql::Result<UsageEvent> {
    let bytes = row.blob(column)?;
    let mut event =
        UsageEvent::decode(bytes).map_err(|error| columns::unreadable(column, error))?;
    event.tenant_context.clear();
    Ok(event)
}

fn conflicts(change: &mut Change<'_>) -> sql::Result<()> {
    let mut statement = change
        .transaction
        .prepare_cached("SELECT tenant, request_id, event FROM conflict")?;
    let rows = statement.query_map([], |row| {
        let tenant = columns::tenant(row, 0)?;
        Ok(Discrepancy {
            kind: DiscrepancyKind::Conflict,
            tenant: tenant.clone(),
            request: Some(RequestKey {
                id: columns::parsed(row, 1, |id| RequestId::parse(id).ok())?,
                tenant,
            }),
            bucket: None,
            detail: "a witness told of it twice, and not the same; the first counts".to_owned(),
            event: Some(event(row, 2)?),
        })
    })?;
    let found: Vec<Discrepancy> = rows.collect::<sql::Result<_>>()?;
    drop(statement);
    change.write_found(&found, weir_process::now_ms())
}

fn intents(change: &Change<'_>) -> sql::Result<()> {
    let mut statement = change.transaction.prepare_cached(
        "SELECT hour, tenant, meter, id, revision, generation, delta, identifier, timestamp_s,
           state, first_attempt_ms, answers, not_before_ms, reason FROM old_intent ORDER BY id",
    )?;
    let rows = statement.query_map([], |row| {
        let bucket: BucketKey = bucket_key(row, 0)?;
        let state = columns::parsed(row, 9, State::parse)?;
        let first_attempt_ms: Option<i64> = row.get(10)?;
        // How often it was tried, and when last, was not kept: where it was tried at all,
        // Stripe may have it.
        let is_unknown = !state.is_at_stripe() && first_attempt_ms.is_some();
        Ok(Intent {
            id: row.get(3)?,
            bucket,
            revision: row.get(4)?,
            generation: row.get(5)?,
            delta: row.get(6)?,
            identifier: row.get(7)?,
            timestamp_s: row.get(8)?,
            state,
            first_attempt_ms,
            last_attempt_ms: first_attempt_ms,
            answers: row.get(11)?,
            unknown: i64::from(is_unknown),
            not_before_ms: row.get(12)?,
            reading: None,
            reason: row.get(13)?,
            carried_from: None,
        })
    })?;
    for intent in rows {
        change.take_over_intent(&intent?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
