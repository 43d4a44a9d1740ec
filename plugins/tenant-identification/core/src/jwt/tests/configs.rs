//! What is wrong with a config is named, and no key is shown.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn read(json: &str, secret: &str) -> Result<Issuers, String> {
    let config: IssuerConfig = serde_json::from_str(json).map_err(|e| e.to_string())?;
    Issuers::new(vec![config], |name| match name {
        "SECRET" => Ok(secret.to_owned()),
        _ => Err("is not set".to_owned()),
    })
}

#[track_caller]
fn check_refused(json: &str, names: &str) {
    let error = read(json, SECRET).unwrap_err();
    assert!(error.contains(names), "{error} should name {names}");
    for shown in [&SECRET[..20], &RSA_N[..20], &P256_X[..20]] {
        assert!(!error.contains(shown), "{error}");
    }
}

/// An issuer with `more` beside its name.
fn issuer(more: &str) -> String {
    format!(r#"{{"issuer":"{ISSUER}","audiences":["weir"],{more}}}"#)
}

fn set() -> String {
    jwks(&[jwk("oct", "k", "")])
}

#[test]
fn an_issuer_says_all_it_must() {
    let set = set();
    let good = format!(r#""algorithms":["HS256"],"jwks":{set}"#);
    assert_eq!(read(&issuer(&good), SECRET).unwrap().len(), 1);
    check_refused(r#"{"issuer":"x"}"#, "algorithms");
    check_refused(&format!(r#"{{{good}}}"#), "issuer");
    check_refused(&issuer(&format!(r#"{good},"x":1"#)), "x");
    check_refused(&issuer(r#""algorithms":["none"]"#), "none");
    check_refused(&issuer(r#""algorithms":["ES512"]"#), "ES512");
    for (json, names) in [
        (format!(r#"{{"issuer":"",{good}}}"#), "issuers[0].issuer"),
        (
            format!(r#"{{"issuer":"x",{good}}}"#),
            "issuers[0].audiences",
        ),
        (
            issuer(&format!(r#"{good},"any_audience":true"#)),
            "issuers[0].audiences",
        ),
        (
            issuer(&format!(r#""algorithms":[],"jwks":{set}"#)),
            "issuers[0].algorithms",
        ),
        (
            issuer(&format!(r#""algorithms":["HS256","RS256"],"jwks":{set}"#)),
            "must not mix",
        ),
        (
            issuer(&format!(r#""algorithms":["RS256"],"jwks":{set}"#)),
            "issuers[0].algorithms[0]",
        ),
        (
            issuer(&format!(r#"{good},"leeway_s":301"#)),
            "issuers[0].leeway_s: must be 0 to 300",
        ),
        (
            issuer(&format!(r#"{good},"max_lifetime_s":0"#)),
            "max_lifetime_s: must be at least 1",
        ),
        (issuer(&format!(r#"{good},"tenant_claim":"""#)), "a claim"),
        (issuer(r#""algorithms":["HS256"]"#), "exactly one"),
        (
            issuer(&format!(r#"{good},"secret_env":"SECRET""#)),
            "exactly one",
        ),
        (
            issuer(r#""algorithms":["HS256"],"jwks":[]"#),
            "issuers[0].jwks.keys",
        ),
        (
            issuer(r#""algorithms":["HS256"],"jwks":{"keys":[]}"#),
            "issuers[0].jwks.keys",
        ),
    ] {
        check_refused(&json, names);
    }
}

#[test]
fn an_issuer_comes_once() {
    let error = Issuers::new(
        vec![issuer_config_hs256(), issuer_config_hs256()],
        |_| unreachable!(),
    );
    assert!(error.unwrap_err().contains("issuers[1].issuer"));
    let none = Issuers::new(vec![], |_| unreachable!()).unwrap();
    assert!(none.is_empty());
}

#[test]
fn a_secret_is_long_and_secret() {
    #[track_caller]
    fn check(algorithms: &str, secret: &str, names: Result<(), &str>) {
        let json = issuer(&format!(
            r#""algorithms":{algorithms},"secret_env":"SECRET""#
        ));
        match (read(&json, secret), names) {
            (Ok(issuers), Ok(())) => {
                let token = sign_hs256(&claims_of("a"));
                let fits = secret == SECRET;
                assert_eq!(verify(&issuers, &token).is_ok(), fits);
            }
            (Err(error), Err(names)) => {
                assert!(error.contains(names), "{error} should name {names}");
                assert!(error.contains("issuers[0].secret_env: SECRET"), "{error}");
                assert!(secret.is_empty() || !error.contains(secret), "{error}");
            }
            (found, _) => panic!("{found:?} {names:?}"),
        }
    }
    let hs = r#"["HS256"]"#;
    check(hs, SECRET, Ok(()));
    check(hs, &encode(&[7; 32]), Ok(()));
    check(hs, &encode(&[7; 31]), Err("at least 32 bytes, found 31"));
    check(r#"["HS256","HS384"]"#, &encode(&[7; 47]), Err("48"));
    check(r#"["HS256","HS512"]"#, &encode(&[7; 63]), Err("64"));
    check(r#"["HS256","HS384","HS512"]"#, SECRET, Ok(()));
    check(hs, "", Err("at least 32"));
    check(hs, "not base64url!", Err("base64url"));
    check(hs, &format!("{}=", encode(&[7; 32])), Err("base64url"));
    check(hs, RSA_PEM, Err("found a public key"));
    check(hs, &encode(RSA_PEM.as_bytes()), Err("found a public key"));
    let pem: String = RSA_PEM.lines().filter(|l| !l.contains("---")).collect();
    let der = STANDARD.decode(pem).unwrap();
    check(hs, &encode(&der), Err("found a public key"));
    check(
        hs,
        &encode(jwk("EC", "k", "").as_bytes()),
        Err("found a public key"),
    );
    check(
        hs,
        &encode(b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"),
        Err("found a public key"),
    );
    let unset = issuer(r#""algorithms":["HS256"],"secret_env":"OTHER""#);
    check_refused(&unset, "issuers[0].secret_env: OTHER: is not set");
    let public = issuer(r#""algorithms":["RS256"],"secret_env":"SECRET""#);
    check_refused(&public, "issuers[0].algorithms");
}

#[test]
fn a_pem_is_one_public_key() {
    #[track_caller]
    fn check(algorithms: &str, pem: &str, more: &str, names: Result<(), &str>) {
        let pem = serde_json::to_string(pem).unwrap();
        let json = issuer(&format!(
            r#""algorithms":{algorithms},"pem":[{{"pem":{pem}{more}}}]"#
        ));
        match (read(&json, SECRET), names) {
            (Ok(issuers), Ok(())) => {
                let token = sign(Algorithm::Rs256, &claims_of("a"));
                assert_eq!(
                    verify(&issuers, &token).is_ok(),
                    algorithms.contains("RS256")
                );
            }
            (Err(error), Err(names)) => assert!(error.contains(names), "{error}"),
            (found, _) => panic!("{found:?} {names:?}"),
        }
    }
    let armour = |der: &[u8]| {
        let label = "PUBLIC KEY";
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----",
            STANDARD.encode(der)
        )
    };
    let rs = r#"["RS256"]"#;
    check(rs, RSA_PEM, "", Ok(()));
    check(
        rs,
        &format!("\n {RSA_PEM} \r\n"),
        r#","kid":"a","algorithm":"RS256""#,
        Ok(()),
    );
    check(r#"["RS256","PS256"]"#, RSA_PEM, "", Ok(()));
    check(
        r#"["RS256","PS256"]"#,
        RSA_PEM,
        r#","algorithm":"RS256""#,
        Err("algorithms[1]"),
    );
    check(
        rs,
        RSA_PEM,
        r#","algorithm":"ES256""#,
        Err("issuers[0].pem[0].algorithm"),
    );
    check(rs, RSA_PEM, r#","kind":"x""#, Err("kind"));
    check(r#"["ES256"]"#, RSA_PEM, "", Err("issuers[0].algorithms[0]"));
    check(r#"["HS256"]"#, RSA_PEM, "", Err("issuers[0].algorithms"));
    check(
        rs,
        &RSA_PEM.replace("PUBLIC", "RSA PUBLIC"),
        "",
        Err("pem[0].pem: must be one PEM"),
    );
    check(rs, &format!("{RSA_PEM}\n{RSA_PEM}"), "", Err("pem[0].pem"));
    check(rs, &RSA_PEM.replace("MIIB", "MII!"), "", Err("base64"));
    check(rs, "", "", Err("pem[0].pem"));
    check(
        rs,
        &armour(b"x"),
        "",
        Err("pem[0].pem: must be a public key of"),
    );
    let kid = format!(r#","kid":"{}""#, "k".repeat(257));
    check(rs, RSA_PEM, &kid, Err("issuers[0].pem[0].kid"));

    let point = [decode(P256_X), decode(P256_Y)].concat();
    let header = decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgA");
    let es = r#"["ES256"]"#;
    check(
        es,
        &armour(&[&header, [4].as_slice(), &point].concat()),
        "",
        Ok(()),
    );
    check(
        es,
        &armour(&[&header, [2].as_slice(), &point].concat()),
        "",
        Err("uncompressed"),
    );
    check(
        es,
        &armour(&[&header, [4].as_slice(), &[1; 64]].concat()),
        "",
        Err("no point"),
    );
    check(
        es,
        &armour(&[&header, [4].as_slice(), &point, &[0]].concat()),
        "",
        Err("32 bytes"),
    );
    let header = decode("MCowBQYDK2VwAyEA");
    let ed = r#"["EdDSA"]"#;
    check(
        ed,
        &armour(&[header.clone(), decode(ED25519_X)].concat()),
        "",
        Ok(()),
    );
    check(
        ed,
        &armour(&[header.as_slice(), &[0; 32]].concat()),
        "",
        Err("no point"),
    );
    check(
        ed,
        &armour(&[header.as_slice(), &[9; 31]].concat()),
        "",
        Err("32 bytes"),
    );
}

#[test]
fn where_keys_are_fetched_has_bounds() {
    let uri = |more: &str| {
        issuer(&format!(
            r#""algorithms":["RS256"],"jwks_uri":{{"cluster":"c","authority":"a","path":"/k"{more}}}"#
        ))
    };
    assert!(read(&uri(""), SECRET).is_ok());
    let all = r#","refresh_s":10,"max_age_s":11,"unknown_kid_pause_s":1,"timeout_ms":1"#;
    assert!(read(&uri(all), SECRET).is_ok());
    for (more, names) in [
        (
            r#","refresh_s":9"#,
            "issuers[0].jwks_uri.refresh_s: must be 10 to 86400, found 9",
        ),
        (r#","refresh_s":86401,"max_age_s":90000"#, "refresh_s"),
        (
            r#","max_age_s":300"#,
            "issuers[0].jwks_uri.max_age_s: must be at least 301",
        ),
        (r#","unknown_kid_pause_s":0"#, "unknown_kid_pause_s"),
        (r#","unknown_kid_pause_s":3601"#, "unknown_kid_pause_s"),
        (r#","timeout_ms":0"#, "timeout_ms"),
        (r#","timeout_ms":30001"#, "timeout_ms"),
        (r#","url":"x""#, "url"),
    ] {
        check_refused(&uri(more), names);
    }
    for (from, to, names) in [
        ("/k", "k", "issuers[0].jwks_uri.path"),
        ("/k", "/k k", "issuers[0].jwks_uri.path"),
        (r#""c""#, r#""""#, "issuers[0].jwks_uri.cluster"),
        (
            r#"authority":"a"#,
            r#"authority":"a\r\nb"#,
            "issuers[0].jwks_uri.authority",
        ),
        ("RS256", "HS256", "issuers[0].algorithms"),
    ] {
        check_refused(&uri("").replace(from, to), names);
    }
}

#[test]
fn nothing_shows_a_key() {
    let config = issuer_config_hs256();
    let issuers = issuers(vec![config.clone()]);
    let token = sign_hs256(&claims_of("acme"));
    let peeked = issuers.peek(token.as_bytes(), NOW_MS).unwrap();
    for shown in [
        format!("{config:?}"),
        format!("{issuers:?}"),
        format!("{:?}", peeked.candidates),
    ] {
        assert!(!shown.contains(&SECRET[..8]), "{shown}");
        assert!(!shown.contains("acme"), "{shown}");
    }
}
