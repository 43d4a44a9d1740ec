//! What a [`Book`](super::Book) holds, as rows: a store keeps those that changed and
//! gives them back when it starts.

use weir_wire::ids::{RequestId, TenantId};

use super::{Happened, Month, Progress};

/// A tenant's month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Spent.
    pub spend: u64,
    /// Held, expired holds that were not swept yet included.
    pub held: u64,
    /// Which of [`ALERTS`](super::ALERTS) were told, the first by the lowest bit.
    pub told: u8,
    /// As the last call that changed something told it.
    pub ceiling: Option<u64>,
}

/// Tokens that count for a request, and until the end of which slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// How many.
    pub tokens: u64,
    /// Seconds of the Unix epoch.
    pub slot: u64,
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// What is held, raises included.
    pub amount: u64,
    /// When its life is over, on the store's clock.
    pub expires_ms: u64,
    /// Its tokens.
    pub taken: Taken,
    /// The last raise; 0 before the first.
    pub step: u32,
    /// What a sweep takes.
    pub progress: Progress,
}

/// A hold that was swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// What was taken of it.
    pub micros: u64,
    /// Its tokens.
    pub taken: Taken,
    /// When.
    pub at_ms: u64,
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// It is held.
    Held(Open),
    /// It was swept.
    Swept(Swept),
    /// It was settled.
    Settled {
        /// When.
        at_ms: u64,
    },
}

/// An entry of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// When it happened.
    pub at_ms: u64,
    /// What.
    pub what: Happened,
}

/// One row; without a value it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A tenant's month.
    Account(TenantId, Month, Option<Account>),
    /// A request.
    Request(TenantId, RequestId, Option<Record>),
    /// Tokens that count until the end of a slot.
    Slot(TenantId, u64, Option<u64>),
    /// An entry of the outbox, and its name.
    Letter(TenantId, String, Option<Letter>),
}
