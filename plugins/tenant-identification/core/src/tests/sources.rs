//! Tokens, hosts, certificates, and what they say of one another.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::{
    sources::{Kind, metadata::tests::metadata},
    tokens::TokensConfig,
};

fn bearer(token: &str) -> Vec<u8> {
    format!("Bearer {token}").into_bytes()
}

fn token(tenant: &str) -> String {
    jwt::sign_hs256(&jwt::claims_of(tenant))
}

/// Claims with another member.
fn claims_with(tenant: &str, member: &str) -> String {
    let claims = jwt::claims_of(tenant);
    format!("{},{member}}}", claims.strip_suffix('}').unwrap())
}

fn both() -> Check {
    let sources = jwt_source(r#","headers":["authorization","x-jwt"],"cookies":["session"]"#);
    Check::with(&format!(r#","sources":[{{"type":"api_key"}},{sources}]"#))
}

#[test]
fn a_token_names_its_tenant_wherever_it_may_stand() {
    let mut check = both();
    let token = token("a");
    let cookie = format!("x=1; session={token}");
    for (name, value) in [
        ("authorization", bearer(&token)),
        ("x-jwt", token.clone().into_bytes()),
        ("x-jwt", bearer(&token)),
        ("cookie", cookie.clone().into_bytes()),
    ] {
        let id = check.allows(&[(name, &value)], "a");
        assert_eq!((id.source, id.plan.as_str()), (Kind::Jwt, "starter"));
        assert!(id.change.strip.contains(&name.to_owned()), "{name}");
    }
    let id = check.allows(&[("cookie", cookie.as_bytes())], "a");
    assert!(id.change.set.contains(&("cookie", "x=1".to_owned())));
    assert_eq!(check.validated.tokens.cache_counts(), (4, 1));
}

#[test]
fn a_key_without_a_name_is_tried_whatever_the_token_calls_it() {
    let mut check = both();
    let header = r#"{"alg":"HS256","kid":"2026-11"}"#;
    let token = jwt::sign_as(crate::jwt::Algorithm::Hs256, header, &jwt::claims_of("a"));
    check.allows(&[("authorization", &bearer(&token))], "a");
}

#[test]
fn a_token_and_a_key_must_agree() {
    let mut check = both();
    let (a, b, off) = (
        bearer(&token("a")),
        bearer(&token("b")),
        bearer(&token("off")),
    );
    let id = check.allows(&[("authorization", &a), ("x-api-key", b"sk-a")], "a");
    assert_eq!(id.source, Kind::ApiKey, "the first source in the order");
    check.denies(
        &[("authorization", &b), ("x-api-key", b"sk-a")],
        403,
        "conflict",
    );
    check.denies(&[("authorization", &a), ("x-jwt", &b)], 403, "conflict");
    check.denies(
        &[("authorization", &a), ("x-api-key", b"zz")],
        401,
        "unknown_key",
    );
    check.denies(
        &[("authorization", b"Bearer a.b.c"), ("x-api-key", b"sk-a")],
        401,
        "malformed",
    );
    check.denies(&[("authorization", &off)], 403, "suspended");
    let denial = check.denies(
        &[("authorization", &bearer(&token("zz")))],
        401,
        "unknown_tenant",
    );
    assert!(!denial.error.message.contains("zz"));
}

#[test]
fn the_directorys_plan_counts_before_the_tokens() {
    let source = jwt_source("").replace(
        r#""secret_env""#,
        r#""plan_claim":"plan","tenant_claim":"tenant_id","secret_env""#,
    );
    let mut check = Check::with(&format!(
        r#","admit_unlisted":true,"default_plan":"free","sources":[{source}]"#
    ));
    let mut plan = |tenant: &str, member: &str| {
        let token = bearer(&jwt::sign_hs256(&claims_with(tenant, member)));
        check
            .allows(&[("authorization", &token)], tenant)
            .plan
            .to_string()
    };
    assert_eq!(plan("a", r#""plan":"gold""#), "starter");
    assert_eq!(plan("new", r#""plan":"gold""#), "gold");
    assert_eq!(plan("new2", r#""x":1"#), "free");
    check.validated.setup.default_plan = None;
    let token = bearer(&jwt::sign_hs256(&claims_with("new3", r#""x":1"#)));
    check.denies(&[("authorization", &token)], 403, "no_plan");
}

#[test]
fn beyond_the_budget_only_known_tokens_go_on() {
    let mut check = both();
    let validated = &mut check.validated;
    let issuers = jwt::issuers(vec![jwt::issuer_config_hs256()]);
    let config = TokensConfig {
        checks_per_s: 2,
        ..TokensConfig::default()
    };
    validated.tokens = crate::tokens::Tokens::new(&config, issuers, &[7; 16]).unwrap();
    let known = bearer(&token("a"));
    check.allows(&[("authorization", &known)], "a");
    let forged = |n: u8| {
        let genuine = jwt::sign_hs256(&claims_with("a", &format!(r#""n":{n}"#)));
        let (input, _) = genuine.rsplit_once('.').unwrap();
        bearer(&format!("{input}.{}", jwt::encode(&[n; 32])))
    };
    check.denies(&[("authorization", &forged(1))], 401, "signature");
    // PS256 and long keys cost more than one.
    let denial = check.denies(&[("authorization", &forged(2))], 429, "over_budget");
    assert!(denial.retry_after_s >= Some(1));
    check.denies(&[("authorization", &forged(1))], 401, "signature");
    check.allows(&[("authorization", &known)], "a");
    check.allows(&[("x-api-key", b"sk-b")], "b");
}

#[test]
fn a_token_whose_key_may_come_waits_for_it() {
    let remote = serde_json::json!([{"type": "jwt", "issuers": [{
        "issuer": jwt::ISSUER, "audiences": ["weir"], "algorithms": ["RS256"],
        "jwks_uri": {"cluster": "c", "authority": "a", "path": "/"}}]}]);
    let mut check = Check::with(&format!(r#","sources":{remote}"#));
    let header = r#"{"alg":"RS256","kid":"k"}"#;
    let token = jwt::sign_as(crate::jwt::Algorithm::Rs256, header, &jwt::claims_of("a"));
    match decide(
        &mut check.validated,
        &[("authorization", &bearer(&token))],
        &check.beside,
    ) {
        Decision::Fetch { issuer, denial } => {
            assert_eq!(
                (issuer, denial.status, denial.reason),
                (0, 503, "keys_not_loaded")
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_whose_key_can_not_come_is_refused_at_once() {
    let set = jwt::jwks(&[jwt::jwk("OKP", "k1", "")]);
    let inline = format!(
        r#"{{"type":"jwt","issuers":[{{"issuer":"{}","audiences":["weir"],"algorithms":["EdDSA"],"jwks":{set}}}]}}"#,
        jwt::ISSUER
    );
    let mut check = Check::with(&format!(r#","sources":[{inline}]"#));
    let header = r#"{"alg":"EdDSA","kid":"k2"}"#;
    let token = jwt::sign_as(crate::jwt::Algorithm::EdDsa, header, &jwt::claims_of("a"));
    let sent = bearer(&token);
    match decide(
        &mut check.validated,
        &[("authorization", &sent)],
        &check.beside,
    ) {
        Decision::Deny(denial) => assert_eq!((denial.status, denial.reason), (401, "unknown_kid")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_selects_and_must_agree() {
    let subdomain = |trusted: bool| {
        format!(
            r#","sources":[{{"type":"api_key"}},{{"type":"subdomain","base_domains":["api.example.com"],"trust_unauthenticated_host":{trusted}}}]"#
        )
    };
    let key: (&str, &[u8]) = ("x-api-key", b"sk-a");
    let host = |name: &'static [u8]| (":authority", name);
    let mut check = Check::with(&subdomain(false));
    for agrees in [
        b"a.api.example.com".as_slice(),
        b"A.API.example.com:443",
        b"api.example.com",
        b"127.0.0.1",
    ] {
        assert_eq!(check.allows(&[key, host(agrees)], "a").source, Kind::ApiKey);
    }
    for other in [
        b"b.api.example.com".as_slice(),
        b"x.a.api.example.com",
        b".api.example.com",
    ] {
        let denial = check.denies(&[key, host(other)], 403, "conflict");
        assert!(denial.detail.unwrap().contains("subdomain"));
    }
    check.denies(&[host(b"a.api.example.com")], 401, "no_credential");
    // Kong has the client's host in another place.
    let mut kong = Check::with(&subdomain(false)).on_kong();
    kong.allows(
        &[
            key,
            host(b"b.api.example.com"),
            ("host", b"a.api.example.com"),
        ],
        "a",
    );
    kong.denies(&[key, ("host", b"b.api.example.com")], 403, "conflict");
    let mut trusting = Check::with(&subdomain(true));
    let id = trusting.allows(&[host(b"a.api.example.com")], "a");
    assert_eq!(id.source, Kind::Subdomain);
    trusting.denies(&[host(b"zz.api.example.com")], 401, "unknown_tenant");
    trusting.denies(&[host(b"..api.example.com")], 401, "unknown_tenant");
    trusting.denies(&[host(b"a b.api.example.com")], 401, "host");
    // What no client sends is none of ours, and none of anybody's.
    for odd in [
        b"a.api.example.com:80:80".as_slice(),
        b"a.api.example.com@evil",
    ] {
        check.denies(&[key, host(odd)], 403, "conflict");
    }
    check.allows(&[key, host(b"a.api.example.com..")], "a");
    trusting.denies(&[key, host(b"b.api.example.com")], 403, "conflict");
    trusting.denies(
        &[("x-api-key", b"zz"), host(b"a.api.example.com")],
        401,
        "unknown_key",
    );
}

#[test]
fn what_jwt_authn_verified_is_believed() {
    let mut check = Check::with(
        r#","sources":[{"type":"jwt_authn","payload_in_metadata":"weir","tenant_claim":"org.id"},{"type":"api_key"}]"#,
    );
    let written = |filter: &str, json: serde_json::Value| Some(metadata(filter, &json));
    let claims = serde_json::json!({"weir": {"org": {"id": "a"}}});
    check.denies(&[], 401, "no_credential");
    check.beside.metadata = written("envoy.filters.http.jwt_authn", claims.clone());
    assert_eq!(check.allows(&[], "a").source, Kind::JwtAuthn);
    check.denies(&[("x-api-key", b"sk-b")], 403, "conflict");
    check.beside.metadata = written("some.other.filter", claims);
    check.denies(&[], 401, "no_credential");
    check.beside.metadata = written(
        "envoy.filters.http.jwt_authn",
        serde_json::json!({"weir": {"org": "a"}}),
    );
    check.denies(&[], 401, "tenant_claim");
}

#[test]
fn a_certificate_names_its_tenant() {
    let mut check = Check::with(
        r#","sources":[{"type":"client_certificate","san":"uri","pattern":"spiffe://x/t/{tenant}"},{"type":"api_key"}]"#,
    );
    let uri = |check: &mut Check, name: &str| {
        check.beside.peer = Some(Peer {
            uri: Some(name.as_bytes().to_vec()),
            dns: None,
        });
    };
    uri(&mut check, "spiffe://x/t/a");
    assert_eq!(check.allows(&[], "a").source, Kind::ClientCertificate);
    check.allows(&[("x-api-key", b"sk-a")], "a");
    check.denies(&[("x-api-key", b"sk-b")], 403, "conflict");
    uri(&mut check, "spiffe://x/t/a b");
    check.denies(&[], 401, "certificate");
    uri(&mut check, "spiffe://mesh/service");
    check.denies(&[], 401, "no_credential");
}
