//! Answers that refuse a request, in the shape that tenants know.

use weir_wire::error::ApiError;

/// An answer that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// HTTP status.
    pub status: u32,
    /// For the caller.
    pub error: ApiError,
    /// The value of `www-authenticate` (RFC 6750, section 3), on 401.
    pub challenge: Option<&'static str>,
    /// The value of `retry-after`, in seconds, on 429.
    pub retry_after_s: Option<u64>,
    /// For counters: a word without anything of the request.
    pub reason: &'static str,
    /// For the log, where there is more to say. Never a key or a token; the
    /// tenants' names, where two sources disagree.
    pub detail: Option<String>,
}

/// Asks for a credential.
const ASK: &str = "Bearer";

/// Says that the one that came is no good.
const INVALID: &str = "Bearer error=\"invalid_token\"";

impl Denial {
    fn new(status: u32, reason: &'static str, error: ApiError) -> Box<Self> {
        Box::new(Self {
            status,
            error,
            challenge: None,
            retry_after_s: None,
            reason,
            detail: None,
        })
    }

    fn challenge(mut self: Box<Self>, challenge: &'static str) -> Box<Self> {
        self.challenge = Some(challenge);
        self
    }

    fn retry_after_s(mut self: Box<Self>, seconds: u64) -> Box<Self> {
        self.retry_after_s = Some(seconds);
        self
    }

    /// 401: no source found anything.
    #[must_use]
    pub fn nothing() -> Box<Self> {
        let message = "You didn't provide an API key or a token. Send it in the authorization header as Bearer, or in x-api-key or api-key.";
        Self::new(401, "no_credential", invalid("invalid_api_key", message)).challenge(ASK)
    }

    /// 401: a credential is none, or not one that is known.
    #[must_use]
    pub fn unknown(reason: &'static str, message: String) -> Box<Self> {
        Self::new(401, reason, invalid("invalid_api_key", message)).challenge(INVALID)
    }

    /// 401: a token is not accepted.
    #[must_use]
    pub fn token(reason: &'static str, message: String) -> Box<Self> {
        Self::new(401, reason, invalid("invalid_token", message)).challenge(INVALID)
    }

    /// 403: two sources name different tenants. Both names are for the log.
    #[must_use]
    pub fn conflict(detail: String) -> Box<Self> {
        let message = "The credentials of this request belong to different tenants, or the host is another tenant's. Send one credential, to its own host.";
        let error = invalid("conflicting_credentials", message);
        let mut denial = Self::new(403, "conflict", error);
        denial.detail = Some(detail);
        denial
    }

    /// 403: the tenant is suspended.
    #[must_use]
    pub fn suspended() -> Box<Self> {
        let message = "This account is suspended. Ask the operator of this endpoint.";
        Self::new(403, "suspended", invalid("account_suspended", message))
    }

    /// 403: nothing says which plan the tenant is on.
    #[must_use]
    pub fn no_plan() -> Box<Self> {
        let message = "This account is on no plan. Ask the operator of this endpoint.";
        Self::new(403, "no_plan", invalid("no_plan", message))
    }

    /// 400: too many credentials.
    #[must_use]
    pub fn too_many(max: usize) -> Box<Self> {
        let message = format!("Send one credential; more than {max} are not looked at.");
        let error = invalid("conflicting_credentials", message);
        Self::new(400, "too_many_credentials", error)
    }

    /// 400: a header is not text. It is nothing an SDK sends, and other filters
    /// of the chain may not survive it.
    #[must_use]
    pub fn not_utf8(header: &str) -> Box<Self> {
        let message = format!("The header {header} is not valid UTF-8.");
        let error = invalid("invalid_header", message).at(header);
        Self::new(400, "header_not_utf8", error)
    }

    /// 400, on Kong: a header of Weir's own can't be removed on its way
    /// upstream, so that a request which carries one must not go on.
    #[must_use]
    pub fn internal(header: &str) -> Box<Self> {
        let message = format!("The header {header} is set by the gateway and may not be sent.");
        let error = invalid("internal_header", message).at(header);
        Self::new(400, "internal_header", error)
    }

    /// 429: too many tokens that were not seen before.
    #[must_use]
    pub fn exhausted(retry_after_s: u64) -> Box<Self> {
        let message = "Too many new tokens at this gateway. Try again, or send a token that was accepted before.";
        let error = ApiError::new("rate_limit_error", "too_many_new_tokens", message);
        Self::new(429, "over_budget", error).retry_after_s(retry_after_s)
    }

    /// 503: the issuer's keys have not been fetched: nobody can say whether the
    /// token is good.
    #[must_use]
    pub fn no_keys() -> Box<Self> {
        let message = "The gateway does not have the keys of the token's issuer. Try again.";
        let error = ApiError::new("server_error", "issuer_keys_not_loaded", message);
        Self::new(503, "keys_not_loaded", error).retry_after_s(1)
    }

    /// 503: the directory has not been loaded yet.
    #[must_use]
    pub fn not_ready() -> Box<Self> {
        let message = "The gateway does not know its tenants yet. Try again.";
        let error = ApiError::new("server_error", "directory_not_loaded", message);
        Self::new(503, "directory_not_loaded", error).retry_after_s(1)
    }
}

fn invalid(code: &str, message: impl Into<String>) -> ApiError {
    ApiError::new("invalid_request_error", code, message)
}
