//! Each change, on a file with two tenants.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use std::num::{NonZeroU32, NonZeroU64};

use super::*;
use crate::allowance::Budget;

const FILE: &str = "\
version: 1
tenants:
  - id: acme
    plan: pro
    limits: [{requests: 5, window_s: 60}]
    keys:
      - {id: k1, prefix: weir_sk_one_, sha256: 1111111111111111111111111111111111111111111111111111111111111111, expires_at: 2026-11-25T00:00:00Z}
      - {id: k2, sha256: 2222222222222222222222222222222222222222222222222222222222222222, state: revoked}
  - id: solo
    plan: pro
    state: suspended
    keys:
      - {id: k1, prefix: weir_sk_two_, sha256: 3333333333333333333333333333333333333333333333333333333333333333}
";

fn file() -> File {
    File::parse(FILE).unwrap()
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn now() -> Timestamp {
    time("2026-11-24T00:00:00Z")
}

fn tenant(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

fn plan(name: &str) -> PlanName {
    PlanName::new(name).unwrap()
}

fn name(name: &str) -> KeyName {
    KeyName::new(name).unwrap()
}

fn new_key(name: Option<&str>, expires_at: Option<&str>) -> NewKey {
    NewKey {
        name: name.map(self::name),
        expires_at: expires_at.map(time),
        secret: Secret::of([7; 32]),
    }
}

fn limits(json: &str) -> Limits {
    serde_json::from_str(json).unwrap()
}

fn update(id: &str, plan: Option<&str>, limits: Option<Option<Limits>>) -> Change {
    Change::Update {
        tenant: tenant(id),
        plan: plan.map(self::plan),
        limits,
    }
}

fn rotate(key: &str, until: &str, expires_at: Option<&str>, never_expires: bool) -> Change {
    Change::Rotate {
        tenant: tenant("acme"),
        key: name(key),
        until: time(until),
        successor: new_key(None, expires_at),
        never_expires,
    }
}

/// Makes a change that does these things, and says that; gives the file.
#[track_caller]
fn check(change: Change, actions: &[Action], says: &str) -> File {
    let mut file = file();
    let done = change.apply(&mut file, now()).unwrap_or_else(|error| {
        panic!("{error}");
    });
    let found: Vec<Action> = done.facts.iter().map(|fact| fact.action).collect();
    assert_eq!(found, actions);
    assert_eq!(done.is_change(), file != self::file());
    let notes = done.notes.join("\n");
    assert!(notes.contains(says), "{notes} should say {says}");
    file.validate(&Default::default()).unwrap();
    file
}

#[track_caller]
fn check_refused(change: Change, says: &str) {
    let error = change.apply(&mut file(), now()).err().unwrap().to_string();
    assert!(error.contains(says), "{error} should say {says}");
}

#[test]
fn tenants() {
    let add = |id: &str, plan: &str, limits: Option<&str>| Change::AddTenant {
        tenant: tenant(id),
        plan: self::plan(plan),
        limits: limits.map(self::limits),
    };
    let created = check(
        add("new", "free", Some(r#"[{"requests":1,"window_s":1}]"#)),
        &[Action::TenantCreate],
        "no other tenant has the plan free",
    );
    assert!(created.tenants[2].limits.is_some());
    check(add("acme", "pro", None), &[], "is there already");
    check_refused(add("acme", "free", None), "with the plan pro");
    let wrong = Some(r#"[{"requests":1,"window_s":1,"class":"chess"}]"#);
    check_refused(add("new", "free", wrong), "limits[0].class: must be one of");
    check(
        Change::Suspend(tenant("acme")),
        &[Action::TenantSuspend],
        "acme is suspended",
    );
    check(Change::Suspend(tenant("solo")), &[], "already");
    check(
        Change::Resume(tenant("solo")),
        &[Action::TenantResume],
        "solo is active",
    );
    check_refused(Change::Resume(tenant("other")), "there is no other");
}

#[test]
fn plans_and_limits() {
    let one = || limits(r#"[{"requests":9,"window_s":1}]"#);
    let (of_plan, none) = (Some(None), Some(Some(Limits::default())));
    check(update("acme", Some("pro"), None), &[], "already");
    check(
        update("acme", Some("free"), None),
        &[Action::TenantPlan],
        "acme is on the plan free",
    );
    for (limits, says, after) in [
        (of_plan.clone(), "acme has the limits of its plan", None),
        (none, "acme has no limits", Some(Limits::default())),
        (
            Some(Some(one())),
            "acme has 1 limits of its own",
            Some(one()),
        ),
    ] {
        let file = check(update("acme", None, limits), &[Action::TenantLimits], says);
        assert_eq!(file.tenants[0].limits, after);
    }
    check(update("solo", None, of_plan.clone()), &[], "already");
    check(
        update("acme", Some("free"), of_plan),
        &[Action::TenantLimits, Action::TenantPlan],
        "acme has the limits of its plan",
    );
    let twice = limits(r#"[{"requests":9,"window_s":1},{"requests":8,"window_s":1}]"#);
    check_refused(
        update("acme", None, Some(Some(twice))),
        "limits[1]: another",
    );
    check_refused(update("other", None, None), "there is no other");
}

#[test]
fn keys_are_made_and_give_way() {
    let make = |id: &str, plan: Option<&str>, key: NewKey| Change::Make {
        tenant: tenant(id),
        plan: plan.map(self::plan),
        key,
    };
    let file = check(
        make("acme", None, new_key(None, None)),
        &[Action::KeyMake],
        "acme k3 (weir_sk_",
    );
    assert_eq!(file.tenants[0].keys[2].sha256, Secret::of([7; 32]).hash());
    check(
        make("new", Some("pro"), new_key(Some("ci"), None)),
        &[Action::TenantCreate, Action::KeyMake],
        "new ci",
    );
    let suspended = make("solo", None, new_key(None, None));
    check(suspended, &[Action::KeyMake], "solo is suspended");
    let there = make("acme", None, new_key(Some("k2"), None));
    check_refused(there, "has a key k2 already");
    let over = make("acme", None, new_key(None, Some("2026-11-24T00:00:00Z")));
    check_refused(over, "expires_at: must be after now");
    check_refused(make("new", None, new_key(None, None)), "there is no new");

    let later = "2026-12-24T00:00:00Z";
    check_refused(rotate("k1", later, None, false), "acme k1 expires");
    check_refused(rotate("k2", later, None, true), "is revoked");
    check_refused(rotate("k9", later, None, true), "acme has no k9");
    for (until, ends) in [
        (later, "2026-11-25T00:00:00Z"),
        ("2026-11-24T01:00:00Z", "2026-11-24T01:00:00Z"),
    ] {
        for (expires_at, never_expires) in [(Some(later), false), (None, true)] {
            let change = rotate("k1", until, expires_at, never_expires);
            let file = check(change, &[Action::KeyRotate], "acme k1 expires");
            let keys = &file.tenants[0].keys;
            assert_eq!(keys[0].expires_at, Some(time(ends)));
            assert_eq!(keys[2].expires_at, expires_at.map(time));
        }
    }
}

#[test]
fn a_key_is_revoked_by_whatever_names_it() {
    let acme = || Some(tenant("acme"));
    let hash = |digit: &str| KeyHash::parse(&digit.repeat(64)).unwrap();
    let prefix = |tenant: Option<TenantId>, text: &str| Which::Prefix(tenant, text.to_owned());
    for which in [
        Which::Name(tenant("acme"), name("k1")),
        prefix(None, "weir_sk_one_"),
        prefix(acme(), "weir_sk_one_"),
        Which::Hash(None, hash("1")),
    ] {
        let file = check(Change::Revoke(which), &[Action::KeyRevoke], "acme k1");
        assert!(!file.tenants[0].keys[0].state.is_active());
    }
    let again = Which::Name(tenant("acme"), name("k2"));
    check(Change::Revoke(again), &[], "acme k2 is revoked already");
    for (which, says) in [
        (prefix(None, "weir_sk_"), "at least 12"),
        (prefix(acme(), "weir_sk_two_"), "no such key"),
        (Which::Hash(None, hash("4")), "no such key"),
        (
            Which::Name(tenant("other"), name("k1")),
            "there is no other",
        ),
    ] {
        check_refused(Change::Revoke(which), says);
    }
}

#[test]
fn amounts() {
    let allow = |id: &str, allow: Allow| Change::Allow {
        tenant: tenant(id),
        allow,
    };
    let budget = |json: &str| serde_json::from_str::<Budget>(json).unwrap();
    let of_plan = Allow {
        budget: Some(None),
        ..Allow::default()
    };
    check(allow("acme", of_plan), &[], "what its plan allows already");
    let own = Allow {
        budget: Some(Some(budget(r#"{"monthly_usd":"12.50"}"#))),
        tokens_per_minute: Some(NonZeroU64::new(5)),
        ..Allow::default()
    };
    let mut file = check(
        allow("acme", own),
        &[Action::TenantAllowance],
        "acme has 12.50 dollars a month, 5 tokens a minute of its own",
    );
    assert_eq!(file.tenants[0].allowance.budget, own.budget.unwrap());
    // One bound is the plan's again, one is new, one stays.
    let other = Allow {
        in_flight: Some(NonZeroU32::new(2)),
        ..of_plan
    };
    let done = allow("acme", other).apply(&mut file, now()).ok().unwrap();
    let says = "acme has 5 tokens a minute, 2 requests in flight of its own";
    assert_eq!(done.notes, [says]);
    assert_eq!(done.facts[0].allowance, Some(file.tenants[0].allowance));
    let wrong = Allow {
        budget: Some(Some(budget(r#"{"monthly_usd":1,"downgrade_percent":101}"#))),
        ..Allow::default()
    };
    check_refused(allow("acme", wrong), "budget.downgrade_percent: must be");
    check_refused(allow("other", own), "there is no other");
}
