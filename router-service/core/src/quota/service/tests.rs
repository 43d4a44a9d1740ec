//! Which limits apply to whom, what is no request, and how an answer is told.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_wire::proto::quota::Outcome;

use super::*;

fn request() -> proto::AcquireRequest {
    proto::AcquireRequest {
        tenant: "acme".to_owned(),
        plan: "starter".to_owned(),
        class: "chat".to_owned(),
        acquire_id: vec![7; 16],
        wanted: 3,
        life_ms: 2_000,
        gateway: 1,
        epoch: "e1".to_owned(),
        closed: vec![closed("", 1)],
    }
}

fn closed(tenant: &str, id: u8) -> proto::ClosedLease {
    proto::ClosedLease {
        tenant: tenant.to_owned(),
        lease_id: vec![id; 16],
        spent: 2,
        age_ms: 9,
    }
}

const CLOSING: Closing = Closing {
    id: [1; 16],
    spent: 2,
    age_ms: 9,
};

fn plans() -> Plans {
    let plans = r#"{
        "starter":{"tiers":[],"limits":[{"requests":100,"window_s":60}]},
        "pro":{"tiers":[],"limits":[{"requests":1000,"window_s":60},{"requests":5,"window_s":1,"class":"chat"}]},
        "embedding_only":{"tiers":[],"limits":[{"requests":9,"window_s":60,"class":"embedding"}]},
        "free":{"tiers":[]}}"#;
    Plans::new(&serde_json::from_str(plans).unwrap())
}

fn tenants() -> Tenants {
    let text = concat!(
        "version: 1\ntenants:\n",
        "  - {id: promoted, plan: pro}\n",
        "  - {id: own, plan: starter, limits: [{requests: 7, window_s: 1}]}\n",
        "  - {id: open, plan: starter, limits: [], allowance: {in_flight: 2}}\n"
    );
    Tenants::of(&File::parse(text).unwrap())
}

/// The requests of the limits that a store is asked about, or what is settled.
#[track_caller]
fn check_resolved(tenant: &str, plan: &str, class: &str, expected: Result<&[u32], (Outcome, u32)>) {
    let request = proto::AcquireRequest {
        tenant: tenant.to_owned(),
        plan: plan.to_owned(),
        class: class.to_owned(),
        ..request()
    };
    let wish = Wish::try_from(request).unwrap();
    match plans().resolve(wish, &tenants(), 4) {
        Resolved::Ask(ask) => {
            let found: Vec<u32> = ask.limits.iter().map(|l| l.requests.get()).collect();
            assert_eq!(Ok(found.as_slice()), expected);
            let limits = ask.limits.clone();
            let whole = Ask {
                tenant: tenant.to_owned(),
                limits,
                id: [7; 16],
                wanted: 3,
                life_ms: 2_000,
                gateways: 4,
                epoch: "e1".to_owned(),
                closing: vec![CLOSING],
            };
            assert_eq!(ask, whole);
        }
        Resolved::Settled { response, closing } => {
            let found = (response.outcome(), response.life_ms);
            assert_eq!(Err(found), expected);
            assert_eq!(response.granted, 0);
            assert_eq!(closing, [(tenant.to_owned(), CLOSING)]);
        }
    }
}

#[test]
fn the_directory_knows_better_than_the_gateway() {
    let unlimited = Err((Outcome::Unlimited, 2_000));
    let unknown = Err((Outcome::UnknownPlan, 1_000));
    for (tenant, plan, class, expected) in [
        ("other", "starter", "chat", Ok([100].as_slice())),
        ("other", "pro", "chat", Ok(&[1000, 5])),
        ("other", "pro", "", Ok(&[1000])),
        ("other", "embedding_only", "embedding", Ok(&[9])),
        ("other", "embedding_only", "chat", unlimited),
        ("other", "free", "chat", unlimited),
        ("other", "gold", "chat", unknown),
        ("other", "", "chat", unknown),
        ("promoted", "starter", "chat", Ok(&[1000, 5])),
        ("promoted", "gold", "", Ok(&[1000])),
        ("own", "pro", "chat", Ok(&[7])),
        ("open", "starter", "chat", unlimited),
    ] {
        check_resolved(tenant, plan, class, expected);
    }
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut proto::AcquireRequest), says: &str) {
    let mut request = request();
    change(&mut request);
    let error = Wish::try_from(request).unwrap_err().to_string();
    assert!(error.contains(says), "{error} should say {says}");
}

#[test]
fn what_is_wrong_is_named() {
    check_refused(|r| r.tenant.clear(), "tenant: ");
    check_refused(|r| r.tenant = "a b".to_owned(), "tenant: ");
    check_refused(|r| r.plan = "a{b}".to_owned(), "plan: ");
    check_refused(|r| r.class = "Chat".to_owned(), "class: ");
    check_refused(|r| r.class = "c".repeat(33), "class: must be up to 32");
    check_refused(
        |r| r.acquire_id.clear(),
        "acquire_id: must be 16 bytes, found 0",
    );
    check_refused(|r| r.acquire_id.push(0), "found 17");
    check_refused(|r| r.wanted = 0, "wanted: ");
    check_refused(|r| r.epoch = "e".repeat(201), "epoch: must be at most 200");
    check_refused(
        |r| r.closed = vec![closed("", 1); 65],
        "closed: must be at most 64",
    );
    check_refused(|r| r.closed.push(closed("other", 1)), "closed[1].tenant: ");
    check_refused(|r| r.closed[0].lease_id.clear(), "closed[0].lease_id: ");
    let mut most = request();
    most.class = "c".repeat(32);
    most.epoch = "e".repeat(200);
    most.closed = vec![closed("acme", 1); 64];
    assert!(Wish::try_from(most).is_ok());
}

#[test]
fn what_is_given_back_alone_names_its_tenant() {
    let check = |closed: Vec<proto::ClosedLease>, expected: Result<usize, &str>| {
        let found = closing(&proto::CloseRequest { closed });
        let found = found.map(|c| c.len()).map_err(|e| e.field);
        assert_eq!(found, expected.map_err(str::to_owned));
    };
    check(vec![], Ok(0));
    check(vec![closed("a", 1), closed("b", 2)], Ok(2));
    check(vec![closed("a", 1), closed("", 2)], Err("closed[1].tenant"));
    check(vec![closed("a", 1); 513], Err("closed"));
    let mut short = closed("a", 1);
    short.lease_id.pop();
    check(vec![short], Err("closed[0].lease_id"));
}

#[test]
fn an_answer_is_told() {
    let limits: Limits = serde_json::from_str(
        r#"[{"requests":100,"window_s":60},{"requests":5,"window_s":1,"class":"chat"}]"#,
    )
    .unwrap();
    let check = |granted, expected: (Outcome, u32, u32, u64)| {
        let state = |remaining| LimitState {
            remaining,
            reset_ms: 60_250,
        };
        let answer = Answer {
            granted,
            epoch: "e1".to_owned(),
            limits: vec![state(99), state(1 << 40)],
        };
        let told = told(limits.all(), answer);
        let found = (
            told.outcome(),
            told.granted,
            told.life_ms,
            told.retry_after_ms,
        );
        assert_eq!(found, expected);
        assert_eq!(told.epoch, "e1");
        let [all, chat] = told.limits.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!((all.requests, all.window_s, all.remaining), (100, 60, 99));
        assert_eq!((all.class.as_str(), all.reset_ms), ("", 60_250));
        assert_eq!((chat.class.as_str(), chat.remaining), ("chat", u32::MAX));
    };
    let lease = Granted::Lease {
        requests: 4,
        life_ms: 2_000,
    };
    check(lease, (Outcome::Granted, 4, 2_000, 0));
    for (free_in_ms, life_ms) in [(0, 1), (1, 1), (999, 999), (62_000, 1_000)] {
        let denied = Granted::Denied { free_in_ms };
        check(denied, (Outcome::Denied, 0, life_ms, free_in_ms));
    }
    let fenced = Granted::Fenced {
        until_in_ms: 62_000,
    };
    check(fenced, (Outcome::Fenced, 0, 500, 62_000));
}

#[test]
fn what_a_tenant_is_allowed_is_found() {
    let (tenants, id) = (tenants(), |id| TenantId::new(id).unwrap());
    let found = tenants.allowance(&id("open")).unwrap();
    assert_eq!(found.in_flight.unwrap().get(), 2);
    assert!(tenants.allowance(&id("own")).unwrap().is_empty());
    assert_eq!(tenants.allowance(&id("nobody")), None);
}
