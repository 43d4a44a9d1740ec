//! What is checked of an event, each rule by itself.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::proto::{context::TenantContext, usage::ModelUsage};

const KEYS: &str = "k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn keys() -> Keyring {
    Keyring::parse(KEYS).unwrap()
}

pub(crate) fn event() -> UsageEvent {
    let request_id = RequestId::mint(1_795_000_000_000, [3; 10]).to_string();
    let signed = context::sign(
        &TenantContext {
            tenant: "acme".into(),
            plan: "starter".into(),
            request_id: request_id.clone(),
            issued_at_ms: 1_795_000_000_000,
        },
        &keys(),
    );
    UsageEvent {
        kind: Kind::Request.into(),
        event_id: "e1".into(),
        request_id,
        witness: Witness::Router.into(),
        tenant: "acme".into(),
        request_class: "chat".into(),
        outcome: Outcome::Completed.into(),
        usage: vec![ModelUsage {
            input_tokens: 7,
            source: UsageSource::Reported.into(),
            ..ModelUsage::default()
        }],
        tenant_context: signed,
        ..UsageEvent::default()
    }
}

pub(crate) fn storage() -> UsageEvent {
    UsageEvent {
        kind: Kind::Storage.into(),
        event_id: "s1".into(),
        request_id: RequestId::mint(1_795_000_000_000, [4; 10]).to_string(),
        witness: Witness::Service.into(),
        tenant: "acme".into(),
        started_at_ms: 1_795_000_000_123,
        storage_mb_hours: 2_048,
        ..UsageEvent::default()
    }
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut UsageEvent), names: &str) {
    check_refused_of(event(), change, names);
}

#[track_caller]
fn check_refused_of(mut wrong: UsageEvent, change: impl FnOnce(&mut UsageEvent), names: &str) {
    change(&mut wrong);
    for rule in [ContextRule::Needed, ContextRule::IfPresent] {
        let error = check(&wrong, &keys(), rule).unwrap_err().to_string();
        assert!(error.contains(names), "{error} should name {names}");
    }
}

#[test]
fn a_whole_event_passes() {
    for (event, witness) in [(event(), Witness::Router), (storage(), Witness::Service)] {
        let checked = check(&event, &keys(), ContextRule::Needed).unwrap();
        assert_eq!(checked.tenant.as_str(), "acme");
        assert_eq!(checked.witness, witness);
    }
}

#[test]
fn an_operator_needs_no_context() {
    let mut bare = event();
    bare.tenant_context.clear();
    assert!(check(&bare, &keys(), ContextRule::IfPresent).is_ok());
    let error = check(&bare, &keys(), ContextRule::Needed).unwrap_err();
    assert!(matches!(error, EventError::Context(_)), "{error}");
}

#[test]
fn each_fault_of_storage_is_named() {
    let check = |change: fn(&mut UsageEvent), names| check_refused_of(storage(), change, names);
    check(|e| e.witness = Witness::Router.into(), "kind");
    check(|e| e.kind = Kind::Request.into(), "kind");
    check(|e| e.kind = Kind::Job.into(), "kind");
    check(|e| e.tenant.clear(), "tenant");
    check(|e| e.request_id = "hour".into(), "request id");
    check(|e| e.event_id.clear(), "event_id");
    check(|e| e.tenant_context = "v1.k.x.y".into(), "tenant_context");
    check(|e| e.usage = vec![ModelUsage::default()], "usage");
    check(|e| e.outcome = Outcome::Completed.into(), "outcome");
    check(|e| e.outcome = 77, "outcome");
    check(|e| e.storage_mb_hours = u64::MAX, "storage_mb_hours");
}

#[test]
fn each_fault_is_named() {
    check_refused(|e| e.kind = 0, "kind");
    check_refused(|e| e.kind = 77, "kind");
    check_refused(|e| e.witness = 9, "witness");
    check_refused(|e| e.outcome = 0, "outcome");
    check_refused(|e| e.tenant = "other".into(), "tenant");
    check_refused(|e| e.tenant = "a b".into(), "tenant");
    check_refused(|e| e.request_id = "x".into(), "request id");
    check_refused(
        |e| e.request_id = RequestId::mint(1, [0; 10]).to_string(),
        "request_id",
    );
    check_refused(|e| e.tenant_context.push('x'), "tenant context");
    check_refused(|e| e.event_id.clear(), "event_id");
    check_refused(|e| e.storage_mb_hours = 1, "storage_mb_hours");
    check_refused(|e| e.witness = Witness::Service.into(), "kind");
    check_refused(|e| e.usage[0].input_tokens = TOKENS_MAX + 1, "input_tokens");
    check_refused(|e| e.usage[0].source = 0, "usage.source");
    check_refused(|e| e.usage[0].cost_micros = Some(u64::MAX), "cost_micros");
    check_refused(|e| e.usage[0].price_micros = Some(u64::MAX), "price_micros");
    let priced = |e: &mut UsageEvent| {
        e.usage[0].unbilled = true;
        e.usage[0].price_micros = Some(1);
    };
    check_refused(priced, "price_micros");
    check_refused(|e| e.usage = vec![ModelUsage::default(); 33], "usage");
}

#[test]
fn witnesses_rank_as_the_design_says() {
    let of = |witness: Witness, source: UsageSource| {
        let mut e = event();
        e.witness = witness.into();
        e.usage[0].source = source.into();
        rank(&e)
    };
    let order = [
        of(Witness::Router, UsageSource::Reported),
        of(Witness::Gateway, UsageSource::Reported),
        of(Witness::Router, UsageSource::Estimated),
        of(Witness::Gateway, UsageSource::Estimated),
        of(Witness::Router, UsageSource::None),
    ];
    assert!(order.windows(2).all(|w| w[0] > w[1]), "{order:?}");
    // What is not billed neither lowers nor raises it.
    for (source, other, expected) in [
        (UsageSource::Reported, UsageSource::Estimated, 5),
        (UsageSource::Reported, UsageSource::None, 5),
        (UsageSource::Estimated, UsageSource::Reported, 3),
    ] {
        let mut two = event();
        two.usage[0].source = source.into();
        let mut unbilled = two.usage[0].clone();
        unbilled.source = other.into();
        unbilled.unbilled = true;
        two.usage.push(unbilled);
        assert_eq!(rank(&two), expected);
        two.usage.remove(0);
        assert_eq!(rank(&two), 1);
    }
    let mut silent = event();
    silent.usage.clear();
    assert_eq!(rank(&silent), 1);
}
