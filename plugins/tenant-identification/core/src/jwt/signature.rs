//! Checks signatures.

use jwt_simple::algorithms::MACLike as _;
use p256::ecdsa::signature::Verifier as _;
use subtle::ConstantTimeEq as _;
use superboring::{hash::MessageDigest, rsa::Padding, sign::Verifier};

use super::{
    Algorithm,
    key::{Inner, Key, Material},
};

/// The order of P-256's group, which neither half of a signature reaches (FIPS
/// 186-5, section 6.4.2).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Whoever does the arithmetic: this crate, or the gateway's own BoringSSL.
pub trait SignatureCheck {
    /// Whether `key` made `signature` over `signing_input` with `algorithm`.
    ///
    /// The signature is as JWS has it: for ES256, `r` and `s` of 32 bytes each.
    fn check(
        &self,
        key: &Key,
        algorithm: Algorithm,
        signing_input: &[u8],
        signature: &[u8],
    ) -> bool;

    /// What that costs, in checks of the budget, of which one is about 50 µs
    /// or less.
    fn cost(&self, key: &Key, algorithm: Algorithm) -> u32 {
        cost_in_rust(key, algorithm)
    }
}

/// What a check costs in WebAssembly: up to 0.4 ms for EdDSA, 2 ms for ES256 and
/// RS256, 5 ms for PS256, and four times that with RSA keys of 4,096 bits.
fn cost_in_rust(key: &Key, algorithm: Algorithm) -> u32 {
    let at_2048_bits: u32 = match algorithm {
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => 1,
        Algorithm::EdDsa => 2,
        Algorithm::Es256 | Algorithm::Rs256 => 5,
        Algorithm::Ps256 => 10,
    };
    let is_long = matches!(
        &key.material,
        Material::Public(key) if matches!(key.inner, Inner::Rsa { bytes, .. } if bytes > 256)
    );
    at_2048_bits.saturating_mul(if is_long { 4 } else { 1 })
}

/// Checks in Rust, with jwt-simple's keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct JwtSimple;

impl SignatureCheck for JwtSimple {
    fn check(
        &self,
        key: &Key,
        algorithm: Algorithm,
        signing_input: &[u8],
        signature: &[u8],
    ) -> bool {
        key.fits(algorithm)
            && is_fit(key, algorithm, signature)
            && match &key.material {
                Material::Secret(secret) => {
                    let tag = match algorithm {
                        Algorithm::Hs256 => secret.hs256.authentication_tag(signing_input),
                        Algorithm::Hs384 => secret.hs384.authentication_tag(signing_input),
                        Algorithm::Hs512 => secret.hs512.authentication_tag(signing_input),
                        _ => return false,
                    };
                    tag.ct_eq(signature).into()
                }
                Material::Public(key) => match &key.inner {
                    Inner::Rsa { key, .. } => {
                        check_rsa(key, algorithm, signing_input, signature).unwrap_or(false)
                    }
                    Inner::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                        .is_ok_and(|s| key.as_ref().verify(signing_input, &s).is_ok()),
                    Inner::Ed25519(key) => ed25519_compact::Signature::from_slice(signature)
                        .is_ok_and(|s| key.as_ref().verify(signing_input, &s).is_ok()),
                },
            }
    }
}

fn check_rsa(
    key: &superboring::pkey::PKey<superboring::pkey::Public>,
    algorithm: Algorithm,
    signing_input: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let padding = match algorithm {
        Algorithm::Rs256 => Padding::PKCS1,
        Algorithm::Ps256 => Padding::PKCS1_PSS,
        _ => return None,
    };
    let mut verifier = Verifier::new(MessageDigest::sha256(), key).ok()?;
    verifier.set_rsa_padding(padding).ok()?;
    verifier.update(signing_input).ok()?;
    verifier.verify(signature).ok()
}

/// Whether the signature could be one at all: of the right length, and for
/// ECDSA neither half zero or past the group's order. Costs nothing, so that
/// what is not fit takes nothing of the budget.
#[must_use]
pub fn is_fit(key: &Key, algorithm: Algorithm, signature: &[u8]) -> bool {
    match (&key.material, algorithm) {
        (Material::Secret(_), a) if a.is_hmac() => signature.len() == a.hash().bytes(),
        (Material::Public(key), _) => match &key.inner {
            Inner::Rsa { bytes, .. } => signature.len() == *bytes,
            Inner::Ed25519(_) => signature.len() == 64,
            Inner::P256(_) => {
                signature.len() == 64
                    && signature
                        .chunks(32)
                        .all(|half| half < P256_ORDER.as_slice() && half.iter().any(|b| *b != 0))
            }
        },
        _ => false,
    }
}

/// The DER form of an ECDSA signature (RFC 3279, section 2.2.3), which is what
/// BoringSSL takes, of JWS's `r || s`.
#[must_use]
pub fn ecdsa_raw_to_der(raw: &[u8; 64]) -> Vec<u8> {
    let mut integers = Vec::with_capacity(70);
    for half in raw.chunks(32) {
        let start = half.iter().position(|b| *b != 0).unwrap_or(31);
        let digits = half.get(start..).unwrap_or_default();
        // A first bit that is set would make the number negative.
        let sign: &[u8] = match digits.first() {
            Some(first) if first & 0x80 != 0 => &[0],
            _ => &[],
        };
        integers.extend([2, short(sign.len().saturating_add(digits.len()))]);
        integers.extend_from_slice(sign);
        integers.extend_from_slice(digits);
    }
    let mut der = vec![0x30, short(integers.len())];
    der.append(&mut integers);
    der
}

/// A DER length below 128; two integers of 33 bytes stay below.
fn short(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}
