//! Keys, what goes on upstream, and what no source believes.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_wire::{context, headers};

use super::*;

#[test]
fn every_sdks_header_is_read() {
    let mut check = Check::with("");
    check.allows(&[("authorization", b"Bearer sk-a")], "a");
    check.allows(&[("authorization", b"bearer  sk-a ")], "a");
    check.allows(&[("x-api-key", b"sk-b")], "b");
    check.allows(&[("api-key", b"sk-b")], "b");
    let mut own = Check::with(r#","sources":[{"type":"api_key","headers":["x-key"]}]"#);
    let id = own.allows(&[("x-key", b"sk-b"), ("authorization", b"Bearer x")], "b");
    assert_eq!(id.change.strip, ["x-key", "authorization"]);
    own.denies(&[("x-api-key", b"sk-b")], 401, "no_credential");
}

#[test]
fn one_tenants_credentials_agree_whatever_they_are() {
    let mut check = Check::with("");
    let a: (&str, &[u8]) = ("authorization", b"Bearer sk-a");
    check.allows(&[a, ("x-api-key", b"sk-a")], "a");
    check.allows(&[a, ("x-api-key", b"sk-a2")], "a");
    check.allows(&[("authorization", b"Bearer sk-a, Bearer sk-a")], "a");
}

#[test]
fn two_tenants_are_refused_with_both_names_in_the_log() {
    let mut check = Check::with("");
    let a: (&str, &[u8]) = ("authorization", b"Bearer sk-a");
    for other in [
        ("x-api-key", b"sk-b".as_slice()),
        ("authorization", b"Bearer sk-b"),
    ] {
        let denial = check.denies(&[a, other], 403, "conflict");
        let detail = denial.detail.unwrap();
        assert!(
            detail.contains("tenant a") && detail.contains("\"b\""),
            "{detail}"
        );
        let told = denial.error.body();
        assert!(!told.contains("\"a\"") && !told.contains("\"b\""), "{told}");
    }
    check.denies(&[a, ("api-key", b"sk-unknown")], 401, "unknown_key");
    let many: Vec<Vec<u8>> = (0..9).map(|n| format!("k{n}").into_bytes()).collect();
    let headers: Vec<(&str, &[u8])> = many.iter().map(|k| ("x-api-key", k.as_slice())).collect();
    check.denies(&headers, 400, "too_many_credentials");
}

#[test]
fn no_key_and_no_known_key_are_401() {
    let mut check = Check::with("");
    for headers in [vec![], vec![("x-tenant-id", b"a".as_slice())]] {
        check.denies(&headers, 401, "no_credential");
    }
    for value in [b"Bearer sk-zzz".as_slice(), b"Bearer a.b.c"] {
        check.denies(&[("authorization", value)], 401, "unknown_key");
    }
    for value in [
        b"Bearer ".as_slice(),
        b"Bearer",
        b"",
        b"sk-a",
        b"Basic sk-a",
        b"Bearer sk-a,",
    ] {
        let denial = check.denies(&[("authorization", value)], 401, "unusable_credential");
        assert!(denial.error.message.contains("authorization"), "{denial:?}");
    }
    check.denies(&[("x-api-key", &[b'x'; 600])], 401, "unusable_credential");
}

#[test]
fn a_suspended_tenant_is_403_and_an_ended_key_401() {
    let mut check = Check::with("");
    check.denies(&[("x-api-key", b"sk-off")], 403, "suspended");
    let key = |key: &str, more: &str| {
        let hash = weir_wire::key_hash::KeyHash::of(key.as_bytes());
        format!(r#"{{"sha256":"{hash}"{more}}}"#)
    };
    // NOW is 2023-11-14T22:13:20Z.
    let json = format!(
        r#"{{"host":"envoy","tenants":[{{"id":"a","plan":"p","keys":[{},{},{}]}}]}}"#,
        key("sk-past", r#","expires_at":"2023-11-14T22:13:20Z""#),
        key("sk-soon", r#","expires_at":"2023-11-14T22:13:21Z""#),
        key("sk-gone", r#","state":"revoked""#),
    );
    check.validated = read(&json).unwrap();
    check.denies(&[("x-api-key", b"sk-past")], 401, "expired_key");
    check.denies(&[("x-api-key", b"sk-gone")], 401, "unknown_key");
    check.allows(&[("x-api-key", b"sk-soon")], "a");
}

#[test]
fn before_the_directory_is_there_nobody_is_unknown() {
    let mut check = Check::with("");
    check.beside.ready = false;
    let denial = match decide(
        &mut check.validated,
        &[("x-api-key", b"sk-a")],
        &check.beside,
    ) {
        Decision::Deny(denial) => denial,
        other => panic!("{other:?}"),
    };
    assert_eq!((denial.status, denial.retry_after_s), (503, Some(1)));
}

#[test]
fn a_header_that_is_no_utf8_is_named() {
    let mut check = Check::with("");
    let key: (&str, &[u8]) = ("authorization", b"Bearer sk-a");
    for name in ["x-note", "x-api-key"] {
        let denial = check.denies(&[key, (name, b"a\xff")], 400, "header_not_utf8");
        assert_eq!(denial.error.param.as_deref(), Some(name));
    }
}

#[test]
fn what_a_client_claims_to_be_is_replaced() {
    let mut check = Check::with("");
    let id = check.allows(
        &[
            ("x-tenant-id", b"b"),
            ("authorization", b"Bearer sk-a"),
            ("x_tenant_id", b"b"),
            ("x-weir-anything", b"1"),
            ("x-weir-open", b"1"),
            ("x-request-id", b"kept"),
        ],
        "a",
    );
    assert_eq!(
        id.change.strip,
        [
            "x-tenant-id",
            "authorization",
            "x_tenant_id",
            "x-weir-anything",
            "x-weir-open"
        ]
    );
    let value = |name| &id.change.set.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!(value(headers::TENANT_ID), "a");
    let signed = value(headers::TENANT_CONTEXT);
    let now_ms = i64::try_from(NOW.wall_ms).unwrap();
    let verified = context::verify(signed.as_bytes(), &keys(), now_ms).unwrap();
    assert_eq!(verified.tenant.as_str(), "a");
    assert_eq!(&verified.request_id.to_string(), value(headers::REQUEST_ID));
}

#[test]
fn kong_refuses_what_it_cannot_strip() {
    let mut check = Check::with("").on_kong();
    let key: (&str, &[u8]) = ("authorization", b"Bearer sk-a");
    for name in ["x-tenant-plan", "X-Tenant-ID", "x_weir_open"] {
        let denial = check.denies(&[key, (name, b"x")], 400, "internal_header");
        assert_eq!(denial.error.param.as_deref(), Some(name));
    }
}

#[test]
fn an_open_path_needs_nobody_and_passes_nothing_on() {
    let mut check = Check::with(r#","open_paths":["/healthz"]"#);
    let headers: [(&str, &[u8]); 4] = [
        (":path", b"/healthz?x"),
        ("x-tenant-id", b"a"),
        ("authorization", b"Bearer nonsense"),
        ("accept", b"*/*"),
    ];
    match decide(&mut check.validated, &headers, &check.beside) {
        Decision::Open(change) => {
            assert_eq!(change.strip, ["x-tenant-id", "authorization"]);
            assert_eq!(change.set, [(headers::OPEN, "1".to_owned())]);
        }
        other => panic!("{other:?}"),
    }
    check.denies(&[(":path", b"/v1/models")], 401, "no_credential");
}

/// Everything that may hold a credential, and everything that only looks so.
const NAMES: [&str; 10] = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-jwt",
    "cookie",
    ":authority",
    "host",
    "x-tenant-id",
    "x-weir-tenant-context",
    "x-request-id",
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    let genuine = jwt::sign_hs256(&jwt::claims_of("a"));
    let cut = genuine.len() - 1;
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        "[ -~]{0,80}".prop_map(String::into_bytes),
        "(Bearer )?[A-Za-z0-9_-]{0,30}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,50}"
            .prop_map(String::into_bytes),
        "session=[ -~]{0,80}".prop_map(String::into_bytes),
        Just(b"a.api.example.com".to_vec()),
        // A genuine token, cut or with one character changed.
        (0..cut).prop_map({
            let genuine = genuine.clone();
            move |n| format!("Bearer {}", &genuine[..n]).into_bytes()
        }),
        // Not the last character, whose lowest bits mean nothing.
        (0..cut, any::<u8>()).prop_map(move |(n, byte)| {
            let mut value = genuine.clone().into_bytes();
            value[n] = if byte == value[n] { byte ^ 1 } else { byte };
            [b"Bearer ".as_slice(), &value].concat()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_identify_without_a_credential(
        headers in prop::collection::vec((prop::sample::select(NAMES.to_vec()), value()), 0..6),
        kong in any::<bool>(),
    ) {
        let sources = format!(
            r#","sources":[{{"type":"api_key"}},{},{{"type":"subdomain","base_domains":["api.example.com"]}}]"#,
            jwt_source(r#","headers":["authorization","x-jwt"],"cookies":["session"]"#)
        );
        let mut check = Check::with(&sources);
        if kong {
            check = check.on_kong();
        }
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_slice())).collect();
        let decision = decide(&mut check.validated, &headers, &check.beside);
        prop_assert!(matches!(decision, Decision::Deny(_)), "{:?}", decision);
    }
}
