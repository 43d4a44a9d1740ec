//! Buckets: what a tenant used on a meter in an hour, and how much of it Stripe is to have.

use weir_meter_core::{
    hour::Hour,
    ledger::{Bucket, BucketKey},
};

use super::{Change, columns, postgres, schema::open_states};
use crate::sql::{self, OptionalExtension as _, Row, of_shard, params};

/// Reads what begins with hour, tenant and meter.
pub(super) fn bucket_key(row: &Row<'_>, column: usize) -> sql::Result<BucketKey> {
    Ok(BucketKey {
        hour: columns::hour(row, column)?,
        tenant: columns::tenant(row, column.saturating_add(1))?,
        meter: columns::meter(row, column.saturating_add(2))?,
    })
}

impl Change<'_> {
    pub(super) fn add(&self, changes: &[(BucketKey, i64)]) -> sql::Result<()> {
        if let Some(mut session) = self.transaction.postgres() {
            return postgres::add(&mut session, changes);
        }
        // Nearly always the bucket is there and open, and no index has to be changed.
        let mut update = self.transaction.prepare_cached(
            "UPDATE bucket SET total = total + ?4
             WHERE hour = ?1 AND tenant = ?2 AND meter = ?3 AND +is_open",
        )?;
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO bucket (hour, tenant, meter, total) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (hour, tenant, meter) DO UPDATE SET
               total = bucket.total + excluded.total, is_open = TRUE",
        )?;
        for (key, delta) in changes {
            let meter = key.meter.to_string();
            let row = params![key.hour.0, key.tenant.as_str(), meter, delta];
            if update.execute(row)? == 0 {
                insert.execute(row)?;
            }
        }
        Ok(())
    }

    pub(super) fn read_bucket(&self, key: &BucketKey) -> sql::Result<Bucket> {
        let found = self
            .transaction
            .prepare_cached(
                "SELECT total, planned, revision FROM bucket
                 WHERE hour = ?1 AND tenant = ?2 AND meter = ?3",
            )?
            .query_row(
                params![key.hour.0, key.tenant.as_str(), key.meter.to_string()],
                |row| bucket(row, 0),
            )
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn write_planned(
        &self,
        key: &BucketKey,
        planned: i64,
        revision: i64,
    ) -> sql::Result<()> {
        self.transaction
            .prepare_cached(
                "INSERT INTO bucket (hour, tenant, meter, total, planned, revision)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5)
                 ON CONFLICT (hour, tenant, meter) DO UPDATE SET planned = excluded.planned,
                   revision = excluded.revision,
                   is_open = (bucket.total <> excluded.planned
                     OR bucket.total <> bucket.accepted + bucket.waived)",
            )?
            .execute(params![
                key.hour.0,
                key.tenant.as_str(),
                key.meter.to_string(),
                planned,
                revision
            ])?;
        Ok(())
    }

    /// Takes into a bucket's sums what an intent of it brought to Stripe, or was waived.
    pub(super) fn settle(&self, key: &BucketKey, accepted: i64, waived: i64) -> sql::Result<()> {
        if (accepted, waived) == (0, 0) {
            return Ok(());
        }
        self.transaction
            .prepare_cached(
                "INSERT INTO bucket (hour, tenant, meter, total, accepted, waived)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5)
                 ON CONFLICT (hour, tenant, meter) DO UPDATE SET
                   accepted = bucket.accepted + excluded.accepted,
                   waived = bucket.waived + excluded.waived,
                   is_open = (bucket.total <> bucket.planned OR bucket.total <>
                     bucket.accepted + excluded.accepted + bucket.waived + excluded.waived)",
            )?
            .execute(params![
                key.hour.0,
                key.tenant.as_str(),
                key.meter.to_string(),
                accepted,
                waived
            ])?;
        Ok(())
    }

    pub(super) fn read_unplanned(&self, upto: Hour) -> sql::Result<Vec<(BucketKey, Bucket)>> {
        self.transaction
            .prepare_cached(concat!(
                "SELECT hour, tenant, meter, total, planned, revision
                 FROM bucket INDEXED BY bucket_open
                 WHERE is_open AND hour <= ?1 AND total <> planned ",
                of_shard!(),
                " AND NOT EXISTS (
                   SELECT 1 FROM intent WHERE ",
                open_states!(),
                " AND intent.hour = bucket.hour AND intent.tenant = bucket.tenant
                   AND intent.meter = bucket.meter)
                 ORDER BY hour, tenant, meter"
            ))?
            .query_map([upto.0], |row| Ok((bucket_key(row, 0)?, bucket(row, 3)?)))?
            .collect()
    }
}

fn bucket(row: &Row<'_>, column: usize) -> sql::Result<Bucket> {
    Ok(Bucket {
        total: row.get(column)?,
        planned: row.get(column.saturating_add(1))?,
        revision: row.get(column.saturating_add(2))?,
    })
}
