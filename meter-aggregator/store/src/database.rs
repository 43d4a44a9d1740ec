//! SQLite as Weir wants it.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use rusqlite::Connection;

/// Opens or creates a file: WAL, and durable when a commit returns.
pub fn open_database(path: &Path) -> anyhow::Result<Connection> {
    let connection =
        Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    connection.busy_timeout(Duration::from_secs(10))?;
    // A page holds several events; a file that is there keeps its own size. The log is
    // written back in larger parts than by default, so that a page that changes with
    // each batch is written back less often.
    connection.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 2000; PRAGMA cache_size = -8192;",
    )?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Prepared statements that are kept: each partition of the ledger has its own.
const STATEMENTS_MAX: usize = 256;
