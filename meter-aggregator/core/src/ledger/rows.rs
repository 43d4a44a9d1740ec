//! What the ledger's store holds.

use serde::Serialize;
use weir_wire::{
    ids::{RequestId, TenantId},
    proto::usage::UsageEvent,
};

use crate::{fold::Quantities, hour::Hour, intent::State, meter::Meter};

/// A request, or one measure of storage. In the order of their time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey {
    /// Its id.
    pub id: RequestId,
    /// Whose.
    pub tenant: TenantId,
}

impl RequestKey {
    /// The hour that it is billed in.
    #[must_use]
    pub fn hour(&self) -> Hour {
        Hour::of_ms(self.id.time_ms())
    }
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RequestRow {
    /// One event of each witness, without tenant contexts.
    pub events: Vec<UsageEvent>,
    /// What is booked of it.
    pub posted: Quantities,
    /// Until when it waits for another witness, milliseconds of the Unix epoch;
    /// `None` once it is booked.
    pub due_ms: Option<i64>,
}

/// A tenant's use on one meter in one hour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct BucketKey {
    /// In which hour.
    pub hour: Hour,
    /// Whose.
    pub tenant: TenantId,
    /// On which meter.
    pub meter: Meter,
}

/// What a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// What was used.
    pub total: i64,
    /// What Stripe has or is to have: the sum of the bucket's intents that did not
    /// expire.
    pub planned: i64,
    /// How many intents there were.
    pub revision: i64,
}

/// A sum of Stripe's, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The sum.
    pub sum: i64,
    /// When it was read first, milliseconds of the Unix epoch.
    pub at_ms: i64,
}

/// One meter event that Stripe is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Its number, from 1.
    pub id: i64,
    /// Of which use.
    pub bucket: BucketKey,
    /// 1 for the bucket's first.
    pub revision: i64,
    /// How often it was begun anew.
    pub generation: i64,
    /// How much. Negative where less was used than was told before.
    pub delta: i64,
    /// The meter event's identifier.
    pub identifier: String,
    /// The meter event's time, seconds of the Unix epoch: inside the bucket's hour,
    /// but for what was carried forward.
    pub timestamp_s: i64,
    /// Where it stands.
    pub state: State,
    /// When it was first tried under this identifier, milliseconds of the Unix epoch.
    pub first_attempt_ms: Option<i64>,
    /// When it was last tried, milliseconds of the Unix epoch.
    pub last_attempt_ms: Option<i64>,
    /// Answers that were received, whatever they said.
    pub answers: i64,
    /// Attempts under this identifier that may have been taken.
    pub unknown: i64,
    /// Not to be tried, or asked about, before; milliseconds of the Unix epoch.
    pub not_before_ms: i64,
    /// What Stripe's sum for its hour was, where that has to be read twice.
    pub reading: Option<Reading>,
    /// What Stripe or the operator said.
    pub reason: Option<String>,
    /// The intent in whose place it came, where it carries forward what was too old.
    pub carried_from: Option<i64>,
}

impl Intent {
    /// The hour in which Stripe counts it.
    #[must_use]
    pub fn stamp_hour(&self) -> Hour {
        Hour::of_s(self.timestamp_s)
    }
}

/// What does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscrepancyKind {
    /// A request was booked by one witness where two were due.
    SingleWitness,
    /// A witness told of a request twice, and not the same.
    Conflict,
    /// Both witnesses have the provider's word on a request, and not the same.
    WitnessesDiffer,
    /// Stripe's sum is not what it took.
    StripeDiffers,
}

impl DiscrepancyKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::SingleWitness,
        Self::Conflict,
        Self::WitnessesDiffer,
        Self::StripeDiffers,
    ];

    /// Its name in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SingleWitness => "single_witness",
            Self::Conflict => "conflict",
            Self::WitnessesDiffer => "witnesses_differ",
            Self::StripeDiffers => "stripe_differs",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == name)
    }
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Discrepancy {
    /// What.
    pub kind: DiscrepancyKind,
    /// Whose.
    pub tenant: TenantId,
    /// Of which request, where it is about one.
    pub request: Option<RequestKey>,
    /// Of which hour, where it is about one.
    pub bucket: Option<BucketKey>,
    /// What was found, for the operator.
    pub detail: String,
    /// The event that was not taken, where there is one; without its context.
    pub event: Option<UsageEvent>,
}

/// Why an hour that is final is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AdjustmentKind {
    /// Use came to light after it.
    Late,
    /// What Stripe was to have grew too old.
    Carry,
}

impl AdjustmentKind {
    /// Its name in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Carry => "carry",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Late, Self::Carry]
            .into_iter()
            .find(|k| k.as_str() == name)
    }
}

/// Where an adjustment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AdjustmentState {
    /// It waits for the operator.
    Proposed,
    /// Approved: it became an intent.
    Approved,
    /// Refused: it became a cancelled intent.
    Rejected,
    /// What it was for is no longer so.
    Withdrawn,
}

impl AdjustmentState {
    /// Its name in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Proposed,
            Self::Approved,
            Self::Rejected,
            Self::Withdrawn,
        ]
        .into_iter()
        .find(|s| s.as_str() == name)
    }
}

/// A change of an hour that is final, which an operator approves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// Its number, from 1.
    pub id: i64,
    /// Of which use.
    pub bucket: BucketKey,
    /// By how much.
    pub delta: i64,
    /// Why.
    pub kind: AdjustmentKind,
    /// The intent that expired, where that is why.
    pub source: Option<i64>,
    /// Where it stands.
    pub state: AdjustmentState,
    /// The intent that it became.
    pub intent: Option<i64>,
    /// When it was proposed, milliseconds of the Unix epoch.
    pub proposed_ms: i64,
    /// When it was decided, milliseconds of the Unix epoch.
    pub decided_ms: Option<i64>,
}
