//! Who may serve a request, in what order, and how it is said.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::{catalogue::Catalogue, provider::ProviderKind};

/// `opus` falls back in a circle; `vllm` is nobody's fallback.
const CATALOGUE: &str = r#"{"prices_as_of":"2026-11-01","models":[
    {"name":"opus","provider":"a","tier":"premium","capabilities":["chat","tools","images"],
     "context_tokens":100000,"max_output_tokens":8000,"prices":{"input":4,"output":20},
     "fallbacks":["gpt","sonnet"]},
    {"name":"sonnet","provider":"a","tier":"premium","capabilities":["chat","tools","images"],
     "context_tokens":100000,"max_output_tokens":8000,"prices":{"input":2,"output":10},
     "fallbacks":["opus","haiku"]},
    {"name":"gpt","provider":"o","tier":"premium","capabilities":["chat","tools","images","json"],
     "context_tokens":8000,"max_output_tokens":4000,"prices":{"input":2,"output":10},
     "fallbacks":["sonnet","mini"]},
    {"name":"haiku","provider":"a","tier":"fast","capabilities":["chat","tools","images"],
     "context_tokens":20000,"max_output_tokens":4000,"prices":{"input":1,"output":5},
     "fallbacks":["mini","own"]},
    {"name":"mini","provider":"o","tier":"fast","capabilities":["chat","tools","json"],
     "context_tokens":8000,"max_output_tokens":1000,"prices":{"input":1,"output":1},
     "fallbacks":["haiku"]},
    {"name":"vllm","provider":"s","tier":"self-hosted","capabilities":["chat","embedding"],
     "context_tokens":4000,"max_output_tokens":500,"prices":{"input":0,"output":0}},
    {"name":"own","provider":"s","tier":"self-hosted","capabilities":["chat","tools"],
     "context_tokens":4000,"max_output_tokens":400,"prices":{"input":0,"output":0},
     "fallbacks":["vllm"]},
    {"name":"lonely","provider":"o","tier":"premium","capabilities":["chat","images","json-object"],
     "context_tokens":8000,"max_output_tokens":1000,"prices":{"input":9,"output":9}},
    {"name":"embed","provider":"o","tier":"fast","capabilities":["embedding"],
     "context_tokens":1000,"prices":{"input":1,"output":0},"fallbacks":["embed2"]},
    {"name":"embed2","provider":"o","tier":"fast","capabilities":["embedding"],
     "context_tokens":1000,"prices":{"input":1,"output":0}}]}"#;

const PLANS: &str = r#"{
    "all":{"tiers":["premium","fast","self-hosted"],"aliases":{"best":"opus"}},
    "alone":{"tiers":["premium","fast"],"fallback":false},
    "top":{"tiers":["premium"]},
    "small":{"tiers":["premium","fast"],"max_tokens":300},
    "fast":{"tiers":["fast"],"default_model":"mini"}}"#;

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

const CHAT: Endpoint = Endpoint::ChatCompletions;

fn asked(model: &str) -> Asked {
    Asked {
        model: model.to_owned(),
        ..Asked::new(CHAT)
    }
}

fn candidates(plan: &str, asked: &Asked, purse: Purse) -> Result<Vec<Decision>, Refusal> {
    offer().candidates(&PlanName::new(plan).unwrap(), asked, purse)
}

/// The models, the first with why it is there.
#[track_caller]
fn check(plan: &str, asked: &Asked, purse: Purse, first: &str, others: &[&str]) {
    let found = candidates(plan, asked, purse).unwrap();
    let (head, tail) = found.split_first().unwrap();
    let reason = head.instead.map(Instead::as_str).unwrap_or("as asked");
    assert_eq!(format!("{} {reason}", head.model), first);
    let names: Vec<&str> = tail.iter().map(|d| d.model.as_str()).collect();
    assert_eq!(names, others);
    for other in tail {
        assert_eq!(other.instead, Some(Instead::Failover));
    }
}

#[test]
fn fallbacks_follow_breadth_first_and_then_what_is_self_hosted() {
    let all = ["gpt", "sonnet", "mini", "haiku", "own", "vllm"];
    check("all", &asked("opus"), Purse::Far, "opus as asked", &all);
    check("all", &asked("best"), Purse::Far, "opus alias", &all);
    // Self-hosted ones help every plan; others those that have them.
    let top = ["gpt", "sonnet", "own", "vllm"];
    check("top", &asked("opus"), Purse::Far, "opus as asked", &top);
    let fast = ["haiku", "own", "vllm"];
    let not_in_plan = "mini not-in-plan";
    check("fast", &asked("opus"), Purse::Far, not_in_plan, &fast);
    check("alone", &asked("opus"), Purse::Far, "opus as asked", &[]);
    let from_own = ["vllm"];
    check("all", &asked("own"), Purse::Far, "own as asked", &from_own);
}

#[test]
fn near_the_ceiling_premium_makes_way() {
    let near = Purse::Near;
    let others = ["haiku", "own", "vllm"];
    check("all", &asked("opus"), near, "mini budget-low", &others);
    check("all", &asked("best"), near, "mini budget-low", &others);
    check("alone", &asked("opus"), near, "mini budget-low", &[]);
    // The pair must be able to do what is asked.
    let mut images = asked("opus");
    images.uses.images = true;
    check("all", &images, near, "haiku budget-low", &[]);
    // No fast model in the plan: a self-hosted one.
    check("top", &asked("opus"), near, "own budget-low", &["vllm"]);
    check("all", &asked("lonely"), near, "vllm budget-low", &["own"]);
    // Nothing at all: it stays, and no other premium model joins it.
    let mut object = asked("lonely");
    object.uses.json_object = true;
    check("all", &object, near, "lonely as asked", &[]);
    // What is not premium stays.
    check(
        "all",
        &asked("haiku"),
        near,
        "haiku as asked",
        &["mini", "own", "vllm"],
    );
    check("fast", &asked("opus"), near, "mini not-in-plan", &others);
}

#[test]
fn at_the_ceiling_only_self_hosted_models_are_left() {
    let spent = Purse::Spent;
    check("all", &asked("opus"), spent, "own budget-spent", &["vllm"]);
    check("fast", &asked("mini"), spent, "own budget-spent", &["vllm"]);
    check("alone", &asked("opus"), spent, "own budget-spent", &[]);
    check(
        "all",
        &asked("lonely"),
        spent,
        "vllm budget-spent",
        &["own"],
    );
    check("all", &asked("vllm"), spent, "vllm as asked", &["own"]);
    let mut tools = asked("lonely");
    tools.uses.images = true;
    let refusal = candidates("all", &tools, spent).unwrap_err();
    assert_eq!(refusal.status, 402);
    assert_eq!(refusal.error.kind, "insufficient_quota");
    assert!(refusal.error.message.contains("budget of the plan all"));
    // What is refused anyway is refused for that.
    let refusal = candidates("fast", &asked("nope"), spent).unwrap_err();
    assert_eq!(refusal.status, 404);
}

#[test]
fn who_cannot_is_passed_over() {
    let far = Purse::Far;
    let with = |model: &str, change: fn(&mut Asked)| {
        let mut asked = asked(model);
        change(&mut asked);
        asked
    };
    let tools = with("opus", |a| a.uses.tools = true);
    let able = ["gpt", "sonnet", "mini", "haiku", "own"];
    check("all", &tools, far, "opus as asked", &able);
    let json = with("gpt", |a| a.uses.json = true);
    check("all", &json, far, "gpt as asked", &["mini"]);
    // 6,500 tokens of input, for each its own most of output beside.
    let long = with("opus", |a| {
        a.input_bytes = 26_000;
        a.max_tokens = Some(8_000);
    });
    check(
        "all",
        &long,
        far,
        "opus as asked",
        &["sonnet", "mini", "haiku"],
    );
    let longer = with("opus", |a| a.input_bytes = 80_004);
    check("all", &longer, far, "opus as asked", &["sonnet"]);
    // Thinking that a smaller bound has no room for.
    let thinking = with("opus", |a| {
        a.max_tokens = Some(6_000);
        a.thinking_tokens = Some(3_000);
    });
    let roomy = ["gpt", "sonnet", "haiku"];
    check("all", &thinking, far, "opus as asked", &roomy);
    // Other calls than those for conversations.
    let embed = Asked {
        model: "embed".to_owned(),
        input_bytes: 1_000_000,
        ..Asked::new(Endpoint::Embeddings)
    };
    check("all", &embed, far, "embed as asked", &["embed2"]);
    assert_eq!(
        candidates("all", &embed, Purse::Spent).unwrap_err().status,
        402
    );
    let count = Asked {
        model: "opus".to_owned(),
        ..Asked::new(Endpoint::CountTokens)
    };
    let counting = ["sonnet", "haiku"];
    check("all", &count, Purse::Spent, "opus as asked", &counting);
}

#[test]
fn each_has_its_own_bound() {
    let mut asked = asked("opus");
    asked.max_tokens = Some(4_000);
    asked.choices = 2;
    let bounds: Vec<_> = candidates("all", &asked, Purse::Far)
        .unwrap()
        .into_iter()
        .map(|d| {
            (
                d.model.clone(),
                d.max_tokens,
                d.bounded,
                d.upper_output_tokens(2),
            )
        })
        .collect();
    let expected = [
        ("opus", 4_000, false),
        ("gpt", 2_000, true),
        ("sonnet", 4_000, false),
        ("mini", 500, true),
        ("haiku", 2_000, true),
        ("own", 200, true),
        ("vllm", 250, true),
    ];
    let expected = expected
        .map(|(model, tokens, bounded)| (model.to_owned(), Some(tokens), bounded, tokens * 2));
    assert_eq!(bounds, expected);
    asked.max_tokens = Some(200);
    asked.choices = 1;
    for decision in candidates("small", &asked, Purse::Far).unwrap() {
        assert_eq!((decision.max_tokens, decision.bounded), (Some(200), false));
    }
}

#[test]
fn the_most_output_is_known_of_every_call() {
    let [open] = &candidates("alone", &asked("gpt"), Purse::Far).unwrap()[..] else {
        panic!("more than one");
    };
    assert_eq!(open.max_tokens, None);
    assert_eq!(open.upper_output_tokens(0), 4_000);
    assert_eq!(open.upper_output_tokens(3), 12_000);
    assert_eq!(open.upper_output_tokens(u64::MAX), u64::MAX);
    assert_eq!((open.prices.output, open.context_tokens), (10, 8_000));
    let embed = Asked {
        model: "embed".to_owned(),
        ..Asked::new(Endpoint::Embeddings)
    };
    let embed = candidates("all", &embed, Purse::Far).unwrap();
    assert_eq!(embed[0].upper_output_tokens(1), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_the_purse_is_kept_and_nobody_comes_twice(
        plan in prop::sample::select(vec!["all", "alone", "top", "small", "fast"]),
        model in prop::sample::select(vec!["opus", "sonnet", "gpt", "haiku", "mini", "own", "vllm", "lonely", "best"]),
        purse in prop::sample::select(vec![Purse::Far, Purse::Near, Purse::Spent]),
        (tools, images, json, json_object) in any::<(bool, bool, bool, bool)>(),
        max_tokens in prop::option::of(1..10_000_u64),
        (choices, input_bytes) in (1..4_u64, 0..100_000_usize),
    ) {
        let uses = Uses { tools, images, json, json_object, rag: false };
        let asked = Asked { uses, max_tokens, choices, input_bytes, ..asked(model) };
        let plan_name = PlanName::new(plan).unwrap();
        let decided = offer().decide(&plan_name, &asked);
        let found = candidates(plan, &asked, purse);
        let Ok(found) = found else {
            prop_assert!(decided.is_err() || purse == Purse::Spent);
            return Ok(());
        };
        if purse == Purse::Far {
            prop_assert_eq!(&decided.unwrap(), &found[0]);
        }
        let names: HashSet<&str> = found.iter().map(|d| d.model.as_str()).collect();
        prop_assert_eq!(names.len(), found.len());
        for (i, decision) in found.iter().enumerate() {
            let model = offer().catalogue().find(&decision.model).unwrap().clone();
            prop_assert!(needs(uses).all(|c| model.can(c)));
            let allowed = match purse {
                Purse::Far => true,
                Purse::Near => decision.tier != Tier::Premium || (i == 0 && found.len() == 1),
                Purse::Spent => decision.tier == Tier::SelfHosted,
            };
            prop_assert!(allowed, "{} of {:?}", decision.model, names);
            let most = decision.max_tokens.unwrap_or(decision.max_output_tokens);
            prop_assert!(most <= model.max_output_tokens);
        }
    }
}
