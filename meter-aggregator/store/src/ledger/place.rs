//! Where a ledger is.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Where a ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file of that folder.
    Sqlite(PathBuf),
    /// In Postgres, for any number of replicas.
    Postgres(PostgresSettings),
}

/// How Postgres is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database`, with `sslmode` and `sslrootcert`
    /// where TLS is wanted. It is never shown.
    pub url: String,
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings").finish_non_exhaustive()
    }
}

/// The ledger's file in a folder.
pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join("ledger.db")
}
