//! The signed tenant context: `v1.<kid>.<payload>.<signature>`.
//!
//! Payload: base64url (no padding) of a protobuf [`TenantContext`]. Signature:
//! base64url of HMAC-SHA256 over everything before its dot. Good for
//! [`LIFETIME_MS`] and for one use; whoever serves requests by it keeps the
//! used request ids for that long.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message as _;
use thiserror::Error;

use crate::{
    ids::{PlanName, RequestId, TenantId},
    keys::Keyring,
    proto::context::TenantContext,
};

/// How long a context is good for, in milliseconds.
pub const LIFETIME_MS: i64 = 60_000;

/// How far the gateway's clock may run ahead of a service's, in milliseconds.
pub const SKEW_MS: i64 = 5_000;

/// The longest header that is looked at, in bytes; a real one has about 220.
pub const MAX_BYTES: usize = 1_024;

/// Why a context is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ContextError {
    /// Not four parts, not base64url, not the protobuf, or a field is wrong.
    #[error("tenant context is malformed")]
    Malformed,
    /// Signed by a key that is not in force.
    #[error("tenant context is signed by an unknown key")]
    UnknownKey,
    /// The signature does not match.
    #[error("tenant context has a wrong signature")]
    Signature,
    /// Older than [`LIFETIME_MS`].
    #[error("tenant context is {age_ms} ms old, at most {LIFETIME_MS} are allowed")]
    Expired {
        /// Its age.
        age_ms: i64,
    },
    /// Issued more than [`SKEW_MS`] ahead of now.
    #[error("tenant context is issued {ahead_ms} ms ahead, at most {SKEW_MS} are allowed")]
    Future {
        /// How far ahead.
        ahead_ms: i64,
    },
}

/// A context whose signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whom the request is made for.
    pub tenant: TenantId,
    /// The plan of that tenant.
    pub plan: PlanName,
    /// The gateway's name for the request.
    pub request_id: RequestId,
    /// When the gateway signed, milliseconds of the Unix epoch.
    pub issued_at_ms: i64,
}

/// Signs with the keyring's first key.
#[must_use]
pub fn sign(context: &TenantContext, keys: &Keyring) -> String {
    let key = keys.signing();
    let payload = URL_SAFE_NO_PAD.encode(context.encode_to_vec());
    let mut out = ["v1.", key.id(), ".", &payload].concat();
    let signature = URL_SAFE_NO_PAD.encode(key.sign(out.as_bytes()));
    out.push('.');
    out.push_str(&signature);
    out
}

/// Checks the signature and the age against `now_ms`.
///
/// # Errors
/// [`ContextError`], the reason not to believe it.
pub fn verify(header: &[u8], keys: &Keyring, now_ms: i64) -> Result<Verified, ContextError> {
    let context = verify_signature(header, keys)?;
    let age_ms = now_ms.saturating_sub(context.issued_at_ms);
    if age_ms > LIFETIME_MS {
        return Err(ContextError::Expired { age_ms });
    }
    if age_ms < SKEW_MS.saturating_neg() {
        return Err(ContextError::Future {
            ahead_ms: age_ms.saturating_neg(),
        });
    }
    Ok(context)
}

/// Checks the signature alone: for a usage event, which may arrive hours later.
///
/// # Errors
/// [`ContextError`], the reason not to believe it; never for its age.
pub fn verify_signature(header: &[u8], keys: &Keyring) -> Result<Verified, ContextError> {
    use ContextError::Malformed;

    if header.len() > MAX_BYTES {
        return Err(Malformed);
    }
    let header = std::str::from_utf8(header).map_err(|_| Malformed)?;
    let (signed, signature) = header.rsplit_once('.').ok_or(Malformed)?;
    let mut parts = signed.split('.');
    let (Some("v1"), Some(id), Some(payload), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed);
    };
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Malformed)?;
    let key = keys.find(id).ok_or(ContextError::UnknownKey)?;
    if !key.verify(signed.as_bytes(), &signature) {
        return Err(ContextError::Signature);
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Malformed)?;
    let context = TenantContext::decode(payload.as_slice()).map_err(|_| Malformed)?;
    Ok(Verified {
        tenant: TenantId::new(context.tenant).map_err(|_| Malformed)?,
        plan: PlanName::new(context.plan).map_err(|_| Malformed)?,
        request_id: RequestId::parse(&context.request_id).map_err(|_| Malformed)?,
        issued_at_ms: context.issued_at_ms,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const NOW_MS: i64 = 1_795_000_000_000;
    const OLD: &str = "old:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const NEW: &str = "new:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

    fn context() -> TenantContext {
        TenantContext {
            tenant: "acme".into(),
            plan: "starter".into(),
            request_id: RequestId::mint(NOW_MS.unsigned_abs(), [1; 10]).to_string(),
            issued_at_ms: NOW_MS,
        }
    }

    fn ring(s: &str) -> Keyring {
        Keyring::parse(s).unwrap()
    }

    #[track_caller]
    fn check(header: &str, keys: &str, now_ms: i64, expected: Result<(), ContextError>) {
        let found = verify(header.as_bytes(), &ring(keys), now_ms).map(|_| ());
        assert_eq!(found, expected, "{header}");
    }

    /// The wire format must not change by accident: other processes read it.
    #[test]
    fn matches_the_golden_header() {
        let golden = include_str!("../../fixtures/tenant-context.txt").trim();
        assert_eq!(sign(&context(), &ring(OLD)), golden);
        let verified = verify(golden.as_bytes(), &ring(OLD), NOW_MS).unwrap();
        assert_eq!(verified.tenant.as_str(), "acme");
        assert_eq!(verified.plan.as_str(), "starter");
        assert_eq!(verified.request_id.time_ms(), NOW_MS);
    }

    #[test]
    fn rotation_keeps_the_old_signature_good() {
        let header = sign(&context(), &ring(OLD));
        check(&header, &format!("{NEW},{OLD}"), NOW_MS, Ok(()));
        check(&header, NEW, NOW_MS, Err(ContextError::UnknownKey));
        let impostor = NEW.replace("new:", "old:");
        check(&header, &impostor, NOW_MS, Err(ContextError::Signature));
    }

    #[test]
    fn age_is_bounded_on_both_sides() {
        let header = sign(&context(), &ring(OLD));
        check(&header, OLD, NOW_MS + LIFETIME_MS, Ok(()));
        check(
            &header,
            OLD,
            NOW_MS + LIFETIME_MS + 1,
            Err(ContextError::Expired { age_ms: 60_001 }),
        );
        check(&header, OLD, NOW_MS - SKEW_MS, Ok(()));
        check(
            &header,
            OLD,
            NOW_MS - SKEW_MS - 1,
            Err(ContextError::Future { ahead_ms: 5_001 }),
        );
    }

    #[test]
    fn what_is_not_four_parts_is_malformed() {
        let good = sign(&context(), &ring(OLD));
        for header in [
            "",
            "v1",
            "v1.old.x.y.z",
            &good.replace("v1.", "v2."),
            &format!("{good}="),
            &format!("{good}, {good}"),
            &"v1.old.".repeat(400),
        ] {
            check(header, OLD, NOW_MS, Err(ContextError::Malformed));
        }
    }

    #[test]
    fn a_tenant_that_is_no_name_is_malformed_even_when_signed() {
        let mut wrong = context();
        wrong.tenant = "a b".into();
        let header = sign(&wrong, &ring(OLD));
        check(&header, OLD, NOW_MS, Err(ContextError::Malformed));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_other_bytes_are_believed(
            position in 0usize..1_000,
            byte in any::<u8>(),
        ) {
            let good = sign(&context(), &ring(OLD));
            let mut bytes = good.clone().into_bytes();
            let position = position % bytes.len();
            bytes[position] = byte;
            let verified = verify(&bytes, &ring(OLD), NOW_MS);
            prop_assert_eq!(verified.is_ok(), bytes == good.as_bytes());
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(verify(&bytes, &ring(OLD), NOW_MS).is_err());
        }
    }
}
