//! Producers' calls over HTTP and gRPC.

use prost::Message as _;
use reqwest::blocking::{Client, Response};
use serde_json::json;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{MetadataMap, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;
use weir_wire::{
    headers as names,
    proto::usage::{Kind, PublishRequest, PublishResponse, UsageEvent, Witness},
    usage::{PROTO_CONTENT_TYPE, PROTO_CONTENT_TYPE_OLD, PUBLISH_PATH},
};

use super::{Fixture, TOKENS};

impl Fixture {
    /// An hour of storage, as a service tells it.
    fn storage(&self, n: u64) -> UsageEvent {
        UsageEvent {
            kind: Kind::Storage.into(),
            event_id: format!("s{n}"),
            request_id: self.request_id(n),
            witness: Witness::Service.into(),
            tenant: "acme".into(),
            storage_mb_hours: 5,
            ..UsageEvent::default()
        }
    }

    pub(super) fn post(
        &self,
        token: &str,
        content_type: &str,
        events: Vec<UsageEvent>,
    ) -> Response {
        Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .post(format!("{}{PUBLISH_PATH}", self.url()))
            .bearer_auth(token)
            .header("content-type", content_type)
            .body(PublishRequest { events }.encode_to_vec())
            .send()
            .unwrap()
    }

    /// By a gRPC client, with these metadata.
    fn publish(
        &self,
        metadata: &[(&'static str, &str)],
        events: Vec<UsageEvent>,
    ) -> Result<PublishResponse, Status> {
        let mut request = Request::new(PublishRequest { events });
        for (name, value) in metadata {
            let value = MetadataValue::try_from(*value).unwrap();
            request.metadata_mut().insert(*name, value);
        }
        in_time(async {
            let mut grpc = Grpc::new(self.channel().await);
            grpc.ready().await.unwrap();
            let answer = grpc.unary(
                request,
                PathAndQuery::from_static(PUBLISH_PATH),
                ProstCodec::default(),
            );
            answer.await.map(tonic::Response::into_inner)
        })
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.url()).unwrap();
        endpoint.connect().await.unwrap()
    }
}

fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(what)
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn a_grpc_client_sends_what_an_http_client_does() {
    let mut f = Fixture::new();
    f.start();
    let gateway = bearer(TOKENS[0]);
    let mut bad = f.event(2);
    bad.tenant = "other".into();
    let taken = f.publish(&[("authorization", &gateway)], vec![f.event(1), bad]);
    let expected = PublishResponse {
        accepted: 1,
        quarantined: 1,
    };
    assert_eq!(taken.unwrap(), expected);
    f.wait_for_calls(1);
    for content_type in [PROTO_CONTENT_TYPE, PROTO_CONTENT_TYPE_OLD] {
        let answer = f.post(TOKENS[0], content_type, vec![f.event(1), f.event(3)]);
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.headers()["content-type"], content_type);
        let taken = PublishResponse::decode(answer.bytes().unwrap()).unwrap();
        assert_eq!(taken.accepted, 2);
    }
    f.wait_for_calls(2);
    assert_eq!(f.post(TOKENS[0], "application/json", vec![]).status(), 415);

    let serving = in_time(async {
        let mut health = HealthClient::new(f.channel().await);
        let ask = HealthCheckRequest {
            service: "weir.usage.v1.UsageIngest".into(),
        };
        health.check(ask).await.unwrap().into_inner().status
    });
    assert_eq!(serving, 1);
}

#[test]
fn who_may_not_send_is_told_why() {
    let mut f = Fixture::new();
    f.start();
    let check = |metadata: &[(&'static str, &str)], events: Vec<UsageEvent>, code: Code| {
        let status = f.publish(metadata, events).unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    };
    let gateway = bearer(TOKENS[0]);
    check(&[], vec![], Code::Unauthenticated);
    check(
        &[("authorization", "Bearer x")],
        vec![],
        Code::Unauthenticated,
    );
    let of_a_tenant = [
        ("authorization", gateway.as_str()),
        (names::TENANT_CONTEXT, "v1.k.x.y"),
    ];
    check(&of_a_tenant, vec![], Code::PermissionDenied);
    let large = UsageEvent {
        model_asked: "x".repeat(9 << 20),
        ..f.event(1)
    };
    let large = vec![large];
    check(
        &[("authorization", &gateway)],
        large.clone(),
        Code::ResourceExhausted,
    );
    assert_eq!(f.post(TOKENS[0], PROTO_CONTENT_TYPE, large).status(), 413);
    assert_eq!(f.post("x", PROTO_CONTENT_TYPE, vec![]).status(), 401);
    assert_eq!(f.ask("status --json")["quarantined"], 0);
}

#[test]
fn storage_is_told_by_a_service_alone() {
    let mut f = Fixture::new();
    f.start();
    for (token, event, accepted) in [
        (TOKENS[2], f.storage(1), 1),
        (TOKENS[0], f.storage(2), 0),
        (TOKENS[2], f.event(3), 0),
    ] {
        let taken = f.publish(&[("authorization", &bearer(token))], vec![event]);
        assert_eq!(taken.unwrap().accepted, accepted);
    }
    let reasons: Vec<String> = f.ask("quarantine list --json")["quarantine"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["reason"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "witness is not what storage may send",
        "witness is not what gateway may send",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn above_the_mark_producers_keep_their_events() {
    let mut f = Fixture::with(&json!({"spool_max_events": 2}));
    f.start();
    // Nothing can be booked meanwhile.
    let ledger = rusqlite::Connection::open(f.path("data").join("ledger.db")).unwrap();
    ledger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let gateway = bearer(TOKENS[0]);
    let mut taken = 0;
    let refused = loop {
        let event = f.event(taken + 1);
        match f.publish(&[("authorization", &gateway)], vec![event]) {
            Ok(answer) => taken += u64::from(answer.accepted),
            Err(refused) => break refused,
        }
    };
    assert_eq!(taken, 2);
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let seconds = |metadata: &MetadataMap| -> u64 {
        metadata
            .get("retry-after")
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    assert!((1..=30).contains(&seconds(refused.metadata())));
    let answer = f.post(TOKENS[0], PROTO_CONTENT_TYPE, vec![f.event(9)]);
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(answer.text().unwrap().contains("above its mark"));
    // What was refused is nowhere.
    let status = f.ask("status --json");
    assert_eq!(
        (&status["unbooked"], &status["quarantined"]),
        (&json!(2), &json!(0))
    );
    assert!(status["problem"].as_str().unwrap().contains("have to wait"));
    ledger.execute_batch("ROLLBACK").unwrap();
    f.wait_for_calls(2);
    let answer = f.post(TOKENS[0], PROTO_CONTENT_TYPE, vec![f.event(9)]);
    assert_eq!(answer.status(), 202);
    f.wait_for_calls(3);
}

#[test]
fn a_batch_of_too_many_events_is_refused_before_it_is_read() {
    let mut f = Fixture::new();
    f.start();
    // Two bytes each.
    let answer = f.post(
        TOKENS[0],
        PROTO_CONTENT_TYPE,
        vec![UsageEvent::default(); 20_001],
    );
    assert_eq!(answer.status(), 413);
    let answer = f.post(
        TOKENS[0],
        PROTO_CONTENT_TYPE,
        vec![UsageEvent::default(); 20_000],
    );
    assert_eq!(answer.status(), 202);
    let log = std::fs::read_to_string(f.path("run.log")).unwrap();
    assert_eq!(log.matches("were quarantined").count(), 1, "{log}");
}
