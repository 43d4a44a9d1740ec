//! The headers that Weir writes. A client never gets one of them through:
//! Envoy's filters strip them, on Kong the request is refused.

/// The tenant a request was made for.
///
/// Written by tenant-identification; read by the other filters and by access
/// logs; never believed by a service (those verify [`TENANT_CONTEXT`]).
pub const TENANT_ID: &str = "x-tenant-id";

/// The plan that tenant is on. Written, read and stripped as [`TENANT_ID`].
pub const TENANT_PLAN: &str = "x-tenant-plan";

/// The class of the request. Written by request-classification; read by
/// usage-events and by Envoy's routes; the router classifies again for itself.
pub const REQUEST_CLASS: &str = "x-request-class";

/// The model that the client asked for, by its own name for it; visible ASCII.
/// Written by request-classification; read by usage-events and by Envoy's routes.
pub const MODEL_ASKED: &str = "x-weir-model-asked";

/// `true` on a request whose answer is to be an event stream, else absent. Written by
/// request-classification; read by Envoy's routes.
pub const STREAM: &str = "x-weir-stream";

/// About how many tokens of input a request has: a whole number. Written by
/// request-classification; read by usage-events, for an answer that reports no
/// usage, and by Envoy's routes.
pub const INPUT_TOKENS: &str = "x-weir-input-tokens";

/// `true` on a request that request-classification made ask for the usage in its
/// stream. Read by usage-events, which hides what comes of it from the client.
pub const USAGE_ADDED: &str = "x-weir-usage-added";

/// A UUIDv7 minted by the gateway for each request. Written by
/// tenant-identification; read by usage-events; shown to the client on
/// every answer, by usage-events where the router did not, so that a tenant can
/// quote it.
pub const REQUEST_ID: &str = "x-weir-request-id";

/// The signed tenant context, see [`crate::context`]. Written by
/// tenant-identification; read by usage-events, the router and the aggregator;
/// stripped by the router before a provider sees the request.
pub const TENANT_CONTEXT: &str = "x-weir-tenant-context";

/// The model of the catalogue that served, on an answer. Written by the router;
/// for the client.
pub const MODEL: &str = "x-weir-model";

/// The provider that served, on an answer. Written by the router; for the client.
pub const PROVIDER: &str = "x-weir-provider";

/// Why another model served than was asked for, in a word such as `not-in-plan`,
/// on an answer. Written by the router; for the client.
pub const MODEL_REASON: &str = "x-weir-model-reason";

/// The most tokens of an answer, where it is the plan's or the model's word and
/// not the client's, on an answer. Written by the router; for the client.
pub const MAX_TOKENS: &str = "x-weir-max-tokens";

/// How many calls of providers an answer took, on an answer. Written by the router;
/// for the client.
pub const ATTEMPTS: &str = "x-weir-attempts";

/// What of the tenant's monthly budget is neither spent nor held, in dollars with
/// six digits after the point, on an answer; absent where there is no budget.
/// Written by the router; for the client.
pub const BUDGET_REMAINING: &str = "x-weir-budget-remaining";

/// The signature of a webhook's body, `t=<seconds>,v1=<HMAC-SHA256 in hex>` as in
/// Stripe's. Written by the router; read by whoever is told of alerts. Never on a
/// request to Weir.
pub const SIGNATURE: &str = "x-weir-signature";

/// Tokens a minute, as OpenAI names them: the limit, on an answer. Written by the
/// router; for the client.
pub const TOKENS_LIMIT: &str = "x-ratelimit-limit-tokens";

/// How many of them are left, on an answer. Written by the router; for the client.
pub const TOKENS_REMAINING: &str = "x-ratelimit-remaining-tokens";

/// How long until all of them are there again, such as `6m0s` or `120ms`, on an
/// answer. Written by the router; for the client.
pub const TOKENS_RESET: &str = "x-ratelimit-reset-tokens";

/// `1` on a request to a path that needs no tenant. Written by
/// tenant-identification in the place of the others; read by the filters after
/// it, which leave such a request alone.
pub const OPEN: &str = "x-weir-open";

/// Every header that Weir writes into a request.
pub const INTERNAL: [&str; 10] = [
    TENANT_ID,
    TENANT_PLAN,
    REQUEST_CLASS,
    MODEL_ASKED,
    STREAM,
    INPUT_TOKENS,
    USAGE_ADDED,
    REQUEST_ID,
    TENANT_CONTEXT,
    OPEN,
];

/// Whether a client may not send a header of this name.
///
/// True for each of [`INTERNAL`], for whatever starts like one of ours, in any
/// case, and with underscores in the place of dashes: CGI-like upstreams fold
/// the two into one.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    // Every name of ours begins so, and hardly another of a request's does.
    let [b'x' | b'X', _, b'r' | b'R' | b't' | b'T' | b'w' | b'W', ..] = name.as_bytes() else {
        return false;
    };
    ["x-weir-", "x-tenant-"]
        .iter()
        .any(|prefix| begins_with(name, prefix))
        || INTERNAL
            .iter()
            .any(|header| name.len() == header.len() && begins_with(name, header))
}

/// Byte by byte, because every header of every request comes by here.
fn begins_with(name: &str, prefix: &str) -> bool {
    name.len() >= prefix.len()
        && name.bytes().zip(prefix.bytes()).all(|(found, wanted)| {
            found.to_ascii_lowercase() == wanted || (found == b'_' && wanted == b'-')
        })
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn internal_names_are_known_in_any_spelling() {
        for name in INTERNAL {
            assert!(is_internal(name), "{name}");
            assert!(name.starts_with("x-"), "{name}");
            assert!(is_internal(&name.to_ascii_uppercase()), "{name}");
            assert!(is_internal(&name.replace('-', "_")), "{name}");
        }
        assert!(is_internal("X-Weir-Anything"));
        for name in ["x-request-id", "authorization", "tenant-id", "x-weird"] {
            assert!(!is_internal(name), "{name}");
        }
    }
}
