//! The journal, which only grows.

use rusqlite::{OptionalExtension as _, Row, params};
use weir_meter_core::journal::{GENESIS, Line};

use super::{Change, columns, packed};

/// What [`line`] reads.
pub(super) const COLUMNS: &str = "request_id, tenant, event, deltas, hash";

/// A line, with the hash that stands beside it.
pub(super) fn line(row: &Row<'_>) -> rusqlite::Result<(Line, [u8; 32])> {
    let deltas = row.get_ref(3)?.as_blob()?;
    let line = Line {
        request_id: columns::request_id(row, 0)?,
        tenant: columns::tenant(row, 1)?,
        event: row.get(2)?,
        deltas: packed::unpack(deltas).ok_or_else(|| columns::unreadable(3, deltas))?,
    };
    Ok((line, row.get(4)?))
}

impl Change<'_> {
    pub(super) fn read_end(&self) -> rusqlite::Result<[u8; 32]> {
        let end = self
            .transaction
            .prepare_cached("SELECT hash FROM journal ORDER BY seq DESC LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(end.unwrap_or(GENESIS))
    }

    pub(super) fn append(&self, lines: &[(Line, [u8; 32])]) -> rusqlite::Result<()> {
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
