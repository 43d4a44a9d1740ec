//! One key that verifies: a public key, or a secret shared with the signer.

use std::fmt;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jwt_simple::algorithms::{
    Edwards25519PublicKey, HS256Key, HS384Key, HS512Key, P256PublicKey, RSAPublicKey,
};
use superboring::pkey::{PKey, Public};

use super::Algorithm;

/// The shortest RSA modulus, in bits (RFC 7518, section 3.3).
pub const RSA_MIN_BITS: usize = 2048;

/// The longest RSA modulus, in bits: what a check costs grows with its square.
pub const RSA_MAX_BITS: usize = 4096;

/// The only RSA exponent: all issuers use it, and a small one invites forgers.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// What stands before the point in a `SubjectPublicKeyInfo` of P-256.
const P256_HEADER: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// What stands before the key in a `SubjectPublicKeyInfo` of Ed25519 (RFC 8410).
const ED25519_HEADER: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A key, its name and what it may be used for.
#[derive(Clone)]
pub struct Key {
    pub(crate) kid: Option<String>,
    /// The one algorithm it is bound to; else any that fits its type.
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) material: Material,
}

#[derive(Clone)]
pub(crate) enum Material {
    Secret(Box<Secret>),
    Public(PublicKey),
}

/// A public key of one of the types that tokens are signed with.
#[derive(Clone)]
pub struct PublicKey {
    spki: Vec<u8>,
    pub(crate) inner: Inner,
}

#[derive(Clone)]
pub(crate) enum Inner {
    Rsa {
        key: Box<PKey<Public>>,
        bytes: usize,
    },
    P256(P256PublicKey),
    Ed25519(Edwards25519PublicKey),
}

impl Key {
    /// The name that a token's `kid` may give.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The public key; `None` for a secret, which leaves this crate by no way.
    #[must_use]
    pub fn public_key(&self) -> Option<&PublicKey> {
        match &self.material {
            Material::Public(key) => Some(key),
            Material::Secret(_) => None,
        }
    }

    /// Whether it may verify that algorithm: a public key never does as the
    /// secret of an HMAC, and a secret is as long as the hash (RFC 7518,
    /// section 3.2).
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|own| own == algorithm)
            && match (&self.material, algorithm) {
                (Material::Secret(s), a) if a.is_hmac() => s.bytes >= a.hash().bytes(),
                (Material::Public(key), a) => key.fits(a),
                _ => false,
            }
    }

    /// What makes it this key and no other; holds no secret.
    pub(crate) fn identity(&self) -> Vec<u8> {
        let kid = self.kid.as_deref().unwrap_or_default();
        let mut identity = Vec::new();
        identity.push(u8::from(self.kid.is_some()));
        identity.extend_from_slice(&u64::try_from(kid.len()).unwrap_or(u64::MAX).to_be_bytes());
        identity.extend_from_slice(kid.as_bytes());
        identity.extend_from_slice(self.algorithm.map_or("any", Algorithm::as_str).as_bytes());
        identity.push(0);
        if let Some(key) = self.public_key() {
            identity.extend_from_slice(key.spki());
        }
        identity
    }
}

/// Shows the name and the type.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.material {
            Material::Secret(_) => "oct",
            Material::Public(key) => key.kind(),
        };
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("kind", &kind)
            .finish_non_exhaustive()
    }
}

/// Shows the type.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.kind()).finish()
    }
}

impl PublicKey {
    /// DER of its `SubjectPublicKeyInfo` (RFC 5280, section 4.1), which is what
    /// BoringSSL takes.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn kind(&self) -> &'static str {
        match self.inner {
            Inner::Rsa { .. } => "RSA",
            Inner::P256(_) => "EC P-256",
            Inner::Ed25519(_) => "OKP Ed25519",
        }
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        matches!(
            (&self.inner, algorithm),
            (Inner::Rsa { .. }, Algorithm::Rs256 | Algorithm::Ps256)
                | (Inner::P256(_), Algorithm::Es256)
                | (Inner::Ed25519(_), Algorithm::EdDsa)
        )
    }

    /// An RSA key; the field that is wrong and why, where it is none.
    pub(crate) fn rsa(n: &[u8], e: &[u8]) -> Result<Self, (&'static str, &'static str)> {
        let n = n.iter().position(|b| *b != 0).and_then(|at| n.get(at..));
        let n = n.unwrap_or_default();
        let unused = n.first().map_or(0, |b| b.leading_zeros());
        let bits = n.len().saturating_mul(8);
        let bits = bits.saturating_sub(usize::try_from(unused).unwrap_or(0));
        if !(RSA_MIN_BITS..=RSA_MAX_BITS).contains(&bits) {
            return Err(("n", "must have 2048 to 4096 bits"));
        }
        if n.last().is_none_or(|b| b & 1 == 0) {
            return Err(("n", "must be odd"));
        }
        if e != RSA_EXPONENT {
            return Err(("e", "must be 65537"));
        }
        let wrong = ("n", "is no RSA modulus");
        let key = RSAPublicKey::from_components(n, e).map_err(|_| wrong)?;
        let spki = key.to_der().map_err(|_| wrong)?;
        let key = Box::new(PKey::from_rsa(key.as_ref().clone()).map_err(|_| wrong)?);
        let bytes = n.len();
        Ok(Self {
            spki,
            inner: Inner::Rsa { key, bytes },
        })
    }

    /// A point on P-256, each coordinate 32 bytes (RFC 7518, section 6.2.1).
    pub(crate) fn p256(x: &[u8], y: &[u8]) -> Result<Self, (&'static str, &'static str)> {
        for (name, coordinate) in [("x", x), ("y", y)] {
            if coordinate.len() != 32 {
                return Err((name, "must have 32 bytes"));
            }
        }
        let point = [&[4], x, y].concat();
        let key = P256PublicKey::from_bytes(&point).map_err(|_| ("x", "is no point on P-256"))?;
        Ok(Self {
            spki: [P256_HEADER.as_slice(), &point].concat(),
            inner: Inner::P256(key),
        })
    }

    /// A point of Ed25519 that is not of small order (RFC 8037, section 2).
    pub(crate) fn ed25519(x: &[u8]) -> Result<Self, (&'static str, &'static str)> {
        let key = Edwards25519PublicKey::from_bytes(x).map_err(|_| ("x", "must have 32 bytes"))?;
        key.as_ref()
            .validate()
            .map_err(|_| ("x", "is no point that Ed25519 may use"))?;
        Ok(Self {
            spki: [ED25519_HEADER.as_slice(), x].concat(),
            inner: Inner::Ed25519(key),
        })
    }

    /// Reads the one DER form of a `SubjectPublicKeyInfo`.
    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, &'static str> {
        let key = if let Some(x) = der.strip_prefix(ED25519_HEADER.as_slice()) {
            Self::ed25519(x).map_err(|(_, why)| why)?
        } else if let Some(point) = der.strip_prefix(P256_HEADER.as_slice()) {
            match point.split_first() {
                Some((4, xy)) => {
                    let (x, y) = xy.split_at(xy.len().min(32));
                    Self::p256(x, y).map_err(|(_, why)| why)?
                }
                _ => return Err("must hold an uncompressed point"),
            }
        } else {
            let rsa = RSAPublicKey::from_der(der)
                .map_err(|_| "must be a public key of RSA, EC P-256 or Ed25519")?;
            let parts = rsa.to_components();
            Self::rsa(&parts.n, &parts.e).map_err(|(_, why)| why)?
        };
        // A second encoding of the same key would be a second identity.
        (key.spki == der)
            .then_some(key)
            .ok_or("must be the DER of a SubjectPublicKeyInfo")
    }

    /// Reads PEM with the label `PUBLIC KEY` (RFC 7468, section 13).
    pub(crate) fn from_pem(pem: &str) -> Result<Self, &'static str> {
        let body = pem
            .trim()
            .strip_prefix("-----BEGIN PUBLIC KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
            .ok_or("must be one PEM block with the label PUBLIC KEY")?;
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(body).map_err(|_| "must hold base64")?;
        Self::from_spki(&der)
    }
}

/// The secret of an HMAC, ready for each hash.
#[derive(Clone)]
pub(crate) struct Secret {
    bytes: usize,
    pub(crate) hs256: HS256Key,
    pub(crate) hs384: HS384Key,
    pub(crate) hs512: HS512Key,
}

impl Secret {
    /// Takes at least `min` bytes, and nothing that others may know: a public
    /// key as the secret is how tokens are forged (RFC 8725, section 2.1).
    pub(crate) fn new(secret: &[u8], min: usize) -> Result<Self, String> {
        if is_public(secret) {
            return Err("must be a secret, found a public key or a certificate".to_owned());
        }
        if secret.len() < min {
            return Err(format!(
                "must have at least {min} bytes, found {}",
                secret.len()
            ));
        }
        Ok(Self {
            bytes: secret.len(),
            hs256: HS256Key::from_bytes(secret),
            hs384: HS384Key::from_bytes(secret),
            hs512: HS512Key::from_bytes(secret),
        })
    }

    /// Reads base64url without padding.
    pub(crate) fn from_base64url(secret: &str, min: usize) -> Result<Self, String> {
        if is_public(secret.as_bytes()) {
            return Err("must be a secret, found a public key or a certificate".to_owned());
        }
        let secret = URL_SAFE_NO_PAD
            .decode(secret)
            .map_err(|_| "must be base64url without padding".to_owned())?;
        Self::new(&secret, min)
    }
}

/// Whether bytes look like something that is published: PEM, an OpenSSH key, a
/// JWK, or DER of a public key.
fn is_public(bytes: &[u8]) -> bool {
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    holds(b"-----BEGIN")
        || bytes.starts_with(b"ssh-")
        || holds(b"\"kty\"")
        || PublicKey::from_spki(bytes).is_ok()
        || RSAPublicKey::from_der(bytes).is_ok()
}
