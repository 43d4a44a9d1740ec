//! Reads JSON Web Keys and sets of them (RFC 7517; RFC 7518, section 6; RFC
//! 8037, section 2).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    Algorithm,
    key::{Key, Material, PublicKey, Secret},
};

/// The most keys in a set.
pub const SET_MAX_KEYS: usize = 64;

/// The longest set, in bytes.
pub const SET_MAX_BYTES: usize = 64 * 1024;

/// The longest `kid`, in bytes.
pub const KID_MAX_BYTES: usize = 256;

/// The members that only a private key has (RFC 7518, sections 6.2.2 and
/// 6.3.2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// How many keys of a set are not for verifying tokens here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped(pub usize);

/// Why a set of keys is refused. Never repeats a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JwksError {
    /// The issuer has no `jwks_uri`.
    #[error("the issuer's keys are not fetched")]
    NotRemote,
    /// The fetch failed.
    #[error("no key set was fetched")]
    NotFetched,
    /// Longer than [`SET_MAX_BYTES`].
    #[error("a key set must have at most {SET_MAX_BYTES} bytes, found {found}")]
    TooLarge {
        /// How many it has.
        found: usize,
    },
    /// Not an object with an array `keys` of objects.
    #[error("keys: must be an array of objects in an object with no member twice")]
    NoSet,
    /// More than [`SET_MAX_KEYS`].
    #[error("keys: must be at most {SET_MAX_KEYS}, found {found}")]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// A key holds what it must not, or lacks what it must hold.
    #[error("keys[{index}].{field}: {why}")]
    Key {
        /// 0 for the first.
        index: usize,
        /// The member of the key.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// None of its keys verifies tokens.
    #[error("keys: none of {found} is a key that verifies tokens here")]
    NoneUsable {
        /// How many there are.
        found: usize,
    },
}

/// Where a set comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The operator wrote it: what is wrong with it is said.
    Inline,
    /// An issuer serves it: what is of no use is passed over, and secrets, too,
    /// since whoever can read the set would hold them.
    Fetched,
}

enum Flaw {
    /// Made for something else.
    NotForUs,
    /// Meant for us and wrong.
    Wrong(&'static str, String),
    /// Lays open what its owner alone must have.
    Private(&'static str),
}

/// Reads the text of a fetched set.
pub(crate) fn fetched(body: &[u8]) -> Result<(Vec<Key>, Skipped), JwksError> {
    if body.len() > SET_MAX_BYTES {
        return Err(JwksError::TooLarge { found: body.len() });
    }
    let members = super::json::object(body).ok_or(JwksError::NoSet)?;
    set(&members, Origin::Fetched)
}

/// Reads a set.
pub(crate) fn set(
    members: &Map<String, Value>,
    origin: Origin,
) -> Result<(Vec<Key>, Skipped), JwksError> {
    let Some(Value::Array(list)) = members.get("keys") else {
        return Err(JwksError::NoSet);
    };
    if list.len() > SET_MAX_KEYS {
        return Err(JwksError::TooMany { found: list.len() });
    }
    let (mut keys, mut skipped) = (Vec::new(), Skipped(0));
    for (index, jwk) in list.iter().enumerate() {
        let Value::Object(jwk) = jwk else {
            return Err(JwksError::NoSet);
        };
        let wrong = |field, why| JwksError::Key { index, field, why };
        match (key(jwk, origin), origin) {
            (Ok(key), _) => keys.push(key),
            (Err(Flaw::Private(field)), _) => {
                let why = "a private key must not stand in a set of public keys";
                return Err(wrong(field, why.to_owned()));
            }
            (Err(Flaw::Wrong(field, why)), Origin::Inline) => return Err(wrong(field, why)),
            // RFC 7517, section 5: a key that can't be used spoils no other.
            (Err(_), _) => skipped.0 = skipped.0.saturating_add(1),
        }
    }
    if keys.is_empty() {
        return Err(JwksError::NoneUsable { found: list.len() });
    }
    Ok((keys, skipped))
}

fn key(jwk: &Map<String, Value>, origin: Origin) -> Result<Key, Flaw> {
    let kty = text(jwk, "kty")?.ok_or_else(|| wrong("kty", "is missing"))?;
    if kty != "oct"
        && let Some(field) = PRIVATE.into_iter().find(|name| jwk.contains_key(*name))
    {
        return Err(Flaw::Private(field));
    }
    if text(jwk, "use")?.is_some_and(|u| u != "sig") {
        return Err(Flaw::NotForUs);
    }
    match jwk.get("key_ops") {
        None => {}
        Some(Value::Array(ops)) if ops.iter().any(|op| op == "verify") => {}
        Some(Value::Array(_)) => return Err(Flaw::NotForUs),
        Some(_) => return Err(wrong("key_ops", "must be an array")),
    }
    let algorithm = match text(jwk, "alg")? {
        None => None,
        Some(name) => Some(Algorithm::parse(name).ok_or(Flaw::NotForUs)?),
    };
    let kid = text(jwk, "kid")?.map(str::to_owned);
    if kid.as_ref().is_some_and(|k| k.len() > KID_MAX_BYTES) {
        return Err(wrong("kid", "must have at most 256 bytes"));
    }
    let key = Key {
        kid,
        algorithm,
        material: material(jwk, kty, algorithm, origin)?,
    };
    if algorithm.is_some_and(|a| !key.fits(a)) {
        return Err(wrong("alg", "is not for a key of this type"));
    }
    Ok(key)
}

fn material(
    jwk: &Map<String, Value>,
    kty: &str,
    algorithm: Option<Algorithm>,
    origin: Origin,
) -> Result<Material, Flaw> {
    let named = |(field, why)| wrong(field, why);
    match kty {
        "RSA" => PublicKey::rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?)
            .map(Material::Public)
            .map_err(named),
        "EC" if text(jwk, "crv")? == Some("P-256") => {
            PublicKey::p256(&bytes(jwk, "x")?, &bytes(jwk, "y")?)
                .map(Material::Public)
                .map_err(named)
        }
        "OKP" if text(jwk, "crv")? == Some("Ed25519") => PublicKey::ed25519(&bytes(jwk, "x")?)
            .map(Material::Public)
            .map_err(named),
        "oct" if origin == Origin::Inline => {
            let min = algorithm.unwrap_or(Algorithm::Hs256).hash().bytes();
            Secret::new(&bytes(jwk, "k")?, min)
                .map(|secret| Material::Secret(Box::new(secret)))
                .map_err(|why| Flaw::Wrong("k", why))
        }
        _ => Err(Flaw::NotForUs),
    }
}

fn wrong(field: &'static str, why: &str) -> Flaw {
    Flaw::Wrong(field, why.to_owned())
}

fn text<'a>(jwk: &'a Map<String, Value>, field: &'static str) -> Result<Option<&'a str>, Flaw> {
    match jwk.get(field) {
        None => Ok(None),
        Some(Value::String(s)) => Ok(Some(s)),
        Some(_) => Err(wrong(field, "must be a string")),
    }
}

fn bytes(jwk: &Map<String, Value>, field: &'static str) -> Result<Vec<u8>, Flaw> {
    let text = text(jwk, field)?.ok_or_else(|| wrong(field, "is missing"))?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| wrong(field, "must be base64url without padding"))
}
