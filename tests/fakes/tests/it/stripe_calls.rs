//! What all of Stripe's calls share: keys, versions, idempotency, faults, lists.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};

use crate::client::{FakeStripe, STRIPE_KEY, send};

const METERS: &str = "/v1/billing/meters";

async fn customers(fake: &FakeStripe) -> usize {
    fake.state().await["customers"].as_array().unwrap().len()
}

#[tokio::test]
async fn keys_are_checked_in_both_forms() {
    let fake = FakeStripe::start().await;
    let basic = |user: &str| format!("Basic {}", STANDARD.encode(user));
    for (value, status) in [
        (format!("Bearer {STRIPE_KEY}"), 200),
        (basic(&format!("{STRIPE_KEY}:")), 200),
        (basic(STRIPE_KEY), 200),
        (basic("sk_test_other:"), 401),
        ("Bearer sk_test_other".to_owned(), 401),
        ("Bearer ".to_owned(), 401),
        ("Basic !".to_owned(), 401),
        (STRIPE_KEY.to_owned(), 401),
    ] {
        let headers = [("authorization", value.as_str())];
        let reply = send(Method::GET, fake.url(METERS), &headers, "")
            .await
            .unwrap();
        assert_eq!(reply.status, status, "{value}: {}", reply.text);
        assert!(
            reply
                .header("request-id")
                .is_some_and(|id| id.starts_with("req_"))
        );
    }
    let reply = send(Method::GET, fake.url(METERS), &[], "")
        .await
        .unwrap()
        .with_status(401);
    assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn versions_are_echoed_or_refused() {
    let fake = FakeStripe::start().await;
    let check = async |version: Option<&str>, status: u16, echoed: &str| {
        let headers: Vec<_> = version
            .map(|version| ("stripe-version", version))
            .into_iter()
            .collect();
        let reply = fake
            .try_call(Method::GET, METERS, &[], &headers)
            .await
            .unwrap();
        assert_eq!(
            (reply.status, reply.header("stripe-version")),
            (status, Some(echoed))
        );
    };
    check(None, 200, "2026-10-28.endive").await;
    check(Some("2024-06-20"), 200, "2024-06-20").await;
    check(Some("2025-03-31.basil"), 200, "2025-03-31.basil").await;
    check(Some("latest"), 400, "latest").await;
}

#[tokio::test]
async fn a_key_replays_the_first_answer() {
    let fake = FakeStripe::start().await;
    let call = async |key: &str, name: &str| {
        let headers = [("idempotency-key", key)];
        fake.try_call(Method::POST, "/v1/customers", &[("name", name)], &headers)
            .await
            .unwrap()
    };
    let first = call("k1", "Acme").await.with_status(200);
    assert_eq!(first.header("idempotent-replayed"), None);
    let again = call("k1", "Acme").await.with_status(200);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.json(), again.json());
    assert_ne!(first.header("request-id"), again.header("request-id"));
    let other = call("k1", "Other").await.with_status(400);
    assert_eq!(other.json()["error"]["type"], "idempotency_error");
    call("k2", "Acme").await.with_status(200);
    call(&"k".repeat(256), "Acme").await.with_status(400);
    assert_eq!(customers(&fake).await, 2);
    // After a day the key is forgotten.
    fake.control("/__fake/clock", &json!({"offset_s": 86_400}))
        .await;
    assert_eq!(
        call("k1", "Other")
            .await
            .with_status(200)
            .header("idempotent-replayed"),
        None
    );
}

#[tokio::test]
async fn a_key_keeps_what_was_carried_out_and_nothing_else() {
    let fake = FakeStripe::start().await;
    // What the fault does, the first status, what the repeat gives, whether it is a replay, customers made.
    for (fault, first, second, replayed, made) in [
        (json!({"status": 500}), 500, 500, true, 0),
        (json!({"status": 429}), 429, 200, false, 1),
        (json!({"accept_then_status": 500}), 500, 500, true, 1),
        (json!({"accept_then_status": 429}), 429, 429, true, 1),
    ] {
        let before = customers(&fake).await;
        let key = fault.to_string();
        let headers = [("idempotency-key", key.as_str())];
        let mut fault = fault.clone();
        fault["times"] = json!(1);
        fake.control("/__fake/faults", &fault).await;
        for (status, is_replay) in [(first, false), (second, replayed)] {
            let call = fake.try_call(Method::POST, "/v1/customers", &[("name", "A")], &headers);
            let reply = call.await.unwrap().with_status(status);
            assert_eq!(
                reply.header("idempotent-replayed").is_some(),
                is_replay,
                "{fault}"
            );
        }
        assert_eq!(customers(&fake).await - before, made, "{fault}");
    }
    // An invalid request is not kept either.
    let headers = [("idempotency-key", "invalid")];
    let call = async |form: &[(&str, &str)]| {
        fake.try_call(Method::POST, "/v1/products", form, &headers)
            .await
            .unwrap()
    };
    call(&[]).await.with_status(400);
    call(&[("name", "P")]).await.with_status(200);
}

#[tokio::test]
async fn a_dropped_answer_was_carried_out() {
    let fake = FakeStripe::start().await;
    fake.control(
        "/__fake/faults",
        &json!({"times": 1, "accept_then_drop": true}),
    )
    .await;
    let headers = [("idempotency-key", "dropped")];
    let call = || fake.try_call(Method::POST, "/v1/customers", &[("name", "A")], &headers);
    call().await.unwrap_err();
    assert_eq!(customers(&fake).await, 1);
    let reply = call().await.unwrap().with_status(200);
    assert_eq!(reply.header("idempotent-replayed"), Some("true"));
    assert_eq!(customers(&fake).await, 1);
}

#[tokio::test]
async fn work_goes_on_when_the_client_leaves() {
    let fake = FakeStripe::start().await;
    fake.control("/__fake/faults", &json!({"times": 1, "delay_ms": 5_000}))
        .await;
    // The call comes there in it, and its answer does not.
    let impatient = std::time::Duration::from_secs(1);
    let call = fake.post("/v1/customers", &[("name", "A")]);
    tokio::time::timeout(impatient, call).await.unwrap_err();
    crate::client::eventually(|| fake.stripe.state()["customers"][0]["name"] == "A").await;
}

#[tokio::test]
async fn a_key_in_use_is_refused() {
    let fake = FakeStripe::start().await;
    fake.control("/__fake/faults", &json!({"times": 1, "delay_ms": 3_000}))
        .await;
    let headers = [("idempotency-key", "both")];
    let call = || fake.try_call(Method::POST, "/v1/customers", &[("name", "A")], &headers);
    let (one, other) = tokio::join!(call(), call());
    let mut statuses = [one.unwrap().status, other.unwrap().status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
}

#[tokio::test]
async fn faults_match_and_carry_headers() {
    let fake = FakeStripe::start().await;
    for (status, kind, should_retry) in [
        (500, "api_error", true),
        (429, "invalid_request_error", false),
        (409, "invalid_request_error", true),
    ] {
        let fault = json!({
            "path": METERS, "method": "get", "times": 1, "status": status,
            "should_retry": should_retry, "retry_after_s": 3,
        });
        fake.control("/__fake/faults", &fault).await;
        fake.get("/v1/customers", &[]).await.with_status(200);
        fake.post(METERS, &[]).await.with_status(400);
        let reply = fake.get(METERS, &[]).await.with_status(status);
        assert_eq!(reply.json()["error"]["type"], kind);
        assert_eq!(
            reply.header("stripe-should-retry"),
            Some(should_retry.to_string().as_str())
        );
        assert_eq!(reply.header("retry-after"), Some("3"));
        fake.get(METERS, &[]).await.with_status(200);
    }
    fake.control("/__fake/faults", &json!({"status": 500}))
        .await;
    send(Method::DELETE, fake.url("/__fake/faults"), &[], "")
        .await
        .unwrap()
        .with_status(204);
    fake.get(METERS, &[]).await.with_status(200);
}

#[tokio::test]
async fn malformed_control_requests_are_refused() {
    let fake = FakeStripe::start().await;
    for (path, body, named) in [
        ("/__fake/faults", json!({"stattus": 500}), "stattus"),
        ("/__fake/faults", json!({"status": 302}), "status"),
        (
            "/__fake/faults",
            json!({"accept_then_status": 99}),
            "accept_then_status",
        ),
        ("/__fake/faults", json!({"times": 0}), "times"),
        (
            "/__fake/faults",
            json!({"status": 500, "accept_then_drop": true}),
            "exclude",
        ),
        ("/__fake/clock", json!({"offset": 5}), "offset"),
    ] {
        let reply = send(Method::POST, fake.url(path), &[], body.to_string())
            .await
            .unwrap();
        let message = reply.with_status(400).json()["error"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(named), "{body}: {message}");
    }
}

#[tokio::test]
async fn lists_are_paged_newest_first() {
    let fake = FakeStripe::start().await;
    let mut ids = Vec::new();
    for number in 0..12 {
        ids.push(
            fake.create("/v1/customers", &[("name", &number.to_string())])
                .await,
        );
    }
    ids.reverse();
    let check = async |query: &[(&str, &str)], wanted: &[String], has_more: bool| {
        let page = fake
            .get("/v1/customers", query)
            .await
            .with_status(200)
            .json();
        let found: Vec<&Value> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| &c["id"])
            .collect();
        assert_eq!(found, wanted.iter().collect::<Vec<_>>(), "{query:?}");
        assert_eq!(
            (&page["has_more"], &page["object"]),
            (&json!(has_more), &json!("list"))
        );
        assert_eq!(page["url"], "/v1/customers");
    };
    check(&[], &ids[..10], true).await;
    check(&[("limit", "12")], &ids, false).await;
    check(
        &[("limit", "3"), ("starting_after", &ids[1])],
        &ids[2..5],
        true,
    )
    .await;
    check(
        &[("limit", "5"), ("starting_after", &ids[8])],
        &ids[9..],
        false,
    )
    .await;
    check(
        &[("limit", "2"), ("ending_before", &ids[4])],
        &ids[2..4],
        true,
    )
    .await;
    check(
        &[("limit", "9"), ("ending_before", &ids[4])],
        &ids[..4],
        false,
    )
    .await;
    for query in [
        [("limit", "0"), ("limit", "0")],
        [("limit", "101"), ("limit", "101")],
        [("starting_after", "cus_nope"), ("limit", "1")],
        [("starting_after", &ids[1]), ("ending_before", &ids[2])],
    ] {
        fake.get("/v1/customers", &query).await.with_status(400);
    }
}

#[tokio::test]
async fn state_can_be_emptied() {
    let fake = FakeStripe::start().await;
    fake.customer().await;
    send(Method::DELETE, fake.url("/__fake/state"), &[], "")
        .await
        .unwrap()
        .with_status(204);
    assert_eq!(customers(&fake).await, 0);
}
