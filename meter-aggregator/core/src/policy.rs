//! How long the ledger waits for what.

/// Times of the way from an event to Stripe. The defaults are what Stripe's and
/// Weir's own promises add up to; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether a request is told of by a gateway and by a router. Where not, the
    /// first witness is all there is to wait for.
    pub two_witnesses: bool,
    /// How long a request with one witness waits for the other, milliseconds: the
    /// life of a hold, its sweep and the spools' flush.
    pub wait_ms: i64,
    /// How long an hour must be over before it is planned, seconds.
    pub grace_s: i64,
    /// How long an hour must be over before a change of it needs an operator's
    /// word, seconds.
    pub final_s: i64,
    /// How long the same identifier is sent again, milliseconds: Stripe promises
    /// its uniqueness for 24 hours, four are for clocks and queues.
    pub same_identifier_ms: i64,
    /// How long after the last attempt Stripe's summaries are believed, milliseconds.
    pub settle_ms: i64,
    /// How far apart two equal readings of a summary must be, milliseconds.
    pub reread_ms: i64,
    /// How old an hour may be to be told Stripe under its own time, seconds: it
    /// takes 35 days, one is for what is under way.
    pub expire_s: i64,
}

const HOUR_S: i64 = 3_600;

impl Default for Policy {
    fn default() -> Self {
        Self {
            two_witnesses: true,
            wait_ms: 900_000,
            grace_s: 300,
            final_s: 72 * HOUR_S,
            same_identifier_ms: 20 * HOUR_S * 1_000,
            settle_ms: HOUR_S * 1_000,
            reread_ms: 600_000,
            expire_s: 34 * 24 * HOUR_S,
        }
    }
}
