//! From the headers of a request to a tenant, or to an answer that refuses it.

use weir_wire::{
    context, error::ApiError, headers, host::HostKind, ids::RequestId, keys::Keyring,
    proto::context::TenantContext,
};

use crate::{
    credential::{self, Presented},
    directory::{Directory, Owner},
};

/// What the filter does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It goes on, changed.
    Allow(Box<Identification>),
    /// It ends here.
    Deny(Box<Denial>),
}

/// How a request that goes on is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identification {
    /// Whose request it is.
    pub owner: Owner,
    /// The headers to remove, every copy of them.
    pub strip: Vec<String>,
    /// The headers to set then.
    pub set: Vec<(&'static str, String)>,
}

/// An answer that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// HTTP status.
    pub status: u32,
    /// For the caller.
    pub error: ApiError,
    /// Whether the answer asks for a credential (`www-authenticate`).
    pub challenge: bool,
    /// For the log: a word for the counter, without anything of the request.
    pub reason: &'static str,
}

/// Decides on one request.
///
/// `headers` are all of them with names in lower case; `now_ms` and `random`
/// make the request id.
#[must_use]
pub fn identify(
    host: HostKind,
    directory: &Directory,
    keys: &Keyring,
    headers: &[(String, Vec<u8>)],
    now_ms: u64,
    random: [u8; 10],
) -> Decision {
    match owner(host, directory, headers) {
        Ok(owner) => {
            let owner = owner.clone();
            let request_id = RequestId::mint(now_ms, random).to_string();
            let signed = context::sign(
                &TenantContext {
                    tenant: owner.tenant.to_string(),
                    plan: owner.plan.to_string(),
                    request_id: request_id.clone(),
                    issued_at_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
                },
                keys,
            );
            Decision::Allow(Box::new(Identification {
                strip: to_strip(headers),
                set: vec![
                    (headers::TENANT_ID, owner.tenant.to_string()),
                    (headers::TENANT_PLAN, owner.plan.to_string()),
                    (headers::REQUEST_ID, request_id),
                    (headers::TENANT_CONTEXT, signed),
                ],
                owner,
            }))
        }
        Err(denial) => Decision::Deny(Box::new(denial)),
    }
}

/// Whose request it is: every key must be known, and all must be the same.
fn owner<'d>(
    host: HostKind,
    directory: &'d Directory,
    headers: &[(String, Vec<u8>)],
) -> Result<&'d Owner, Denial> {
    check_text(headers)?;
    if host == HostKind::Kong {
        refuse_internal(headers)?;
    }
    let mut known: Option<(&Owner, Presented<'_>)> = None;
    for presented in credential::presented(headers) {
        let Some(owner) = presented.key.and_then(|key| directory.find(key)) else {
            return Err(unauthorized(
                "unknown_key",
                format!(
                    "Incorrect API key provided in the {} header.",
                    presented.header
                ),
            ));
        };
        match known {
            None => known = Some((owner, presented)),
            Some((_, first)) if first.key == presented.key => {}
            Some((_, first)) => return Err(conflict(first.header, presented.header)),
        }
    }
    known.map(|(owner, _)| owner).ok_or_else(|| {
        unauthorized(
            "no_key",
            "You didn't provide an API key. Send it in the authorization header as Bearer, or in x-api-key or api-key.".to_owned(),
        )
    })
}

/// Refuses a header that is no UTF-8: it is nothing an SDK sends, and other
/// filters of the chain may not survive it.
fn check_text(headers: &[(String, Vec<u8>)]) -> Result<(), Denial> {
    match headers
        .iter()
        .find(|(_, value)| std::str::from_utf8(value).is_err())
    {
        None => Ok(()),
        Some((name, _)) => Err(Denial {
            status: 400,
            error: ApiError::new(
                "invalid_request_error",
                "invalid_header",
                format!("The header {name} is not valid UTF-8."),
            )
            .at(name),
            challenge: false,
            reason: "header_not_utf8",
        }),
    }
}

/// On Kong a header can't be removed on its way upstream, so that a request
/// which carries one of ours must not go on.
fn refuse_internal(headers: &[(String, Vec<u8>)]) -> Result<(), Denial> {
    match headers.iter().find(|(name, _)| headers::is_internal(name)) {
        None => Ok(()),
        Some((name, _)) => Err(Denial {
            status: 400,
            error: ApiError::new(
                "invalid_request_error",
                "internal_header",
                format!("The header {name} is set by the gateway and may not be sent."),
            )
            .at(name),
            challenge: false,
            reason: "internal_header",
        }),
    }
}

fn unauthorized(reason: &'static str, message: String) -> Denial {
    Denial {
        status: 401,
        error: ApiError::new("invalid_request_error", "invalid_api_key", message),
        challenge: true,
        reason,
    }
}

fn conflict(first: &str, second: &str) -> Denial {
    let places = if first == second {
        format!("the {first} header holds two different API keys")
    } else {
        format!("the headers {first} and {second} hold different API keys")
    };
    Denial {
        status: 403,
        error: ApiError::new(
            "invalid_request_error",
            "conflicting_credentials",
            format!("Send one API key: {places}."),
        ),
        challenge: false,
        reason: "conflicting_keys",
    }
}

fn to_strip(headers: &[(String, Vec<u8>)]) -> Vec<String> {
    headers
        .iter()
        .map(|(name, _)| name)
        .filter(|name| headers::is_internal(name) || credential::HEADERS.contains(&name.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;
    use weir_wire::ids::{PlanName, TenantId};

    use super::*;

    const NOW_MS: u64 = 1_795_000_000_000;

    fn keys() -> Keyring {
        Keyring::parse("k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap()
    }

    fn directory() -> Directory {
        let mut directory = Directory::default();
        for (key, tenant) in [("sk-a", "a"), ("sk-a2", "a"), ("sk-b", "b")] {
            directory.insert(
                Sha256::digest(key).into(),
                TenantId::new(tenant).unwrap(),
                PlanName::new("starter").unwrap(),
            );
        }
        directory
    }

    fn decide(host: HostKind, headers: &[(&str, &[u8])]) -> Decision {
        let headers: Vec<(String, Vec<u8>)> = headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), v.to_vec()))
            .collect();
        identify(host, &directory(), &keys(), &headers, NOW_MS, [1; 10])
    }

    #[track_caller]
    fn check_allowed(headers: &[(&str, &[u8])], tenant: &str) -> Identification {
        match decide(HostKind::Envoy, headers) {
            Decision::Allow(id) => {
                assert_eq!(id.owner.tenant.as_str(), tenant);
                *id
            }
            Decision::Deny(denial) => panic!("{denial:?}"),
        }
    }

    #[track_caller]
    fn check_denied(host: HostKind, headers: &[(&str, &[u8])], status: u32, names: &str) {
        match decide(host, headers) {
            Decision::Allow(id) => panic!("allowed {id:?}"),
            Decision::Deny(denial) => {
                assert_eq!(denial.status, status, "{denial:?}");
                assert!(denial.error.message.contains(names), "{denial:?}");
                assert!(!denial.error.message.contains("sk-"), "{denial:?}");
                assert_eq!(denial.challenge, status == 401);
            }
        }
    }

    #[test]
    fn every_sdks_header_is_read() {
        check_allowed(&[("authorization", b"Bearer sk-a")], "a");
        check_allowed(&[("authorization", b"bearer  sk-a ")], "a");
        check_allowed(&[("x-api-key", b"sk-b")], "b");
        check_allowed(&[("api-key", b"sk-b")], "b");
    }

    #[test]
    fn the_same_key_twice_is_one_credential() {
        check_allowed(
            &[("authorization", b"Bearer sk-a"), ("x-api-key", b"sk-a")],
            "a",
        );
        check_allowed(&[("authorization", b"Bearer sk-a, Bearer sk-a")], "a");
    }

    #[test]
    fn two_different_keys_are_refused() {
        let envoy = HostKind::Envoy;
        let a: (&str, &[u8]) = ("authorization", b"Bearer sk-a");
        check_denied(envoy, &[a, ("x-api-key", b"sk-b")], 403, "x-api-key");
        check_denied(envoy, &[a, ("x-api-key", b"sk-a2")], 403, "x-api-key");
        check_denied(envoy, &[a, ("authorization", b"Bearer sk-b")], 403, "two");
        check_denied(envoy, &[a, ("api-key", b"sk-unknown")], 401, "api-key");
    }

    #[test]
    fn no_key_and_no_known_key_are_401() {
        for headers in [vec![], vec![("x-tenant-id", b"a".as_slice())]] {
            check_denied(HostKind::Envoy, &headers, 401, "didn't provide");
        }
        for value in [
            b"Bearer sk-zzz".as_slice(),
            b"Bearer ",
            b"Bearer",
            b"",
            b"sk-a",
            b"Basic sk-a",
            b"Bearer sk-a,",
        ] {
            check_denied(
                HostKind::Envoy,
                &[("authorization", value)],
                401,
                "authorization",
            );
        }
        check_denied(
            HostKind::Envoy,
            &[("x-api-key", &[b'x'; 600])],
            401,
            "x-api-key",
        );
    }

    #[test]
    fn a_header_that_is_no_utf8_is_named() {
        let key: (&str, &[u8]) = ("authorization", b"Bearer sk-a");
        check_denied(HostKind::Envoy, &[key, ("x-note", b"a\xff")], 400, "x-note");
        check_denied(HostKind::Envoy, &[("x-api-key", b"\xff")], 400, "x-api-key");
    }

    #[test]
    fn what_a_client_claims_to_be_is_replaced() {
        let id = check_allowed(
            &[
                ("x-tenant-id", b"b"),
                ("authorization", b"Bearer sk-a"),
                ("x_tenant_id", b"b"),
                ("x-weir-anything", b"1"),
                ("x-request-id", b"kept"),
            ],
            "a",
        );
        assert_eq!(
            id.strip,
            [
                "x-tenant-id",
                "authorization",
                "x_tenant_id",
                "x-weir-anything"
            ]
        );
        let value = |name| &id.set.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(value(headers::TENANT_ID), "a");
        let signed = value(headers::TENANT_CONTEXT);
        let now_ms = i64::try_from(NOW_MS).unwrap();
        let verified = context::verify(signed.as_bytes(), &keys(), now_ms).unwrap();
        assert_eq!(verified.tenant.as_str(), "a");
        assert_eq!(&verified.request_id.to_string(), value(headers::REQUEST_ID));
    }

    #[test]
    fn kong_refuses_what_it_cannot_strip() {
        check_denied(
            HostKind::Kong,
            &[("authorization", b"Bearer sk-a"), ("x-tenant-plan", b"x")],
            400,
            "x-tenant-plan",
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_identify_without_a_key(
            name in prop_oneof![
                Just("authorization"), Just("x-api-key"), Just("api-key"), Just("x-tenant-id"),
                Just("x-weir-tenant-context"), Just("cookie")],
            value in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let decision = decide(HostKind::Envoy, &[(name, &value)]);
            prop_assert!(matches!(decision, Decision::Deny(_)), "{:?}", decision);
        }
    }
}
