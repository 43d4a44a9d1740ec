//! What the ledger does, as procedures on one transaction of a store.
//!
//! | procedure | what it takes | what it leaves |
//! |---|---|---|
//! | [`book::book`], [`book::book_numbered`] | events of the stream | witnesses, postings, buckets, journal |
//! | [`book::book_waiting`] | time | requests whose second witness did not come |
//! | [`plan::plan`] | buckets that changed | intents, or adjustments where the hour is final |
//! | [`send::start`], [`send::finish`] | an attempt at Stripe | the intent's next state |
//! | [`reconcile::due`], [`reconcile::answer`], [`reconcile::unanswered`] | Stripe's sums | confirmed, sent anew, or for the operator |
//! | [`expire::expire`] | time | intents that are too old, and adjustments that carry them forward |
//! | [`operator`] | an operator's word | what he decides |
//! | [`closing`] | an operator's word to all shards | which of them have yet to follow it |
//!
//! Each is whole or not done: the store runs it as one transaction. Always: a bucket's
//! `total` is the sum of the journal's changes, and its `planned` the sum of its intents
//! that did not expire.
//!
//! A transaction has a scope ([`crate::lease::Scope`]): all tenants, or a shard's. None of
//! the procedures joins what is of two tenants, so in a ledger with shards each is run for
//! every shard on its own, and together that is what one run over all would be. `limit`s are
//! then a shard's.

pub mod book;
pub mod closing;
pub mod expire;
pub mod operator;
pub mod plan;
pub mod reconcile;
mod rows;
pub mod send;

#[cfg(test)]
mod memory;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use rows::{
    Adjustment, AdjustmentKind, AdjustmentState, Bucket, BucketKey, Discrepancy, DiscrepancyKind,
    Intent, Reading, RequestKey, RequestRow,
};

use weir_wire::ids::TenantId;

use crate::{hour::Hour, journal::Line, meter::Meter};

/// One transaction on the ledger's store. What it changed is seen by what it reads
/// after, and by others once it is committed, all of it or nothing.
///
/// It sees the tenants of its [scope](crate::lease::Scope) alone. Where a method names no
/// tenant, what it gives is the scope's: requests, buckets, intents and adjustments of
/// others are not there, whatever their ids, and the journal is the shard's own. Ids are
/// the ledger's: whoever has one from elsewhere looks first in which shard it is.
/// [`identity`](Self::identity) and progress are the ledger's, too; a name of progress that
/// is written in more than one shard says which.
pub trait Books {
    /// Why the store can't be read or written; the transaction is then undone.
    type Error;

    /// The ledger's own id, made with it.
    fn identity(&mut self) -> Result<String, Self::Error>;

    /// How far something was taken; 0 at first.
    fn progress(&mut self, name: &str) -> Result<i64, Self::Error>;

    /// Says how far something was taken.
    fn set_progress(&mut self, name: &str, number: i64) -> Result<(), Self::Error>;

    /// The requests of these keys, each where there is one.
    fn requests(&mut self, keys: &[RequestKey]) -> Result<Vec<Option<RequestRow>>, Self::Error>;

    /// Writes requests in the place of what was there.
    fn put_requests(&mut self, rows: &[(RequestKey, RequestRow)]) -> Result<(), Self::Error>;

    /// The scope's requests that wait, the longest due first: those due at `now_ms` or
    /// before.
    fn due_requests(&mut self, now_ms: i64, limit: usize) -> Result<Vec<RequestKey>, Self::Error>;

    /// The hash of the last line of the scope's journal; [`crate::journal::GENESIS`] at
    /// first. Each shard has a chain of its own.
    fn journal_end(&mut self) -> Result<[u8; 32], Self::Error>;

    /// Appends lines to the scope's journal, each with its hash.
    fn append_journal(&mut self, lines: &[(Line, [u8; 32])]) -> Result<(), Self::Error>;

    /// Adds to buckets, making those that are not there.
    fn add_to_buckets(&mut self, changes: &[(BucketKey, i64)]) -> Result<(), Self::Error>;

    /// The bucket of that key; of zeros where there is none.
    fn bucket(&mut self, key: &BucketKey) -> Result<Bucket, Self::Error>;

    /// Says how much of a bucket is planned, and by how many revisions.
    fn set_planned(
        &mut self,
        key: &BucketKey,
        planned: i64,
        revision: i64,
    ) -> Result<(), Self::Error>;

    /// The scope's buckets whose total is not what is planned, and of which no intent is open
    /// ([`crate::intent::State::is_open`]), of hours up to `upto`, in the order of
    /// hours, tenants and meters.
    fn unplanned(&mut self, upto: Hour) -> Result<Vec<(BucketKey, Bucket)>, Self::Error>;

    /// Writes a new intent, of whatever `id`, and gives the id that it gets, which is
    /// larger than all before.
    fn insert_intent(&mut self, intent: &Intent) -> Result<i64, Self::Error>;

    /// Writes an intent in the place of the one with its id.
    fn update_intent(&mut self, intent: &Intent) -> Result<(), Self::Error>;

    /// The intent of that id.
    fn intent(&mut self, id: i64) -> Result<Option<Intent>, Self::Error>;

    /// The intent of a bucket whose end is open ([`crate::intent::State::is_open`]); the
    /// store refuses a second one.
    fn open_intent(&mut self, key: &BucketKey) -> Result<Option<Intent>, Self::Error>;

    /// The scope's intents that are planned or being sent and due at `now_ms`
    /// (`not_before_ms`), in the order of their ids.
    fn sendable(&mut self, now_ms: i64, limit: usize) -> Result<Vec<Intent>, Self::Error>;

    /// The scope's intents that are accepted or to reconcile, last tried at `tried_ms` or
    /// before, and due at `now_ms`, in the order of their ids.
    fn unsettled(
        &mut self,
        tried_ms: i64,
        now_ms: i64,
        limit: usize,
    ) -> Result<Vec<Intent>, Self::Error>;

    /// All intents of a tenant on a meter that Stripe has, or would have, in an hour: by
    /// their `timestamp_s`.
    fn intents_at(
        &mut self,
        tenant: &TenantId,
        meter: &Meter,
        hour: Hour,
    ) -> Result<Vec<Intent>, Self::Error>;

    /// The scope's intents that are planned, being sent or held, of a `timestamp_s` before
    /// that one, in the order of their ids.
    fn aged(&mut self, before_s: i64, limit: usize) -> Result<Vec<Intent>, Self::Error>;

    /// The scope's confirmed intents of a meter with a `timestamp_s` of `[from_s, to_s)` in
    /// the order of their ids: what is to be asked again.
    fn confirmed(
        &mut self,
        meter: &Meter,
        from_s: i64,
        to_s: i64,
    ) -> Result<Vec<Intent>, Self::Error>;

    /// Lists what does not fit; the same a second time (kind, tenant, request, bucket)
    /// changes nothing, but that it is open again.
    fn note(&mut self, found: &[Discrepancy], now_ms: i64) -> Result<(), Self::Error>;

    /// Marks what was listed as resolved.
    fn resolve(
        &mut self,
        kind: DiscrepancyKind,
        tenant: &TenantId,
        request: Option<&RequestKey>,
        bucket: Option<&BucketKey>,
        now_ms: i64,
    ) -> Result<(), Self::Error>;

    /// The adjustment of that id.
    fn adjustment(&mut self, id: i64) -> Result<Option<Adjustment>, Self::Error>;

    /// The adjustment of a bucket that waits for the operator.
    fn proposal(&mut self, key: &BucketKey) -> Result<Option<Adjustment>, Self::Error>;

    /// All adjustments of the scope that wait for the operator.
    fn proposals(&mut self) -> Result<Vec<Adjustment>, Self::Error>;

    /// Writes a new adjustment, of whatever `id`, and gives the id that it gets.
    fn insert_adjustment(&mut self, adjustment: &Adjustment) -> Result<i64, Self::Error>;

    /// Writes an adjustment in the place of the one with its id.
    fn update_adjustment(&mut self, adjustment: &Adjustment) -> Result<(), Self::Error>;
}
