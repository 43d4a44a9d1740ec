//! Which of an issuer's keys are tried.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// How many checks a token of that algorithm and `kid` costs.
#[track_caller]
fn check(keys: &[String], algorithm: Algorithm, kid: Option<&str>, expected: Result<u32, Reason>) {
    let set = jwks(keys);
    let all = [
        Algorithm::Rs256,
        Algorithm::Ps256,
        Algorithm::Es256,
        Algorithm::EdDsa,
    ];
    let issuers = issuers(vec![config(&all, &format!(r#""jwks":{set}"#))]);
    let kid = kid.map_or(String::new(), |kid| format!(r#","kid":"{kid}""#));
    let header = format!(r#"{{"alg":"{}"{kid}}}"#, algorithm.as_str());
    let token = sign_as(algorithm, &header, &claims_of("a"));
    let found = issuers.peek(token.as_bytes(), NOW_MS).map(|p| p.checks());
    assert_eq!(found.map_err(|r| r.reason), expected, "{keys:?} {header}");
    if expected.is_ok() {
        assert!(verify(&issuers, &token).is_ok());
    }
}

#[test]
fn a_kid_names_the_keys_and_the_type_picks_one() {
    let keys = [
        jwk("RSA", "r", ""),
        jwk("RSA", "r2", r#","alg":"PS256""#),
        jwk("EC", "e", ""),
        jwk("OKP", "o", ""),
        jwk("EC", "same", ""),
        jwk("RSA", "same", ""),
    ];
    use Algorithm::{EdDsa, Es256, Ps256, Rs256};
    for (algorithm, kid, expected) in [
        (Rs256, Some("r"), Ok(1)),
        (Ps256, Some("r"), Ok(1)),
        (Ps256, Some("r2"), Ok(1)),
        (Rs256, Some("r2"), Err(Reason::KeyType)),
        (Es256, Some("r"), Err(Reason::KeyType)),
        (EdDsa, Some("e"), Err(Reason::KeyType)),
        (Es256, Some("same"), Ok(1)),
        (Rs256, Some("same"), Ok(1)),
        (EdDsa, Some("same"), Err(Reason::KeyType)),
        (Rs256, Some("R"), Err(Reason::UnknownKid)),
        (Rs256, Some(""), Err(Reason::UnknownKid)),
        (EdDsa, None, Ok(1)),
        (Es256, None, Ok(2)),
        (Rs256, None, Ok(2)),
        (Ps256, None, Err(Reason::MissingKid)),
    ] {
        check(&keys, algorithm, kid, expected);
    }
}

#[test]
fn the_second_of_two_keys_is_found() {
    let other =
        r#"{"kty":"OKP","crv":"Ed25519","x":"PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"}"#;
    let set = jwks(&[other.to_owned(), jwk("OKP", "k", "")]);
    let issuers = issuers(vec![config(
        &[Algorithm::EdDsa],
        &format!(r#""jwks":{set}"#),
    )]);
    let token = sign(Algorithm::EdDsa, &claims_of("a"));
    assert_eq!(issuers.peek(token.as_bytes(), NOW_MS).unwrap().checks(), 2);
    assert!(verify(&issuers, &token).is_ok());
}

#[test]
fn each_issuer_has_keys_of_its_own() {
    let mut other = issuer_config(Algorithm::EdDsa);
    other.issuer = "https://other.example".to_owned();
    let issuers = issuers(vec![issuer_config_hs256(), other]);
    let names: Vec<&str> = issuers.names().collect();
    assert_eq!(names, [ISSUER, "https://other.example"]);
    let claims = claims_of("a").replace(ISSUER, "https://other.example");
    let token = sign(Algorithm::EdDsa, &claims);
    assert_eq!(verify(&issuers, &token).unwrap().issuer, 1);
    let crossed = sign_hs256(&claims);
    let refused = issuers.peek(crossed.as_bytes(), NOW_MS);
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.reason, refused.issuer),
        (Reason::Algorithm, Some(1))
    );
    let crossed = sign(Algorithm::EdDsa, &claims_of("a"));
    assert_eq!(verify(&issuers, &crossed), Err(Reason::Algorithm));
}
