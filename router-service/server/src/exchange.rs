//! A request whose context was believed, and the witness of how it ended.

use std::time::Instant;

use weir_dialects::routes::RequestClass;
use weir_router_core::meter::{self, Ending};
use weir_wire::{
    context::Verified,
    proto::usage::{ModelUsage, Outcome, UsageEvent},
};

use crate::{call::Ended, witness::Witnesses};

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
        let ended = Ended {
            outcome,
            status,
            first_token_ms: None,
        };
        self.witnesses.tell(&self.witness("", Vec::new(), &ended));
    }

    /// Witnesses the end: what each attempt used, and how it went for the client.
    /// Returns once that outlives this process.
    pub async fn tell(&self, model_asked: &str, usage: Vec<ModelUsage>, ended: &Ended) {
        let event = self.witness(model_asked, usage, ended);
        if !self.witnesses.keep(&event).await {
            // Its hold, or the gateway's witness, is what is left of it.
            tracing::error!(request_id = %event.request_id, "a request is not witnessed");
        }
    }

    /// What is witnessed where this router is never heard of again, but for its
    /// usage.
    pub fn event(&self, model_asked: &str) -> UsageEvent {
        let ended = Ended {
            outcome: Outcome::UpstreamError,
            status: 502,
            first_token_ms: None,
        };
        self.witness(model_asked, Vec::new(), &ended)
    }

    fn witness(&self, model_asked: &str, usage: Vec<ModelUsage>, ended: &Ended) -> UsageEvent {
        let ending = Ending {
            outcome: ended.outcome,
            status: ended.status,
            started_ms: self.caller.started_ms,
            first_token_ms: ended.first_token_ms,
            duration_ms: self.millis(),
        };
        meter::witness(
            &self.caller.verified,
            &self.caller.header,
            self.class,
            model_asked,
            usage,
            ending,
        )
    }

    /// Milliseconds since the request came.
    pub fn millis(&self) -> u64 {
        u64::try_from(self.caller.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
