//! Which replica works on which shard of the tenants, and how one that lost its shard is
//! kept from writing.
//!
//! All that the ledger has of a tenant is in one shard: its requests, its journal, its
//! buckets and intents. One replica at a time holds a shard, under an epoch that grows
//! with each holder. Each transaction on a shard reads the epoch under a lock that lasts
//! until it ends, so that a replica that was stopped for a while, and comes to itself when
//! another has its shard, can't write there any more.

mod keep;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use std::fmt;

use thiserror::Error;
use weir_wire::ids::TenantId;

pub use keep::{LeaseRow, Leases, Member, Replica, Terms, keep, leave};

/// How many shards there are, for good: the stream has as many partitions.
pub const SHARDS: u16 = 16;

/// A shard of the tenants, and the stream's partition with their events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    /// All of them.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..SHARDS).map(Self)
    }

    /// The shard of that number, if there is one.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (number < SHARDS).then_some(Self(number))
    }

    /// The shard of a tenant: CRC-32 (IEEE) of its name, modulo [`SHARDS`].
    #[must_use]
    pub fn of(tenant: &TenantId) -> Self {
        let sum = crc32fast::hash(tenant.as_str().as_bytes());
        let number = sum.checked_rem(u32::from(SHARDS));
        // Below 16 always.
        Self(number.and_then(|n| u16::try_from(n).ok()).unwrap_or(0))
    }

    /// Its number, from 0.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A shard that is held: what a transaction on it must find unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub shard: Shard,
    /// The holder's epoch; larger than all before.
    pub epoch: i64,
}

/// On what a transaction works, and as whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All tenants: the ledger has one process, which a lock keeps alone.
    Whole,
    /// A shard's tenants, as its holder.
    Held(Lease),
    /// A shard's tenants, whoever holds it: an operator's word. It waits for the holder's
    /// transaction under way, and the holder's next waits for it.
    Asked(Shard),
}

impl Scope {
    /// Whether a tenant is in it.
    #[must_use]
    pub fn has(&self, tenant: &TenantId) -> bool {
        match self {
            Self::Whole => true,
            Self::Held(Lease { shard, .. }) | Self::Asked(shard) => Shard::of(tenant) == *shard,
        }
    }

    /// The shard, where it is about one.
    #[must_use]
    pub fn shard(&self) -> Option<Shard> {
        match self {
            Self::Whole => None,
            Self::Held(Lease { shard, .. }) | Self::Asked(shard) => Some(*shard),
        }
    }
}

/// A transaction is not the shard's holder's any more: nothing of it may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("shard {shard} has another holder by now")]
pub struct Fenced {
    /// Which.
    pub shard: Shard,
}

/// Whether a transaction may go on, which found `epoch` in its shard's row of leases and
/// holds that row's lock until its end. Every store asks this at the beginning of every
/// transaction that is about a shard.
///
/// # Errors
/// [`Fenced`] where another epoch was held than that.
pub fn check(scope: Scope, epoch: i64) -> Result<(), Fenced> {
    match scope {
        Scope::Held(lease) if lease.epoch != epoch => Err(Fenced { shard: lease.shard }),
        Scope::Whole | Scope::Held(_) | Scope::Asked(_) => Ok(()),
    }
}
