//! The journal, which only grows.

use weir_meter_core::{
    journal::{GENESIS, Line},
    lease::Shard,
};
use weir_wire::ids::TenantId;

use super::{Change, columns, packed, postgres};
use crate::sql::{self, Connection, OptionalExtension as _, Row, of_shard, params};

/// What [`line`] reads.
pub(super) const COLUMNS: &str = "request_id, tenant, event, deltas, hash";

/// How many lines are read at a time.
pub(super) const PAGE: i64 = 5_000;

/// The shard that a chain has that was copied from SQLite.
pub(super) const COPIED: i64 = -1;

/// A chain of lines, each hashed over the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    /// Its shard, where there are shards.
    pub(super) shard: Option<i64>,
    /// The number of its last line.
    pub(super) end: i64,
}

/// The chains in which a tenant's lines are, the older one first.
pub(super) fn chains(connection: &Connection, tenant: &TenantId) -> sql::Result<Vec<Chain>> {
    let end = |row: &Row<'_>| row.get::<_, Option<i64>>(0);
    if !connection.is_postgres() {
        let end = connection.query_row("SELECT MAX(seq) FROM journal", [], end)?;
        return Ok(vec![Chain {
            shard: None,
            end: end.unwrap_or(0),
        }]);
    }
    let of_tenant = Shard::of(tenant).number().into();
    let mut chains = Vec::new();
    for shard in [COPIED, of_tenant] {
        let query = "SELECT MAX(seq) FROM journal WHERE shard = ?1";
        let end = connection.query_row(query, [shard], end)?;
        if let Some(end) = end {
            let shard = Some(shard);
            chains.push(Chain { shard, end });
        }
    }
    Ok(chains)
}

/// Lines of a chain after that number, each with its own and its hash.
pub(super) fn page(
    connection: &Connection,
    chain: &Chain,
    after: i64,
) -> sql::Result<Vec<(i64, Line, [u8; 32])>> {
    let read = |row: &Row<'_>| {
        let (line, hash) = line(row)?;
        Ok((row.get(5)?, line, hash))
    };
    let query = |of: &str| {
        format!("SELECT {COLUMNS}, seq FROM journal WHERE seq > ?1 {of} ORDER BY seq LIMIT ?2")
    };
    match chain.shard {
        None => connection
            .prepare_cached(&query(""))?
            .query_map([after, PAGE], read)?
            .collect(),
        Some(shard) => connection
            .prepare_cached(&query("AND shard = ?3"))?
            .query_map([after, PAGE, shard], read)?
            .collect(),
    }
}

/// A line, with the hash that stands beside it.
pub(super) fn line(row: &Row<'_>) -> sql::Result<(Line, [u8; 32])> {
    let deltas = row.blob(3)?;
    let line = Line {
        request_id: columns::request_id(row, 0)?,
        tenant: columns::tenant(row, 1)?,
        event: row.get(2)?,
        deltas: packed::unpack(deltas).ok_or_else(|| columns::unreadable(3, deltas))?,
    };
    Ok((line, row.get(4)?))
}

impl Change<'_> {
    pub(super) fn read_end(&self) -> sql::Result<[u8; 32]> {
        let end = self
            .transaction
            .prepare_cached(concat!(
                "SELECT hash FROM journal WHERE seq > 0 ",
                of_shard!(),
                " ORDER BY seq DESC LIMIT 1"
            ))?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(end.unwrap_or(GENESIS))
    }

    pub(super) fn append(&self, lines: &[(Line, [u8; 32])]) -> sql::Result<()> {
        if let Some(mut session) = self.transaction.postgres() {
            return postgres::append(&mut session, lines);
        }
        let mut statement = self.transaction.prepare_cached(
            "INSERT INTO journal (request_id, tenant, event, deltas, hash)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for (line, hash) in lines {
            statement.execute(params![
                columns::id_bytes(line.request_id),
                line.tenant.as_str(),
                line.event,
                packed::pack(&line.deltas),
                hash
            ])?;
        }
        Ok(())
    }
}
