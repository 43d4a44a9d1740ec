//! The ledger: the record of what was used and of what Stripe was told, in SQLite or in
//! Postgres.
//!
//! What is decided is `weir_meter_core::ledger`'s; here is how it is kept. Requests
//! stand in a table for each day of their ids ([`partitions`]), so that those of one
//! batch lie together, and old days go as a whole. The journal, buckets and intents stay.

mod accounts;
mod adjustments;
mod buckets;
mod change;
mod columns;
pub mod copy;
mod discrepancies;
mod gaps;
mod intents;
mod journal;
mod leases;
mod listing;
mod logs;
mod migration;
mod packed;
mod partitions;
mod place;
mod postgres;
mod prove;
mod quarantine;
mod requests;
mod schema;
mod summary;
mod webhooks;

use std::{collections::BTreeSet, path::Path};

use weir_meter_core::{
    lease::{self, Fenced, Scope, Shard},
    ledger::book::{self, Rules},
};
use weir_wire::proto::usage::UsageEvent;

pub use adjustments::{AdjustmentFilter, ShownAdjustment};
pub use change::Change;
pub use discrepancies::{DiscrepancyFilter, ShownDiscrepancy};
pub use gaps::Gap;
pub use intents::{IntentFilter, ShownIntent};
pub use leases::LeaseTables;
pub use listing::Filter;
pub use logs::{FileId, Mark};
pub use place::{Place, PostgresSettings};
pub use postgres::schema::VERSION;
pub use prove::{Behind, Proof, Proved};
pub use requests::Wanted;
pub use summary::{Count, Line, Stuck};
pub use webhooks::{Billing, Webhook};

use crate::{
    database::open_database,
    sql::{self, BEGIN, Connection, Session, Transaction},
};

/// One connection to the ledger. The process that holds the folder's lock has the only
/// ones to SQLite; Postgres has those of all replicas.
pub struct Ledger {
    connection: Connection,
    /// The days that have a table. Others make and drop tables in Postgres: there it may
    /// lack some, or have some that are gone.
    partitions: BTreeSet<i64>,
    place: Place,
}

/// The ledger can't do what it should.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database's, or something in the ledger is not what this version writes.
    #[error("the ledger can't be read or written")]
    Database(#[from] sql::Error),
    /// An event of the stream can't be read back.
    #[error("event {seq} of the stream can't be read")]
    Event {
        /// Its number.
        seq: i64,
        /// Why.
        source: weir_wire::usage::cloudevents::CloudEventError,
    },
    /// Another replica has the shard by now: nothing was done.
    #[error("shard {shard} has another holder by now")]
    Fenced {
        /// Which.
        shard: Shard,
    },
}

impl From<Fenced> for LedgerError {
    fn from(Fenced { shard }: Fenced) -> Self {
        Self::Fenced { shard }
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

impl LedgerError {
    /// Whether the same may go well a while later: the database is away, or somebody else
    /// was in the way.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_passing())
    }
}

/// What nothing was heard of for so long is forgotten: a request's witnesses, a file of a
/// log, a producer's run with what it misses. No event of it would be taken any more. 40
/// days.
const IDLE_MAX_MS: i64 = 40 * 86_400_000;

/// What SQLite's `application_id` is of a ledger that was moved.
const MOVED: i64 = 0x5745_4d56;

/// How much of the ledger whoever books keeps in memory, KiB.
const CACHE_KIB: i64 = 16_384;

impl Ledger {
    /// Opens or creates the ledger in that folder. One of the version before is moved to
    /// this one's form.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        Self::open_at(&Place::Sqlite(folder.to_owned()))
    }

    /// Opens or creates the ledger at that place, and brings it to this version's form.
    ///
    /// # Errors
    /// Where it can't be reached, or is of a version that this one can't work with.
    pub fn open_at(place: &Place) -> anyhow::Result<Self> {
        let connection = match place {
            Place::Sqlite(folder) => {
                let path = place::file(folder);
                let file = Connection::Sqlite(open_database(&path)?);
                schema::prepare(&file, &path)?;
                if let Some(connection) = file.sqlite() {
                    // What a second witness is waited for stands in the last pages.
                    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
                }
                file
            }
            Place::Postgres(settings) => {
                let mut session = Session::new(&settings.url)?;
                postgres::schema::prepare(&mut session)?;
                Connection::of(session)
            }
        };
        Self::with(connection, place.clone())
    }

    /// Another connection to the same ledger: to read at length without holding up who
    /// books, or to book another shard.
    pub fn another(&self) -> anyhow::Result<Self> {
        let connection = match &self.place {
            Place::Sqlite(folder) => Connection::Sqlite(open_database(&place::file(folder))?),
            Place::Postgres(settings) => Connection::of(Session::new(&settings.url)?),
        };
        Self::with(connection, self.place.clone())
    }

    fn with(connection: Connection, place: Place) -> anyhow::Result<Self> {
        Ok(Self {
            partitions: match connection.is_postgres() {
                // They are looked for where they are needed.
                true => BTreeSet::new(),
                false => partitions::days(&connection)?,
            },
            connection,
            place,
        })
    }

    /// Says that another ledger goes on with what is here: this one is not to be worked on
    /// any more. Only a ledger in SQLite.
    pub fn set_moved(&self) -> Result<(), LedgerError> {
        let mark = format!("PRAGMA application_id = {MOVED}");
        Ok(self.connection.execute_batch(&mark)?)
    }

    /// Whether another ledger goes on with what is here.
    pub fn is_moved(&self) -> Result<bool, LedgerError> {
        if self.is_shared() {
            return Ok(false);
        }
        let query = "PRAGMA application_id";
        let found: i64 = self.connection.query_row(query, [], |row| row.get(0))?;
        Ok(found == MOVED)
    }

    /// Whether several processes work on it at the same time, each on its shards.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.connection.is_postgres()
    }

    /// Runs `work` as one transaction: whole, or where it fails not at all. `work` must
    /// keep to the tenants of its scope. SQLite has no shards: any scope is all of it.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] where the lease is another's by now. What `work` fails by.
    /// Where the database fails at the end, nobody knows whether it was done.
    pub fn transaction<T, E: From<LedgerError>>(
        &mut self,
        scope: Scope,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let is_shared = self.is_shared();
        let mut change = Change {
            transaction: begin(&self.connection, scope)?,
            partitions: self.partitions.clone(),
            has_looked: !is_shared,
            resolved: Vec::new(),
        };
        let done = work(&mut change).and_then(|done| {
            change.finish().map_err(LedgerError::from)?;
            let Change {
                transaction,
                partitions,
                ..
            } = change;
            transaction.commit().map_err(LedgerError::from)?;
            Ok((done, partitions))
        });
        match done {
            Ok((done, partitions)) => {
                self.partitions = partitions;
                Ok(done)
            }
            Err(error) => {
                if is_shared {
                    // One of them may be gone, which may be why.
                    self.partitions.clear();
                }
                Err(error)
            }
        }
    }

    /// Runs `work` on the tables of leases as one transaction; only a ledger that
    /// [is shared](Self::is_shared) has them. Nobody's transaction on a shard is waited for.
    ///
    /// # Errors
    /// What `work` fails by.
    pub fn leases<T>(
        &mut self,
        work: impl FnOnce(&mut LeaseTables<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        if !self.is_shared() {
            let why = "a ledger that is not shared has no leases";
            return Err(sql::Error::Misused(why).into());
        }
        let transaction = self.connection.transaction()?;
        let mut tables = LeaseTables::new(transaction);
        let done = work(&mut tables)?;
        tables.commit()?;
        Ok(done)
    }

    /// The number of the last event of the stream that is booked.
    pub fn booked_upto(&self) -> Result<i64, LedgerError> {
        self.progress(book::STREAM)
    }

    /// The ledger's own id, made with it; a copy keeps it.
    pub fn identity(&self) -> Result<String, LedgerError> {
        let query = "SELECT id FROM identity";
        Ok(self.connection.query_row(query, [], |row| row.get(0))?)
    }

    /// How far something was taken; 0 at first.
    pub fn progress(&self, name: &str) -> Result<i64, LedgerError> {
        Ok(columns::progress(&self.connection, name)?)
    }

    /// Books events of the stream, each with its number there, as one transaction. Where a
    /// `position` is given, the name of a progress and the last number, that is set in the
    /// same transaction, so that after a crash the stream is read on from there
    /// ([`Ledger::progress`]). Where that is [`book::STREAM`], the embedded stream's, what it
    /// passed already is passed over; else all are booked, and what was booked before changes
    /// nothing. Numbers that the events' producers passed over are missing from `now_ms`
    /// on.
    pub fn book(
        &mut self,
        scope: Scope,
        events: Vec<(i64, UsageEvent)>,
        rules: &Rules<'_>,
        now_ms: i64,
        position: Option<(&str, i64)>,
    ) -> Result<(), LedgerError> {
        self.transaction(scope, |change| {
            let came = events
                .iter()
                .map(|(_, event)| (event.witness, &*event.producer_run, event.sequence));
            gaps::see(&change.transaction, came, now_ms)?;
            if position.is_some_and(|(name, _)| name == book::STREAM) {
                return book::book_numbered(change, events, rules, now_ms);
            }
            let events = events.into_iter().map(|(_, event)| event);
            book::book(change, events, position, rules, now_ms)
        })
    }
}

/// Begins a transaction; in Postgres one that holds the shard's row, so that all of a
/// shard's are one after the other.
fn begin(connection: &Connection, scope: Scope) -> Result<Transaction<'_>, LedgerError> {
    let Some(mut session) = connection.postgres() else {
        return Ok(connection.transaction()?);
    };
    let Some(shard) = scope.shard() else {
        let why = "a ledger that is shared has transactions of one shard only";
        return Err(sql::Error::Misused(why).into());
    };
    let rows = session.begin(&format!(
        "{BEGIN}; SELECT epoch, set_config('weir.shard', '{shard}', true) FROM lease
         WHERE shard = {shard} FOR UPDATE"
    ))?;
    drop(session);
    let transaction = connection.begun();
    let none = "the ledger has no such shard: it is not wholly copied yet";
    let epoch = rows.first().ok_or(sql::Error::Misused(none))?;
    // It comes as a text where several statements are asked at once.
    let epoch = sql::Row::Postgres(epoch).text(0)?.parse();
    let epoch = epoch.map_err(|_| sql::Error::Misused("an epoch is no number"))?;
    lease::check(scope, epoch)?;
    Ok(transaction)
}

#[cfg(test)]
mod tests;
