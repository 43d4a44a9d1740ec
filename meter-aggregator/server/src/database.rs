//! SQLite as Weir wants it.

use std::path::Path;

use anyhow::Context as _;
use rusqlite::Connection;

/// Opens or creates a file: WAL, and durable when a commit returns.
pub fn open_database(path: &Path) -> anyhow::Result<Connection> {
    let connection =
        Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    Ok(connection)
}
