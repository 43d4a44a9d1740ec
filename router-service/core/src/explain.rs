//! Why a request gets what it gets, in sentences for people.

use weir_wire::{ids::PlanName, proto::router as proto};

use crate::{
    offer::{Decision, Instead},
    refusal::Refusal,
    request::Asked,
};

/// What was decided for a request, and why.
#[must_use]
pub fn explained(
    plan: &PlanName,
    asked: &Asked,
    decided: Result<Decision, Refusal>,
) -> proto::RouteResponse {
    let mut explanation = vec![format!(
        "The plan {plan} asks for the model {:?} at /v1/{}.",
        asked.model,
        asked.endpoint.path()
    )];
    let decision = match decided {
        Ok(decision) => {
            explanation.extend(reasons(&decision, asked));
            proto::route_response::Decision::Routed(routed(&decision, asked))
        }
        Err(refusal) => {
            explanation.push(refusal.error.message.clone());
            proto::route_response::Decision::Refused(proto::Refused {
                status: refusal.status.into(),
                code: refusal.error.code.unwrap_or_default(),
                message: refusal.error.message,
                param: refusal.error.param.unwrap_or_default(),
            })
        }
    };
    proto::RouteResponse {
        explanation,
        decision: Some(decision),
    }
}

fn reasons(decision: &Decision, asked: &Asked) -> Vec<String> {
    let mut reasons = Vec::new();
    match decision.instead {
        Some(Instead::Alias) => {
            reasons.push(format!(
                "The plan's name {:?} is {}.",
                asked.model, decision.model
            ));
        }
        Some(Instead::NotInPlan) => reasons.push(format!(
            "The plan lacks that model; {} takes its place.",
            decision.model
        )),
        None => {}
    }
    reasons.push(format!(
        "{} is a {} model of the provider {}, called at {}.",
        decision.model,
        decision.tier.as_str(),
        decision.provider,
        decision.endpoint.path()
    ));
    if decision.endpoint != asked.endpoint {
        reasons.push("Request and answer are translated between the dialects.".to_owned());
    }
    if let Some(tokens) = decision.bound() {
        reasons.push(match asked.max_tokens {
            Some(asked) => format!("Of {asked} tokens that are asked for it gets {tokens}."),
            None => format!("It asks for no number of tokens and gets at most {tokens}."),
        });
    }
    reasons
}

fn routed(decision: &Decision, asked: &Asked) -> proto::Routed {
    proto::Routed {
        served: Some(served(decision)),
        upstream: decision.upstream.clone(),
        tier: decision.tier.as_str().to_owned(),
        provider_path: decision.endpoint.path().to_owned(),
        translated: decision.endpoint != asked.endpoint,
        timeout_s: u32::try_from(decision.timeout.as_secs()).unwrap_or(u32::MAX),
        stream_total_s: u32::try_from(decision.stream_total.as_secs()).unwrap_or(u32::MAX),
    }
}

/// By whom a request is served, as services are told.
#[must_use]
pub fn served(decision: &Decision) -> proto::Served {
    proto::Served {
        model: decision.model.clone(),
        provider: decision.provider.clone(),
        reason: decision
            .instead
            .map(Instead::as_str)
            .unwrap_or_default()
            .to_owned(),
        max_tokens: decision.bound(),
    }
}
