//! As whom the ledger is written, and that nobody may who is not its shard's holder.

use super::World;
use crate::lease::{self, Scope};

/// As whom a transaction is made.
#[derive(Debug)]
pub struct Actor {
    pub scope: Scope,
    /// The replica that works.
    pub id: String,
    /// How far its clock is ahead, milliseconds.
    pub skew_ms: i64,
    /// Whether it goes on after a transaction that failed, and how often, permille.
    pub survives: i64,
    /// Whether its last transaction was refused, as that of another shard's holder.
    pub is_fenced: bool,
    /// Whether its last transaction was committed, though nobody may have heard of it.
    pub has_committed: bool,
    /// Whether nobody looks at its epoch: a mutant.
    pub is_unchecked: bool,
}

impl Actor {
    /// One that has the ledger for itself.
    pub fn alone() -> Self {
        Self {
            scope: Scope::Whole,
            id: String::new(),
            skew_ms: 0,
            survives: 0,
            is_fenced: false,
            has_committed: false,
            is_unchecked: false,
        }
    }
}

impl World {
    /// Whether the store lets the transaction begin. It may let none of a replica that
    /// is not its shard's holder.
    pub fn may_write(&self) -> bool {
        let Scope::Held(held) = self.actor.scope else {
            return true;
        };
        let row = self.table.row(held.shard);
        let is_let = lease::check(self.actor.scope, row.epoch).is_ok() || self.actor.is_unchecked;
        let is_holder = row.epoch == held.epoch && row.holder.as_ref() == Some(&self.actor.id);
        assert!(!is_let || is_holder, "a transaction of a zombie: {held:?}");
        is_let
    }

    /// The true time; the process's own is `now_ms`.
    pub fn true_ms(&self) -> i64 {
        self.now_ms - self.actor.skew_ms
    }
}
