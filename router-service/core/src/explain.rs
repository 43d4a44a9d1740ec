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
        Some(Instead::BudgetLow) => reasons.push(format!(
            "Little is left of the month's budget; {} takes a premium model's place.",
            decision.model
        )),
        Some(Instead::BudgetSpent) => reasons.push(format!(
            "The month's budget is spent; {}, which is self-hosted, takes the model's place.",
            decision.model
        )),
        Some(Instead::Failover) => reasons.push(format!(
            "What came before it failed; {} takes its place.",
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;
    use weir_dialects::routes::Endpoint;
    use weir_pricing::Prices;

    use super::*;
    use crate::{catalogue::Tier, provider::ProviderKind};

    #[test]
    fn each_reason_is_told() {
        let asked = Asked {
            model: "best".to_owned(),
            ..Asked::new(Endpoint::ChatCompletions)
        };
        for (instead, word, says) in [
            (None, "", "m is a fast model of the provider p"),
            (Some(Instead::Alias), "alias", "name \"best\" is m"),
            (Some(Instead::NotInPlan), "not-in-plan", "lacks that model"),
            (Some(Instead::BudgetLow), "budget-low", "Little is left"),
            (Some(Instead::BudgetSpent), "budget-spent", "is spent; m,"),
            (Some(Instead::Failover), "failover", "failed; m takes"),
        ] {
            let decision = Decision {
                model: "m".to_owned(),
                upstream: "m".to_owned(),
                tier: Tier::Fast,
                provider: "p".to_owned(),
                kind: ProviderKind::OpenAi,
                endpoint: asked.endpoint,
                instead,
                max_tokens: None,
                bounded: false,
                prices: Prices {
                    input: 1,
                    cached_input: None,
                    cache_write: None,
                    output: 1,
                },
                context_tokens: 1,
                max_output_tokens: 1,
                timeout: Duration::from_secs(1),
                stream_total: Duration::from_secs(1),
            };
            assert_eq!(served(&decision).reason, word);
            let plan = PlanName::new("pro").unwrap();
            let told = explained(&plan, &asked, Ok(decision)).explanation.join(" ");
            assert!(told.contains(says), "{told}");
        }
    }
}
