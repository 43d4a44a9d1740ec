//! What a tenant may spend in a month, how many tokens it may use in a minute and
//! how many requests it may have under way: holds, as values.
//!
//! A request is held before its call and settled after it; a hold that is neither
//! renewed nor settled is swept once its life is over.
//!
//! | from | by | to |
//! |---|---|---|
//! | absent | hold | held |
//! | held | raise, renew | held |
//! | held | settle | settled: spend grows by the cost |
//! | held | sweep, once expired | swept: spend grows by the progress, or the estimate |
//! | swept | settle | settled: spend grows by cost − what the sweep took |
//! | absent | settle | settled: an orphan, spend grows by the cost |
//! | settled | anything | settled: nothing changes |
//!
//! Admission looks at spend and holds together, thresholds at spend. Amounts are
//! micro-dollars. The month is that of the request's id, in UTC, and is fixed in
//! the hold.

mod book;
mod minute;
mod month;
mod rows;
mod tenant;
#[cfg(test)]
mod tests;

pub use book::Book;
pub use month::Month;
pub use rows::{Account, Letter, Open, Record, Row, Swept, Taken};

use weir_wire::ids::{RequestId, TenantId};

/// How long a settled hold is remembered, in milliseconds: a week. Stores may
/// remember it for a day more.
pub const REMEMBERED_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// How many months an account is kept beside the running one.
pub const MONTHS_KEPT: u32 = 13;

/// The most that one amount counts, in micro-dollars: sums of a few stay exact in
/// Lua, whose numbers are doubles. Larger ones count as this.
pub const AMOUNT_MAX: u64 = 1 << 50;

/// The most tokens that one request counts; more count as this.
pub const TOKENS_MAX: u64 = 1 << 40;

/// So many of a tenant's expired holds are swept by its next hold.
pub const SWEPT_BY_HOLD: usize = 4;

/// The shares of a ceiling that are told, once each, in percent.
pub const ALERTS: [u8; 4] = [50, 80, 90, 100];

/// The most that may be spent in a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// In micro-dollars; at most 2^50, so that sums of a few stay exact in Lua.
    pub micros: u64,
    /// Whether holds pass it.
    pub overage: bool,
}

/// The bounds that hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Of the month's money.
    pub ceiling: Option<Ceiling>,
    /// Tokens, input and output, in any sixty seconds.
    pub tokens_per_minute: Option<u64>,
    /// Requests under way.
    pub in_flight: Option<u32>,
}

/// What a request may come to, before its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whose.
    pub tenant: TenantId,
    /// Which request; its time says the month.
    pub id: RequestId,
    /// What it may come to at the most.
    pub amount: u64,
    /// Where spend has reached this, nothing is held and [`Refused::Near`] is
    /// answered: the request is for a model that is not served any more then.
    pub not_from: Option<u64>,
    /// The tenant's bounds just now.
    pub bounds: Bounds,
    /// Tokens that it may use: its input, and the most of its output.
    pub tokens: u64,
    /// How long it is held without a renewal, in milliseconds.
    pub life_ms: u64,
    /// What a sweep takes if it is never renewed.
    pub progress: Progress,
}

impl Ask {
    /// The month that it counts in.
    #[must_use]
    pub fn month(&self) -> Month {
        Month::of_ms(self.id.time_ms())
    }
}

/// How far a request has come: what is taken of it if its router is never heard of
/// again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// What it has come to.
    pub micros: u64,
    /// Tokens that it has used.
    pub tokens: u64,
    /// For whoever sweeps it, to witness by; opaque to stores, at most 8 KiB.
    pub note: Vec<u8>,
}

/// Where a tenant stands after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Spent in the request's month.
    pub spend: u64,
    /// Held in it beside.
    pub held: u64,
    /// Tokens of the last sixty seconds.
    pub tokens: u64,
    /// Until the first of them are free again, in milliseconds; 0 where none count.
    pub tokens_free_ms: u64,
    /// Until all of them are.
    pub tokens_reset_ms: u64,
    /// Requests under way.
    pub in_flight: u32,
    /// Whether the outbox holds something of the tenant's.
    pub has_mail: bool,
}

/// What became of a wish to hold or to raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It is held.
    Held,
    /// The id was held before, or settled: nothing changed.
    Duplicate,
    /// Nothing changed.
    Refused(Refused),
}

/// Why nothing was held. Of several reasons the first of this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Too many requests are under way.
    InFlight,
    /// Too many tokens in this minute; there may be enough in so many milliseconds.
    Tokens {
        /// In milliseconds; `None` where the request alone is more than the limit.
        retry_ms: Option<u64>,
    },
    /// Spend has reached what the wish named.
    Near,
    /// Spend, holds and the amount together pass the ceiling.
    Budget,
    /// To raise: there is no such hold any more.
    Gone,
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    /// Whose.
    pub tenant: TenantId,
    /// Which request.
    pub id: RequestId,
    /// What it came to.
    pub micros: u64,
    /// Tokens that it used.
    pub tokens: u64,
    /// For the alerts.
    pub ceiling: Option<Ceiling>,
}

/// What a settle found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// A hold.
    Held,
    /// A swept hold: spend was put right.
    Swept,
    /// Nothing: spend grew all the same.
    Orphan,
    /// It was settled before: nothing changed.
    Again,
}

/// What the outbox holds until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Names it for the acknowledgement; unique for the tenant.
    pub id: String,
    /// Whose.
    pub tenant: TenantId,
    /// What happened.
    pub what: Happened,
}

/// What is told through the outbox, in the same step in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// Spend reached a share of the ceiling, for the first time in the month.
    Reached {
        /// The month.
        month: Month,
        /// One of [`ALERTS`].
        percent: u8,
        /// Spent.
        spend: u64,
        /// The ceiling, in micro-dollars.
        ceiling: u64,
    },
    /// A hold's life was over.
    Swept {
        /// Which request.
        id: RequestId,
        /// What was taken of it.
        progress: Progress,
    },
}
