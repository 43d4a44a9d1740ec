//! A token of which only the signature is left to check.

use std::fmt;

use weir_wire::ids::{PlanName, TenantId};

use super::{Algorithm, Key, Reason, Refused, SignatureCheck, token::Says};

/// What a genuine token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The tenant it is for.
    pub tenant: TenantId,
    /// The plan it is on, if the token says so.
    pub plan: Option<PlanName>,
    /// When it ends, leeway included: milliseconds of the Unix epoch.
    pub expires_at_ms: u64,
    /// The index of its issuer.
    pub issuer: usize,
}

/// A token that is all right if its signature is.
pub struct Peeked<'t, 'i> {
    pub(crate) issuer: usize,
    pub(crate) algorithm: Algorithm,
    /// Not more than [`super::budget::CHECKS_MAX`].
    pub(crate) candidates: Vec<&'i Key>,
    pub(crate) signing_input: &'t [u8],
    pub(crate) signature: Vec<u8>,
    pub(crate) says: Says,
}

/// Shows nothing that the token says.
impl fmt::Debug for Peeked<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peeked")
            .field("issuer", &self.issuer)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl Peeked<'_, '_> {
    /// The index of the issuer.
    #[must_use]
    pub fn issuer(&self) -> usize {
        self.issuer
    }

    /// What `alg` is.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How many signature checks [`Self::verify`] makes at most: 1 or 2.
    #[must_use]
    pub fn checks(&self) -> u32 {
        u32::try_from(self.candidates.len()).unwrap_or(u32::MAX)
    }

    /// What they cost at most, in checks of the budget.
    #[must_use]
    pub fn cost(&self, checker: &dyn SignatureCheck) -> u32 {
        self.candidates.iter().fold(0, |cost, key| {
            cost.saturating_add(checker.cost(key, self.algorithm))
        })
    }

    /// `exp` itself, without leeway: milliseconds of the Unix epoch.
    #[must_use]
    pub fn exp_ms(&self) -> u64 {
        self.says.exp_ms
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`Reason::Signature`] where none of the keys made it.
    pub fn verify(&self, checker: &dyn SignatureCheck) -> Result<Claimed, Refused> {
        let is_genuine = self
            .candidates
            .iter()
            .any(|key| checker.check(key, self.algorithm, self.signing_input, &self.signature));
        if !is_genuine {
            return Err(Refused {
                reason: Reason::Signature,
                issuer: Some(self.issuer),
            });
        }
        Ok(Claimed {
            tenant: self.says.tenant.clone(),
            plan: self.says.plan.clone(),
            expires_at_ms: self.says.expires_at_ms,
            issuer: self.issuer,
        })
    }
}
