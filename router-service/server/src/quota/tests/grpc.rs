//! Leases by gRPC, and what a port of gRPC has beside them.

use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use weir_wire::{headers as names, proto::quota::Outcome};

use super::*;
use crate::proto::weir::quota::v1::quota_service_client::QuotaServiceClient;

#[track_caller]
fn check_refused<T>(found: Result<T, Status>, code: Code, says: &str) {
    let status = found.err().unwrap();
    let message = status.message();
    assert_eq!(status.code(), code, "{message}");
    assert!(
        message.contains(says) && !message.contains(TOKEN),
        "{message}"
    );
}

#[tokio::test]
async fn leases_are_taken_and_given_back() {
    let mut client = QuotaServiceClient::new(connected().await.0);
    for id in [1, 2, 3] {
        let answer = client.acquire(with_token(acquire(id))).await.unwrap();
        assert_eq!(answer.into_inner().outcome(), Outcome::Granted);
    }
    let answer = client.acquire(with_token(acquire(4))).await.unwrap();
    assert_eq!(answer.into_inner().outcome(), Outcome::Denied);
    client.close(with_token(close(1))).await.unwrap();
    let answer = client.acquire(with_token(acquire(5))).await.unwrap();
    assert_eq!(answer.into_inner().outcome(), Outcome::Granted);
}

#[tokio::test]
async fn refusals_have_their_codes() {
    let (channel, is_away) = connected().await;
    let mut client = QuotaServiceClient::new(channel);
    let nobody = client.acquire(acquire(1)).await;
    check_refused(nobody, Code::Unauthenticated, "authorization");
    let nobody = client.close(tonic::Request::new(close(1))).await;
    check_refused(nobody, Code::Unauthenticated, "authorization");
    let mut tenant = with_token(acquire(1));
    let context = MetadataValue::from_static("v1");
    tenant.metadata_mut().insert(names::TENANT_CONTEXT, context);
    let tenant = client.acquire(tenant).await;
    check_refused(tenant, Code::PermissionDenied, "not for the quota service");
    let mut wrong = acquire(1);
    wrong.wanted = 0;
    let wrong = client.acquire(with_token(wrong)).await;
    check_refused(wrong, Code::InvalidArgument, "wanted: ");
    let mut large = acquire(1);
    large.epoch = "e".repeat(BODY_MAX_BYTES);
    let large = client.acquire(with_token(large)).await;
    check_refused(large, Code::OutOfRange, "65536");
    is_away.store(true, Ordering::Relaxed);
    let away = client.acquire(with_token(acquire(1))).await;
    check_refused(away, Code::Unavailable, "store: ");
}

#[tokio::test]
async fn health_and_reflection_answer() {
    let (channel, _) = connected().await;
    let own = [
        "envoy.service.ratelimit.v3.RateLimitService",
        "weir.quota.v1.QuotaService",
    ];
    let mut health = HealthClient::new(channel.clone());
    for service in ["", own[0], own[1]] {
        let service = service.to_owned();
        let health = health.check(HealthCheckRequest { service }).await.unwrap();
        assert_eq!(health.into_inner().status, 1, "SERVING");
    }
    let ask = |request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let symbol = |name: &str| ask(MessageRequest::FileContainingSymbol(name.to_owned()));
    let asks = [
        ask(MessageRequest::ListServices(String::new())),
        symbol(own[0]),
        symbol(own[1]),
    ];
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter(asks))
        .await
        .unwrap()
        .into_inner();
    let list = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = list else {
        panic!("{list:?}");
    };
    let mut listed: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    listed.sort();
    let health = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ];
    assert_eq!(listed, [own[0], health[0], health[1], own[1]]);
    for _ in own {
        let answer = answers.message().await.unwrap().unwrap().message_response;
        let described = matches!(answer, Some(MessageResponse::FileDescriptorResponse(_)));
        assert!(described, "{answer:?}");
    }
}
