//! Which keys of a set are read, passed over or refused.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::jwt::jwk::{self, Origin};

/// A set of that key and of a good one: how many are skipped where it is inline
/// and where it is fetched, or what the error names.
#[track_caller]
fn check(jwk: &str, inline: Result<usize, &str>, fetched: Result<usize, &str>) {
    let text = jwks(&[super::jwk("EC", "good", ""), jwk.to_owned()]);
    let set = serde_json::from_str(&text).unwrap();
    for (found, expected) in [
        (jwk::set(&set, Origin::Inline), inline),
        (jwk::fetched(text.as_bytes()), fetched),
    ] {
        match (found, expected) {
            (Ok((keys, Skipped(n))), Ok(expected)) => {
                assert_eq!((n, keys.len()), (expected, 2 - n), "{jwk}");
            }
            (Err(error), Err(names)) => {
                let error = error.to_string();
                assert!(error.contains(names), "{error} should name {names}");
                assert!(!error.contains(&RSA_N[..20]), "{error}");
            }
            (found, _) => panic!("{jwk}: {found:?}"),
        }
    }
}

#[test]
fn keys_that_verify_are_read() {
    for kty in ["RSA", "EC", "OKP"] {
        for more in [
            "",
            r#","use":"sig""#,
            r#","key_ops":["verify"]"#,
            r#","key_ops":["sign","verify"]"#,
            r#","x5c":["AAAA"],"x5t":"AAAA""#,
        ] {
            check(&super::jwk(kty, "k", more), Ok(0), Ok(0));
        }
    }
    check(&super::jwk("oct", "k", ""), Ok(0), Ok(1));
    check(&super::jwk("RSA", "k", r#","alg":"PS256""#), Ok(0), Ok(0));
    check(&super::jwk("EC", "k", r#","alg":"ES256""#), Ok(0), Ok(0));
    check(&super::jwk("OKP", "k", r#","alg":"EdDSA""#), Ok(0), Ok(0));
}

#[test]
fn keys_for_other_things_are_passed_over() {
    for more in [
        r#","use":"enc""#,
        r#","key_ops":["encrypt"]"#,
        r#","key_ops":[]"#,
        r#","alg":"RSA-OAEP""#,
        r#","alg":"none""#,
    ] {
        check(&super::jwk("RSA", "k", more), Ok(1), Ok(1));
    }
    check(&super::jwk("XYZ", "k", ""), Ok(1), Ok(1));
    let ec = super::jwk("EC", "k", "");
    check(&ec.replace("P-256", "P-521"), Ok(1), Ok(1));
    let okp = super::jwk("OKP", "k", "");
    check(&okp.replace("Ed25519", "X25519"), Ok(1), Ok(1));
}

#[test]
fn keys_that_are_wrong_are_named_or_passed_over() {
    let rsa = super::jwk("RSA", "k", "");
    let n = |bytes: &[u8]| rsa.replace(RSA_N, &encode(bytes));
    let odd = |len: usize, first: u8| {
        let mut n = vec![0xff; len];
        n[0] = first;
        n
    };
    let ec = super::jwk("EC", "k", "");
    let okp = super::jwk("OKP", "k", "");
    let zero = encode(&[0; 32]);
    for (jwk, names) in [
        (n(&odd(128, 0xff)), "keys[1].n: must have 2048"),
        (n(&odd(256, 0x7f)), "keys[1].n: must have 2048"),
        (n(&odd(513, 1)), "keys[1].n: must have 2048 to 4096"),
        (n(&[]), "keys[1].n"),
        (n(&[0xfe; 256]), "keys[1].n: must be odd"),
        (rsa.replace("AQAB", "Aw"), "keys[1].e: must be 65537"),
        (rsa.replace("AQAB", ""), "keys[1].e"),
        (rsa.replace("AQAB", "AQAB="), "keys[1].e: must be base64url"),
        (rsa.replace(r#""n""#, r#""m""#), "keys[1].n: is missing"),
        (rsa.replace(r#""kty":"RSA","#, ""), "keys[1].kty"),
        (rsa.replace(r#""RSA""#, "1"), "keys[1].kty"),
        (rsa.replace(r#""kid":"k""#, r#""kid":7"#), "keys[1].kid"),
        (
            rsa.replace(r#""kid":"k""#, &format!(r#""kid":"{}""#, "k".repeat(257))),
            "keys[1].kid",
        ),
        (super::jwk("RSA", "k", r#","alg":"ES256""#), "keys[1].alg"),
        (super::jwk("EC", "k", r#","alg":"HS256""#), "keys[1].alg"),
        (super::jwk("RSA", "k", r#","use":["sig"]"#), "keys[1].use"),
        (
            super::jwk("RSA", "k", r#","key_ops":"verify""#),
            "keys[1].key_ops",
        ),
        (ec.replace(P256_X, &zero), "keys[1].x: is no point"),
        (ec.replace(P256_X, "AA"), "keys[1].x: must have 32"),
        (ec.replace(P256_Y, P256_X), "keys[1].x: is no point"),
        (okp.replace(ED25519_X, &zero), "keys[1].x: is no point"),
        (okp.replace(ED25519_X, "AA"), "keys[1].x: must have 32"),
    ] {
        check(&jwk, Err(names), Ok(1));
    }
    let short = super::jwk("oct", "k", "").replace(SECRET, &encode(&[7; 31]));
    check(&short, Err("keys[1].k: must have at least 32"), Ok(1));
    let bound = super::jwk("oct", "k", r#","alg":"HS512""#).replace(SECRET, &encode(&[7; 63]));
    check(&bound, Err("keys[1].k: must have at least 64"), Ok(1));
    let pem = super::jwk("oct", "k", "").replace(SECRET, &encode(RSA_PEM.as_bytes()));
    check(&pem, Err("keys[1].k: must be a secret"), Ok(1));
}

#[test]
fn a_zero_before_the_modulus_is_no_digit() {
    let n = [vec![0], decode(RSA_N)].concat();
    check(
        &super::jwk("RSA", "k", "").replace(RSA_N, &encode(&n)),
        Ok(0),
        Ok(0),
    );
}

#[test]
fn a_private_key_is_refused_with_its_set() {
    for kty in ["RSA", "EC", "OKP", "XYZ"] {
        for member in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
            let jwk = super::jwk(kty, "k", &format!(r#","{member}":"AAAA""#));
            let names = format!("keys[1].{member}: a private key");
            check(&jwk, Err(&names), Err(&names));
        }
    }
}

#[test]
fn a_set_is_an_object_with_a_few_keys() {
    let many = |n: usize| jwks(&vec![super::jwk("EC", "k", ""); n]);
    let long = format!(
        r#"{{"keys":[{}],"x":"{}"}}"#,
        jwk("EC", "k", ""),
        "x".repeat(SET_MAX_BYTES)
    );
    for (text, names) in [
        (String::new(), Err("keys: must be an array")),
        ("[]".to_owned(), Err("keys: must be an array")),
        (r#"{"keys":{}}"#.to_owned(), Err("keys: must be an array")),
        (r#"{"keys":[1]}"#.to_owned(), Err("keys: must be an array")),
        (
            r#"{"keys":[],"keys":[]}"#.to_owned(),
            Err("keys: must be an array"),
        ),
        (r#"{"keys":[]}"#.to_owned(), Err("none of 0")),
        (jwks(&[super::jwk("oct", "k", "")]), Err("none of 1")),
        (many(SET_MAX_KEYS), Ok(SET_MAX_KEYS)),
        (many(SET_MAX_KEYS + 1), Err("at most 64, found 65")),
        (long, Err("at most 65536 bytes")),
        (
            many(1).replace(r#""kid""#, r#""kty""#),
            Err("keys: must be an array"),
        ),
    ] {
        match (jwk::fetched(text.as_bytes()), names) {
            (Ok((keys, _)), Ok(n)) => assert_eq!(keys.len(), n),
            (Err(error), Err(names)) => assert!(error.to_string().contains(names), "{error}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        n in prop::collection::vec(any::<u8>(), 0..600),
        kty in prop_oneof![Just("RSA"), Just("EC"), Just("OKP"), Just("oct")],
        name in "n|e|x|y|k|kid|alg|use|crv|key_ops",
        value in r#""\PC{0,20}"|null|-?[0-9]{1,4}|\[\]|\{\}"#,
    ) {
        let _ = jwk::fetched(&bytes);
        let text = jwks(&[super::jwk(kty, "k", "").replace(RSA_N, &encode(&n))]);
        let _ = jwk::fetched(text.as_bytes());
        let mut at = 0;
        let good = super::jwk(kty, "k", "");
        if let Some(found) = good.find(&format!("\"{name}\":")) {
            at = found;
        }
        let text = jwks(&[format!("{}\"{name}\":{value},{}", &good[..at.max(1)], &good[at.max(1)..])]);
        let _ = jwk::fetched(text.as_bytes());
        if let Ok(set) = serde_json::from_str(&text) {
            let _ = jwk::set(&set, Origin::Inline);
        }
    }
}
