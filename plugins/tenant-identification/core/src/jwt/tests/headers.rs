//! What a token's shape and header must be.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

#[track_caller]
fn check(algorithm: Algorithm, header: &str, expected: Result<&str, Reason>) {
    let issuers = issuers(vec![issuer_config(algorithm)]);
    let token = sign_as(algorithm, header, &claims_of("acme"));
    let found = verify(&issuers, &token).map(|c| c.tenant.to_string());
    assert_eq!(found, expected.map(str::to_owned), "{header}");
}

#[track_caller]
fn check_text(token: &str, reason: Reason) {
    let issuers = issuers(vec![issuer_config_hs256()]);
    let refused = issuers.peek(token.as_bytes(), NOW_MS).unwrap_err();
    assert_eq!(refused.reason, reason, "{token}");
}

#[test]
fn plain_headers_are_read() {
    for more in [
        "",
        r#","typ":"JWT""#,
        r#","typ":"jwt""#,
        r#","typ":"at+jwt""#,
        r#","typ":"application/at+JWT""#,
        r#","typ":"Application/jwt""#,
        r#","kid":"k""#,
        r#","x5t":"AAAA","cty":"x","nonce":null"#,
    ] {
        check(
            Algorithm::Hs256,
            &format!(r#"{{"alg":"HS256"{more}}}"#),
            Ok("acme"),
        );
    }
}

#[test]
fn a_header_that_asks_for_more_is_refused() {
    for (more, reason) in [
        (r#","jwk":{"kty":"oct","k":"AAAA"}"#, Reason::EmbeddedKey),
        (r#","jku":"https://evil.example/keys""#, Reason::EmbeddedKey),
        (r#","x5u":"https://evil.example/cert""#, Reason::EmbeddedKey),
        (r#","x5c":["AAAA"]"#, Reason::EmbeddedKey),
        (r#","jwk":null"#, Reason::EmbeddedKey),
        (r#","crit":["exp"],"exp":1"#, Reason::CriticalHeader),
        (r#","crit":[]"#, Reason::CriticalHeader),
        (r#","b64":false"#, Reason::CriticalHeader),
        (r#","b64":true"#, Reason::CriticalHeader),
        (r#","enc":"A128GCM""#, Reason::Type),
        (r#","zip":"DEF""#, Reason::Type),
        (r#","typ":"JWE""#, Reason::Type),
        (r#","typ":"dpop+jwt""#, Reason::Type),
        (r#","typ":"""#, Reason::Type),
        (r#","typ":1"#, Reason::Type),
        (r#","kid":1"#, Reason::Malformed),
        (r#","kid":null"#, Reason::Malformed),
        (r#","alg":"HS256""#, Reason::Malformed),
        (r#","\u0061lg":"none""#, Reason::Malformed),
    ] {
        check(
            Algorithm::Hs256,
            &format!(r#"{{"alg":"HS256"{more}}}"#),
            Err(reason),
        );
    }
    for (length, expected) in [(256, Reason::UnknownKid), (257, Reason::Malformed)] {
        let header = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(length));
        check(Algorithm::Hs256, &header, Err(expected));
    }
}

#[test]
fn only_the_issuers_algorithms_count() {
    for alg in [
        r#""none""#,
        r#""None""#,
        r#""NONE""#,
        r#""""#,
        r#""hs256""#,
        r#""ES512""#,
        r#""RS384""#,
        r#""HS384""#,
        r#""RS256""#,
        r#""ES256""#,
        r#""EdDSA""#,
        "null",
        "1",
        r#"["HS256"]"#,
    ] {
        check(
            Algorithm::Hs256,
            &format!(r#"{{"alg":{alg}}}"#),
            Err(Reason::Algorithm),
        );
    }
    check(Algorithm::Hs256, r#"{"typ":"JWT"}"#, Err(Reason::Algorithm));
}

/// RFC 8725, section 2.1: a public key is no secret.
#[test]
fn a_public_key_is_no_hmac_secret() {
    let claims = claims_of("acme");
    let input = format!(
        "{}.{}",
        encode(br#"{"alg":"HS256"}"#),
        encode(claims.as_bytes())
    );
    let pem: String = RSA_PEM.lines().filter(|l| !l.contains("---")).collect();
    for secret in [
        RSA_PEM.as_bytes().to_vec(),
        RSA_PEM.trim().as_bytes().to_vec(),
        STANDARD.decode(pem).unwrap(),
        jwk("RSA", "k", "").into_bytes(),
        decode(RSA_N),
    ] {
        let tag = HS256Key::from_bytes(&secret).authentication_tag(input.as_bytes());
        let token = format!("{input}.{}", encode(&tag));
        for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
            let issuers = issuers(vec![issuer_config(algorithm)]);
            assert_eq!(verify(&issuers, &token), Err(Reason::Algorithm));
            // Nor would the check itself take it, were it asked.
            let good = sign(algorithm, &claims);
            let key = issuers.peek(good.as_bytes(), NOW_MS);
            let key = key.unwrap().candidates[0].clone();
            assert!(!JwtSimple.check(&key, Algorithm::Hs256, input.as_bytes(), &tag));
        }
    }
}

#[test]
fn what_is_no_token_is_malformed() {
    let token = sign_hs256(&claims_of("acme"));
    let parts: Vec<&str> = token.split('.').collect();
    let [h, c, s] = [parts[0], parts[1], parts[2]];
    for text in [
        String::new(),
        "..".to_owned(),
        "....".to_owned(),
        format!("{h}.{c}"),
        format!("{h}.{c}."),
        format!("{h}..{s}"),
        format!(".{c}.{s}"),
        format!("{token}."),
        format!("{token}.{s}"),
        format!("{h}.{c}.{s}="),
        format!(" {token}"),
        format!("{h}=.{c}.{s}"),
        format!("{h}.{c}.{}", s.replace(['-', '_'], "+")) + "+",
        format!("{}.{c}.{s}", encode(b"[]")),
        format!("{}.{c}.{s}", encode(b"{\"alg\":\"HS256\"")),
        format!("{h}.{}.{s}", encode(b"\"x\"")),
        format!("{h}.{}.{s}", encode(br#"{"iss":"a","iss":"b"}"#)),
        format!("{h}.{}.{s}", encode(b"\xff")),
    ] {
        check_text(&text, Reason::Malformed);
    }
    // 32 bytes leave two bits over, which are zero in the one true form.
    let last = s.chars().last().unwrap();
    let next = char::from(u8::try_from(last).unwrap() + 1);
    check_text(
        &format!("{h}.{c}.{}{next}", &s[..s.len() - 1]),
        Reason::Malformed,
    );
    check_text(&"a".repeat(TOKEN_MAX_BYTES + 1), Reason::TooLarge);
    check_text(&"a".repeat(TOKEN_MAX_BYTES), Reason::Malformed);
}

#[test]
fn a_signature_that_can_be_none_costs_no_check() {
    const N: &str = "_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE";
    let one = {
        let mut half = [0; 32];
        half[31] = 1;
        half
    };
    let order = decode(N);
    let mut below = order.clone();
    below[31] -= 1;
    for (algorithm, signature, is_fit) in [
        (Algorithm::Hs256, vec![0; 32], true),
        (Algorithm::Hs256, vec![0; 31], false),
        (Algorithm::Hs256, vec![0; 64], false),
        (Algorithm::Hs384, vec![0; 48], true),
        (Algorithm::Hs512, vec![0; 48], false),
        (Algorithm::Rs256, vec![0; 256], true),
        (Algorithm::Rs256, vec![0; 255], false),
        (Algorithm::Ps256, vec![0; 257], false),
        (Algorithm::EdDsa, vec![0; 64], true),
        (Algorithm::EdDsa, vec![0; 63], false),
        (Algorithm::Es256, [one, one].concat(), true),
        (Algorithm::Es256, [one, [0; 32]].concat(), false),
        (Algorithm::Es256, [[0; 32], one].concat(), false),
        (Algorithm::Es256, [one.as_slice(), &order].concat(), false),
        (Algorithm::Es256, [&order, one.as_slice()].concat(), false),
        (Algorithm::Es256, [one.as_slice(), &below].concat(), true),
        (Algorithm::Es256, [one, [0xff; 32]].concat(), false),
        (
            Algorithm::Es256,
            [one.as_slice(), &one, &[0]].concat(),
            false,
        ),
        (Algorithm::Es256, vec![1; 70], false),
    ] {
        let issuers = issuers(vec![issuer_config(algorithm)]);
        let token = sign(algorithm, &claims_of("acme"));
        let input = token.rsplit_once('.').unwrap().0;
        let token = format!("{input}.{}", encode(&signature));
        let peeked = issuers.peek(token.as_bytes(), NOW_MS);
        assert_eq!(peeked.is_ok(), is_fit, "{algorithm:?} {signature:?}");
        assert_eq!(verify(&issuers, &token), Err(Reason::Signature));
    }
}
