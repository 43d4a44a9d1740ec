//! Tokens from header to claims, with as little work as a flood of forged ones
//! allows.

use serde::Deserialize;

use crate::{
    decide::Now,
    jwt::{Budget, Claimed, Issuers, Refused, SignatureCheck, VerifiedCache},
};

/// Bounds of the work on tokens, for each worker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensConfig {
    /// The most tokens that are remembered, half of them verified, half refused.
    #[serde(default = "default_cache_entries")]
    pub cache_entries: usize,
    /// The most bytes that both halves of that memory take.
    #[serde(default = "default_cache_bytes")]
    pub cache_bytes: usize,
    /// The most signatures that are checked in a second. In WebAssembly EdDSA
    /// counts as 2, ES256 and RS256 as 5, PS256 as 10, and RSA keys of more than
    /// 2,048 bits as four times that.
    #[serde(default = "default_checks_per_s")]
    pub checks_per_s: u32,
}

impl Default for TokensConfig {
    fn default() -> Self {
        Self {
            cache_entries: default_cache_entries(),
            cache_bytes: default_cache_bytes(),
            checks_per_s: default_checks_per_s(),
        }
    }
}

fn default_cache_entries() -> usize {
    20_000
}

fn default_cache_bytes() -> usize {
    8 << 20
}

fn default_checks_per_s() -> u32 {
    200
}

/// Why a token names nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenDenied {
    /// It is not accepted.
    Refused(Refused),
    /// No signature may be checked just now; in so many seconds again.
    Exhausted {
        /// Seconds.
        retry_after_s: u64,
    },
}

/// The issuers, and what is known of their tokens.
#[derive(Debug)]
pub struct Tokens {
    /// Who may sign.
    pub issuers: Issuers,
    cache: VerifiedCache,
    budget: Budget,
}

impl Tokens {
    /// Begins with nothing known. `cache_key` is secret, see [`VerifiedCache`].
    ///
    /// # Errors
    /// A message that names the field.
    pub fn new(
        config: &TokensConfig,
        issuers: Issuers,
        cache_key: &[u8; 16],
    ) -> Result<Self, String> {
        for (field, found, allowed) in [
            ("cache_entries", config.cache_entries, 1..=1_000_000),
            ("cache_bytes", config.cache_bytes, 4096..=1 << 28),
            ("checks_per_s", config.checks_per_s as usize, 2..=100_000),
        ] {
            if !allowed.contains(&found) {
                return Err(format!(
                    "tokens.{field}: must be {} to {}, found {found}",
                    allowed.start(),
                    allowed.end()
                ));
            }
        }
        Ok(Self {
            issuers,
            cache: VerifiedCache::new(config.cache_entries, config.cache_bytes, cache_key),
            budget: Budget::new(config.checks_per_s),
        })
    }

    /// How many tokens were found remembered, and how many were not.
    #[must_use]
    pub fn cache_counts(&self) -> (u64, u64) {
        (self.cache.hits(), self.cache.misses())
    }

    /// What a token says, if it is to be believed.
    ///
    /// # Errors
    /// [`TokenDenied`]
    pub fn claim(
        &mut self,
        token: &[u8],
        now: Now<'_>,
        checker: &dyn SignatureCheck,
    ) -> Result<Claimed, TokenDenied> {
        let issuers = &self.issuers;
        let known = self
            .cache
            .get(token, now.wall_ms, |issuer| issuers.generation(issuer));
        if let Some(outcome) = known {
            return outcome.map_err(TokenDenied::Refused);
        }
        let peeked = issuers
            .peek(token, now.wall_ms)
            .map_err(TokenDenied::Refused)?;
        if !self.budget.take((now.monotonic_ms)(), peeked.cost(checker)) {
            return Err(TokenDenied::Exhausted {
                retry_after_s: self.budget.retry_after_s(),
            });
        }
        let outcome = peeked.verify(checker);
        let origin = peeked.issuer();
        self.cache.put(
            token,
            origin,
            &outcome,
            now.wall_ms,
            issuers.generation(origin),
        );
        outcome.map_err(TokenDenied::Refused)
    }
}
