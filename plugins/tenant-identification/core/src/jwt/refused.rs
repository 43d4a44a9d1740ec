//! Why a token is refused: a word for counters, a sentence for the tenant.

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not three parts of base64url with JSON objects in the first two.
    Malformed,
    /// Longer than [`super::TOKEN_MAX_BYTES`].
    TooLarge,
    /// `alg` is none that its issuer may use.
    Algorithm,
    /// `typ` is no JWT's, or the token is encrypted or compressed.
    Type,
    /// It has `crit` or `b64`, and no extension is understood.
    CriticalHeader,
    /// It brings a key along, or says where to fetch one.
    EmbeddedKey,
    /// `iss` is no configured issuer.
    Issuer,
    /// `aud` names none of the audiences.
    Audience,
    /// It has no `exp`.
    NoExpiry,
    /// `exp` is past.
    Expired,
    /// `nbf` or `iat` is to come.
    NotYetValid,
    /// It is valid for longer than its issuer may make it.
    Lifetime,
    /// The tenant's claim is missing or holds no tenant.
    TenantClaim,
    /// The plan's claim holds no plan.
    PlanClaim,
    /// It does not say which of several keys signed it.
    MissingKid,
    /// No key has its `kid`.
    UnknownKid,
    /// The issuer's keys are not fetched, or too old.
    KeysNotLoaded,
    /// The key it names is not one for its `alg`.
    KeyType,
    /// No key made its signature.
    Signature,
}

impl Reason {
    /// All of them, for counters that start at zero.
    pub const ALL: [Self; 19] = [
        Self::Malformed,
        Self::TooLarge,
        Self::Algorithm,
        Self::Type,
        Self::CriticalHeader,
        Self::EmbeddedKey,
        Self::Issuer,
        Self::Audience,
        Self::NoExpiry,
        Self::Expired,
        Self::NotYetValid,
        Self::Lifetime,
        Self::TenantClaim,
        Self::PlanClaim,
        Self::MissingKid,
        Self::UnknownKid,
        Self::KeysNotLoaded,
        Self::KeyType,
        Self::Signature,
    ];

    /// A word for counters and logs, in snake case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.texts().0
    }

    /// A sentence for the tenant, with nothing of the token in it.
    #[must_use]
    pub fn message(self) -> &'static str {
        self.texts().1
    }

    /// Whether other keys, which a fetch may bring, could make it valid.
    #[must_use]
    pub fn may_heal(self) -> bool {
        matches!(self, Self::UnknownKid | Self::KeysNotLoaded)
    }

    /// Whether it stays so under the same keys, and was dear to find out.
    pub(crate) fn is_worth_caching(self) -> bool {
        matches!(self, Self::Signature | Self::TenantClaim | Self::PlanClaim)
    }

    #[rustfmt::skip] // one reason to a line
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Malformed => ("malformed", "the token is no JSON Web Token"),
            Self::TooLarge => ("too_large", "the token is longer than 8 KiB"),
            Self::Algorithm => ("algorithm", "the token's algorithm is not one its issuer uses here"),
            Self::Type => ("type", "the token's typ must be JWT or at+jwt, and it must be signed only"),
            Self::CriticalHeader => ("critical_header", "the token needs an extension that is not supported"),
            Self::EmbeddedKey => ("embedded_key", "the token must not bring its own key or certificate"),
            Self::Issuer => ("issuer", "the token's issuer is not known"),
            Self::Audience => ("audience", "the token is meant for another audience"),
            Self::NoExpiry => ("no_expiry", "the token has no expiry time"),
            Self::Expired => ("expired", "the token has expired"),
            Self::NotYetValid => ("not_yet_valid", "the token is not valid yet"),
            Self::Lifetime => ("lifetime", "the token is valid for longer than is allowed"),
            Self::TenantClaim => ("tenant_claim", "the token does not name a tenant"),
            Self::PlanClaim => ("plan_claim", "the token does not name a plan as it must"),
            Self::MissingKid => ("missing_kid", "the token does not say which key signed it"),
            Self::UnknownKid => ("unknown_kid", "the token's key is not known"),
            Self::KeysNotLoaded => ("keys_not_loaded", "the keys of the token's issuer are not at hand"),
            Self::KeyType => ("key_type", "the token's key is not one for its algorithm"),
            Self::Signature => ("signature", "the token's signature is wrong"),
        }
    }
}

/// A token that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// The index of its issuer, where that is known.
    pub issuer: Option<usize>,
}

impl Refused {
    /// Whether a fetch of its issuer's keys could make the token valid.
    #[must_use]
    pub fn may_heal(&self) -> bool {
        self.reason.may_heal()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn each_reason_has_a_word_of_its_own() {
        let mut words: Vec<&str> = Reason::ALL.map(Reason::as_str).to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let (word, message) = (reason.as_str(), reason.message());
            assert!(word.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()));
            assert!(message.starts_with("the ") && !message.ends_with('.'));
            assert!(!(reason.may_heal() && reason.is_worth_caching()));
        }
    }
}
