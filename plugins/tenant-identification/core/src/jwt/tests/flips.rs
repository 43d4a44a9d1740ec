//! No bytes panic, and no token verifies that was not signed.

use std::sync::OnceLock;

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// Per algorithm, its issuer and a good token.
fn good() -> &'static [(Issuers, String)] {
    static GOOD: OnceLock<Vec<(Issuers, String)>> = OnceLock::new();
    GOOD.get_or_init(|| {
        Algorithm::ALL
            .map(|a| (issuers(vec![issuer_config(a)]), sign(a, &claims_of("acme"))))
            .into()
    })
}

/// HMAC and Ed25519 are quick enough to try each bit.
#[test]
fn no_bit_may_flip() {
    for (issuers, token) in [&good()[0], &good()[6]] {
        let mut bytes = token.clone().into_bytes();
        assert!(issuers.peek(&bytes, NOW_MS).is_ok());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                let found = issuers.peek(&bytes, NOW_MS);
                assert!(
                    found.and_then(|p| p.verify(&JwtSimple)).is_err(),
                    "{at} {bit}"
                );
                bytes[at] ^= 1 << bit;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bit_of_any_may_flip(which in 0_usize..7, at in any::<prop::sample::Index>(), bit in 0..8) {
        let (issuers, token) = &good()[which];
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let found = issuers.peek(&bytes, NOW_MS);
        prop_assert!(found.and_then(|p| p.verify(&JwtSimple)).is_err());
    }

    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        header in r#"\{"alg":"HS256"(,"[a-z]{1,3}":("\PC{0,5}"|[0-9]{1,20}|null))?\}|\PC{0,20}"#,
        claims in r#"\{("(iss|exp|aud|nbf|iat)":("\PC{0,5}"|-?[0-9]{1,25}|\[\]|null),?){0,3}\}|\PC{0,20}"#,
        wall_ms in any::<u64>(),
    ) {
        let (issuers, _) = &good()[0];
        let _ = issuers.peek(&bytes, wall_ms);
        let token = sign_as(Algorithm::Hs256, &header, &claims);
        let _ = issuers.peek(token.as_bytes(), wall_ms);
        let mut cache = VerifiedCache::new(4, 4_000, &[7; 16]);
        let _ = cache.get(&bytes, wall_ms, |_| 0);
        let refused = Refused { reason: Reason::Signature, issuer: None };
        cache.put(&bytes, usize::MAX, &Err(refused), wall_ms, 0);
    }

    #[test]
    fn no_signature_of_chance_verifies(
        which in 0_usize..7, bytes in prop::collection::vec(any::<u8>(), 256),
    ) {
        let (issuers, token) = &good()[which];
        let (input, own) = token.rsplit_once('.').unwrap();
        let made = encode(&bytes[..decode(own).len()]);
        let token = format!("{input}.{made}");
        prop_assert_eq!(verify(issuers, &token), Err(Reason::Signature));
    }
}
