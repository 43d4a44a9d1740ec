//! The router's witness of a request: what it used, reported or estimated.

use weir_dialects::{routes::RequestClass, used};
use weir_wire::{
    context::Verified,
    proto::usage::{Kind, ModelUsage, Outcome, UsageEvent, Witness},
};

use crate::seen::Seen;

/// A request that a provider was asked to serve.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// As the client asked.
    pub model_asked: String,
    /// The model of the catalogue that served.
    pub model: String,
    /// Who was asked.
    pub provider: String,
    /// Bytes of its input.
    pub input_bytes: usize,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// In one word.
    pub outcome: Outcome,
    /// The status that was answered.
    pub status: u16,
    /// Milliseconds of the Unix epoch.
    pub started_ms: i64,
    /// Milliseconds after the start.
    pub first_token_ms: Option<u64>,
    /// Milliseconds after the start.
    pub duration_ms: u64,
}

/// The event of one request. `attempt` is `None` where no provider was asked,
/// `seen` what came back; `context_header` is the signed context as it came.
#[must_use]
pub fn witness(
    context: &Verified,
    context_header: &str,
    class: RequestClass,
    attempt: Option<&Attempt>,
    seen: &Seen,
    ending: Ending,
) -> UsageEvent {
    let request_id = context.request_id.to_string();
    UsageEvent {
        kind: Kind::Request.into(),
        // One event a request and witness: sent again, it is the same.
        event_id: format!("{request_id}/rt"),
        request_id,
        witness: Witness::Router.into(),
        tenant: context.tenant.to_string(),
        request_class: class.to_string(),
        model_asked: attempt.map(|a| a.model_asked.clone()).unwrap_or_default(),
        usage: attempt
            .map(|a| served(a, seen, ending.outcome))
            .into_iter()
            .collect(),
        outcome: ending.outcome.into(),
        status: ending.status.into(),
        started_at_ms: ending.started_ms,
        duration_ms: ending.duration_ms,
        time_to_first_token_ms: ending.first_token_ms,
        tenant_context: context_header.to_owned(),
    }
}

fn served(attempt: &Attempt, seen: &Seen, outcome: Outcome) -> ModelUsage {
    let base = ModelUsage {
        model_served: seen.model.clone().unwrap_or_else(|| attempt.model.clone()),
        provider: attempt.provider.clone(),
        attempt: 1,
        ..ModelUsage::default()
    };
    let count = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    let seen = used::Seen {
        reported: seen.usage,
        begun: seen.begun,
        completed: outcome == Outcome::Completed && !seen.error,
        output_bytes: count(seen.output_bytes),
    };
    used::used(base, seen, || count(attempt.input_bytes))
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;
    use weir_dialects::tokens::TokenCounts;
    use weir_wire::{
        ids::{PlanName, RequestId, TenantId},
        proto::usage::UsageSource,
    };

    use super::*;

    #[track_caller]
    fn check(seen: &Seen, outcome: Outcome, source: UsageSource, tokens: [u64; 2]) {
        let context = Verified {
            tenant: TenantId::new("a").unwrap(),
            plan: PlanName::new("p").unwrap(),
            request_id: RequestId::mint(1, [0; 10]),
            issued_at_ms: 1,
        };
        let attempt = Attempt {
            model_asked: "m".into(),
            model: "m".into(),
            provider: "openai".into(),
            input_bytes: 9,
        };
        let ending = Ending {
            outcome,
            status: 200,
            started_ms: 1,
            first_token_ms: None,
            duration_ms: 2,
        };
        let event = witness(
            &context,
            "ctx",
            RequestClass::Chat,
            Some(&attempt),
            seen,
            ending,
        );
        let usage = &event.usage[0];
        assert_eq!(usage.source(), source, "{seen:?}");
        assert_eq!(
            [usage.input_tokens, usage.output_tokens],
            tokens,
            "{seen:?}"
        );
    }

    #[test]
    fn reported_beats_estimated_beats_none() {
        let reported = Seen {
            usage: Some(TokenCounts {
                input: 3,
                output: 0,
                ..TokenCounts::default()
            }),
            output_bytes: 100,
            ..Seen::default()
        };
        check(
            &reported,
            Outcome::ClientDisconnected,
            UsageSource::Reported,
            [3, 0],
        );
        let silent = Seen {
            output_bytes: 5,
            ..Seen::default()
        };
        check(
            &silent,
            Outcome::UpstreamError,
            UsageSource::Estimated,
            [3, 2],
        );
        check(
            &Seen::default(),
            Outcome::Completed,
            UsageSource::Estimated,
            [3, 0],
        );
        check(
            &Seen::default(),
            Outcome::UpstreamError,
            UsageSource::None,
            [0, 0],
        );
        let failed = Seen {
            error: true,
            ..Seen::default()
        };
        check(&failed, Outcome::UpstreamError, UsageSource::None, [0, 0]);
        let late = Seen {
            error: true,
            output_bytes: 8,
            ..Seen::default()
        };
        check(
            &late,
            Outcome::UpstreamError,
            UsageSource::Estimated,
            [3, 2],
        );
    }
}
