//! A request as an operator sees it: what its witnesses come to, in one line.

use serde::Serialize;
use weir_dialects::routes::RequestClass;
use weir_wire::{
    ids::RequestId,
    proto::usage::{ModelUsage, Outcome, UsageEvent, UsageSource, Witness},
};

use crate::{
    fold::{Quantities, decisive, fold},
    tariff::Tariff,
};

/// One request, folded as it is billed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The gateway's name for it.
    pub request_id: String,
    /// When the gateway named it, milliseconds of the Unix epoch.
    pub time_ms: i64,
    /// Whose.
    pub tenant: String,
    /// What kind of work; the gateway's word where it has one, because it knows the
    /// operator's rules.
    pub class: String,
    /// What the client asked for; empty where nobody saw it.
    pub model_asked: String,
    /// Who answered; empty where nobody did.
    pub model_served: String,
    /// Whose model that is.
    pub provider: String,
    /// Calls of providers.
    pub attempts: usize,
    /// Tokens of the attempts that are billed.
    #[serde(flatten)]
    pub tokens: Tokens,
    /// Where they come from: `reported`, `estimated` or `none`, the least of them.
    pub source: &'static str,
    /// How it ended.
    pub outcome: &'static str,
    /// HTTP status; 0 where there was none.
    pub status: u32,
    /// Milliseconds.
    pub duration_ms: u64,
    /// Milliseconds; absent where nothing came back.
    pub time_to_first_token_ms: Option<u64>,
    /// Who saw it.
    pub witnesses: Vec<&'static str>,
    /// Whose word is billed.
    pub counted: &'static str,
    /// What it comes to by meter; those of which it has none are left out.
    pub billed: Quantities,
}

/// Tokens, in counts that do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs)] // each is the ModelUsage's of that name
pub struct Tokens {
    pub input_tokens: u64,
    pub cached_input_tokens: u64,
    pub cache_write_input_tokens: u64,
    pub audio_input_tokens: u64,
    pub output_tokens: u64,
    pub reasoning_tokens: u64,
    pub audio_output_tokens: u64,
}

/// Folds the witnesses of one request; `None` where there are none.
#[must_use]
pub fn request(witnesses: &[UsageEvent], tariff: &Tariff) -> Option<Request> {
    let counted = decisive(witnesses)?;
    let paid = || counted.usage.iter().filter(|u| !u.unbilled);
    // Who answered; where nobody did, who was asked last.
    let served = paid().next_back().or(counted.usage.last());
    let is_told = |class: &&str| !["", RequestClass::Unclassified.as_str()].contains(class);
    let by = |who: Witness| {
        let event = witnesses.iter().find(|e| e.witness() == who)?;
        Some(event.request_class.as_str()).filter(is_told)
    };
    let class = by(Witness::Gateway)
        .or_else(|| by(Witness::Router))
        .unwrap_or(&counted.request_class);
    let asked = std::iter::once(counted)
        .chain(witnesses)
        .map(|e| e.model_asked.as_str())
        .find(|model| !model.is_empty());
    Some(Request {
        request_id: counted.request_id.clone(),
        time_ms: RequestId::parse(&counted.request_id).map_or(0, |id| id.time_ms()),
        tenant: counted.tenant.clone(),
        class: class.to_owned(),
        model_asked: asked.unwrap_or_default().to_owned(),
        model_served: served.map(|u| u.model_served.clone()).unwrap_or_default(),
        provider: served.map(|u| u.provider.clone()).unwrap_or_default(),
        attempts: counted.usage.len(),
        tokens: paid().fold(Tokens::default(), Tokens::and),
        source: paid().map(source).min().map_or("none", |(_, name)| name),
        outcome: outcome(counted.outcome()),
        status: counted.status,
        duration_ms: counted.duration_ms,
        time_to_first_token_ms: counted.time_to_first_token_ms,
        witnesses: witnesses.iter().map(|e| witness(e.witness())).collect(),
        counted: witness(counted.witness()),
        billed: fold(witnesses, tariff),
    })
}

impl Tokens {
    fn and(self, usage: &ModelUsage) -> Self {
        let sum = u64::saturating_add;
        Self {
            input_tokens: sum(self.input_tokens, usage.input_tokens),
            cached_input_tokens: sum(self.cached_input_tokens, usage.cached_input_tokens),
            cache_write_input_tokens: sum(
                self.cache_write_input_tokens,
                usage.cache_write_input_tokens,
            ),
            audio_input_tokens: sum(self.audio_input_tokens, usage.audio_input_tokens),
            output_tokens: sum(self.output_tokens, usage.output_tokens),
            reasoning_tokens: sum(self.reasoning_tokens, usage.reasoning_tokens),
            audio_output_tokens: sum(self.audio_output_tokens, usage.audio_output_tokens),
        }
    }
}

/// A source, and how much it is worth.
fn source(usage: &ModelUsage) -> (u8, &'static str) {
    match usage.source() {
        UsageSource::Reported => (2, "reported"),
        UsageSource::Estimated => (1, "estimated"),
        UsageSource::None | UsageSource::Unspecified => (0, "none"),
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::ClientDisconnected => "client_disconnected",
        Outcome::UpstreamError => "upstream_error",
        Outcome::Rejected => "rejected",
        Outcome::Unspecified => "unknown",
    }
}

/// A witness in a word.
#[must_use]
pub fn witness(witness: Witness) -> &'static str {
    match witness {
        Witness::Gateway => "gateway",
        Witness::Router => "router",
        Witness::Service => "service",
        Witness::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::meter::Meter;

    fn usage(model: &str, source: UsageSource, n: u64) -> ModelUsage {
        ModelUsage {
            model_served: model.into(),
            provider: format!("{model}'s"),
            input_tokens: n,
            reasoning_tokens: n,
            source: source.into(),
            ..ModelUsage::default()
        }
    }

    fn event(witness: Witness, class: &str, usage: Vec<ModelUsage>) -> UsageEvent {
        UsageEvent {
            request_id: RequestId::mint(1_795_000_000_000, [1; 10]).to_string(),
            tenant: "acme".into(),
            witness: witness.into(),
            request_class: class.into(),
            outcome: Outcome::Completed.into(),
            status: 200,
            duration_ms: 30,
            usage,
            ..UsageEvent::default()
        }
    }

    #[test]
    fn a_request_is_what_its_better_witness_says() {
        assert_eq!(request(&[], &Tariff::default()), None);
        let mut unbilled = usage("a", UsageSource::Estimated, 100);
        unbilled.unbilled = true;
        let answered = usage("b", UsageSource::Reported, 7);
        let router = event(Witness::Router, "chat", vec![answered, unbilled]);
        let guess = usage("c", UsageSource::Estimated, 9);
        let mut gateway = event(Witness::Gateway, "rag", vec![guess]);
        gateway.model_asked = "m".into();
        let found = request(&[gateway.clone(), router], &Tariff::default()).unwrap();
        assert_eq!(found.time_ms, 1_795_000_000_000);
        assert_eq!((found.counted, found.source), ("router", "reported"));
        assert_eq!(found.witnesses, ["gateway", "router"]);
        assert_eq!((&*found.class, &*found.model_asked), ("rag", "m"));
        assert_eq!((&*found.model_served, &*found.provider), ("b", "b's"));
        assert_eq!(found.attempts, 2);
        let tokens = (found.tokens.input_tokens, found.tokens.reasoning_tokens);
        assert_eq!(tokens, (7, 7));
        assert_eq!(found.billed[&Meter::parse("input_tokens").unwrap()], 7);

        // What a gateway could not tell, the router may.
        gateway.request_class = "unclassified".into();
        let none = event(Witness::Router, "chat", vec![]);
        let found = request(&[gateway, none], &Tariff::default()).unwrap();
        assert_eq!((found.counted, found.source), ("gateway", "estimated"));
        assert_eq!(found.class, "chat");
    }

    #[test]
    fn a_refused_request_shows_that_nothing_is_billed() {
        let mut refused = event(Witness::Router, "chat", vec![]);
        refused.outcome = Outcome::Rejected.into();
        refused.status = 403;
        let found = request(&[refused], &Tariff::default()).unwrap();
        assert_eq!((found.outcome, found.status), ("rejected", 403));
        assert_eq!((found.source, found.billed.len()), ("none", 0));
        assert_eq!(found.model_served, "");
    }
}
