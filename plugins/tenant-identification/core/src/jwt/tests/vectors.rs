//! What the RFCs and OpenSSL signed is found genuine.

use p256::pkcs8::EncodePublicKey as _;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::jwt::jwk::{self, Origin};

/// RFC 7515, appendix A.1: the claims of A.2 and A.3, too.
const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

const RFC_7515_A2_N: &str = concat!(
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEz",
    "P1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf6",
    "3kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5Zw",
    "Kh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRW",
    "yuXpoQ"
);
const RFC_7515_A2: &str = concat!(
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt",
    "_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArL",
    "IARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7no",
    "OPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQ",
    "Ge77Rw"
);

/// Made by OpenSSL with [`RSA_PEM`]'s key, a salt of 32 bytes.
const OPENSSL_PS256: &str = concat!(
    "eyJhbGciOiJQUzI1NiJ9.eyJpc3MiOiJodHRwczovL2kuZXhhbXBsZSIsImF1ZCI6IndlaXIiLCJleHAiOjI",
    "wMDAwMDAwMDAsInRlbmFudF9pZCI6ImFjbWUifQ.E90sJ8sWLxliYHQafoykbSQwpMhqPsc2rWDRNqTIi8PL",
    "ANQHMjoyXKGu5EHb7BBK2b94GhjnU5R1Pk4DZLJVNOFBm4UpPPekbvrwIQqZ17LQdppDFk5ELKAFmtLsBvNJ",
    "LGD4zct-Q3frP4FDxh-5Bk7weoD5-VYZk7yoqwAiUOcatNIRqOoGy0ofWJZdx7DcAcKnhKhTY9TeJBrQV058",
    "Sw4j93zDcHLrDMUejwYAAa0FsH0f8qonPknVKd3dKK48O7OD5IaH1uz0y8qSICSWJ0-vtTYL3UhKIc8jYIKs",
    "k037ngW7U4tDOhw2-NAyBQ_ENNy2WVMQqRSoiHuv81LO3w",
);

fn key(jwk: &str) -> Key {
    let set = serde_json::from_str(&jwks(&[jwk.to_owned()])).unwrap();
    jwk::set(&set, Origin::Inline).unwrap().0.remove(0)
}

/// The token as it is verifies, and neither with a bit less of its claims nor
/// under another algorithm.
#[track_caller]
fn check(jwk: &str, algorithm: Algorithm, token: &str) {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (key, signature) = (key(jwk), decode(signature));
    let verifies =
        |algorithm, input: &str| JwtSimple.check(&key, algorithm, input.as_bytes(), &signature);
    assert!(verifies(algorithm, input), "{token}");
    assert!(!verifies(algorithm, &input[1..]), "{token}");
    for other in Algorithm::ALL.into_iter().filter(|a| *a != algorithm) {
        assert!(!verifies(other, input), "{other:?} {token}");
    }
}

#[test]
fn examples_of_rfc_7515() {
    let rsa = format!(r#"{{"kty":"RSA","n":"{RFC_7515_A2_N}","e":"AQAB"}}"#);
    check(
        &jwk("oct", "", ""),
        Algorithm::Hs256,
        &format!(
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        ),
    );
    check(
        &rsa,
        Algorithm::Rs256,
        &format!("eyJhbGciOiJSUzI1NiJ9.{JOE}.{RFC_7515_A2}"),
    );
    check(
        &jwk("EC", "", ""),
        Algorithm::Es256,
        &format!(
            "eyJhbGciOiJFUzI1NiJ9.{JOE}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        ),
    );
}

/// RFC 7515, appendices A.1 and A.4 to A.6, as a client would send them.
#[test]
fn examples_of_rfc_7515_that_are_refused() {
    let set = jwks(&[jwk("oct", "", "")]);
    let json =
        format!(r#"{{"issuer":"joe","algorithms":["HS256"],"any_audience":true,"jwks":{set}}}"#);
    let issuers = issuers(vec![serde_json::from_str(&json).unwrap()]);
    let hs256 = format!(
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
    let es512 = format!("{}.UGF5bG9hZA.AdwMgeerwtHoh", encode(br#"{"alg":"ES512"}"#));
    let json =
        format!(r#"{{"payload":"{JOE}","protected":"eyJhbGciOiJFUzI1NiJ9","signature":"AA"}}"#);
    for (token, wall_s, reason) in [
        (&hs256, 1_300_819_000, Reason::TenantClaim),
        (&hs256, 1_300_819_410, Reason::Expired),
        (&es512, 1_300_819_000, Reason::Algorithm),
        (
            &format!("eyJhbGciOiJub25lIn0.{JOE}."),
            1_300_819_000,
            Reason::Algorithm,
        ),
        (
            &format!("eyJhbGciOiJub25lIn0.{JOE}.AA"),
            1_300_819_000,
            Reason::Algorithm,
        ),
        (&json, 1_300_819_000, Reason::Malformed),
    ] {
        let refused = issuers.peek(token.as_bytes(), wall_s * 1000).unwrap_err();
        assert_eq!(refused.reason, reason, "{token}");
    }
}

/// RFC 8037, appendix A.4.
#[test]
fn the_example_of_rfc_8037() {
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    check(&jwk("OKP", "", ""), Algorithm::EdDsa, token);
    // The same key and message give the same signature.
    let input = token.rsplit_once('.').unwrap().0;
    assert!(token.ends_with(&encode(&signature(Algorithm::EdDsa, input.as_bytes()))));
}

#[test]
fn what_openssl_signed() {
    check(&jwk("RSA", "", ""), Algorithm::Ps256, OPENSSL_PS256);
    let issuers = issuers(vec![issuer_config(Algorithm::Ps256)]);
    assert_eq!(
        verify(&issuers, OPENSSL_PS256).unwrap().tenant.as_str(),
        "acme"
    );
}

#[test]
fn each_algorithm_verifies_what_it_signed() {
    for algorithm in Algorithm::ALL {
        let issuers = issuers(vec![issuer_config(algorithm)]);
        let token = sign(algorithm, &claims_of("acme"));
        let claimed = verify(&issuers, &token).unwrap();
        assert_eq!(claimed.tenant.as_str(), "acme", "{algorithm:?}");
        assert_eq!(claimed.expires_at_ms, 1_700_000_630_000);
        assert_eq!((claimed.plan, claimed.issuer), (None, 0));
        let peeked = issuers.peek(token.as_bytes(), NOW_MS).unwrap();
        assert_eq!((peeked.checks(), peeked.exp_ms()), (1, 1_700_000_600_000));
        assert_eq!((peeked.issuer(), peeked.algorithm()), (0, algorithm));
        assert!(!format!("{peeked:?}").contains("acme"));
    }
}

/// The `ecdsa` crate writes the same DER.
#[test]
fn ecdsa_signatures_turn_into_der() {
    #[track_caller]
    fn check(r: [u8; 32], s: [u8; 32]) {
        let raw: [u8; 64] = [r, s].concat().try_into().unwrap();
        let expected = p256::ecdsa::Signature::from_slice(&raw).unwrap();
        assert_eq!(
            signature::ecdsa_raw_to_der(&raw),
            expected.to_der().as_bytes()
        );
    }
    let small = |last| {
        let mut half = [0; 32];
        half[31] = last;
        half
    };
    check([0x80; 32], [0x7f; 32]);
    check(small(1), small(0x80));
    check(small(0x7f), [0xfe; 32]);
    assert_eq!(
        signature::ecdsa_raw_to_der(&[0; 64]),
        [0x30, 6, 2, 1, 0, 2, 1, 0]
    );
}

#[test]
fn public_keys_give_the_der_that_others_read() {
    let spki = |kty| key(&jwk(kty, "", "")).public_key().unwrap().spki().to_vec();
    let pem: String = RSA_PEM.lines().filter(|l| !l.contains("---")).collect();
    assert_eq!(spki("RSA"), STANDARD.decode(pem).unwrap());
    let secret = p256::SecretKey::from_slice(&decode(P256_D)).unwrap();
    let expected = secret.public_key().to_public_key_der().unwrap();
    assert_eq!(spki("EC"), expected.as_bytes());
    let expected = ed25519_compact::PublicKey::from_slice(&decode(ED25519_X)).unwrap();
    assert_eq!(spki("OKP"), expected.to_der());
    assert!(key(&jwk("oct", "", "")).public_key().is_none());
}
