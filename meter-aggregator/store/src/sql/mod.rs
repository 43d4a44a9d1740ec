//! One text of SQL for two databases: what the ledger asks of SQLite and of Postgres.
//!
//! It looks like `rusqlite`, whose texts it takes as they are ([`dialect`] says what of
//! them Postgres is told differently). What is large is read in pages: rows come all at
//! once.

mod dialect;
mod error;
mod row;
mod session;
mod value;

use std::cell::{RefCell, RefMut};

pub(crate) use dialect::{SHARD, of_shard};
pub use error::Error;
pub use row::Row;
pub use session::{BEGIN, Session};
pub(crate) use value::params;
pub use value::{Param, Params, storable};

pub type Result<T> = std::result::Result<T, Error>;

/// A connection to either database.
pub enum Connection {
    /// To a file.
    Sqlite(rusqlite::Connection),
    /// To a server.
    Postgres(Box<RefCell<Session>>),
}

/// A statement, to be run.
pub enum Statement<'c> {
    /// Prepared, and kept.
    Sqlite(rusqlite::CachedStatement<'c>),
    /// Prepared where the connection has not kept it.
    Postgres(&'c RefCell<Session>, String),
}

impl Connection {
    /// A statement, which is kept for the next time.
    pub fn prepare_cached(&self, sql: &str) -> Result<Statement<'_>> {
        Ok(match self {
            Self::Sqlite(connection) => Statement::Sqlite(connection.prepare_cached(sql)?),
            Self::Postgres(session) => Statement::Postgres(session, dialect::postgres(sql)),
        })
    }

    /// The first row of a query; [`Error::NoRows`] where there is none.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.prepare_cached(sql)?.query_row(params, read)
    }

    /// Runs a statement; says how many rows it changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.prepare_cached(sql)?.execute(params)
    }

    /// Runs statements without parameters, as they are written.
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Self::Postgres(session) => session.borrow_mut().batch(sql),
        }
    }

    /// Begins a transaction that writes. SQLite keeps other writers out from now on.
    pub fn transaction(&self) -> Result<Transaction<'_>> {
        match self {
            Self::Sqlite(_) => self.execute_batch("BEGIN IMMEDIATE")?,
            Self::Postgres(session) => session.borrow_mut().begin(BEGIN).map(|_| ())?,
        }
        Ok(self.begun())
    }

    /// Begins a transaction that sees one state, whatever others write meanwhile.
    pub fn snapshot(&self) -> Result<Transaction<'_>> {
        match self {
            Self::Sqlite(_) => self.execute_batch("BEGIN DEFERRED")?,
            Self::Postgres(session) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
                session.borrow_mut().begin(begin)?;
            }
        }
        Ok(self.begun())
    }

    /// Whether it is to Postgres.
    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// A transaction that was begun.
    pub fn begun(&self) -> Transaction<'_> {
        Transaction {
            connection: self,
            is_over: false,
        }
    }

    /// To a server, by that session.
    pub fn of(session: Session) -> Self {
        Self::Postgres(Box::new(RefCell::new(session)))
    }

    /// The session, where it is Postgres.
    pub fn postgres(&self) -> Option<RefMut<'_, Session>> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(session) => Some(session.borrow_mut()),
        }
    }

    /// The file, where it is SQLite.
    pub fn sqlite(&self) -> Option<&rusqlite::Connection> {
        match self {
            Self::Sqlite(connection) => Some(connection),
            Self::Postgres(_) => None,
        }
    }
}

/// A transaction; undone where it is dropped before it is committed.
pub struct Transaction<'c> {
    connection: &'c Connection,
    is_over: bool,
}

impl std::ops::Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Transaction<'_> {
    /// Ends it; its changes stay. Where that fails on the way to a server, nobody knows
    /// whether they do.
    pub fn commit(mut self) -> Result<()> {
        match self.connection {
            Connection::Sqlite(connection) => connection.execute_batch("COMMIT")?,
            Connection::Postgres(session) => session.borrow_mut().commit()?,
        }
        self.is_over = true;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        match self.connection {
            Connection::Sqlite(connection) if !connection.is_autocommit() => {
                let _ = connection.execute_batch("ROLLBACK");
            }
            Connection::Sqlite(_) => {}
            Connection::Postgres(session) => session.borrow_mut().roll_back(),
        }
    }
}

impl Statement<'_> {
    /// Every row, read.
    pub fn query_map<T>(
        &mut self,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<std::vec::IntoIter<Result<T>>> {
        let mut found = Vec::new();
        match self {
            Self::Sqlite(statement) => {
                value::bind(statement, params)?;
                let mut rows = statement.raw_query();
                while let Some(row) = rows.next()? {
                    found.push(read(&Row::Sqlite(row)));
                }
            }
            Self::Postgres(session, sql) => {
                let rows = session.borrow_mut().query(sql, value::arguments(params)?)?;
                found.extend(rows.iter().map(|row| read(&Row::Postgres(row))));
            }
        }
        Ok(found.into_iter())
    }

    /// The first row; [`Error::NoRows`] where there is none.
    pub fn query_row<T>(
        &mut self,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Sqlite(statement) => {
                value::bind(statement, params)?;
                let mut rows = statement.raw_query();
                read(&Row::Sqlite(rows.next()?.ok_or(Error::NoRows)?))
            }
            Self::Postgres(session, sql) => {
                let rows = session.borrow_mut().query(sql, value::arguments(params)?)?;
                read(&Row::Postgres(rows.first().ok_or(Error::NoRows)?))
            }
        }
    }

    /// Runs it; says how many rows it changed.
    pub fn execute(&mut self, params: impl Params) -> Result<usize> {
        match self {
            Self::Sqlite(statement) => {
                value::bind(statement, params)?;
                Ok(statement.raw_execute()?)
            }
            Self::Postgres(session, sql) => {
                let done = session
                    .borrow_mut()
                    .execute(sql, value::arguments(params)?)?;
                Ok(usize::try_from(done).unwrap_or(usize::MAX))
            }
        }
    }

    /// Whether it has a row.
    pub fn exists(&mut self, params: impl Params) -> Result<bool> {
        match self.query_row(params, |_| Ok(())) {
            Ok(()) => Ok(true),
            Err(Error::NoRows) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Says of nothing that it is none.
pub trait OptionalExtension<T> {
    /// `None` in the place of [`Error::NoRows`].
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalExtension<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(found) => Ok(Some(found)),
            Err(Error::NoRows) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
