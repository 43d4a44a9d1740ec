//! A request whose context was believed, and the witness of how it ended.

use std::time::Instant;

use weir_dialects::routes::RequestClass;
use weir_router_core::{
    meter::{self, Attempt, Ending},
    seen::Seen,
};
use weir_wire::{context::Verified, proto::usage::Outcome};

use crate::witness::Witnesses;

/// Who asks.
pub struct Caller {
    pub verified: Verified,
    /// The signed context as it came.
    pub header: String,
    pub started: Instant,
    /// Milliseconds of the Unix epoch.
    pub started_ms: i64,
}

/// Who asks, for what, and where its witness goes.
pub struct Exchange {
    pub caller: Caller,
    pub class: RequestClass,
    pub witnesses: Witnesses,
}

impl Exchange {
    /// Witnesses the end of a request that no provider saw.
    pub fn tell_alone(&self, outcome: Outcome, status: u16) {
        self.tell(None, &Seen::default(), outcome, status, None);
    }

    /// Witnesses the end: what was attempted, what came back, and when the
    /// first of it did.
    pub fn tell(
        &self,
        attempt: Option<&Attempt>,
        seen: &Seen,
        outcome: Outcome,
        status: u16,
        first_token_ms: Option<u64>,
    ) {
        let ending = Ending {
            outcome,
            status,
            started_ms: self.caller.started_ms,
            first_token_ms,
            duration_ms: self.millis(),
        };
        self.witnesses.tell(meter::witness(
            &self.caller.verified,
            &self.caller.header,
            self.class,
            attempt,
            seen,
            ending,
        ));
    }

    /// Milliseconds since the request came.
    pub fn millis(&self) -> u64 {
        u64::try_from(self.caller.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
