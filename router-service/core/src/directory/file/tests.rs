//! What a directory's file may say, and what is named where it says another thing.

use std::num::{NonZeroU32, NonZeroU64};

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_pricing::Dollars;

use super::*;
use crate::{
    allowance::{AtCeiling, Budget},
    quota::Limit,
};

const HASH: &str = "ab";

fn example() -> String {
    let (one, two) = (HASH.repeat(32), "1".repeat(64));
    format!(
        "# A comment.
version: 7
tenants:
  - id: acme
    plan: enterprise
    state: active
    keys:
      - id: k1
        prefix: weir_sk_acme_ab12
        sha256: {one}
        state: revoked
        created_at: 2026-11-24T00:00:00Z
        expires_at: 2027-11-24T01:00:00+01:00
      - {{id: k2, sha256: {two}}}
  - id: solo
    plan: starter
    state: suspended
    limits: [{{requests: 5, window_s: 1}}, {{requests: 9, window_s: 60, class: chat}}]
"
    )
}

fn plans() -> BTreeSet<PlanName> {
    ["enterprise", "starter"]
        .map(|p| PlanName::new(p).unwrap())
        .into()
}

fn read(text: &str) -> Result<File, FileError> {
    let file = File::parse(text)?;
    file.validate(&plans())?;
    Ok(file)
}

#[test]
fn an_example_is_read_and_written() {
    let file = read(&example()).unwrap();
    assert_eq!(file.version, 7);
    let [acme, solo] = file.tenants.as_slice() else {
        panic!("{file:?}");
    };
    assert_eq!(solo.state, TenantState::Suspended);
    assert_eq!(solo.limits.as_ref().unwrap().all().len(), 2);
    assert_eq!(acme.limits, None);
    assert_eq!(acme.keys[0].state, KeyState::Revoked);
    assert_eq!(acme.keys[1].state, KeyState::Active);
    assert_eq!(acme.keys[1].sha256.to_string(), "1".repeat(64));
    assert_eq!(
        acme.keys[0].expires_at.unwrap().to_string(),
        "2027-11-24T00:00:00Z"
    );
    assert_eq!(File::parse(&file.to_yaml().unwrap()), Ok(file));
}

#[track_caller]
fn check_refused(from: &str, to: &str, names: &[&str]) {
    let text = example();
    assert!(text.contains(from), "{from}");
    let error = read(&text.replacen(from, to, 1)).unwrap_err().to_string();
    for name in names {
        assert!(error.contains(name), "{error:?} should name {name:?}");
    }
    assert!(
        !error.contains('\n') && !error.contains("weir_sk"),
        "{error:?}"
    );
}

#[test]
fn what_is_wrong_is_named() {
    let two = "1".repeat(64);
    check_refused("version: 7", "version: 0", &["version: ", "found 0"]);
    check_refused("version: 7", "version: -1", &["version: "]);
    check_refused("version: 7", "vresion: 7", &["vresion"]);
    check_refused("version: 7\n", "", &["version"]);
    check_refused("plan: starter", "paln: starter", &["tenants[1]", "paln"]);
    check_refused(
        "plan: starter",
        "plan: gold",
        &["tenants[1].plan: ", "gold", "starter"],
    );
    check_refused(
        "state: suspended",
        "state: paused",
        &["tenants[1].state: ", "paused", "active"],
    );
    check_refused(
        "state: revoked",
        "state: gone",
        &["tenants[0].keys[0].state: ", "gone"],
    );
    check_refused("prefix:", "perfix:", &["tenants[0].keys[0]", "perfix"]);
    check_refused(
        "id: solo",
        "id: acme",
        &["tenants[1].id: ", "acme", "tenants[0]"],
    );
    check_refused("id: solo", "id: so lo", &["tenants[1].id: ", "so lo"]);
    check_refused("id: k2", "id: k1", &["tenants[0].keys[1].id: ", "k1"]);
    check_refused(
        &two,
        &HASH.repeat(32),
        &["tenants[0].keys[1].sha256: ", "keys[0]"],
    );
    check_refused(
        &two,
        "weir_sk_a_secret",
        &["tenants[0].keys[1].sha256: ", "64 hex"],
    );
    check_refused(
        "2027-11-24T01:00:00+01:00",
        "soon",
        &["tenants[0].keys[0].expires_at: ", "soon"],
    );
    check_refused(
        "acme_ab12",
        &"x".repeat(40),
        &["tenants[0].keys[0].prefix: ", "found 48"],
    );
    check_refused("acme_ab12", "é", &["tenants[0].keys[0].prefix: ", "ASCII"]);
    let whole = KeyHash::of(b"weir_sk_acme_ab12").to_string();
    check_refused(
        &HASH.repeat(32),
        &whole,
        &["tenants[0].keys[0].prefix: ", "whole key"],
    );
    check_refused(
        "window_s: 60",
        "window_s: 86401",
        &["tenants[1].limits[1].window_s: ", "found 86401"],
    );
    check_refused(
        "window_s: 60, class",
        "window: 60, class",
        &["tenants[1].limits[1]", "`window`"],
    );
    check_refused(
        "requests: 5",
        "requests: 0",
        &["tenants[1].limits[0].requests"],
    );
    check_refused("- id: solo", "- id: [solo", &["line"]);
    check_refused("id: acme", "id: &a acme\n    <<: *a", &[]);
}

#[test]
fn a_tenant_has_so_many_working_keys() {
    let mut file = read(&example()).unwrap();
    let key = file.tenants[0].keys[1].clone();
    file.tenants[0].keys = (0..=KEYS_MAX)
        .map(|n| Key {
            id: KeyName::new(format!("n{n}")).unwrap(),
            sha256: KeyHash::of(&n.to_le_bytes()),
            ..key.clone()
        })
        .collect();
    let error = file.validate(&plans()).unwrap_err().to_string();
    assert!(
        error.contains("tenants[0].keys: ") && error.contains("1001"),
        "{error}"
    );
    file.tenants[0].keys[0].state = KeyState::Revoked;
    file.validate(&plans()).unwrap();
    // Without plans to compare with, any will do.
    file.tenants[0].plan = PlanName::new("gold").unwrap();
    file.validate(&BTreeSet::new()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Names that YAML could take for something else come back as they were.
    #[test]
    fn what_is_written_is_read(
        names in prop::collection::btree_set("[A-Za-z0-9._-]{1,8}|true|no|null|1e5|0x1f|1_000|-|\\.inf|2026-11-24", 1..5),
        hash in "[0-9]{64}|[0-9]{30}e[0-9]{33}|[0-9a-f]{64}",
        times in prop::collection::vec(prop::option::of(1..LAST), 2),
        limits in prop::option::of(limits()),
        allowance in allowance(),
    ) {
        let names: Vec<String> = names.into_iter().collect();
        let file = File {
            plans: Default::default(),
            version: 1,
            tenants: names.iter().map(|name| Tenant {
                id: TenantId::new(name.as_str()).unwrap(),
                plan: PlanName::new(names[0].as_str()).unwrap(),
                state: TenantState::Suspended,
                limits: limits.clone(),
                allowance,
                keys: vec![Key {
                    id: KeyName::new(name.as_str()).unwrap(),
                    prefix: Some(name.clone()),
                    sha256: KeyHash::parse(&hash).unwrap(),
                    state: KeyState::Revoked,
                    created_at: times[0].and_then(Timestamp::from_ms),
                    expires_at: times[1].and_then(Timestamp::from_ms),
                }],
            }).collect(),
        };
        let text = file.to_yaml().unwrap();
        prop_assert_eq!(File::parse(&text).map_err(|e| format!("{e} in {text}")), Ok(file));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        let _ = read(&text);
        let _ = read(&format!("version: 1\ntenants: {text}"));
    }
}

/// The last millisecond of a time that can be written.
const LAST: u64 = 253_402_300_799_999;

fn limits() -> impl Strategy<Value = Limits> {
    let limit = (1..=u32::MAX, 1..86_401_u32, "[a-z_]{0,8}|true|no|null");
    let limit = limit.prop_map(|(requests, window_s, class)| Limit {
        requests: NonZeroU32::new(requests).unwrap(),
        window_s: NonZeroU32::new(window_s).unwrap(),
        class,
    });
    prop::collection::vec(limit, 0..3).prop_map(Limits::new)
}

fn allowance() -> impl Strategy<Value = Allowance> {
    let budget =
        (0..=1_000_000_000_000_000_u64, 0..=100_u8).prop_map(|(micros, downgrade_percent)| {
            let at_ceiling = [
                AtCeiling::SelfHostedOnly,
                AtCeiling::Reject,
                AtCeiling::AllowOverage,
            ];
            Budget {
                downgrade_percent,
                at_ceiling: at_ceiling[usize::from(downgrade_percent % 3)],
                ..Budget::new(Dollars::from_micros(micros).unwrap())
            }
        });
    let tokens = prop::option::of(1..1_000_000_000_u64);
    let all = (prop::option::of(budget), tokens, prop::option::of(1_u32..));
    all.prop_map(|(budget, tokens, in_flight)| Allowance {
        budget,
        tokens_per_minute: tokens.and_then(NonZeroU64::new),
        in_flight: in_flight.and_then(NonZeroU32::new),
    })
}

#[test]
fn amounts_of_a_tenant_are_read_and_wrong_ones_named() {
    let with = |allowance: &str| {
        let text = format!(
            "version: 1\ntenants:\n  - {{id: acme, plan: starter, allowance: {allowance}}}\n"
        );
        read(&text).map_err(|e| e.to_string())
    };
    let file = with("{budget: {monthly_usd: 12.50}, in_flight: 3}").unwrap();
    let allowance = file.tenants[0].allowance;
    let micros = allowance.budget.unwrap().monthly_usd.micros();
    assert_eq!(
        (micros, allowance.in_flight.unwrap().get()),
        (12_500_000, 3)
    );
    for (wrong, names) in [
        ("{budgets: {}}", "budgets"),
        ("{budget: {monthly_usd: 1.0000001}}", "monthly_usd"),
        (
            "{budget: {monthly_usd: 1, downgrade_percent: 101}}",
            "tenants[0].allowance.budget.downgrade_percent: must be 0 to 100",
        ),
        (
            "{tokens_per_minute: 1000000001}",
            "tenants[0].allowance.tokens_per_minute: must be",
        ),
    ] {
        let error = with(wrong).unwrap_err();
        assert!(error.contains(names), "{error}");
    }
}

#[test]
fn plans_of_the_directory_come_to_those_of_the_router() {
    let with = |plan: &str, body: &str| {
        let text = format!(
            "version: 1\nplans:\n  {plan}: {body}\ntenants:\n  - {{id: acme, plan: team}}\n"
        );
        let file = File::parse(&text).map_err(|e| e.to_string())?;
        file.validate(&plans()).map_err(|e| e.to_string())?;
        Ok::<_, String>(file)
    };
    let file = with(
        "team",
        "{tiers: [fast], max_tokens: 100, limits: [{requests: 5, window_s: 1}], budget: {monthly_usd: 0.5}, weight: 3, hedge_ms: 900}",
    )
    .unwrap();
    // What is written is what was read.
    let again = File::parse(&file.to_yaml().unwrap()).unwrap();
    assert_eq!(again, file);
    let taken = plans().first().unwrap().to_string();
    for (plan, body, names) in [
        ("other", "{tiers: [fast]}", "tenants[0].plan"),
        (taken.as_str(), "{tiers: [fast]}", "plans."),
        (
            "team",
            "{tiers: [fast], max_tokens: 0}",
            "plans.team.max_tokens",
        ),
        ("team", "{tiers: [fast], timeout: 5}", "timeout"),
        (
            "team",
            "{budget: {monthly_usd: 1, downgrade_percent: 200}}",
            "plans.team.budget.downgrade_percent",
        ),
        (
            "team",
            "{tiers: [fast], limits: [{requests: 1, window_s: 90000}]}",
            "plans.team.limits[0].window_s",
        ),
    ] {
        let error = with(plan, body).unwrap_err();
        assert!(error.contains(names), "{error}");
    }
}
