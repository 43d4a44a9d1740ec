//! Why a database can't be read or written.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// A database can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite's.
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    /// Postgres', or of the way to it.
    #[error("postgres: {0}")]
    Postgres(sqlx::Error),
    /// Postgres was away for too long; whether it did what it was asked, nobody knows.
    #[error("postgres did not answer within {0} s")]
    TimedOut(u64),
    /// The connection broke before, in the same transaction.
    #[error("the connection to postgres was lost in the middle of a transaction")]
    Lost,
    /// Something failed before, in the same transaction.
    #[error("a transaction of which a part failed can't be committed")]
    Failed,
    /// A query gave no row.
    #[error("nothing was found")]
    NoRows,
    /// A column holds what this program does not write.
    #[error("column {column} holds {what}")]
    Unreadable {
        /// Its place, from 0.
        column: usize,
        /// What.
        what: String,
    },
    /// This program asks for what can't be.
    #[error("{0}")]
    Misused(&'static str),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::QueryReturnedNoRows => Self::NoRows,
            error => Self::Sqlite(error),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(error)
    }
}

/// What Postgres says of what may go well the next time, by class or code of SQLSTATE: away
/// or stopping, out of something, a lock that was not had, a deadlock, too long.
const PASSING: [&str; 8] = ["08", "40", "53", "55P03", "57", "58", "25P03", "XX000"];

impl Error {
    /// Postgres' word for it, where it said something.
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Postgres(error) => Some(error.as_database_error()?.code()?.into_owned()),
            _ => None,
        }
    }

    /// Whether the same may go well a while later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::Lost => true,
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            ),
            Self::Postgres(error) if error.as_database_error().is_none() => is_broken(error),
            Self::Postgres(_) => {
                let code = self.code().unwrap_or_default();
                PASSING.iter().any(|class| code.starts_with(class)) || code == "42P01"
            }
            _ => false,
        }
    }
}

/// Whether a connection is of no use after this.
pub fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            let severity = error
                .try_downcast_ref::<PgDatabaseError>()
                .map(PgDatabaseError::severity);
            matches!(severity, Some(PgSeverity::Panic | PgSeverity::Fatal))
                || code.starts_with("08")
                || matches!(&*code, "57P01" | "57P02" | "57P03")
        }
        _ => false,
    }
}
