//! Leases by HTTP with a protobuf body.

use ::http::{StatusCode, header};
use prost::Message;
use weir_wire::{
    proto::quota::{AcquireResponse, Outcome},
    quota::{ACQUIRE_PATH, CLOSE_PATH},
    usage::PROTO_CONTENT_TYPE,
};

use super::*;
use crate::callout::tests::{Found, ask, check, check_refusals, request};

async fn post(routes: &Router, path: &str, message: &impl Message) -> Found {
    let request = request(path).body(message.encode_to_vec().into()).unwrap();
    ask(routes.clone(), request).await
}

#[track_caller]
fn check_answer(found: &Found, outcome: Outcome, granted: u32) -> AcquireResponse {
    assert_eq!(found.0, StatusCode::OK, "{found:?}");
    assert_eq!(found.1[header::CONTENT_TYPE], PROTO_CONTENT_TYPE);
    let answer = AcquireResponse::decode(found.2.clone()).unwrap();
    assert_eq!((answer.outcome(), answer.granted), (outcome, granted));
    answer
}

#[tokio::test]
async fn leases_are_taken_and_given_back() {
    let (routes, _) = service().await;
    for id in [1, 2, 3, 3] {
        let found = post(&routes, ACQUIRE_PATH, &acquire(id)).await;
        let answer = check_answer(&found, Outcome::Granted, 1);
        assert_eq!(answer.life_ms, 2_000);
        assert_eq!(answer.limits[0].remaining, 3 - u32::from(id));
        assert!(!answer.epoch.is_empty());
    }
    let found = post(&routes, ACQUIRE_PATH, &acquire(4)).await;
    let denied = check_answer(&found, Outcome::Denied, 0);
    assert!((30_000..=62_250).contains(&denied.retry_after_ms));
    assert_eq!(denied.life_ms, 1_000);

    let found = post(&routes, CLOSE_PATH, &close(1)).await;
    assert_eq!((found.0, found.2.len()), (StatusCode::OK, 0));
    let found = post(&routes, ACQUIRE_PATH, &acquire(5)).await;
    check_answer(&found, Outcome::Granted, 1);
    let mut next = acquire(6);
    next.closed = close(5).closed;
    let found = post(&routes, ACQUIRE_PATH, &next).await;
    check_answer(&found, Outcome::Granted, 1);
}

#[tokio::test]
async fn gateways_share_what_is_free() {
    let (routes, _) = service().await;
    // Of 100: a half; of 50, half of the half of two gateways.
    for (gateway, granted) in [(1, 50), (2, 12)] {
        let request = AcquireRequest {
            plan: "pro".to_owned(),
            wanted: 1_000,
            gateway,
            ..acquire(u8::try_from(gateway).unwrap())
        };
        let found = post(&routes, ACQUIRE_PATH, &request).await;
        check_answer(&found, Outcome::Granted, granted);
    }
}

#[tokio::test]
async fn others_are_refused() {
    for (path, name) in [
        (ACQUIRE_PATH, "AcquireRequest"),
        (CLOSE_PATH, "CloseRequest"),
    ] {
        check_refusals(service().await.0, path, name, BODY_MAX_BYTES).await;
    }
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let (routes, _) = service().await;
    let mut request = acquire(1);
    request.acquire_id.pop();
    let found = post(&routes, ACQUIRE_PATH, &request).await;
    check(&found, 400, "acquire_id: must be 16 bytes, found 15\n");
    let mut request = close(1);
    request.closed[0].tenant.clear();
    let found = post(&routes, CLOSE_PATH, &request).await;
    check(&found, 400, "closed[0].tenant: ");
}

#[tokio::test]
async fn a_store_that_is_away_is_told() {
    let (routes, is_away) = service().await;
    is_away.store(true, Ordering::Relaxed);
    for found in [
        post(&routes, ACQUIRE_PATH, &acquire(1)).await,
        post(&routes, CLOSE_PATH, &close(1)).await,
    ] {
        check(&found, 503, "store: not available");
        assert_eq!(found.1[header::RETRY_AFTER], "1");
    }
    // Who is not limited need not wait for it, whatever is given back.
    let request = AcquireRequest {
        plan: "free".to_owned(),
        closed: close(1).closed,
        ..acquire(1)
    };
    let found = post(&routes, ACQUIRE_PATH, &request).await;
    check_answer(&found, Outcome::Unlimited, 0);
    is_away.store(false, Ordering::Relaxed);
    let found = post(&routes, ACQUIRE_PATH, &acquire(1)).await;
    check_answer(&found, Outcome::Granted, 1);
}
