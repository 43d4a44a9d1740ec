//! Tests of what a request gets.

use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::request::Uses;

const CATALOGUE: &str = r#"{"prices_as_of":"2026-11-01","models":[
    {"name":"big","provider":"a","tier":"premium","capabilities":["chat","tools","images"],
     "context_tokens":1000,"max_output_tokens":800,"prices":{"input":1,"output":1}},
    {"name":"mini","provider":"o","upstream":"mini-v2","tier":"fast",
     "capabilities":["chat","responses","json"],
     "context_tokens":1000,"max_output_tokens":500,"prices":{"input":1,"output":1}},
    {"name":"embed","provider":"o","tier":"fast","capabilities":["embedding"],
     "context_tokens":1000,"prices":{"input":1,"output":0}},
    {"name":"own","provider":"s","tier":"self-hosted","capabilities":["chat","completion"],
     "context_tokens":1000,"max_output_tokens":100,"prices":{"input":0,"output":0}}]}"#;

const PLANS: &str = r#"{
    "enterprise":{"tiers":["premium","fast"],"timeout_s":30,"max_tokens":400},
    "starter":{"tiers":["fast"],"timeout_s":5,"stream_total_s":60,"max_tokens":200,"features":["tools"]},
    "team":{"models":["own"],"max_tokens":200},
    "custom":{"models":["own","big"],"aliases":{"best":"big","mini":"own"},"default_model":"own","features":[]}}"#;

fn offer() -> Offer {
    let catalogue: Catalogue = serde_json::from_str(CATALOGUE).unwrap();
    catalogue.validate(&["a", "o", "s"]).unwrap();
    let providers = [
        ("a", ProviderKind::Anthropic),
        ("o", ProviderKind::OpenAi),
        ("s", ProviderKind::OpenAiCompatible),
    ];
    let providers = providers.map(|(name, kind)| (name.to_owned(), kind)).into();
    Offer::new(serde_json::from_str(PLANS).unwrap(), catalogue, providers).unwrap()
}

fn asked(endpoint: Endpoint, model: &str) -> Asked {
    Asked {
        model: model.to_owned(),
        ..Asked::new(endpoint)
    }
}

fn decide(plan: &str, asked: &Asked) -> Result<Decision, Refusal> {
    offer().decide(&PlanName::new(plan).unwrap(), asked)
}

#[track_caller]
fn check(plan: &str, endpoint: Endpoint, model: &str, expected: Result<&str, (u16, &str)>) {
    match (decide(plan, &asked(endpoint, model)), expected) {
        (Ok(decision), Ok(served)) => assert_eq!(decision.model, served),
        (Err(refusal), Err((status, says))) => {
            assert_eq!(refusal.status, status);
            assert!(refusal.error.message.contains(says), "{refusal:?}");
        }
        (found, expected) => panic!("{found:?}, not {expected:?}"),
    }
}

const CHAT: Endpoint = Endpoint::ChatCompletions;

#[test]
fn a_plan_gets_its_models() {
    check("enterprise", CHAT, "big", Ok("big"));
    check("enterprise", Endpoint::Messages, "mini", Ok("mini"));
    check("enterprise", Endpoint::CountTokens, "big", Ok("big"));
    check("starter", CHAT, "mini", Ok("mini"));
    check("starter", Endpoint::Responses, "mini", Ok("mini"));
    check("starter", Endpoint::Embeddings, "embed", Ok("embed"));
    check("custom", Endpoint::Completions, "own", Ok("own"));
}

#[test]
fn a_refusal_says_what_there_is() {
    check("starter", CHAT, "big", Err((403, "it has mini.")));
    check("starter", CHAT, "nope", Err((404, "`nope`")));
    check("starter", CHAT, "embed", Err((400, "has mini for it")));
    let embeddings = Endpoint::Embeddings;
    check("starter", embeddings, "big", Err((400, "has embed for")));
    let count = Endpoint::CountTokens;
    check("enterprise", count, "mini", Err((400, "has big for it")));
    check("starter", count, "mini", Err((400, "has none for it")));
    check("unknown", CHAT, "mini", Err((403, "unknown has no models")));
}

#[test]
fn names_lead_to_other_models_where_the_plan_says_so() {
    for (asked_for, served, instead) in [
        ("best", "big", Some(Instead::Alias)),
        ("mini", "own", Some(Instead::Alias)),
        ("own", "own", None),
    ] {
        let decision = decide("custom", &asked(CHAT, asked_for)).unwrap();
        assert_eq!(
            (decision.model.as_str(), decision.instead),
            (served, instead)
        );
    }
    // No alias, and not in the plan: its default, if that serves the call.
    let mut offer = offer();
    let custom = PlanName::new("custom").unwrap();
    offer.plans.get_mut(&custom).unwrap().aliases.clear();
    let decision = offer.decide(&custom, &asked(CHAT, "mini")).unwrap();
    assert_eq!(decision.instead, Some(Instead::NotInPlan));
    assert_eq!(decision.model, "own");
    let embed = asked(Endpoint::Embeddings, "embed");
    assert_eq!(offer.decide(&custom, &embed).unwrap_err().status, 403);
}

#[test]
fn a_provider_is_called_in_its_own_words() {
    for (endpoint, model, called) in [
        (CHAT, "big", Endpoint::Messages),
        (CHAT, "mini", CHAT),
        (Endpoint::Messages, "big", Endpoint::Messages),
        (Endpoint::Messages, "mini", CHAT),
        (Endpoint::Responses, "mini", Endpoint::Responses),
    ] {
        let decision = decide("enterprise", &asked(endpoint, model)).unwrap();
        assert_eq!(decision.endpoint, called);
    }
    let decision = decide("starter", &asked(CHAT, "mini")).unwrap();
    assert_eq!(
        (decision.upstream.as_str(), decision.provider.as_str()),
        ("mini-v2", "o")
    );
    assert_eq!(decision.timeout, Duration::from_secs(5));
    assert_eq!(decision.stream_total, Duration::from_secs(60));
}

#[test]
fn tokens_are_bounded_by_plan_and_model() {
    let embeddings = Endpoint::Embeddings;
    let cases = [
        ("enterprise", CHAT, "big", Some(5000), (Some(400), true)),
        ("enterprise", CHAT, "big", Some(400), (Some(400), false)),
        ("enterprise", CHAT, "mini", None, (Some(400), true)),
        ("starter", CHAT, "mini", Some(300), (Some(200), true)),
        ("custom", CHAT, "own", Some(5000), (Some(100), true)),
        ("custom", CHAT, "own", None, (None, false)),
        ("custom", CHAT, "big", None, (Some(800), true)),
        ("custom", Endpoint::Completions, "own", None, (None, false)),
        (
            "team",
            Endpoint::Completions,
            "own",
            None,
            (Some(100), true),
        ),
        ("starter", embeddings, "embed", None, (None, false)),
    ];
    for (plan, endpoint, model, max_tokens, expected) in cases {
        let asked = Asked {
            max_tokens,
            ..asked(endpoint, model)
        };
        let decision = decide(plan, &asked).unwrap();
        let found = (decision.max_tokens, decision.bounded);
        assert_eq!(found, expected, "{plan} {model} {max_tokens:?}");
    }
}

#[test]
fn several_answers_share_the_tokens() {
    let with = |choices, max_tokens| Asked {
        choices,
        max_tokens,
        ..asked(CHAT, "mini")
    };
    for (choices, max_tokens, expected) in [
        (1, Some(300), Ok((Some(200), true))),
        (2, Some(100), Ok((Some(100), false))),
        (4, Some(100), Ok((Some(50), true))),
        (128, None, Ok((Some(1), true))),
        (201, Some(1), Err("n")),
    ] {
        let found = decide("starter", &with(choices, max_tokens));
        let found = found.map(|d| (d.max_tokens, d.bounded));
        let expected = expected.map_err(str::to_owned);
        assert_eq!(found.map_err(|r| r.error.param.unwrap()), expected);
    }
    let thinking = Asked {
        max_tokens: Some(5_000),
        thinking_tokens: Some(600),
        ..asked(Endpoint::Messages, "big")
    };
    let refusal = decide("enterprise", &thinking).unwrap_err();
    assert_eq!(
        refusal.error.param.as_deref(),
        Some("thinking.budget_tokens")
    );
    let fits = Asked {
        thinking_tokens: Some(300),
        ..thinking
    };
    decide("enterprise", &fits).unwrap();
}

#[test]
fn features_are_the_plans_and_the_models() {
    let uses = |tools, images, json, rag| Uses {
        tools,
        images,
        json,
        json_object: false,
        rag,
    };
    let cases = [
        (
            "starter",
            "mini",
            uses(false, true, false, false),
            Some((403, "does not have images; of such features it has tools")),
        ),
        (
            "starter",
            "mini",
            uses(true, false, false, false),
            Some((400, "can't call tools; of the plan starter these can: none")),
        ),
        ("starter", "mini", uses(false, false, true, false), None),
        (
            "starter",
            "mini",
            uses(false, false, false, true),
            Some((403, "does not have rag")),
        ),
        (
            "enterprise",
            "mini",
            uses(true, false, false, false),
            Some((400, "these can: big.")),
        ),
        ("enterprise", "big", uses(true, true, false, false), None),
        (
            "enterprise",
            "big",
            uses(false, false, true, false),
            Some((400, "these can: mini.")),
        ),
        (
            "enterprise",
            "big",
            uses(false, false, false, true),
            Some((400, "not served yet")),
        ),
        (
            "custom",
            "big",
            uses(true, false, false, false),
            Some((403, "it has none")),
        ),
    ];
    for (plan, model, uses, expected) in cases {
        let asked = Asked {
            uses,
            ..asked(CHAT, model)
        };
        match (decide(plan, &asked), expected) {
            (Ok(_), None) => {}
            (Err(refusal), Some((status, says))) => {
                assert_eq!(refusal.status, status, "{refusal:?}");
                assert!(refusal.error.message.contains(says), "{refusal:?}");
            }
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn models_are_listed_by_plan() {
    let names = |plan: &str| -> Vec<String> {
        let plan = PlanName::new(plan).unwrap();
        offer().models(&plan).map(|m| m.name.clone()).collect()
    };
    assert_eq!(names("starter"), ["mini", "embed"]);
    assert_eq!(names("custom"), ["big", "own"]);
    assert!(names("other").is_empty());
}

#[test]
fn a_plan_that_names_what_is_not_there_is_refused() {
    for (wrong, names) in [
        (r#"{"p":{"models":["x"]}}"#, "plans.p.models[0]"),
        (
            r#"{"p":{"tiers":["fast"],"aliases":{"a":"big"}}}"#,
            "plans.p.aliases.a: must be",
        ),
        (
            r#"{"p":{"tiers":["fast"],"aliases":{"a b":"mini"}}}"#,
            "plans.p.aliases",
        ),
        (
            r#"{"p":{"tiers":["fast"],"default_model":"x"}}"#,
            "plans.p.default_model",
        ),
    ] {
        let offer = offer();
        let plans = serde_json::from_str(wrong).unwrap();
        let error = Offer::new(plans, offer.catalogue, offer.providers).unwrap_err();
        assert!(error.contains(names), "{error}");
    }
    for (wrong, names) in [
        (r#"{"timeout_s":0}"#, "timeout_s"),
        (r#"{"timeout_s":9,"stream_total_s":8}"#, "stream_total_s"),
        (r#"{"max_tokens":0}"#, "max_tokens"),
        (r#"{"weight":0}"#, "weight: must be 1 to 1000, found 0"),
        (r#"{"weight":1001}"#, "weight"),
        (r#"{"hedge_ms":0}"#, "hedge_ms"),
        (
            r#"{"timeout_s":2,"hedge_ms":2001}"#,
            "hedge_ms: must be 1 to timeout_s, 2000 ms, found 2001",
        ),
        (
            r#"{"budget":{"monthly_usd":1,"downgrade_percent":101}}"#,
            "budget.downgrade_percent",
        ),
        (r#"{"tokens_per_minute":1000000001}"#, "tokens_per_minute"),
    ] {
        let plan: Plan = serde_json::from_str(wrong).unwrap();
        let error = plan.validate().unwrap_err();
        assert!(error.contains(names), "{error}");
    }
    for wrong in [
        r#"{"feature":[]}"#,
        r#"{"features":["tool"]}"#,
        r#"{"token_per_minute":5}"#,
        r#"{"budget":{"monthly_usd":1,"ceiling":2}}"#,
        r#"{"in_flight":0}"#,
    ] {
        assert!(serde_json::from_str::<Plan>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_a_plan_does_not_say_is_the_default() {
    let plan: Plan = serde_json::from_str("{}").unwrap();
    assert_eq!((plan.weight, plan.fallback, plan.hedge_ms), (1, true, None));
    assert_eq!(plan.markup, weir_pricing::Markup::default());
    assert!(plan.allowance().is_empty());
    let text = r#"{"budget":{"monthly_usd":20},"tokens_per_minute":5,"in_flight":2}"#;
    let plan: Plan = serde_json::from_str(text).unwrap();
    let own = serde_json::from_str(r#"{"tokens_per_minute":7}"#).unwrap();
    let bounds = plan.allowance_of(Some(&own)).bounds();
    assert_eq!(
        (bounds.tokens_per_minute, bounds.in_flight),
        (Some(7), Some(2))
    );
    assert_eq!(bounds.ceiling.unwrap().micros, 20_000_000);
    assert_eq!(plan.allowance_of(None), plan.allowance());
}
