//! What a hostile client sends, through the whole of Weir, and at its parts
//! directly.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message as _;
use reqwest::blocking::Response;
use serde_json::{Value, json};
use weir_pipeline_tests::{Pipeline, chat};
use weir_wire::{
    context, headers,
    ids::RequestId,
    keys::Keyring,
    proto::{
        context::TenantContext,
        usage::{
            Kind, ModelUsage, Outcome, PublishRequest, PublishResponse, UsageEvent, UsageSource,
            Witness,
        },
    },
    usage::{PROTO_CONTENT_TYPE, PUBLISH_PATH},
};

const CHAT: &str = "/v1/chat/completions";

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn signed(keys: &str, tenant: &str, plan: &str, issued_at_ms: i64, random: u8) -> (String, String) {
    let id = RequestId::mint(issued_at_ms.unsigned_abs(), [random; 10]).to_string();
    let header = context::sign(
        &TenantContext {
            tenant: tenant.into(),
            plan: plan.into(),
            request_id: id.clone(),
            issued_at_ms,
        },
        &Keyring::parse(keys).unwrap(),
    );
    (id, header)
}

#[track_caller]
fn check_error(answer: Response, status: u16, code: &str) {
    assert_eq!(answer.status(), status);
    let body: Value = answer.json().unwrap();
    assert_eq!(body["error"]["code"], code, "{body}");
    assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string());
}

#[test]
fn bodies_that_are_none_are_refused_in_openais_shape() {
    let p = Pipeline::start();
    let try_send = |body: Vec<u8>| {
        let request = p.http.post(format!("{}{CHAT}", p.stack.url()));
        request.bearer_auth(p.key("solo")).body(body).send()
    };
    let send = |body| try_send(body).unwrap();
    for body in [
        "",
        "{",
        "null",
        "[]",
        "\u{0}",
        "{\"model\":\"gpt-4o-mini\"",
        "\"gpt-4o-mini\"",
    ] {
        check_error(send(body.into()), 400, "invalid_json");
    }
    check_error(send(b"{\"model\":\"\xff\"}".to_vec()), 400, "invalid_json");
    check_error(send(vec![b'['; 1 << 20]), 400, "invalid_json");
    check_error(
        send(b"{\"model\":\"a\",\"model\":\"b\"}".to_vec()),
        400,
        "invalid_json",
    );
    check_error(send(b"{\"model\":{}}".to_vec()), 400, "invalid_type");
    // The gateway closes a second after its answer: who still writes then, because the
    // machine stood still, does not see it.
    let send_large = || try_send(vec![b' '; 20_000_000]);
    let answer = send_large().or_else(|_| send_large());
    let answer = answer.or_else(|_| send_large());
    check_error(answer.unwrap(), 413, "request_too_large");
    // The same without an announced length: the router's limit.
    let send_chunked = || {
        let chunked = reqwest::blocking::Body::new(std::io::Cursor::new(vec![b' '; 20_000_000]));
        let request = p.http.post(format!("{}{CHAT}", p.stack.url()));
        request.bearer_auth(p.key("solo")).body(chunked).send()
    };
    let answer = send_chunked().or_else(|_| send_chunked());
    let answer = answer.or_else(|_| send_chunked());
    check_error(answer.unwrap(), 413, "request_too_large");
    assert_eq!(p.chat("solo", "still there").status(), 200);
    assert_eq!(
        p.provider_log().len(),
        1,
        "none of them reached the provider"
    );
}

#[test]
fn the_router_believes_the_signed_context_alone() {
    let p = Pipeline::start();
    let keys = p.stack.secrets.context_keys.clone();
    let ask = |header: Option<&str>| {
        let mut request = p
            .http
            .post(format!("{}{CHAT}", p.stack.router.url()))
            .header(headers::TENANT_ID, "acme")
            .header(headers::TENANT_PLAN, "enterprise")
            .json(&chat("x", false));
        if let Some(header) = header {
            request = request.header(headers::TENANT_CONTEXT, header);
        }
        request.send().unwrap()
    };
    check_error(ask(None), 401, "invalid_tenant_context");
    let forger = "k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    let (_, forged) = signed(forger, "acme", "enterprise", now_ms(), 1);
    check_error(ask(Some(&forged)), 401, "invalid_tenant_context");
    let (_, old) = signed(&keys, "acme", "enterprise", now_ms() - 61_000, 2);
    check_error(ask(Some(&old)), 401, "invalid_tenant_context");
    // What a context says is believed, and once.
    let (_, good) = signed(&keys, "solo", "starter", now_ms(), 3);
    assert_eq!(ask(Some(&good)).status(), 200);
    check_error(ask(Some(&good)), 401, "invalid_tenant_context");
}

fn event(p: &Pipeline, tenant: &str, random: u8) -> UsageEvent {
    let (request_id, tenant_context) = signed(
        &p.stack.secrets.context_keys,
        tenant,
        "starter",
        now_ms(),
        random,
    );
    UsageEvent {
        kind: Kind::Request.into(),
        event_id: format!("{request_id}/test"),
        request_id,
        witness: Witness::Gateway.into(),
        tenant: tenant.into(),
        request_class: "chat".into(),
        outcome: Outcome::Completed.into(),
        status: 200,
        started_at_ms: now_ms(),
        usage: vec![ModelUsage {
            input_tokens: 1_000,
            source: UsageSource::Reported.into(),
            ..ModelUsage::default()
        }],
        tenant_context,
        ..UsageEvent::default()
    }
}

#[test]
fn the_aggregator_takes_events_of_producers_that_a_gateway_signed_for() {
    let p = Pipeline::start();
    let publish = |token: &str, events: Vec<UsageEvent>| {
        p.http
            .post(format!("{}{PUBLISH_PATH}", p.stack.aggregator().url()))
            .header("content-type", PROTO_CONTENT_TYPE)
            .bearer_auth(token)
            .body(PublishRequest { events }.encode_to_vec())
            .send()
            .unwrap()
    };
    let gateway = p.stack.secrets.gateway_token.clone();
    assert_eq!(publish("guess", vec![event(&p, "solo", 1)]).status(), 401);
    assert_eq!(publish("", vec![event(&p, "solo", 1)]).status(), 401);
    assert_eq!(
        publish(p.key("solo"), vec![event(&p, "solo", 1)]).status(),
        401
    );

    // Another tenant's context, no context, another witness's credential, and a
    // request id of the last century are set aside, with the good one taken.
    let mut stolen = event(&p, "solo", 2);
    stolen.tenant = "acme".into();
    let mut bare = event(&p, "solo", 3);
    bare.tenant_context.clear();
    let mut impostor = event(&p, "solo", 4);
    impostor.witness = Witness::Router.into();
    let good = event(&p, "solo", 5);
    let answer = publish(&gateway, vec![stolen, bare, impostor, good.clone()]);
    assert_eq!(answer.status(), 202);
    let taken = PublishResponse::decode(answer.bytes().unwrap()).unwrap();
    assert_eq!((taken.accepted, taken.quarantined), (1, 3));

    // The same event again bills nothing more.
    assert_eq!(publish(&gateway, vec![good.clone(), good]).status(), 202);
    p.billed_once(|billed| billed.get("solo") == Some(&[1, 1_000, 0]));
    let status = p.close_hour();
    assert_eq!(status["quarantined"], 3);
    assert_eq!(p.billed()["solo"], [1, 1_000, 0]);

    let garbage = p
        .http
        .post(format!("{}{PUBLISH_PATH}", p.stack.aggregator().url()))
        .header("content-type", PROTO_CONTENT_TYPE)
        .bearer_auth(&gateway)
        .body("not protobuf")
        .send()
        .unwrap();
    assert_eq!(garbage.status(), 400);
}

#[test]
fn the_admin_api_is_the_operators() {
    let p = Pipeline::start();
    let url = p.stack.aggregator().url();
    for token in [
        "",
        "guess",
        p.key("acme"),
        p.stack.secrets.gateway_token.as_str(),
    ] {
        let ask = p
            .http
            .post(format!("{url}/admin/close-hour?quiet_ms=1"))
            .bearer_auth(token);
        assert_eq!(ask.send().unwrap().status(), 401);
        let ask = p.http.get(format!("{url}/admin/status")).bearer_auth(token);
        assert_eq!(ask.send().unwrap().status(), 401);
    }
}

#[test]
fn no_log_holds_a_key_or_a_prompt() {
    let p = Pipeline::alone();
    let prompt = "an unmistakable prompt";
    assert_eq!(p.chat("solo", prompt).status(), 200);
    let wrong = p
        .http
        .post(format!("{}{CHAT}", p.stack.url()))
        .bearer_auth("weir-wrong-key");
    assert_eq!(
        wrong
            .body(json!({"x": prompt}).to_string())
            .send()
            .unwrap()
            .status(),
        401
    );
    p.provider_fault(&json!({"status": 401, "times": 1}));
    assert_eq!(p.chat("solo", prompt).status(), 502);
    p.close_hour();
    let s = &p.stack.secrets;
    let (_, context_key) = s.context_keys.split_once(':').unwrap();
    let mut secrets = vec![prompt, "weir-wrong-key", context_key];
    secrets.extend(
        p.stack
            .providers
            .iter()
            .filter_map(|(_, p)| p.key.as_deref()),
    );
    for entry in std::fs::read_dir(&p.stack.folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "log") {
            continue;
        }
        let log = std::fs::read_to_string(&path).unwrap();
        for secret in secrets.iter().copied().chain([
            s.service_token.as_str(),
            &s.starter_key,
            &s.gateway_token,
            &s.router_token,
            &s.admin_token,
            &s.stripe_key,
        ]) {
            assert!(!log.contains(secret), "{} holds a secret", path.display());
        }
    }
}
