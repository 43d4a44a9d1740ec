//! What becomes of an issuer's keys as they are fetched.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn set(kids: &[&str]) -> String {
    let keys: Vec<String> = kids.iter().map(|kid| jwk("RSA", kid, "")).collect();
    jwks(&keys)
}

fn token(kid: &str) -> String {
    let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
    sign_as(Algorithm::Rs256, &header, &claims_of("a"))
}

/// The issuer of index 1 is the remote one.
fn remote() -> Issuers {
    let mut inline = issuer_config_hs256();
    inline.issuer = "inline".to_owned();
    issuers(vec![inline, issuer_config_remote()])
}

#[track_caller]
fn check(issuers: &Issuers, kid: &str, expected: Result<(), Reason>) {
    let found = verify(issuers, &token(kid)).map(|_| ());
    assert_eq!(found, expected, "{kid}");
}

fn adopt(issuers: &mut Issuers, now: u64, at: u64, kids: &[&str]) -> Fetched {
    issuers.adopt(1, now, at, set(kids).as_bytes()).unwrap().0
}

#[test]
fn keys_are_kept_and_replaced() {
    let mut issuers = remote();
    check(&issuers, "a", Err(Reason::KeysNotLoaded));
    assert_eq!(issuers.remote(1).unwrap().path, "/keys");
    assert!(issuers.any_remote() && issuers.remote(0).is_none());
    assert_eq!(adopt(&mut issuers, 5_100, 5_100, &["a"]), Fetched::Changed);
    assert_eq!((issuers.generation(1), issuers.generation(0)), (1, 0));
    assert_eq!(issuers.keys_age_ms(1, 5_350), Some(250));
    check(&issuers, "a", Ok(()));
    check(&issuers, "b", Err(Reason::UnknownKid));
    let refused = issuers.peek(token("b").as_bytes(), NOW_MS).unwrap_err();
    assert!(refused.may_heal());
    assert_eq!(refused.issuer, Some(1));

    // The same keys in another text are the same keys.
    let text = set(&["a"]).replace(r#"{"keys""#, r#"{ "x": 1, "keys" "#);
    let got = issuers.adopt(1, 6_000, 6_000, text.as_bytes());
    assert_eq!(got, Ok((Fetched::Same, Skipped(0))));
    assert_eq!(issuers.generation(1), 1);
    assert_eq!(
        adopt(&mut issuers, 7_000, 7_000, &["b", "a"]),
        Fetched::Changed
    );
    assert_eq!(
        adopt(&mut issuers, 7_001, 7_001, &["a", "b"]),
        Fetched::Same
    );
    assert_eq!(adopt(&mut issuers, 7_002, 7_002, &["b"]), Fetched::Changed);
    check(&issuers, "a", Err(Reason::UnknownKid));
    check(&issuers, "b", Ok(()));
    assert_eq!(issuers.generation(1), 3);
}

#[test]
fn what_can_not_be_read_changes_nothing_until_it_is_too_old() {
    let mut issuers = remote();
    adopt(&mut issuers, 0, 0, &["a"]);
    for (body, names) in [
        (b"<html>".as_slice(), "keys"),
        (br#"{"keys":[]}"#, "none"),
        (br#"{"keys":[{"kty":"RSA","d":"AA"}]}"#, "keys[0].d"),
    ] {
        let error = issuers.adopt(1, 300_100, 300_100, body).unwrap_err();
        assert!(error.to_string().contains(names), "{error}");
        check(&issuers, "a", Ok(()));
        assert_eq!(issuers.generation(1), 1);
    }
    issuers.forget_old(1, 86_399_999);
    check(&issuers, "a", Ok(()));
    issuers.forget_old(1, 86_400_000);
    check(&issuers, "a", Err(Reason::KeysNotLoaded));
    assert_eq!(issuers.generation(1), 2);
    assert_eq!(issuers.keys_age_ms(1, 86_400_000), None);
}

#[test]
fn only_news_is_adopted() {
    let mut issuers = remote();
    assert_eq!(adopt(&mut issuers, 9_000, 5_000, &["a"]), Fetched::Changed);
    assert_eq!(issuers.keys_age_ms(1, 9_000), Some(4_000));
    // As old or older, or too old: no news.
    assert_eq!(adopt(&mut issuers, 9_000, 5_000, &["b"]), Fetched::Same);
    assert_eq!(adopt(&mut issuers, 9_000, 4_000, &["b"]), Fetched::Same);
    check(&issuers, "a", Ok(()));
    assert_eq!(adopt(&mut issuers, 9_000, 6_000, &["b"]), Fetched::Changed);
    check(&issuers, "b", Ok(()));
    // A time to come is taken for now.
    assert_eq!(
        adopt(&mut issuers, 9_000, u64::MAX, &["a"]),
        Fetched::Changed
    );
    assert_eq!(issuers.keys_age_ms(1, 9_000), Some(0));
    let mut fresh = remote();
    assert_eq!(adopt(&mut fresh, 90_000_000, 1, &["a"]), Fetched::Same);
    check(&fresh, "a", Err(Reason::KeysNotLoaded));
}

#[test]
fn what_is_not_remote_adopts_nothing() {
    let mut issuers = remote();
    for i in [0, 9] {
        issuers.forget_old(i, u64::MAX);
        assert_eq!(issuers.keys_age_ms(i, 0), None);
        let got = issuers.adopt(i, 0, 0, set(&["a"]).as_bytes());
        assert_eq!(got, Err(JwksError::NotRemote));
        assert_eq!(issuers.generation(i), 0);
    }
}
