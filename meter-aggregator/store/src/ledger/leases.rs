//! The tables of leases, by which replicas divide the shards.

use weir_meter_core::lease::{LeaseRow, Leases, Replica, Shard};

use super::LedgerError;
use crate::sql::{self, Transaction, params};

/// The tables of leases, in one transaction.
pub struct LeaseTables<'a> {
    transaction: Transaction<'a>,
}

impl<'a> LeaseTables<'a> {
    pub(super) fn new(transaction: Transaction<'a>) -> Self {
        Self { transaction }
    }

    pub(super) fn commit(self) -> sql::Result<()> {
        self.transaction.commit()
    }
}

impl Leases for LeaseTables<'_> {
    type Error = LedgerError;

    fn now_ms(&mut self) -> Result<i64, LedgerError> {
        let query = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
        Ok(self.transaction.query_row(query, [], |row| row.get(0))?)
    }

    fn rows(&mut self) -> Result<Vec<LeaseRow>, LedgerError> {
        let rows = self
            .transaction
            .prepare_cached("SELECT shard, epoch, holder FROM lease ORDER BY shard")?
            .query_map([], |row| {
                let number: i64 = row.get(0)?;
                let shard = u16::try_from(number).ok().and_then(Shard::new);
                Ok(LeaseRow {
                    shard: shard.ok_or_else(|| super::columns::unreadable(0, number))?,
                    epoch: row.get(1)?,
                    holder: row.get(2)?,
                })
            })?
            .collect::<sql::Result<_>>()?;
        Ok(rows)
    }

    fn claim(
        &mut self,
        shard: Shard,
        epoch: i64,
        holder: Option<&str>,
    ) -> Result<bool, LedgerError> {
        let claimed = self.transaction.execute(
            "UPDATE lease SET epoch = epoch + 1, holder = ?3
             WHERE shard = (SELECT shard FROM lease WHERE shard = ?1 AND epoch = ?2
               FOR UPDATE SKIP LOCKED)",
            params![i64::from(shard.number()), epoch, holder],
        )?;
        Ok(claimed > 0)
    }

    fn replicas(&mut self) -> Result<Vec<Replica>, LedgerError> {
        let rows = self
            .transaction
            .prepare_cached("SELECT id, version, until_ms FROM replica ORDER BY id")?
            .query_map([], |row| {
                Ok(Replica {
                    id: row.get(0)?,
                    version: row.get(1)?,
                    until_ms: row.get(2)?,
                })
            })?
            .collect::<sql::Result<_>>()?;
        Ok(rows)
    }

    fn put_replica(&mut self, replica: &Replica) -> Result<(), LedgerError> {
        self.transaction.execute(
            "INSERT INTO replica (id, version, until_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET version = excluded.version,
               until_ms = excluded.until_ms",
            params![replica.id, replica.version, replica.until_ms],
        )?;
        Ok(())
    }

    fn drop_replica(&mut self, id: &str) -> Result<(), LedgerError> {
        self.transaction
            .execute("DELETE FROM replica WHERE id = ?1", [id])?;
        Ok(())
    }
}
