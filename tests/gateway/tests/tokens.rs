//! Tenants by JSON Web Token, in the real Envoy.

use std::fs;

use reqwest::blocking::Response;
use serde_json::{Value, json};
use weir_gateway_tests::{
    Fixture,
    fixture::{ACME, CHAT_PATH, SOLO},
};
use weir_harness::issuer::{Algorithm, Issuer};
use weir_wire::headers;

/// A gateway that takes keys, and tokens in three places.
fn start(issuer: &Issuer) -> Fixture {
    let mut source = issuer.source();
    source["headers"] = json!(["authorization", "x-jwt"]);
    source["cookies"] = json!(["session"]);
    Fixture::with(|options| {
        let sources = json!([{"type": "api_key"}, source]);
        options.identification.insert("sources".to_owned(), sources);
        options.variables = issuer.variables();
    })
}

fn send(f: &Fixture, headers: &[(&str, String)]) -> Response {
    headers
        .iter()
        .fold(f.post(CHAT_PATH), |request, (name, value)| {
            request.header(*name, value)
        })
        .send()
        .unwrap()
}

#[track_caller]
fn check_served(f: &Fixture, headers: &[(&str, String)], tenant: &str) {
    let answer = send(f, headers);
    assert_eq!(answer.status(), 200, "{}", answer.text().unwrap());
    let seen = f.upstream.last();
    assert_eq!(seen.all(headers::TENANT_ID), [tenant]);
    for (name, _) in headers.iter().filter(|(name, _)| *name != "cookie") {
        if *name != headers::TENANT_ID {
            assert!(seen.all(name).is_empty(), "{name} went on");
        }
    }
}

#[track_caller]
fn check_refused(f: &Fixture, token: &str, why: &str) {
    let answer = send(f, &[("authorization", format!("Bearer {token}"))]);
    let challenge = answer.headers()["www-authenticate"].clone();
    assert_eq!(challenge, "Bearer error=\"invalid_token\"");
    let body = f.check_refused(answer, 401, "invalid_token");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains(why), "{message}");
}

#[test]
fn a_token_of_each_algorithm_is_a_tenant() {
    let issuer = Issuer::new();
    let f = start(&issuer);
    for algorithm in Algorithm::ALL {
        let token = issuer.token(algorithm, "solo");
        for headers in [
            vec![("authorization", format!("Bearer {token}"))],
            vec![("x-jwt", token.clone())],
            vec![("cookie", format!("theme=dark; session={token}"))],
            vec![
                ("authorization", format!("Bearer {token}")),
                (headers::TENANT_ID, "acme".to_owned()),
            ],
            vec![
                ("authorization", format!("Bearer {token}")),
                ("x-api-key", f.key(SOLO).to_owned()),
            ],
        ] {
            check_served(&f, &headers, "solo");
        }
    }
    let cookie = format!(
        "theme=dark; session={}",
        issuer.token(Algorithm::EdDsa, "solo")
    );
    check_served(&f, &[("cookie", cookie)], "solo");
    assert_eq!(f.upstream.last().all("cookie"), ["theme=dark"]);
    assert_eq!(f.gateway.counter("weir_tenant_identified_jwt"), 17);
    assert_eq!(f.gateway.counter("weir_tenant_identified_api_key"), 4);
}

#[test]
fn two_tenants_in_one_request_are_refused_with_both_names_in_the_log() {
    let issuer = Issuer::new();
    let f = start(&issuer);
    let token = issuer.token(Algorithm::EdDsa, "solo");
    let answer = send(
        &f,
        &[
            ("authorization", format!("Bearer {token}")),
            ("x-api-key", f.key(ACME).to_owned()),
        ],
    );
    let body = f
        .check_refused(answer, 403, "conflicting_credentials")
        .to_string();
    assert!(!body.contains("acme") && !body.contains("solo"), "{body}");
    let log = fs::read_to_string(&f.gateway.process.log).unwrap();
    let line = log.lines().find(|line| line.contains("conflict")).unwrap();
    assert!(line.contains("acme") && line.contains("solo"), "{line}");
    assert!(!log.contains(&token) && !log.contains(f.key(ACME)));
}

#[test]
fn what_is_forged_is_refused_and_the_next_request_served() {
    let issuer = Issuer::new();
    let other = Issuer::new();
    let f = start(&issuer);
    for algorithm in Algorithm::ALL {
        let genuine = issuer.token(algorithm, "acme");
        let (input, signature) = genuine.rsplit_once('.').unwrap();
        let forged = other.signature(algorithm, input.as_bytes());
        let forged = format!("{input}.{}", encode(&forged));
        check_refused(&f, &forged, "signature");
        check_refused(&f, &format!("{input}."), "");
        let half = &signature[..signature.len() / 2];
        check_refused(&f, &format!("{input}.{half}"), "");
        let claims = |member: &str, value: Value| {
            let mut claims = issuer.claims(algorithm, "acme");
            claims[member] = value;
            issuer.sign(algorithm, &issuer.header(algorithm), &claims)
        };
        check_refused(&f, &claims("exp", json!(1_700_000_000)), "expired");
        check_refused(
            &f,
            &claims("nbf", json!(4_000_000_000_u64)),
            "not valid yet",
        );
        check_refused(&f, &claims("aud", json!("else")), "audience");
        check_refused(&f, &claims("iss", json!("https://evil.example")), "issuer");
        check_refused(&f, &claims("tenant_id", json!("a b")), "tenant");
        for (member, value, why) in [
            ("crit", json!(["x"]), "extension"),
            ("jwk", other.jwk(Algorithm::Es256), "own key"),
            ("jku", json!("https://evil.example/jwks"), "own key"),
            ("x5u", json!("https://evil.example/cert"), "own key"),
        ] {
            let mut header = issuer.header(algorithm);
            header[member] = value;
            let claims = issuer.claims(algorithm, "acme");
            check_refused(&f, &issuer.sign(algorithm, &header, &claims), why);
        }
    }
    // Each claims to be of an issuer that signs otherwise.
    for (alg, algorithm) in [
        ("none", Algorithm::Rs256),
        ("NONE", Algorithm::Hs256),
        ("HS256", Algorithm::Rs256),
        ("RS256", Algorithm::Es256),
    ] {
        let mut header = issuer.header(algorithm);
        header["alg"] = json!(alg);
        let claims = issuer.claims(algorithm, "acme");
        check_refused(&f, &issuer.sign(algorithm, &header, &claims), "");
    }
    for zero in [[0_u8; 64].as_slice(), &[[0; 32], [1; 32]].concat()] {
        let genuine = issuer.token(Algorithm::Es256, "acme");
        let (input, _) = genuine.rsplit_once('.').unwrap();
        check_refused(&f, &format!("{input}.{}", encode(zero)), "signature");
    }
    let long = format!("{}.e30.AA", "e".repeat(9_000));
    let answer = send(&f, &[("authorization", format!("Bearer {long}"))]);
    f.check_refused(answer, 401, "invalid_api_key");
}

#[test]
fn beyond_the_budget_known_tenants_go_on() {
    let issuer = Issuer::new();
    let f = Fixture::with(|options| {
        let sources = json!([{"type": "api_key"}, issuer.source()]);
        let tokens = json!({"checks_per_s": 2});
        options.identification.insert("sources".to_owned(), sources);
        options.identification.insert("tokens".to_owned(), tokens);
        options.variables = issuer.variables();
        options.concurrency = 1;
    });
    let known = format!("Bearer {}", issuer.token(Algorithm::Rs256, "solo"));
    check_served(&f, &[("authorization", known.clone())], "solo");
    let genuine = issuer.token(Algorithm::Rs256, "acme");
    let (input, _) = genuine.rsplit_once('.').unwrap();
    let mut found = [0_usize; 2];
    for n in 0..300_u32 {
        let mut signature = vec![0; 256];
        signature[200..204].copy_from_slice(&n.to_be_bytes());
        let token = format!("Bearer {input}.{}", encode(&signature));
        let answer = send(&f, &[("authorization", token)]);
        match answer.status().as_u16() {
            401 => found[0] += 1,
            429 => {
                assert!(answer.headers().contains_key("retry-after"));
                let body: Value = answer.json().unwrap();
                assert_eq!(body["error"]["code"], "too_many_new_tokens");
                found[1] += 1;
                if found[1] % 50 == 1 {
                    check_served(&f, &[("authorization", known.clone())], "solo");
                    assert_eq!(f.chat(ACME).status(), 200, "a key goes on too");
                }
            }
            other => panic!("{other}"),
        }
    }
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    let counted = f.gateway.counter("weir_tenant_refused_signature");
    assert_eq!(counted as usize, found[0]);
    assert_eq!(
        f.gateway.counter("weir_tenant_refused_over_budget") as usize,
        found[1]
    );
}

fn encode(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(bytes)
}
