//! What the tests of tokens share: keys that everyone knows, and tokens signed
//! with them.

mod claims;
mod configs;
mod flips;
mod headers;
mod key_choice;
mod key_sets;
mod remote;
mod vectors;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jwt_simple::algorithms::{HS256Key, HS384Key, HS512Key, MACLike as _};
use p256::ecdsa::signature::Signer as _;
use superboring::{
    hash::MessageDigest,
    pkey::PKey,
    rsa::{Padding, Rsa},
    sign::Signer,
};

use super::*;

/// What `iss` is in [`claims_of`] and in the configs.
pub(crate) const ISSUER: &str = "https://i.example";

/// Milliseconds of the Unix epoch at which the tests are.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// 64 bytes, in base64url: fits each HMAC.
pub(crate) const SECRET: &str = concat!(
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0i",
    "PS4hcgUuTwjAzZr1Z9CAow"
);

/// Made for these tests, PKCS #1.
const RSA: &str = concat!(
    "MIIEogIBAAKCAQEAiqKCl9UhjC626O4xpwVlATe/Qn3pbbElVfn8sDy8VvSKW+z0RzlZ6H9ft7wT1A/SNCNnqVbH4P",
    "zrneEIAzFdfksbEm/cKw426W3XXwmyVsX4yyjR6ooikpkETpHSodIwC6NgBG9Yuxulh5iAN+gxefYKEKslXJ5JjhvY",
    "r0n3Zbt3LlhsMrw/Mqf4GXQPfolcfHvLfl2W3YjINrL0jI/rN8qoGaw3LzyeSV3Sts40PFmF8W086NRAekD8RfSzzg",
    "7CfNfkCWU8yoSw+jvXOVBK1c6j9tpzEub+GniFEqXI1pyFIwRbidKq6iEf9qsx2SrASo6yoD1do244vZO4l/6OawID",
    "AQABAoIBAB/NJorgw6jOAHxPQ4mONbzBRnjgvD7C348o4LumuwdxYhmzMdfywnqQWWsi1COVm4EFTB6uvvwP2JanS7",
    "i7xrgVT3j7uvQPdy412a094rCAClHEI98a39JkEnZZgglH12icCgcKab7GGUMRCvyIIW1aMLXhJJlp3/Ke1aZkH8Gw",
    "mCpqcnd4WK58YNBGtqHiGtf0tdx+eTaf3sJBcH1rEgE68wekxMqDBxTShtf2Ydl8mCocDaiZdW1KTMGAVeC8NkwYZv",
    "vdbdlqEELWunceRzuhc0YA1Ls7LMGDnDvlBbiRKMeeTqzY3LwTfwMIkVDbCpfgGgI/iQo0s9NvUr6FRh0CgYEAw0Fm",
    "L2BPWTrkggZiYY2ASm+p6s493ii7h9ylurWDpVBEhNAOODkqhSpJPd2bLDBEU4+QVPb3E4pQ062J42qYm8VU1/daW6",
    "xltpNZT5SWrY6r5KpMQIB9VWTHB6Hp0IGLGFb9C0GsvvSL8uxUvMW4i2ewGYQO9IA3aS/MYBrm6gcCgYEAtcO1oEvR",
    "M/He30qzfuGae5EmAJRCZZRNGrdh2qTUWASKozJTTziNt0cE67hfb9JqkTpySQFiMbwvKesh3Yq8jjqLOmJB4wCCe2",
    "MP5+86zf1mC8rfQiS/+jbOhQSddhZWLBVcZGYGNFld2TDdGMg1IDB3OB4Wdqmmq9wF0hfBL30CgYBOG9Zt82AquOV6",
    "omUu0zVUEbFujgyv16mVYw4lT8GXGzId00Es+qlo1g6wofsWRUTADLlXU+hpN7a3xz9W62ibP+h98KSD8cZKsE1VCY",
    "LxcRaQhhO05fG9fHAmPH5Ve80R8pKNszsQtLFbf3EyhwIZOmR3AJ4e7z+7Y3SlqX1gdwKBgFh0Pm4cl1lVCmXVv5Yu",
    "ifQ6RakgfVNboU4wEfHKJwASbblPo1U5K1YWvKFN3zvWxT+ZlsZKYxPbBYS7xYY/ntUETn8CFBg5RkZvhe0T8aUO/N",
    "seRhm1Mqu8gjIfddVit1rKpmTBdaGCH/azHdWSkK/yhgIMOlhS5SZbc4WzQ7MtAoGAU9iX/AM+Z9kM6B22k+xfprOe",
    "iTkHOk3b5t6pfQyxB1xajFkUk5FF4HQekNsz9UGeet9IGqvDOjTbBDol2cHe6tMw2tlLQBVWA9ogHKAC03oDsr6tkb",
    "rinQV4yP2Q27PuRjoDc5V7634IpxvyA3j+3YYcMd9FYk6P8NtDjCTrkMw=",
);

/// Its modulus.
pub(crate) const RSA_N: &str = concat!(
    "iqKCl9UhjC626O4xpwVlATe_Qn3pbbElVfn8sDy8VvSKW-z0RzlZ6H9ft7wT1A_SNCNnqVbH4PzrneEIAzFd",
    "fksbEm_cKw426W3XXwmyVsX4yyjR6ooikpkETpHSodIwC6NgBG9Yuxulh5iAN-gxefYKEKslXJ5JjhvYr0n3",
    "Zbt3LlhsMrw_Mqf4GXQPfolcfHvLfl2W3YjINrL0jI_rN8qoGaw3LzyeSV3Sts40PFmF8W086NRAekD8RfSz",
    "zg7CfNfkCWU8yoSw-jvXOVBK1c6j9tpzEub-GniFEqXI1pyFIwRbidKq6iEf9qsx2SrASo6yoD1do244vZO4",
    "l_6Oaw",
);

/// Its public half.
pub(crate) const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAiqKCl9UhjC626O4xpwVl
ATe/Qn3pbbElVfn8sDy8VvSKW+z0RzlZ6H9ft7wT1A/SNCNnqVbH4PzrneEIAzFd
fksbEm/cKw426W3XXwmyVsX4yyjR6ooikpkETpHSodIwC6NgBG9Yuxulh5iAN+gx
efYKEKslXJ5JjhvYr0n3Zbt3LlhsMrw/Mqf4GXQPfolcfHvLfl2W3YjINrL0jI/r
N8qoGaw3LzyeSV3Sts40PFmF8W086NRAekD8RfSzzg7CfNfkCWU8yoSw+jvXOVBK
1c6j9tpzEub+GniFEqXI1pyFIwRbidKq6iEf9qsx2SrASo6yoD1do244vZO4l/6O
awIDAQAB
-----END PUBLIC KEY-----";

/// RFC 7515, appendix A.3.1.
pub(crate) const P256_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
pub(crate) const P256_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const P256_D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";

/// RFC 8037, appendices A.1 and A.2.
pub(crate) const ED25519_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const ED25519_D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

/// A JWK of each type, with that `kid` and other members such as `,"alg":"x"`.
pub(crate) fn jwk(kty: &str, kid: &str, more: &str) -> String {
    let members = match kty {
        "oct" => format!(r#""k":"{SECRET}""#),
        "RSA" => format!(r#""n":"{RSA_N}","e":"AQAB""#),
        "EC" => format!(r#""crv":"P-256","x":"{P256_X}","y":"{P256_Y}""#),
        "OKP" => format!(r#""crv":"Ed25519","x":"{ED25519_X}""#),
        _ => String::from(r#""x":"AA""#),
    };
    format!(r#"{{"kty":"{kty}","kid":"{kid}",{members}{more}}}"#)
}

/// A set of such keys.
pub(crate) fn jwks(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// A config for `weir` as the audience, with these algorithms and members.
pub(crate) fn config(algorithms: &[Algorithm], more: &str) -> IssuerConfig {
    let names: Vec<&str> = algorithms.iter().map(|a| a.as_str()).collect();
    let json =
        format!(r#"{{"issuer":"{ISSUER}","audiences":["weir"],"algorithms":{names:?},{more}}}"#);
    serde_json::from_str(&json).unwrap()
}

/// Inline keys of each type that `algorithms` need, without `kid`s.
pub(crate) fn issuer_config(algorithm: Algorithm) -> IssuerConfig {
    let kty = match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 => "RSA",
        Algorithm::Es256 => "EC",
        Algorithm::EdDsa => "OKP",
        _ => "oct",
    };
    let set = jwks(&[jwk(kty, "k", "")]);
    config(&[algorithm], &format!(r#""jwks":{set}"#))
}

pub(crate) fn issuer_config_hs256() -> IssuerConfig {
    issuer_config(Algorithm::Hs256)
}

/// The issuer has one key, [`RSA_N`], at `/keys` of cluster `idp`.
pub(crate) fn issuer_config_remote() -> IssuerConfig {
    let uri = r#""jwks_uri":{"cluster":"idp","authority":"i.example","path":"/keys"}"#;
    config(&[Algorithm::Rs256], uri)
}

pub(crate) fn issuers(configs: Vec<IssuerConfig>) -> Issuers {
    Issuers::new(configs, |_| Ok(SECRET.to_owned())).unwrap()
}

/// Claims that are good at [`NOW_MS`] for ten minutes.
pub(crate) fn claims_of(tenant: &str) -> String {
    format!(
        r#"{{"iss":"{ISSUER}","aud":"weir","exp":1700000600,"iat":1700000000,"tenant_id":"{tenant}"}}"#
    )
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// The signature over `input`.
pub(crate) fn signature(algorithm: Algorithm, input: &[u8]) -> Vec<u8> {
    let rsa = |padding| {
        let key = Rsa::private_key_from_der(&STANDARD.decode(RSA).unwrap()).unwrap();
        let key = PKey::from_rsa(key).unwrap();
        let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
        signer.set_rsa_padding(padding).unwrap();
        signer.update(input).unwrap();
        signer.sign_to_vec().unwrap()
    };
    match algorithm {
        Algorithm::Hs256 => HS256Key::from_bytes(&decode(SECRET)).authentication_tag(input),
        Algorithm::Hs384 => HS384Key::from_bytes(&decode(SECRET)).authentication_tag(input),
        Algorithm::Hs512 => HS512Key::from_bytes(&decode(SECRET)).authentication_tag(input),
        Algorithm::Rs256 => rsa(Padding::PKCS1),
        Algorithm::Ps256 => rsa(Padding::PKCS1_PSS),
        Algorithm::Es256 => {
            let key = p256::ecdsa::SigningKey::from_slice(&decode(P256_D)).unwrap();
            let made: p256::ecdsa::Signature = key.sign(input);
            made.to_vec()
        }
        Algorithm::EdDsa => {
            let seed = ed25519_compact::Seed::from_slice(&decode(ED25519_D)).unwrap();
            let key = ed25519_compact::KeyPair::from_seed(seed).sk;
            key.sign(input, None).to_vec()
        }
    }
}

/// A token with that header, signed with that algorithm whatever it says.
pub(crate) fn sign_as(algorithm: Algorithm, header: &str, claims: &str) -> String {
    let input = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes())
    );
    let signature = signature(algorithm, input.as_bytes());
    format!("{input}.{}", encode(&signature))
}

pub(crate) fn sign(algorithm: Algorithm, claims: &str) -> String {
    let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, algorithm.as_str());
    sign_as(algorithm, &header, claims)
}

pub(crate) fn sign_hs256(claims: &str) -> String {
    sign(Algorithm::Hs256, claims)
}

/// Peeks and verifies at [`NOW_MS`].
pub(crate) fn verify(issuers: &Issuers, token: &str) -> Result<Claimed, Reason> {
    issuers
        .peek(token.as_bytes(), NOW_MS)
        .and_then(|peeked| peeked.verify(&JwtSimple))
        .map_err(|refused| refused.reason)
}
