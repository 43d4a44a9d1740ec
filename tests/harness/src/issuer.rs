//! An issuer of JSON Web Tokens, its keys new for each run.

use std::{
    fmt,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_compact::KeyPair;
use jwt_simple::algorithms::{
    ECDSAP256KeyPairLike as _, ES256KeyPair, HS256Key, MACLike as _, RS256KeyPair,
};
use p256::ecdsa::signature::Signer as _;
use serde_json::{Value, json};
use superboring::{
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::{Padding, Rsa},
    sign,
};

use crate::secrets;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// Ed25519.
    EdDsa,
    /// RSA of 2,048 bits, PKCS #1 v1.5.
    Rs256,
    /// ECDSA over P-256.
    Es256,
}

impl Algorithm {
    /// All that the issuer can do.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::EdDsa, Self::Rs256, Self::Es256];

    /// As in `alg`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// The variable that holds the secret of HS256.
pub const SECRET_VARIABLE: &str = "WEIR_JWT_SECRET";

/// Whom its tokens are for.
pub const AUDIENCE: &str = "weir";

/// How long a token is good.
const LIFETIME_S: u64 = 24 * 3600;

/// One key of each algorithm. Each is an issuer of its own, see [`Issuer::name`].
pub struct Issuer {
    hmac: Vec<u8>,
    ed25519: KeyPair,
    p256: p256::ecdsa::SigningKey,
    /// Made when it is first needed: that takes a second or so. With what signs,
    /// for that too takes a while to read.
    rsa: OnceLock<(RS256KeyPair, PKey<Private>)>,
    kid: String,
}

/// Shows no key.
impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").finish_non_exhaustive()
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}

impl Issuer {
    /// Makes the keys.
    ///
    /// # Panics
    /// Where the machine has no randomness.
    #[must_use]
    pub fn new() -> Self {
        let p256 = ES256KeyPair::generate().key_pair().to_bytes();
        Self {
            hmac: HS256Key::generate().to_bytes(),
            ed25519: KeyPair::generate(),
            p256: p256::ecdsa::SigningKey::from_slice(&p256).expect("a key of P-256"),
            rsa: OnceLock::new(),
            kid: secrets::random()[..8].to_owned(),
        }
    }

    /// `iss` of the tokens of an algorithm.
    #[must_use]
    pub const fn name(&self, algorithm: Algorithm) -> &'static str {
        match algorithm {
            Algorithm::Hs256 => "https://hs256.issuer.example",
            Algorithm::EdDsa => "https://eddsa.issuer.example",
            Algorithm::Rs256 => "https://rs256.issuer.example",
            Algorithm::Es256 => "https://es256.issuer.example",
        }
    }

    /// The name of its keys.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Claims that are good for a day.
    #[must_use]
    pub fn claims(&self, algorithm: Algorithm, tenant: &str) -> Value {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = since.map_or(0, |since| since.as_secs());
        json!({
            "iss": self.name(algorithm),
            "aud": AUDIENCE,
            "iat": now_s,
            "exp": now_s.saturating_add(LIFETIME_S),
            "tenant_id": tenant,
        })
    }

    /// A token for a tenant.
    #[must_use]
    pub fn token(&self, algorithm: Algorithm, tenant: &str) -> String {
        self.sign(
            algorithm,
            &self.header(algorithm),
            &self.claims(algorithm, tenant),
        )
    }

    /// A token like no other.
    #[must_use]
    pub fn numbered(&self, algorithm: Algorithm, tenant: &str, number: u64) -> String {
        let mut claims = self.claims(algorithm, tenant);
        claims["jti"] = json!(number.to_string()); // a StringOrURI to jwt_authn
        self.sign(algorithm, &self.header(algorithm), &claims)
    }

    /// The header of its tokens.
    #[must_use]
    pub fn header(&self, algorithm: Algorithm) -> Value {
        json!({"alg": algorithm.name(), "typ": "JWT", "kid": self.kid})
    }

    /// A token of that header and those claims, whatever they say.
    #[must_use]
    pub fn sign(&self, algorithm: Algorithm, header: &Value, claims: &Value) -> String {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signature(algorithm, input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The signature over `input`.
    ///
    /// # Panics
    /// Never with keys that it made itself.
    #[must_use]
    pub fn signature(&self, algorithm: Algorithm, input: &[u8]) -> Vec<u8> {
        match algorithm {
            Algorithm::Hs256 => HS256Key::from_bytes(&self.hmac).authentication_tag(input),
            Algorithm::EdDsa => self.ed25519.sk.sign(input, None).to_vec(),
            Algorithm::Es256 => {
                let made: p256::ecdsa::Signature = self.p256.sign(input);
                made.to_vec()
            }
            Algorithm::Rs256 => {
                let (_, key) = self.rsa();
                let mut signer = sign::Signer::new(MessageDigest::sha256(), key).expect("SHA-256");
                signer.set_rsa_padding(Padding::PKCS1).expect("PKCS #1");
                signer.update(input).expect("bytes");
                signer.sign_to_vec().expect("a signature")
            }
        }
    }

    fn rsa(&self) -> &(RS256KeyPair, PKey<Private>) {
        self.rsa.get_or_init(|| {
            let made = RS256KeyPair::generate(2048).expect("randomness");
            let pem = made.to_pem().expect("PEM");
            let key = Rsa::private_key_from_pem(pem.as_bytes()).expect("a key");
            (made, PKey::from_rsa(key).expect("a key"))
        })
    }

    /// The public key, or of HS256 none.
    ///
    /// # Panics
    /// For HS256, which has none.
    #[must_use]
    pub fn jwk(&self, algorithm: Algorithm) -> Value {
        let text = |bytes: &[u8]| json!(URL_SAFE_NO_PAD.encode(bytes));
        let mut jwk = match algorithm {
            Algorithm::Hs256 => panic!("an HMAC has no public key"),
            Algorithm::EdDsa => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(self.ed25519.pk.as_slice())})
            }
            Algorithm::Es256 => {
                let point = self.p256.verifying_key().to_encoded_point(false);
                let (x, y) = (point.x().expect("x"), point.y().expect("y"));
                json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)})
            }
            Algorithm::Rs256 => {
                let parts = self.rsa().0.public_key().to_components();
                json!({"kty": "RSA", "n": text(&parts.n), "e": text(&parts.e)})
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(algorithm.name());
        jwk
    }

    /// A set of those keys.
    #[must_use]
    pub fn jwks(&self, algorithms: &[Algorithm]) -> Value {
        let keys: Vec<Value> = algorithms.iter().map(|a| self.jwk(*a)).collect();
        json!({ "keys": keys })
    }

    /// The RSA key as PEM, for those who would use it as a secret.
    ///
    /// # Panics
    /// Never with a key that it made itself.
    #[must_use]
    pub fn rsa_pem(&self) -> String {
        self.rsa().0.public_key().to_pem().expect("PEM")
    }

    /// The source `jwt` of tenant-identification that believes all its tokens:
    /// HS256 by a secret of the environment, EdDSA and ES256 by inline sets,
    /// RS256 by PEM.
    #[must_use]
    pub fn source(&self) -> Value {
        let issuer = |algorithm: Algorithm, member: &str, keys: Value| {
            let mut issuer = json!({
                "issuer": self.name(algorithm),
                "audiences": [AUDIENCE],
                "algorithms": [algorithm.name()],
            });
            issuer[member] = keys;
            issuer
        };
        json!({"type": "jwt", "issuers": [
            issuer(Algorithm::Hs256, "secret_env", json!(SECRET_VARIABLE)),
            issuer(Algorithm::EdDsa, "jwks", self.jwks(&[Algorithm::EdDsa])),
            issuer(Algorithm::Rs256, "pem", json!([{"kid": self.kid, "pem": self.rsa_pem()}])),
            issuer(Algorithm::Es256, "jwks", self.jwks(&[Algorithm::Es256])),
        ]})
    }

    /// What [`Self::source`] reads of the environment.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        vec![(
            SECRET_VARIABLE.to_owned(),
            URL_SAFE_NO_PAD.encode(&self.hmac),
        )]
    }
}
