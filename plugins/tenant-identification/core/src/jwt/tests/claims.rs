//! What the claims must say.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// `more` goes into the config, `claims` after `iss`; the answer is the tenant
/// and its plan.
#[track_caller]
fn check(more: &str, claims: &str, expected: Result<&str, Reason>) {
    let set = jwks(&[jwk("oct", "k", "")]);
    let issuers = issuers(vec![config(
        &[Algorithm::Hs256],
        &format!(r#""jwks":{set}{more}"#),
    )]);
    let token = sign_hs256(&format!(r#"{{"iss":"{ISSUER}",{claims}}}"#));
    let found = verify(&issuers, &token).map(|c| match c.plan {
        Some(plan) => format!("{} {plan}", c.tenant),
        None => c.tenant.to_string(),
    });
    assert_eq!(found, expected.map(str::to_owned), "{more} {claims}");
}

#[test]
fn a_token_has_its_time() {
    for (times, expected) in [
        (r#""exp":1700000600"#, Ok("a")),
        (r#""exp":1700000600.5"#, Ok("a")),
        (r#""exp":1.7000006e9"#, Ok("a")),
        (r#""exp":1699999971"#, Ok("a")),
        (r#""exp":1699999970.001"#, Ok("a")),
        (r#""exp":1699999970"#, Err(Reason::Expired)),
        (r#""exp":0"#, Err(Reason::Expired)),
        (r#""iat":1700000000"#, Err(Reason::NoExpiry)),
        (r#""exp":"1700000600""#, Err(Reason::Malformed)),
        (r#""exp":null"#, Err(Reason::Malformed)),
        (r#""exp":-1"#, Err(Reason::Malformed)),
        (r#""exp":1e300"#, Err(Reason::Malformed)),
        (r#""exp":1700000600000"#, Err(Reason::Malformed)),
        (r#""exp":1700000600,"nbf":1700000030"#, Ok("a")),
        (
            r#""exp":1700000600,"nbf":1700000031"#,
            Err(Reason::NotYetValid),
        ),
        (
            r#""exp":1700000600,"nbf":1700000030.5"#,
            Err(Reason::NotYetValid),
        ),
        (r#""exp":1700000600,"iat":1700000030"#, Ok("a")),
        (
            r#""exp":1700000600,"iat":1700000031"#,
            Err(Reason::NotYetValid),
        ),
        (r#""exp":1700000600,"iat":"x""#, Err(Reason::Malformed)),
        (r#""exp":1700000600,"nbf":[]"#, Err(Reason::Malformed)),
    ] {
        let claims = format!(r#"{times},"aud":"weir","tenant_id":"a""#);
        check("", &claims, expected);
    }
    let exp = |s: u64| format!(r#""exp":{s},"aud":"weir","tenant_id":"a""#);
    let none = r#","leeway_s":0"#;
    check(none, &exp(1_700_000_001), Ok("a"));
    check(none, &exp(1_700_000_000), Err(Reason::Expired));
}

#[test]
fn a_lifetime_may_be_bounded() {
    let max = r#","max_lifetime_s":600"#;
    for (times, expected) in [
        (r#""exp":1700000600,"iat":1700000000"#, Ok("a")),
        (
            r#""exp":1700000600.5,"iat":1700000000"#,
            Err(Reason::Lifetime),
        ),
        (
            r#""exp":1700000601,"iat":1700000000"#,
            Err(Reason::Lifetime),
        ),
        (r#""exp":1700000300"#, Err(Reason::Lifetime)),
        (
            r#""exp":1700000600,"nbf":1700000000"#,
            Err(Reason::Lifetime),
        ),
        (r#""exp":1700000001,"iat":1700000020"#, Ok("a")),
    ] {
        let claims = format!(r#"{times},"aud":"weir","tenant_id":"a""#);
        check(max, &claims, expected);
    }
}

#[test]
fn an_audience_must_be_meant() {
    let any = r#","any_audience":true,"audiences":[]"#;
    for (aud, one_of, with_any) in [
        (r#","aud":"weir""#, Ok("a"), Ok("a")),
        (r#","aud":["x","weir"]"#, Ok("a"), Ok("a")),
        (r#","aud":["x"]"#, Err(Reason::Audience), Ok("a")),
        (r#","aud":"Weir""#, Err(Reason::Audience), Ok("a")),
        (r#","aud":"weir.x""#, Err(Reason::Audience), Ok("a")),
        (r#","aud":[]"#, Err(Reason::Audience), Ok("a")),
        ("", Err(Reason::Audience), Ok("a")),
        (
            r#","aud":null"#,
            Err(Reason::Malformed),
            Err(Reason::Malformed),
        ),
        (
            r#","aud":["weir",1]"#,
            Err(Reason::Malformed),
            Err(Reason::Malformed),
        ),
        (
            r#","aud":{"weir":1}"#,
            Err(Reason::Malformed),
            Err(Reason::Malformed),
        ),
    ] {
        let claims = format!(r#""exp":1700000600,"tenant_id":"a"{aud}"#);
        check("", &claims, one_of);
        let set = jwks(&[jwk("oct", "k", "")]);
        let json = format!(
            r#"{{"issuer":"{ISSUER}","algorithms":["HS256"],"jwks":{set}{}}}"#,
            any
        );
        let issuers = issuers(vec![serde_json::from_str(&json).unwrap()]);
        let token = sign_hs256(&format!(r#"{{"iss":"{ISSUER}",{claims}}}"#));
        let found = verify(&issuers, &token).map(|c| c.tenant.to_string());
        assert_eq!(found, with_any.map(str::to_owned), "{aud}");
    }
}

#[test]
fn the_issuer_is_known_to_the_letter() {
    let issuers = issuers(vec![issuer_config_hs256()]);
    for iss in [
        r#""https://i.example/""#,
        r#""https://I.example""#,
        r#""""#,
        "null",
        "1",
        r#"["https://i.example"]"#,
    ] {
        let claims = format!(r#"{{"iss":{iss},"exp":1700000600,"aud":"weir","tenant_id":"a"}}"#);
        let refused = issuers
            .peek(sign_hs256(&claims).as_bytes(), NOW_MS)
            .unwrap_err();
        assert_eq!((refused.reason, refused.issuer), (Reason::Issuer, None));
    }
    let none = sign_hs256(r#"{"exp":1700000600,"aud":"weir","tenant_id":"a"}"#);
    assert_eq!(verify(&issuers, &none), Err(Reason::Issuer));
}

#[test]
fn a_claim_is_found_whole_or_in_parts() {
    let at = |path: &str| format!(r#","tenant_claim":"{path}""#);
    let no = Err(Reason::TenantClaim);
    for (path, claims, expected) in [
        ("tenant_id", r#""tenant_id":"a""#, Ok("a")),
        ("tenant_id", r#""tenant":"a""#, no),
        ("tenant_id", r#""tenant_id":"a b""#, no),
        ("tenant_id", r#""tenant_id":"""#, no),
        ("tenant_id", r#""tenant_id":7"#, no),
        ("tenant_id", r#""tenant_id":null"#, no),
        ("tenant_id", r#""tenant_id":["a"]"#, no),
        (
            "https://e.example/t",
            r#""https://e.example/t":"a""#,
            Ok("a"),
        ),
        ("org.id", r#""org":{"id":"a"}"#, Ok("a")),
        ("org.id", r#""org.id":"b","org":{"id":"a"}"#, Ok("b")),
        ("org.id", r#""org.id":7,"org":{"id":"a"}"#, no),
        ("org.id", r#""org":{"x":"a"}"#, no),
        ("org.id", r#""org":"a""#, no),
        ("org.id", r#""org":["a"]"#, no),
        ("a.b.c", r#""a":{"b":{"c":"t"}}"#, Ok("t")),
        ("a.b.c", r#""a.b":{"c":"t"}"#, no),
    ] {
        let claims = format!(r#""exp":1700000600,"aud":"weir",{claims}"#);
        check(&at(path), &claims, expected);
    }
}

#[test]
fn a_plan_is_taken_where_there_is_one() {
    let with = r#","plan_claim":"org.plan""#;
    for (more, claims, expected) in [
        (with, r#","org":{"plan":"gold"}"#, Ok("a gold")),
        (with, r#","org":{}"#, Ok("a")),
        (with, "", Ok("a")),
        (with, r#","org":{"plan":"g g"}"#, Err(Reason::PlanClaim)),
        (with, r#","org":{"plan":null}"#, Err(Reason::PlanClaim)),
        ("", r#","org":{"plan":"g g"}"#, Ok("a")),
    ] {
        let claims = format!(r#""exp":1700000600,"aud":"weir","tenant_id":"a"{claims}"#);
        check(more, &claims, expected);
    }
}
