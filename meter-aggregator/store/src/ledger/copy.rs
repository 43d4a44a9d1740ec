//! The copy of a ledger in SQLite to one in Postgres.
//!
//! Each table goes over in pages, in the order of its key, each page in a transaction; where
//! it was interrupted it goes on after the last key that is there. Until all of it is there
//! and has been compared, the target has no leases, so that no replica works on it. The
//! journal is one chain, as it was, in a shard that no tenant is in; each shard begins a
//! chain of its own.

mod rows;

use std::fmt;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use weir_meter_core::{journal::Walk, lease::SHARDS};

use self::rows::{Table, after, page, tables, write};
use super::{Ledger, journal, partitions, postgres};
use crate::sql::{self, Connection};

/// What was copied, and is equal on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Rows of all tables.
    pub rows: u64,
    /// Lines of the journal, whose chain holds.
    pub journal_lines: u64,
    /// The hash of the journal's last line, in hexadecimal.
    pub journal_end: String,
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rows: {}, lines of the journal: {}, up to {}; all are equal",
            self.rows, self.journal_lines, self.journal_end
        )
    }
}

/// Copies a ledger in SQLite, which nobody may write to meanwhile, to one in Postgres that
/// has nothing yet, or a part of the same; then compares all of it. Tells how many rows
/// are copied or compared, of how many. The source counts as moved from then on. Run again,
/// it goes on where it was interrupted; once it is complete it compares anew, as long as
/// nobody worked on the target.
///
/// # Errors
/// Where the target has something else, where both are not equal in the end, or where a
/// database fails.
pub fn copy(
    from: &Ledger,
    to: &mut Ledger,
    mut progress: impl FnMut(u64, u64),
) -> anyhow::Result<Copied> {
    ensure!(
        !from.is_shared() && to.is_shared(),
        "a ledger is copied from SQLite to Postgres only"
    );
    let (source, target) = (&from.connection, &to.connection);
    if let Some(mut session) = target.postgres() {
        session.take_time(true);
    }
    let is_moved = from.is_moved()?;
    ensure!(
        !is_moved || identity(source)? == identity(target)?,
        "the ledger was copied to another database already, which goes on"
    );
    let is_complete = begin(source, target)?;
    let tables = tables(&partitions::days(source)?);
    let mut rows = 0_u64;
    for table in &tables {
        rows = rows.saturating_add(count(source, table)?);
    }
    let (mut done, all) = (0_u64, rows.saturating_mul(2));
    for table in tables.iter().filter(|_| !is_complete) {
        copy_table(source, target, table, |count| {
            done = done.saturating_add(count);
            progress(done, all);
        })?;
    }
    done = rows;
    for table in &tables {
        compare(source, target, table, |count| {
            done = done.saturating_add(count);
            progress(done, all);
        })?;
    }
    let (journal_lines, journal_end) = walk(source, None)?;
    ensure!(
        walk(target, Some(journal::COPIED))? == (journal_lines, journal_end),
        "the journals do not end alike"
    );
    // Both have the same identifiers of intents: one of them may go on, and from here on
    // that is the target.
    from.set_moved()?;
    if !is_complete {
        finish(target)?;
    }
    Ok(Copied {
        rows,
        journal_lines,
        journal_end: super::prove::hex(&journal_end),
    })
}

fn identity(connection: &Connection) -> sql::Result<String> {
    connection.query_row("SELECT id FROM identity", [], |row| row.get(0))
}

/// Takes the target for this source, if it is nobody's. Says whether all of it is there
/// already, and replicas may work on it.
fn begin(source: &Connection, target: &Connection) -> anyhow::Result<bool> {
    let (is, was) = (identity(source)?, identity(target)?);
    if is == was {
        return Ok(has_leases(target)?);
    }
    let transaction = target.transaction()?;
    postgres::lock(&transaction, postgres::Lock::Schema)?;
    for table in tables(&partitions::days(target)?) {
        let query = format!("SELECT 1 FROM {} LIMIT 1", table.name);
        if transaction.prepare_cached(&query)?.exists([])? {
            bail!(
                "the ledger in postgres has rows of its own already, in {}; copy to an empty \
                 database",
                table.name
            );
        }
    }
    // What was seen is in no form of SQLite's.
    if transaction
        .prepare_cached("SELECT 1 FROM seen LIMIT 1")?
        .exists([])?
    {
        bail!("the ledger in postgres has rows of its own already; copy to an empty database");
    }
    // Without leases nobody works on it.
    transaction.execute("DELETE FROM lease", [])?;
    transaction.execute("UPDATE identity SET id = ?1", [is])?;
    transaction.commit()?;
    Ok(false)
}

fn has_leases(target: &Connection) -> sql::Result<bool> {
    target
        .prepare_cached("SELECT 1 FROM lease LIMIT 1")?
        .exists([])
}

fn count(connection: &Connection, table: &Table) -> sql::Result<u64> {
    let query = format!("SELECT COUNT(*) FROM {}", table.name);
    let count: i64 = connection.query_row(&query, [], |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

fn copy_table(
    source: &Connection,
    target: &Connection,
    table: &Table,
    mut copied: impl FnMut(u64),
) -> anyhow::Result<()> {
    if let Some(day) = table.day {
        let transaction = target.transaction()?;
        partitions::create(&transaction, day)?;
        transaction.commit()?;
    }
    let mut key = after(target, table)?;
    loop {
        let rows = page(source, table, key.as_deref())?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        key = Some(table.key_of(last));
        let transaction = target.transaction()?;
        if let Some(mut session) = transaction.postgres() {
            write(&mut session, table, &rows)
                .with_context(|| format!("rows of {} can't be copied", table.name))?;
        }
        transaction.commit()?;
        copied(rows.len() as u64);
    }
}

fn compare(
    source: &Connection,
    target: &Connection,
    table: &Table,
    mut compared: impl FnMut(u64),
) -> anyhow::Result<()> {
    let mut key = None;
    loop {
        let rows = page(source, table, key.as_deref())?;
        ensure!(
            rows == page(target, table, key.as_deref())?,
            "{} is not the same in both; copy to an empty database",
            table.name
        );
        let Some(last) = rows.last() else {
            return Ok(());
        };
        key = Some(table.key_of(last));
        compared(rows.len() as u64);
    }
}

/// Walks a chain; gives its length and its end.
fn walk(connection: &Connection, shard: Option<i64>) -> anyhow::Result<(u64, [u8; 32])> {
    let chain = journal::Chain { shard, end: 0 };
    let (mut walk, mut after) = (Walk::default(), 0);
    loop {
        let lines = journal::page(connection, &chain, after)?;
        let Some(last) = lines.last() else {
            return Ok(walk.end());
        };
        after = last.0;
        for (_, line, hash) in &lines {
            walk.next(line, hash)?;
        }
    }
}

/// What is counted in the target itself, and the leases.
fn finish(target: &Connection) -> anyhow::Result<()> {
    let transaction = target.transaction()?;
    transaction.execute_batch(
        "DELETE FROM intent_count;
         INSERT INTO intent_count (shard, state, count)
           SELECT shard, state, COUNT(*) FROM intent GROUP BY shard, state;",
    )?;
    for table in ["intent", "adjustment", "discrepancy", "quarantine", "run"] {
        // The next id is none that was given before.
        transaction.execute_batch(&format!(
            "SELECT setval(pg_get_serial_sequence('{table}', 'id'),
               (SELECT COALESCE(MAX(id), 0) + 1 FROM {table}), false)"
        ))?;
    }
    transaction.execute_batch(&format!(
        "INSERT INTO lease (shard, epoch) SELECT n, 0 FROM generate_series(0, {SHARDS} - 1) AS n;
         ANALYZE;"
    ))?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests;
