//! Who a request is made for, in the real Envoy.

use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::header::{HeaderName, HeaderValue};
use weir_gateway_tests::{
    Fixture,
    fixture::{ACME, BODY, CHAT_PATH, SOLO},
    raw,
};
use weir_wire::{context, headers};

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

#[test]
fn a_key_becomes_a_tenant_and_a_signed_context() {
    let f = Fixture::start();
    for (tenant, name, plan) in [(ACME, "acme", "enterprise"), (SOLO, "solo", "starter")] {
        assert_eq!(f.chat(tenant).status(), 200);
        let seen = f.upstream.last();
        assert_eq!(seen.all(headers::TENANT_ID), [name]);
        assert_eq!(seen.all(headers::TENANT_PLAN), [plan]);
        let signed = seen.all(headers::TENANT_CONTEXT);
        let verified = context::verify(signed[0].as_bytes(), &f.keyring(), now_ms()).unwrap();
        assert_eq!(verified.tenant.as_str(), name);
        assert_eq!(verified.plan.as_str(), plan);
        assert_eq!(
            seen.all(headers::REQUEST_ID),
            [verified.request_id.to_string()]
        );
        assert!((now_ms() - verified.request_id.time_ms()).abs() < 60_000);
    }
}

#[test]
fn request_ids_are_never_the_same() {
    let f = Fixture::start();
    for _ in 0..50 {
        assert_eq!(f.chat(ACME).status(), 200);
    }
    let mut ids: Vec<String> = f
        .upstream
        .requests()
        .iter()
        .flat_map(|seen| seen.all(headers::REQUEST_ID))
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
}

#[test]
fn every_sdks_header_carries_a_key_and_none_goes_on() {
    let f = Fixture::start();
    let key = f.key(SOLO);
    for (name, value) in [
        ("authorization", format!("Bearer {key}")),
        ("x-api-key", key.to_owned()),
        ("api-key", key.to_owned()),
    ] {
        let answer = f.post(CHAT_PATH).header(name, &value).send().unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        let seen = f.upstream.last();
        assert_eq!(seen.all(headers::TENANT_ID), ["solo"], "{name}");
        for header in ["authorization", "x-api-key", "api-key"] {
            assert!(seen.all(header).is_empty(), "{header} went on");
        }
    }
}

#[test]
fn what_a_client_claims_to_be_is_gone() {
    let f = Fixture::start();
    let key = format!("Authorization: Bearer {}", f.key(SOLO));
    let lines: [&[u8]; 9] = [
        key.as_bytes(),
        b"X-Tenant-ID: acme",
        b"x-tenant-id: acme",
        b"X-TENANT-ID: acme",
        b"X_Tenant_ID: acme",
        b"x-tenant-plan: enterprise",
        b"x-weir-request-id: 1",
        b"x-weir-tenant-context: v1.k1.x.y",
        b"x-request-class: none",
    ];
    let answer = raw::exchange(&f.gateway.url, &raw::post(CHAT_PATH, &lines, BODY));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = f.upstream.last();
    assert_eq!(seen.all(headers::TENANT_ID), ["solo"]);
    assert_eq!(seen.all(headers::TENANT_PLAN), ["starter"]);
    assert_eq!(seen.all(headers::REQUEST_CLASS), ["chat"]);
    assert_eq!(seen.all(headers::REQUEST_ID).len(), 1);
    assert_eq!(seen.all(headers::TENANT_CONTEXT).len(), 1);
    assert!(seen.all("x_tenant_id").is_empty());
    let signed = seen.all(headers::TENANT_CONTEXT);
    assert!(context::verify(signed[0].as_bytes(), &f.keyring(), now_ms()).is_ok());
}

/// Headers that are sent, the status and the code they get.
type Case<'a> = (&'a [(&'a str, Vec<u8>)], u16, &'a str);

#[test]
fn who_can_not_be_identified_is_refused_in_openais_shape() {
    let f = Fixture::start();
    let (acme, solo) = (f.key(ACME), f.key(SOLO));
    let bearer = |key: &str| format!("Bearer {key}").into_bytes();
    let cases: [Case<'_>; 9] = [
        (&[], 401, "invalid_api_key"),
        (&[("x-tenant-id", b"acme".to_vec())], 401, "invalid_api_key"),
        (
            &[("authorization", bearer("weir-unknown"))],
            401,
            "invalid_api_key",
        ),
        (
            &[("authorization", b"Basic abc".to_vec())],
            401,
            "invalid_api_key",
        ),
        (
            &[("authorization", b"Bearer \xff\xfe".to_vec())],
            400,
            "invalid_header",
        ),
        (
            &[
                ("authorization", bearer(acme)),
                ("x-note", b"caf\xe9".to_vec()),
            ],
            400,
            "invalid_header",
        ),
        (
            &[("authorization", bearer(acme)), ("x-api-key", solo.into())],
            403,
            "conflicting_credentials",
        ),
        (
            &[
                ("authorization", bearer(acme)),
                ("authorization", bearer(solo)),
            ],
            403,
            "conflicting_credentials",
        ),
        (
            &[
                ("authorization", bearer(acme)),
                ("api-key", b"nonsense".to_vec()),
            ],
            401,
            "invalid_api_key",
        ),
    ];
    for (sent, status, code) in cases {
        let mut request = f.post(CHAT_PATH);
        for (name, value) in sent {
            request = request.header(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        let answer = request.send().unwrap();
        let challenge = answer.headers().contains_key("www-authenticate");
        assert_eq!(challenge, status == 401, "{sent:?}");
        let body = f.check_refused(answer, status, code).to_string();
        assert!(!body.contains(acme) && !body.contains(solo), "{body}");
    }
    // Only the requests after each refusal have reached the upstream.
    assert_eq!(f.upstream.requests().len(), cases.len());
    let log = std::fs::read_to_string(&f.gateway.process.log).unwrap();
    assert!(
        !log.contains(acme) && !log.contains(solo),
        "a key is in the log"
    );
}
