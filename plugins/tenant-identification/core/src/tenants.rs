//! The tenants and their keys in one worker, and how the workers of a gateway
//! keep them up to date together.

use thiserror::Error;
use weir_wire::{
    directory::State,
    ids::{PlanName, TenantId},
};

mod board;
mod poll;
pub mod shared;
mod slab;
pub mod store;

use crate::board::Board;
pub use poll::{Answer, Outcome, Request};
pub use shared::{Follower, Settings, Step};
pub use store::Store;

/// Why a page was not taken. The store serves on as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// It does not follow what is held: begin again from [`Store::held`].
    #[error("the page does not follow what is held")]
    Gap,
    /// It leads to a lower number than is held.
    #[error("the page is of an older directory than is held")]
    Older,
}

/// What is wrong with tenants that a configuration lists.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InlineError {
    /// Two entries of one name.
    #[error("tenant {tenant} is listed twice")]
    TenantTwice {
        /// The name.
        tenant: TenantId,
    },
    /// One key in two places.
    #[error("a key of tenant {second} is also a key of tenant {first}")]
    KeyTwice {
        /// Whose it was first.
        first: TenantId,
        /// Where it came again; the same tenant for a key listed twice.
        second: TenantId,
    },
}

/// A tenant as it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantRef<'a> {
    /// Its name.
    pub id: &'a TenantId,
    /// The plan it is on.
    pub plan: &'a PlanName,
    /// Whether it may call.
    pub state: State,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// Nothing.
    Unknown,
    /// It was good until its time.
    Expired {
        /// Whose it is.
        tenant: TenantRef<'a>,
    },
    /// It is good; whether its tenant may call is in the tenant's state.
    Known(TenantRef<'a>),
}
