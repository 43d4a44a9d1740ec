//! The keys that sign tenant contexts.
//!
//! Two keys at a time, for rotation: the first signs, both verify. They come
//! from the environment variable [`ENVIRONMENT`], never from a config that a
//! gateway's admin port would show.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use thiserror::Error;

/// Where every process finds the keys: `kid:secret[,kid:secret]`, the secrets
/// base64url without padding.
pub const ENVIRONMENT: &str = "WEIR_CONTEXT_KEYS";

/// The shortest secret, in bytes: the output size of SHA-256 (RFC 2104,
/// section 3).
pub const SECRET_MIN_BYTES: usize = 32;

/// The most keys at one time.
pub const KEYS_MAX: usize = 2;

/// Why a string holds no keys. Never repeats a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysError {
    /// Neither one nor two entries.
    #[error("{ENVIRONMENT} must hold 1 to {KEYS_MAX} keys, found {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// An entry is not `kid:secret`, or its parts are not what they must be.
    #[error("{ENVIRONMENT}: key {position} must be kid:secret, {why}")]
    Entry {
        /// 1 for the first.
        position: usize,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// One secret and its name.
#[derive(Clone)]
pub struct Key {
    id: String,
    hmac: Hmac<Sha256>,
}

impl Key {
    /// The name that stands in a signed context.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// HMAC-SHA256 over `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        let mut mac = self.hmac.clone();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// Compares in constant time.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let mut mac = self.hmac.clone();
        mac.update(message);
        mac.verify_slice(signature).is_ok()
    }
}

/// Never shows the secret.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish()
    }
}

/// The keys in force, the signing one first.
#[derive(Debug, Clone)]
pub struct Keyring {
    signing: Key,
    former: Option<Key>,
}

impl Keyring {
    /// Reads `kid:secret[,kid:secret]`.
    ///
    /// # Errors
    /// [`KeysError`], which names the entry and never shows a secret.
    pub fn parse(s: &str) -> Result<Self, KeysError> {
        let entries: Vec<&str> = s.split(',').map(str::trim).collect();
        let mut keys = entries
            .iter()
            .enumerate()
            .map(|(i, entry)| parse_entry(i.saturating_add(1), entry));
        match (keys.next(), keys.next(), keys.next()) {
            (Some(signing), former, None) => {
                let (signing, former) = (signing?, former.transpose()?);
                if former.as_ref().is_some_and(|f| f.id == signing.id) {
                    return Err(KeysError::Entry {
                        position: 2,
                        why: "its kid is the first one's",
                    });
                }
                Ok(Self { signing, former })
            }
            _ => Err(KeysError::Count {
                found: entries.len(),
            }),
        }
    }

    /// The key that signs.
    #[must_use]
    pub fn signing(&self) -> &Key {
        &self.signing
    }

    /// The key of that name.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Key> {
        std::iter::once(&self.signing)
            .chain(&self.former)
            .find(|k| k.id == id)
    }
}

fn parse_entry(position: usize, entry: &str) -> Result<Key, KeysError> {
    let wrong = |why| KeysError::Entry { position, why };
    let (id, secret) = entry.split_once(':').ok_or(wrong("it has no colon"))?;
    if id.is_empty() || id.len() > 32 || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(wrong("its kid is not 1 to 32 letters and digits"));
    }
    let secret = URL_SAFE_NO_PAD
        .decode(secret)
        .map_err(|_| wrong("its secret is not base64url without padding"))?;
    if secret.len() < SECRET_MIN_BYTES {
        return Err(wrong("its secret is shorter than 32 bytes"));
    }
    let hmac = Hmac::new_from_slice(&secret).map_err(|_| wrong("its secret is no HMAC key"))?;
    Ok(Key {
        id: id.to_owned(),
        hmac,
    })
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const A: &str = "a:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const B: &str = "b:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

    #[test]
    fn the_first_signs_and_both_verify() {
        let ring = Keyring::parse(&format!("{A},{B}")).unwrap();
        assert_eq!(ring.signing().id(), "a");
        let signature = ring.find("b").unwrap().sign(b"m");
        assert!(ring.find("b").unwrap().verify(b"m", &signature));
        assert!(!ring.find("a").unwrap().verify(b"m", &signature));
        assert!(ring.find("c").is_none());
    }

    #[test]
    fn what_is_no_keyring_is_refused_without_showing_it() {
        for (s, names) in [
            ("", "key 1"),
            ("a", "no colon"),
            ("a:!!", "base64url"),
            ("a:AAAA", "shorter than 32"),
            ("é:AAAA", "kid"),
            (&format!("{A},{A}"), "the first one's"),
            (&format!("{A},{B},{B}"), "found 3"),
        ] {
            let error = Keyring::parse(s).unwrap_err().to_string();
            assert!(error.contains(names), "{s}: {error}");
            assert!(!error.contains("AAAA"), "{error}");
        }
        let shown = format!("{:?}", Keyring::parse(A).unwrap());
        assert!(!shown.contains("AAAA"), "{shown}");
    }

    /// RFC 4231, test case 6: a key longer than the block.
    #[test]
    fn signs_as_rfc_4231_says() {
        let secret = URL_SAFE_NO_PAD.encode([0xaa; 131]);
        let key = Keyring::parse(&format!("k:{secret}")).unwrap();
        let mac = key
            .signing()
            .sign(b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(mac[..4], [0x60, 0xe4, 0x31, 0x59]);
        assert_eq!(mac[28..], [0x0e, 0xe3, 0x7f, 0x54]);
    }
}
