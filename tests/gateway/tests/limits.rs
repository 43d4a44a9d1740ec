//! How many requests a tenant may make, in the real Envoy.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use serde_json::json;
use weir_gateway_tests::{
    Fixture,
    fixture::{ACME, BODY, CHAT_PATH, SOLO},
};
use weir_harness::{
    client,
    envoy::{Gateway, GatewayOptions, Quota, Tenant},
    secrets,
};

/// Sends `count` chats by `key` from eight threads to those gateways in turn;
/// gives how many passed and how many were refused.
fn storm(gateways: &[&Gateway], key: &str, count: usize) -> (usize, usize) {
    let (passed, refused, next) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let http = client::client();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let url = &gateways[n % gateways.len()].url;
                    let answer = http
                        .post(format!("{url}{CHAT_PATH}"))
                        .bearer_auth(key)
                        .body(BODY)
                        .send()
                        .unwrap();
                    let counter = match answer.status().as_u16() {
                        200 => &passed,
                        429 => &refused,
                        other => panic!("{other}"),
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (passed.into_inner(), refused.into_inner())
}

#[test]
fn beyond_the_limit_is_429_with_a_time_to_wait() {
    let f = Fixture::with(|options| options.limits = vec![("starter".into(), 3)]);
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(f.chat(SOLO).status(), 200);
    }
    let answer = f.chat(SOLO);
    let passed_s = begun.elapsed().as_secs() + 5;
    let wait: u64 = answer.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    // A place comes free after the window and at most one sub-window.
    let least = 60_u64.saturating_sub(passed_s);
    assert!((least..=62).contains(&wait), "{wait}");
    // Another tenant is not concerned.
    f.check_refused(answer, 429, "rate_limit_exceeded");
}

#[test]
fn concurrent_requests_over_two_workers_admit_the_limit_exactly() {
    let f = Fixture::with(|options| options.limits = vec![("starter".into(), 60)]);
    assert_eq!(storm(&[&f.gateway], f.key(SOLO), 240), (60, 180));
}

/// The race that matters is in a tenant's very first requests, when its record
/// is not there yet: two workers must not both create it.
#[test]
fn first_requests_at_the_same_moment_are_all_counted() {
    const THREADS: usize = 4;
    let tenants: Vec<Tenant> = (0..400)
        .map(|n| Tenant {
            id: format!("t{n}"),
            plan: "starter".into(),
            key: secrets::api_key("starter"),
        })
        .collect();
    let f = Fixture::with(|options| {
        options.limits = vec![("starter".into(), 1)];
        options.tenants = tenants.clone();
    });
    let passed: Vec<AtomicUsize> = tenants.iter().map(|_| AtomicUsize::new(0)).collect();
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let http = client::client();
                for (tenant, passed) in tenants.iter().zip(&passed) {
                    let request = http
                        .post(format!("{}{CHAT_PATH}", f.gateway.url))
                        .bearer_auth(&tenant.key)
                        .body(BODY);
                    barrier.wait();
                    if request.send().unwrap().status() == 200 {
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let passed: Vec<usize> = passed.into_iter().map(AtomicUsize::into_inner).collect();
    assert!(passed.iter().all(|n| *n == 1), "{passed:?}");
}

#[test]
fn two_gateways_together_never_pass_the_limit() {
    let f = Fixture::with(|options| {
        options.limits = vec![("starter".into(), 25)];
        options.gateways = 2;
    });
    let folder = tempfile::tempdir().unwrap();
    let second = Gateway::start("second", &f.options, folder.path()).unwrap();
    // Each has its half, rounded down.
    assert_eq!(storm(&[&f.gateway, &second], f.key(SOLO), 100), (24, 76));
}

#[test]
fn refused_requests_reach_nobody_and_bill_nothing() {
    let f = Fixture::with(|options| options.limits = vec![("starter".into(), 2)]);
    storm(&[&f.gateway], f.key(SOLO), 10);
    assert_eq!(f.upstream.requests().len(), 2);
    assert_eq!(f.chat(ACME).status(), 200);
    assert_eq!(f.upstream.events(3).len(), 3);
    assert_eq!(f.gateway.counter("weir_rate_limit_admitted"), 3);
    assert_eq!(f.gateway.counter("weir_rate_limit_refused"), 8);
}

/// A gateway whose quota service is not there.
fn without_service(on_failure: &str) -> Fixture {
    // Nobody listens on a port that was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let change = |options: &mut GatewayOptions| {
        options.quota = Some(Quota {
            address,
            token: secrets::random(),
        });
        let limit = json!({"requests": 50, "window_s": 60});
        let settings = json!({
            "quota": {"cluster": "weir_quota", "on_failure": on_failure},
            "gateways": 2,
            "plans": {"starter": limit, "enterprise": limit},
        });
        options.rate_limiting = settings.as_object().unwrap().clone();
    };
    Fixture::with(change)
}

#[test]
fn without_the_service_the_policy_decides() {
    let denies = without_service("deny");
    let answer = denies.chat(SOLO);
    assert_eq!(answer.status(), 503);
    let error: serde_json::Value = answer.json().unwrap();
    assert_eq!(error["error"]["code"], "rate_limit_unavailable");

    // Its share of the plan's limit, as it has heard of no other.
    let counts = without_service("local");
    assert_eq!(storm(&[&counts.gateway], counts.key(SOLO), 80), (25, 55));

    let allows = without_service("allow");
    assert_eq!(storm(&[&allows.gateway], allows.key(SOLO), 80), (80, 0));
    for f in [denies, counts, allows] {
        assert!(f.gateway.counter("weir_rate_limit_degraded") > 0);
        // The service is asked now and then, not by every request.
        let calls = f.gateway.counter("weir_rate_limit_calls");
        assert!(calls < 40, "{calls}");
    }
}
