//! The ledger: the record of what was used and of what Stripe was told, in SQLite.
//!
//! What is decided is `weir_meter_core::ledger`'s; here is how it is kept. Requests
//! stand in a table for each day of their ids ([`partitions`]), so that those of one
//! batch lie together, and old days go as a whole. The journal, buckets and intents stay.

mod adjustments;
mod buckets;
mod change;
mod columns;
mod discrepancies;
mod gaps;
mod intents;
mod journal;
mod logs;
mod migration;
mod packed;
mod partitions;
mod prove;
mod requests;
mod schema;
mod summary;
mod webhooks;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, TransactionBehavior};
use weir_meter_core::ledger::book::{self, Rules};
use weir_wire::proto::usage::UsageEvent;

pub use adjustments::{AdjustmentFilter, ShownAdjustment};
pub use change::Change;
pub use discrepancies::{DiscrepancyFilter, ShownDiscrepancy};
pub use gaps::Gap;
pub use intents::{IntentFilter, ShownIntent};
pub use logs::{FileId, Mark};
pub use prove::{Behind, Proof, Proved};
pub use requests::Wanted;
pub use summary::{Count, Line, Stuck};
pub use webhooks::{Billing, Webhook};

use crate::database::open_database;

/// One connection to the ledger. The process that holds the folder's lock has
/// the only ones.
pub struct Ledger {
    connection: Connection,
    /// The days that have a table.
    partitions: BTreeSet<i64>,
    path: PathBuf,
}

/// The ledger can't do what it should.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite's, or something in the ledger is not what this version writes.
    #[error("the ledger can't be read or written")]
    Database(#[from] rusqlite::Error),
    /// An event of the stream can't be read back.
    #[error("event {seq} of the stream can't be read")]
    Event {
        /// Its number.
        seq: i64,
        /// Why.
        source: weir_wire::usage::cloudevents::CloudEventError,
    },
}

/// What nothing was heard of for so long is forgotten: a request's witnesses, a file of a
/// log, a producer's run with what it misses. No event of it would be taken any more. 40
/// days.
const IDLE_MAX_MS: i64 = 40 * 86_400_000;

/// How much of the ledger whoever books keeps in memory, KiB.
const CACHE_KIB: i64 = 16_384;

impl Ledger {
    /// Opens or creates the ledger in that folder. One of the version before is moved to
    /// this one's form.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("ledger.db");
        let mut connection = open_database(&path)?;
        schema::prepare(&mut connection, &path)?;
        // What a second witness is waited for stands in the last pages.
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        Self::with(connection, path)
    }

    /// Another connection to the same ledger: to read at length without holding up who
    /// books.
    pub fn another(&self) -> anyhow::Result<Self> {
        Self::with(open_database(&self.path)?, self.path.clone())
    }

    fn with(connection: Connection, path: PathBuf) -> anyhow::Result<Self> {
        Ok(Self {
            partitions: partitions::days(&connection)?,
            connection,
            path,
        })
    }

    /// Runs `work` as one transaction: whole, or where it fails not at all.
    pub fn transaction<T, E: From<LedgerError>>(
        &mut self,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let begun = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let mut change = Change {
            transaction: begun.map_err(LedgerError::from)?,
            partitions: self.partitions.clone(),
        };
        let done = work(&mut change)?;
        let Change {
            transaction,
            partitions,
        } = change;
        transaction.commit().map_err(LedgerError::from)?;
        self.partitions = partitions;
        Ok(done)
    }

    /// The number of the last event of the stream that is booked.
    pub fn booked_upto(&self) -> Result<i64, LedgerError> {
        Ok(columns::progress(&self.connection, book::STREAM)?)
    }

    /// Books events of the stream, each with its number there, as one transaction with the
    /// number of the last: after a crash the stream is read on from there. Numbers that
    /// the events' producers passed over are missing from `now_ms` on.
    pub fn book(
        &mut self,
        events: Vec<(i64, UsageEvent)>,
        rules: &Rules<'_>,
        now_ms: i64,
    ) -> Result<(), LedgerError> {
        self.transaction(|change| {
            let mut runs = gaps::Runs::new(now_ms);
            for (_, event) in &events {
                let (run, number) = (&event.producer_run, event.sequence);
                runs.see(&change.transaction, event.witness, run, number)?;
            }
            runs.save(&change.transaction)?;
            book::book(change, events, rules, now_ms)
        })
    }
}

#[cfg(test)]
mod tests;
