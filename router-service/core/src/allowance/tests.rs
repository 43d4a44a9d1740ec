//! What a budget does, and whose bounds hold.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn read(json: &str) -> Result<Allowance, String> {
    let allowance: Allowance = serde_json::from_str(json).map_err(|e| e.to_string())?;
    allowance.validate().map(|()| allowance)
}

fn budget(json: &str) -> Budget {
    read(&format!("{{\"budget\":{json}}}"))
        .unwrap()
        .budget
        .unwrap()
}

#[test]
fn what_is_not_said_is_the_default() {
    let found = budget(r#"{"monthly_usd":"12.50"}"#);
    assert_eq!(
        found,
        Budget::new(Dollars::from_micros(12_500_000).unwrap())
    );
    assert_eq!(found.at_ceiling, AtCeiling::SelfHostedOnly);
    assert_eq!((found.downgrade_percent, found.counts), (10, Counts::Price));
}

#[test]
fn what_is_wrong_is_named() {
    for (json, names) in [
        (r#"{"budget":{"monthly":1}}"#, "monthly"),
        (r#"{"budget":{}}"#, "monthly_usd"),
        (r#"{"budget":{"monthly_usd":-1}}"#, "found \"-1\""),
        (
            r#"{"budget":{"monthly_usd":1,"at_ceiling":"stop"}}"#,
            "`self_hosted_only`, `reject`, `allow_overage`",
        ),
        (r#"{"budget":{"monthly_usd":1,"counts":"both"}}"#, "both"),
        (
            r#"{"budget":{"monthly_usd":1,"downgrade_percent":101}}"#,
            "budget.downgrade_percent: must be 0 to 100, found 101",
        ),
        (r#"{"tokens_per_minute":0}"#, "nonzero"),
        (
            r#"{"tokens_per_minute":10000000000000000}"#,
            "tokens_per_minute: must be 1 to",
        ),
        (r#"{"in_flight":0}"#, "nonzero"),
        (r#"{"inflight":1}"#, "inflight"),
    ] {
        let error = read(json).unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }
}

#[track_caller]
fn check_purse(json: &str, from: (u64, u64)) {
    let budget = budget(json);
    let (near, spent) = from;
    assert_eq!(budget.near_from(), near, "{json}");
    for spend in [
        0,
        near.saturating_sub(1),
        near,
        spent.saturating_sub(1),
        spent,
        u64::MAX,
    ] {
        let expected = match spend {
            _ if spend >= spent => Purse::Spent,
            _ if spend >= near => Purse::Near,
            _ => Purse::Far,
        };
        let never = spent == u64::MAX && spend == u64::MAX;
        let expected = if never { Purse::Near } else { expected };
        assert_eq!(budget.purse(spend), expected, "{json} at {spend}");
    }
}

#[test]
fn thresholds_are_exact() {
    check_purse(r#"{"monthly_usd":500}"#, (450_000_000, 500_000_000));
    check_purse(r#"{"monthly_usd":"0.000011"}"#, (10, 11));
    check_purse(r#"{"monthly_usd":"0.000001"}"#, (1, 1));
    check_purse(r#"{"monthly_usd":0}"#, (0, 0));
    let at = |percent| format!(r#"{{"monthly_usd":10,"downgrade_percent":{percent}}}"#);
    check_purse(&at(0), (10_000_000, 10_000_000));
    check_purse(&at(100), (0, 10_000_000));
    check_purse(&at(33), (6_700_000, 10_000_000));
    check_purse(
        r#"{"monthly_usd":1000000000,"downgrade_percent":1}"#,
        (990_000_000_000_000, 1_000_000_000_000_000),
    );
    check_purse(
        r#"{"monthly_usd":10,"at_ceiling":"reject"}"#,
        (9_000_000, 10_000_000),
    );
    check_purse(
        r#"{"monthly_usd":10,"at_ceiling":"allow_overage"}"#,
        (9_000_000, u64::MAX),
    );
}

#[test]
fn a_tenants_own_bounds_come_before_its_plans() {
    let plan = read(r#"{"budget":{"monthly_usd":20},"tokens_per_minute":5}"#).unwrap();
    let own =
        read(r#"{"budget":{"monthly_usd":1,"at_ceiling":"allow_overage"},"in_flight":2}"#).unwrap();
    let bounds = own.or(plan).bounds();
    let ceiling = Ceiling {
        micros: 1_000_000,
        overage: true,
    };
    assert_eq!(bounds.ceiling, Some(ceiling));
    assert_eq!(bounds.tokens_per_minute, Some(5));
    assert_eq!(bounds.in_flight, Some(2));
    assert_eq!(Allowance::default().or(plan), plan);
    assert_eq!(Allowance::default().bounds(), Bounds::default());
    assert!(Allowance::default().is_empty() && !plan.is_empty());
}

#[test]
fn the_most_that_is_covered_is_found() {
    for (covered, expected) in [
        (0, 0),
        (1, 1),
        (4_095, 4_095),
        (TOKENS_MAX - 1, TOKENS_MAX - 1),
        (TOKENS_MAX, u64::MAX),
    ] {
        assert_eq!(most(|tokens| tokens <= covered), expected);
    }
    assert_eq!(most(|_| false), 0);
}

#[test]
fn the_rest_of_a_budget_covers_so_many_tokens() {
    // 4 and 20 dollars for a million tokens.
    let prices = Prices {
        input: 4_000_000,
        cached_input: None,
        cache_write: None,
        output: 20_000_000,
    };
    let free = Prices {
        input: 0,
        output: 0,
        ..prices
    };
    let dearer: Markup = serde_json::from_str("1.25").unwrap();
    let (one, price, cost) = (Markup::default(), Counts::Price, Counts::Cost);
    for (prices, markup, counts, remaining, expected) in [
        (prices, one, price, 24_000, 1_000),
        (prices, one, price, 24_019, 1_000),
        (prices, one, price, 24_020, 1_001),
        (prices, one, price, 4_000, 0),
        (prices, one, price, 3_999, 0),
        (prices, one, price, 0, 0),
        (prices, dearer, price, 30_000, 1_000),
        (prices, dearer, cost, 24_000, 1_000),
        (free, one, price, 0, u64::MAX),
        (prices, one, price, u64::MAX, u64::MAX),
    ] {
        let found = affordable_output(&prices, markup, counts, 1_000, remaining);
        assert_eq!(found, expected, "{markup} {counts:?} {remaining}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_affordable_is_held_and_one_token_more_is_not(
        (input, output) in (0..10_000_000_000_u64, 0..10_000_000_000_u64),
        tokens in 0..10_000_000_u64,
        (remaining, markup) in (0..1_000_000_000_000_u64, 0..999_u32),
        counts in prop::sample::select(vec![Counts::Price, Counts::Cost]),
    ) {
        let prices = Prices { input, cached_input: None, cache_write: None, output };
        let markup: Markup = serde_json::from_str(&format!("\"{markup}.5\"")).unwrap();
        let charge = |output| counts.of(upper_bound(&prices, markup, tokens, output));
        let found = affordable_output(&prices, markup, counts, tokens, remaining);
        prop_assert!(found == 0 || charge(found.min(TOKENS_MAX)) <= remaining);
        prop_assert!(found == u64::MAX || charge(found + 1) > remaining);
    }

    #[test]
    fn more_spend_never_reaches_farther(
        ceiling in 0..=1_000_000_000_000_000_u64,
        downgrade_percent in 0..=100_u8,
        spends in prop::collection::vec(0..1_100_000_000_000_000_u64, 2),
    ) {
        let monthly_usd = Dollars::from_micros(ceiling).unwrap();
        let budget = Budget { downgrade_percent, ..Budget::new(monthly_usd) };
        let rank = |spend| match budget.purse(spend) { Purse::Far => 0, Purse::Near => 1, Purse::Spent => 2 };
        prop_assert!(rank(spends[0].min(spends[1])) <= rank(spends[0].max(spends[1])));
        prop_assert_eq!(budget.purse(ceiling), Purse::Spent);
        prop_assert!(budget.near_from() <= ceiling);
    }
}
