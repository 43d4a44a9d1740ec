//! What is asked of a store, and what it answers.

use weir_wire::quota::LEASE_ID_BYTES;

use super::{limits::Limit, window};

/// The name of a lease: random bytes of the gateway's.
pub type LeaseId = [u8; LEASE_ID_BYTES];

/// A lease that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whose requests.
    pub tenant: String,
    /// The limits that apply, at least one; each key is (tenant, class, window).
    pub limits: Vec<Limit>,
    /// The lease's name. Asking twice by one name gives one lease.
    pub id: LeaseId,
    /// At most so many requests, at least 1.
    pub wanted: u32,
    /// For at most so many milliseconds.
    pub life_ms: u64,
    /// How many gateways share what is free.
    pub gateways: u32,
    /// The epoch that the gateway was last granted something in, if lately.
    pub epoch: String,
    /// Of the same tenant, to be closed first.
    pub closing: Vec<Closing>,
}

impl Ask {
    /// The life of the lease: no longer than the shortest of its windows allows.
    #[must_use]
    pub fn bounded_life_ms(&self) -> u64 {
        let longest = |limit: &Limit| window::life_max_ms(limit.window_ms());
        let shortest = self.limits.iter().map(longest).min();
        self.life_ms.clamp(1, shortest.unwrap_or(1))
    }

    /// How much of what is free one gateway is granted: half its share, so that
    /// every one of them gets something, and the last few come one by one.
    #[must_use]
    pub fn share(&self, free: u64) -> u64 {
        let parts = u64::from(self.gateways.max(1)).saturating_mul(2);
        let most = free.checked_div(parts).unwrap_or(0).max(1).min(free);
        most.min(u64::from(self.wanted.max(1)))
    }
}

/// A lease that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// Its name.
    pub id: LeaseId,
    /// How many requests were made by it.
    pub spent: u32,
    /// Milliseconds from the first sending of its acquire to its closing, on the
    /// gateway's clock.
    pub age_ms: u64,
}

/// How much of a limit is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitState {
    /// Not granted to anybody yet.
    pub remaining: u64,
    /// Milliseconds until all that counts now counts no more.
    pub reset_ms: u64,
}

/// A store's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was decided.
    pub granted: Granted,
    /// The store's epoch for that tenant.
    pub epoch: String,
    /// One for each limit of the [`Ask`], in its order.
    pub limits: Vec<LimitState>,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// So many requests may be made.
    Lease {
        /// How many, at least 1.
        requests: u32,
        /// For so many milliseconds from the first sending.
        life_ms: u64,
    },
    /// None before that.
    Denied {
        /// Milliseconds.
        free_in_ms: u64,
    },
    /// What counted is lost; none before that.
    Fenced {
        /// Milliseconds.
        until_in_ms: u64,
    },
}
