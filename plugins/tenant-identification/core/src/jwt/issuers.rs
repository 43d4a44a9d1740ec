//! The issuers, their keys, and what becomes of a token of theirs.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{
    Algorithm, IssuerConfig, JwksError, JwksUriConfig, Key, Peeked, Reason, Refused, Skipped,
    budget::CHECKS_MAX,
    jwk::{self, KID_MAX_BYTES, Origin},
    key::{Material, PublicKey, Secret},
    remote::Held,
    signature, token,
};

/// What a fetch brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// Other keys than before.
    Changed,
    /// The keys that were there.
    Same,
}

/// The issuers of a config that was found valid.
pub struct Issuers {
    all: Vec<Issuer>,
}

struct Issuer {
    /// Without its keys: they are read.
    config: IssuerConfig,
    keys: Vec<Key>,
    /// What the keys are, to tell whether others are the same.
    digest: [u8; 32],
    generation: u32,
    remote: Option<Held>,
}

/// Shows the names alone.
impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Issuers {
    /// Checks the configs and reads the keys in them. `secret` gives the value
    /// of an environment variable, or says why there is none.
    ///
    /// # Errors
    /// A message that names the field as in `issuers[0].jwks.keys[1].n`, what
    /// was found and what is allowed. It never shows a key.
    pub fn new(
        configs: Vec<IssuerConfig>,
        secret: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Self, String> {
        let mut all: Vec<Issuer> = Vec::new();
        for (i, config) in configs.into_iter().enumerate() {
            let at = format!("issuers[{i}]");
            config.validate(&at)?;
            if all.iter().any(|other| other.config.issuer == config.issuer) {
                return Err(format!("{at}.issuer: {:?} comes twice", config.issuer));
            }
            all.push(Issuer::read(config, &at, &secret)?);
        }
        Ok(Self { all })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What `iss` is for each of them, by index.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|i| i.config.issuer.as_str())
    }

    /// Checks everything but the signature at `wall_ms`, milliseconds of the
    /// Unix epoch, and finds the keys that may have made it.
    ///
    /// # Errors
    /// [`Refused`], and no signature check is spent.
    pub fn peek<'t>(&self, token: &'t [u8], wall_ms: u64) -> Result<Peeked<'t, '_>, Refused> {
        let unknown = |reason| Refused {
            reason,
            issuer: None,
        };
        let parts = token::split(token).map_err(unknown)?;
        let iss = parts.claims.get("iss").and_then(|iss| iss.as_str());
        let (index, issuer) = self
            .all
            .iter()
            .enumerate()
            .find(|(_, i)| iss == Some(i.config.issuer.as_str()))
            .ok_or(unknown(Reason::Issuer))?;
        let refused = |reason| Refused {
            reason,
            issuer: Some(index),
        };
        if !issuer.config.algorithms.contains(&parts.algorithm) {
            return Err(refused(Reason::Algorithm));
        }
        let says = token::check_claims(&issuer.config, &parts.claims, wall_ms).map_err(refused)?;
        let mut candidates = issuer
            .candidates(parts.algorithm, parts.kid.as_deref())
            .map_err(refused)?;
        candidates.retain(|key| signature::is_fit(key, parts.algorithm, &parts.signature));
        if candidates.is_empty() {
            return Err(refused(Reason::Signature));
        }
        Ok(Peeked {
            issuer: index,
            algorithm: parts.algorithm,
            candidates,
            signing_input: parts.signing_input,
            signature: parts.signature,
            says,
        })
    }

    /// Which of its sets of keys an issuer is at: grows whenever they change,
    /// so that what was found under others counts no more.
    #[must_use]
    pub fn generation(&self, i: usize) -> u32 {
        self.all.get(i).map_or(0, |issuer| issuer.generation)
    }

    /// Where an issuer's keys are fetched, if they are.
    #[must_use]
    pub fn remote(&self, i: usize) -> Option<&JwksUriConfig> {
        Some(&self.all.get(i)?.remote.as_ref()?.uri)
    }

    /// Whether any issuer's keys are fetched.
    #[must_use]
    pub fn any_remote(&self) -> bool {
        self.all.iter().any(|issuer| issuer.remote.is_some())
    }

    /// What `iss` is for an issuer.
    #[must_use]
    pub fn name(&self, i: usize) -> Option<&str> {
        Some(&self.all.get(i)?.config.issuer)
    }

    /// Takes a set that was fetched at `fetched_at_ms` of the clock that all
    /// workers share. One that is not newer than what is here, or too old to
    /// serve, changes nothing.
    ///
    /// # Errors
    /// [`JwksError`], and what is here stays.
    pub fn adopt(
        &mut self,
        i: usize,
        mono_ms: u64,
        fetched_at_ms: u64,
        body: &[u8],
    ) -> Result<(Fetched, Skipped), JwksError> {
        let issuer = self.all.get_mut(i).ok_or(JwksError::NotRemote)?;
        let held = issuer.remote.as_mut().ok_or(JwksError::NotRemote)?;
        // Time that is to come would keep every later set out.
        let fetched_at_ms = fetched_at_ms.min(mono_ms);
        let age_ms = mono_ms.saturating_sub(fetched_at_ms);
        if !held.is_news(fetched_at_ms) || held.is_too_old(age_ms) {
            return Ok((Fetched::Same, Skipped(0)));
        }
        let (keys, skipped) = jwk::fetched(body)?;
        held.fetched_at_ms = Some(fetched_at_ms);
        Ok((issuer.adopt(keys), skipped))
    }

    /// Drops an issuer's keys once they are `max_age_s` old.
    pub fn forget_old(&mut self, i: usize, mono_ms: u64) {
        if let Some(issuer) = self.all.get_mut(i)
            && let Some(held) = &mut issuer.remote
            && held.forget_old(mono_ms)
        {
            issuer.adopt(Vec::new());
        }
    }

    /// How old an issuer's fetched keys are, in milliseconds; `None` where
    /// there are none.
    #[must_use]
    pub fn keys_age_ms(&self, i: usize, mono_ms: u64) -> Option<u64> {
        self.all.get(i)?.remote.as_ref()?.age_ms(mono_ms)
    }
}

impl Issuer {
    fn read(
        mut config: IssuerConfig,
        at: &str,
        secret: &impl Fn(&str) -> Result<String, String>,
    ) -> Result<Self, String> {
        let keys = if let Some(name) = &config.secret_env {
            vec![read_secret(&config, name, secret).map_err(|e| format!("{at}.secret_env: {e}"))?]
        } else if let Some(set) = config.jwks.take() {
            let error = |e: JwksError| format!("{at}.jwks.{e}");
            let set = set.as_object().ok_or(error(JwksError::NoSet))?;
            jwk::set(set, Origin::Inline).map_err(error)?.0
        } else {
            read_pems(&config, at)?
        };
        config.pem = Vec::new();
        for (a, algorithm) in config.algorithms.iter().enumerate() {
            if config.jwks_uri.is_none() && !keys.iter().any(|key| key.fits(*algorithm)) {
                let name = algorithm.as_str();
                return Err(format!("{at}.algorithms[{a}]: no key is one for {name}"));
            }
        }
        Ok(Self {
            digest: digest(&keys),
            keys,
            generation: 0,
            remote: config.jwks_uri.clone().map(|uri| Held {
                uri,
                fetched_at_ms: None,
            }),
            config,
        })
    }

    /// The keys to try: those of that name, or else those that have none, as a
    /// secret or a PEM mostly; for a token that names none, all that fit. Few
    /// enough of them, in either case.
    fn candidates(&self, algorithm: Algorithm, kid: Option<&str>) -> Result<Vec<&Key>, Reason> {
        if self.keys.is_empty() {
            return Err(Reason::KeysNotLoaded);
        }
        let of_kid = |kid: Option<&str>| {
            let keys = self.keys.iter().filter(move |key| key.kid() == kid);
            keys.collect::<Vec<&Key>>()
        };
        let mut named = match kid {
            None => self.keys.iter().collect(),
            Some(_) => of_kid(kid),
        };
        if named.is_empty() {
            named = of_kid(None);
        }
        if named.is_empty() {
            return Err(Reason::UnknownKid);
        }
        named.retain(|key| key.fits(algorithm));
        match u32::try_from(named.len()) {
            Ok(0) => Err(Reason::KeyType),
            Ok(n) if n <= CHECKS_MAX => Ok(named),
            _ => Err(Reason::MissingKid),
        }
    }

    fn adopt(&mut self, keys: Vec<Key>) -> Fetched {
        let digest = digest(&keys);
        if digest == self.digest {
            return Fetched::Same;
        }
        self.digest = digest;
        self.keys = keys;
        self.generation = self.generation.saturating_add(1);
        Fetched::Changed
    }
}

/// The same for the same keys in whatever order an issuer lists them.
fn digest(keys: &[Key]) -> [u8; 32] {
    let mut each: Vec<[u8; 32]> = keys
        .iter()
        .map(|key| Sha256::digest(key.identity()).into())
        .collect();
    each.sort_unstable();
    Sha256::digest(each.concat()).into()
}

fn read_secret(
    config: &IssuerConfig,
    name: &str,
    secret: &impl Fn(&str) -> Result<String, String>,
) -> Result<Key, String> {
    let lengths = config.algorithms.iter().map(|a| a.hash().bytes());
    let value = secret(name).map_err(|e| format!("{name}: {e}"))?;
    let secret = Secret::from_base64url(&value, lengths.max().unwrap_or(64))
        .map_err(|e| format!("{name}: {e}"))?;
    Ok(Key {
        kid: None,
        algorithm: None,
        material: Material::Secret(Box::new(secret)),
    })
}

fn read_pems(config: &IssuerConfig, at: &str) -> Result<Vec<Key>, String> {
    let mut keys: Vec<Key> = Vec::new();
    for (p, pem) in config.pem.iter().enumerate() {
        let public =
            PublicKey::from_pem(&pem.pem).map_err(|e| format!("{at}.pem[{p}].pem: {e}"))?;
        let kid = pem.kid.clone();
        if kid.as_ref().is_some_and(|k| k.len() > KID_MAX_BYTES) {
            return Err(format!("{at}.pem[{p}].kid: must have at most 256 bytes"));
        }
        let key = Key {
            kid,
            algorithm: pem.algorithm,
            material: Material::Public(public),
        };
        if pem.algorithm.is_some_and(|a| !key.fits(a)) {
            return Err(format!(
                "{at}.pem[{p}].algorithm: is not for a key of this type"
            ));
        }
        keys.push(key);
    }
    Ok(keys)
}
