//! Where the aggregator keeps what came in and what was used: the stream and the ledger.

mod database;
pub mod ledger;
pub mod quarantine;
mod sql;
pub mod stream;

pub use sql::Error as DatabaseError;

#[cfg(test)]
mod testing;
