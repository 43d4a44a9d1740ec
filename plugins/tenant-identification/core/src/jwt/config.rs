//! What the operator writes about the issuers of tokens.

use std::{fmt, ops::RangeInclusive};

use serde::Deserialize;
use serde_json::{Map, Value};

use weir_wire::ids::{PlanName, TenantId};

use super::{Algorithm, Reason};

/// The most clock difference that may be allowed for, in seconds.
pub const LEEWAY_MAX_S: u64 = 300;

/// One issuer of tokens, and where its keys are: exactly one of `pem`, `jwks`,
/// `jwks_uri` and `secret_env`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// What `iss` must be, to the letter.
    pub issuer: String,
    /// What `alg` may be, at least one; HMAC alone or none of it.
    pub algorithms: Vec<Algorithm>,
    /// Of these `aud` must name one. Empty only with `any_audience`.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Takes tokens for whatever audience, and those for none.
    #[serde(default)]
    pub any_audience: bool,
    /// Public keys.
    #[serde(default)]
    pub pem: Vec<PemKey>,
    /// A JSON Web Key set that stands in the config.
    #[serde(default)]
    pub jwks: Option<Value>,
    /// A JSON Web Key set that is fetched.
    #[serde(default)]
    pub jwks_uri: Option<JwksUriConfig>,
    /// The environment variable that holds the secret of an HMAC, base64url
    /// without padding, at least as long as the longest hash of `algorithms`.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// Where the tenant's name is, `tenant_id` if not said.
    #[serde(default)]
    pub tenant_claim: ClaimPath,
    /// Where the plan's name is. A token without it has no plan of its own.
    #[serde(default)]
    pub plan_claim: Option<ClaimPath>,
    /// How far the issuer's clock may be off, in seconds, 0 to
    /// [`LEEWAY_MAX_S`], 30 if not said.
    #[serde(default = "default_leeway_s")]
    pub leeway_s: u64,
    /// How long from `iat` to `exp` at most, in seconds, from 1. A token without
    /// `iat` is then refused.
    #[serde(default)]
    pub max_lifetime_s: Option<u64>,
}

/// Shows no keys: a set in the config may hold a secret.
impl fmt::Debug for IssuerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerConfig")
            .field("issuer", &self.issuer)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// A public key in PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PemKey {
    /// What a token's `kid` must be, if it has one.
    #[serde(default)]
    pub kid: Option<String>,
    /// The one algorithm it is for; else each that fits its type.
    #[serde(default)]
    pub algorithm: Option<Algorithm>,
    /// `-----BEGIN PUBLIC KEY-----` and so on (RFC 7468, section 13).
    pub pem: String,
}

/// Where an issuer's keys are fetched, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwksUriConfig {
    /// The gateway's name for the host.
    pub cluster: String,
    /// The host as the request names it.
    pub authority: String,
    /// The path, from its slash.
    pub path: String,
    /// Seconds from one fetch to the next, 10 to 86400, 300 if not said.
    #[serde(default = "default_refresh_s")]
    pub refresh_s: u64,
    /// Seconds that a set serves when it can't be fetched again, more than
    /// `refresh_s`, 86400 if not said.
    #[serde(default = "default_max_age_s")]
    pub max_age_s: u64,
    /// Seconds between two fetches for the sake of a key that is not known, 1
    /// to 3600, 30 if not said.
    #[serde(default = "default_unknown_kid_pause_s")]
    pub unknown_kid_pause_s: u64,
    /// Milliseconds that a fetch may take, 1 to 30000, 2000 if not said.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_leeway_s() -> u64 {
    30
}

fn default_refresh_s() -> u64 {
    300
}

fn default_max_age_s() -> u64 {
    86_400
}

fn default_unknown_kid_pause_s() -> u64 {
    30
}

fn default_timeout_ms() -> u64 {
    2_000
}

/// Where in the claims a value is.
///
/// `org.id` is the member of that whole name; where there is none, the member
/// `id` of the object `org`. So `https://example.com/tenant` works as it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ClaimPath(String);

impl Default for ClaimPath {
    fn default() -> Self {
        Self("tenant_id".to_owned())
    }
}

impl TryFrom<String> for ClaimPath {
    type Error = String;

    fn try_from(path: String) -> Result<Self, String> {
        if path.is_empty() || path.len() > 256 || path.split('.').count() > 8 {
            return Err(format!(
                "a claim must be 1 to 256 bytes with at most 8 parts between dots, found {path:?}"
            ));
        }
        Ok(Self(path))
    }
}

impl ClaimPath {
    /// The tenant that the claims name there.
    ///
    /// # Errors
    /// [`Reason::TenantClaim`]: none, or what is no tenant's name.
    pub fn tenant(&self, claims: &Map<String, Value>) -> Result<TenantId, Reason> {
        self.find(claims)
            .and_then(Value::as_str)
            .and_then(|name| TenantId::new(name).ok())
            .ok_or(Reason::TenantClaim)
    }

    /// The plan that the claims name there, if they do.
    ///
    /// # Errors
    /// [`Reason::PlanClaim`]: what is no plan's name.
    pub fn plan(&self, claims: &Map<String, Value>) -> Result<Option<PlanName>, Reason> {
        match self.find(claims) {
            None => Ok(None),
            Some(Value::String(name)) => PlanName::new(name.as_str())
                .map(Some)
                .map_err(|_| Reason::PlanClaim),
            Some(_) => Err(Reason::PlanClaim),
        }
    }

    /// The value there.
    pub(crate) fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        if let Some(value) = claims.get(&self.0) {
            return Some(value);
        }
        let (first, rest) = self.0.split_once('.')?;
        rest.split('.')
            .try_fold(claims.get(first)?, |value, name| value.get(name))
    }
}

impl IssuerConfig {
    /// Checks all but the keys. `at` is the path to this issuer.
    pub(crate) fn validate(&self, at: &str) -> Result<(), String> {
        if self.issuer.is_empty() {
            return Err(format!("{at}.issuer: must not be empty"));
        }
        if self.algorithms.is_empty() {
            return Err(format!("{at}.algorithms: must name at least one"));
        }
        let hmacs = self.algorithms.iter().filter(|a| a.is_hmac()).count();
        if hmacs != 0 && hmacs != self.algorithms.len() {
            return Err(format!(
                "{at}.algorithms: must not mix HMAC with public keys"
            ));
        }
        if self.audiences.is_empty() != self.any_audience {
            return Err(format!(
                "{at}.audiences: must name at least one, or any_audience must be true, not both"
            ));
        }
        within(at, "leeway_s", self.leeway_s, 0..=LEEWAY_MAX_S)?;
        if let Some(s) = self.max_lifetime_s {
            within(at, "max_lifetime_s", s, 1..=u64::MAX)?;
        }
        let sources = [
            !self.pem.is_empty(),
            self.jwks.is_some(),
            self.jwks_uri.is_some(),
            self.secret_env.is_some(),
        ];
        if sources.iter().filter(|given| **given).count() != 1 {
            return Err(format!(
                "{at}: must have exactly one of pem, jwks, jwks_uri and secret_env"
            ));
        }
        let is_public = !self.pem.is_empty() || self.jwks_uri.is_some();
        if (hmacs != 0 && is_public) || (hmacs == 0 && self.secret_env.is_some()) {
            return Err(format!(
                "{at}.algorithms: HMAC needs secret_env or jwks, and secret_env needs HMAC"
            ));
        }
        // Whoever writes the secret itself here must not find it in the log.
        let is_name = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if let Some(name) = &self.secret_env
            && (name.is_empty() || name.len() > 64 || !name.bytes().all(is_name))
        {
            return Err(format!(
                "{at}.secret_env: must be the name of a variable, of A-Z 0-9 _, and not the secret"
            ));
        }
        match &self.jwks_uri {
            Some(uri) => uri.validate(&format!("{at}.jwks_uri")),
            None => Ok(()),
        }
    }
}

impl JwksUriConfig {
    fn validate(&self, at: &str) -> Result<(), String> {
        for (name, value) in [("cluster", &self.cluster), ("authority", &self.authority)] {
            if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(format!(
                    "{at}.{name}: must be visible ASCII, found {value:?}"
                ));
            }
        }
        if !self.path.starts_with('/') || !self.path.bytes().all(|b| b.is_ascii_graphic()) {
            let path = &self.path;
            return Err(format!(
                "{at}.path: must start with / and be visible ASCII, found {path:?}"
            ));
        }
        within(at, "refresh_s", self.refresh_s, 10..=86_400)?;
        let ages = self.refresh_s.saturating_add(1)..=u64::MAX;
        within(at, "max_age_s", self.max_age_s, ages)?;
        let pauses = 1..=3_600;
        within(at, "unknown_kid_pause_s", self.unknown_kid_pause_s, pauses)?;
        within(at, "timeout_ms", self.timeout_ms, 1..=30_000)
    }
}

fn within(at: &str, name: &str, value: u64, range: RangeInclusive<u64>) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = range.into_inner();
    let allowed = match max {
        u64::MAX => format!("at least {min}"),
        _ => format!("{min} to {max}"),
    };
    Err(format!("{at}.{name}: must be {allowed}, found {value}"))
}
