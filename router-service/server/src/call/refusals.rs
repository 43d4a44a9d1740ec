//! What a client is told where its provider did not serve.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use weir_router_core::{
    health::{
        Fault,
        retry_after::{parse_retry_after, parse_retry_after_ms},
    },
    refusal::Refusal,
    relay::Passage,
};
use weir_wire::{
    error::{ApiError, Dialect},
    ids::PlanName,
};

use super::{Answer, AnswerBody};

/// Anthropic's own status for too much load, which others' clients do not know.
const OVERLOADED: u16 = 529;

/// An answer that is an error.
pub struct Told {
    pub status: StatusCode,
    /// What of its headers goes on.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether it is one of the provider's dialect.
    pub has_error: bool,
    /// When to come again, by its own word.
    pub retry_after_ms: Option<u64>,
}

/// Whose fault an error is.
pub enum Verdict {
    /// The request's: the client is told, and nobody else is asked.
    Request(Answer),
    /// The provider's, or ours with it: another may do better.
    Provider(Fault, Refusal),
}

/// Whose fault it is, and what the client is told. That our own key was refused
/// is no news for a tenant, whose key is good.
pub fn verdict(passage: &Passage, told: Told) -> Verdict {
    let Told {
        status,
        retry_after_ms,
        ..
    } = told;
    let code = status.as_u16();
    let refused = |what: &str| Verdict::Provider(Fault::Server, unavailable(502, what));
    match code {
        // What a provider says of our account is no news for tenants either.
        402 => return refused("refused the router"),
        429 => {
            let error = ApiError::new(
                "rate_limit_error",
                "provider_rate_limit_exceeded",
                "The model's provider takes no more requests of the router's just now.",
            );
            let refusal = again(Refusal::of(429, error), retry_after_ms);
            return Verdict::Provider(Fault::RateLimited { retry_after_ms }, refusal);
        }
        401 | 403 => {
            tracing::error!(%status, "the provider refused the router's key");
            return refused("refused the router");
        }
        300..=399 => return refused("answered with a redirect"),
        _ => {}
    }
    if passage.error(&told.body).is_some_and(|e| is_of_account(&e)) {
        tracing::error!(%status, "the provider says something of the router's account");
        return refused("refused the router");
    }
    let fault = match code {
        503 | OVERLOADED => Fault::Overloaded { retry_after_ms },
        404 | 500..=599 => Fault::Server,
        408 => Fault::TimedOut,
        _ => return Verdict::Request(request_fault(passage, told)),
    };
    let dialect = passage.to.dialect();
    let status = match (code, dialect) {
        (OVERLOADED, Dialect::OpenAi) => 503,
        _ => code,
    };
    let refusal = match passage.error(&told.body) {
        Some(error) => Refusal::of(status, error),
        None => unavailable(status, "answered with an error"),
    };
    Verdict::Provider(fault, again(refusal, retry_after_ms))
}

fn again(refusal: Refusal, retry_after_ms: Option<u64>) -> Refusal {
    match retry_after_ms {
        Some(ms) => refusal.retry_after(ms),
        None => refusal,
    }
}

fn request_fault(passage: &Passage, told: Told) -> Answer {
    let Told {
        status,
        mut headers,
        body,
        has_error,
        ..
    } = told;
    if passage.from.dialect() == passage.to.dialect() && has_error {
        return Answer {
            status,
            headers,
            body: AnswerBody::Whole(body),
        };
    }
    let error = passage.error(&body).unwrap_or_else(|| {
        let what = "answered with an error";
        unavailable(status.as_u16(), what).error
    });
    let json = http::HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    Answer {
        status,
        headers,
        body: AnswerBody::Whole(error.body_in(passage.to.dialect(), status.as_u16()).into()),
    }
}

/// When to come again, by the headers of an answer.
pub fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let exact = text("retry-after-ms").and_then(parse_retry_after_ms);
    let now_ms = u64::try_from(weir_process::now_ms()).unwrap_or(0);
    exact.or_else(|| parse_retry_after(text("retry-after")?, now_ms))
}

/// Whether an error is about who pays the provider: by its kind, or as Anthropic tells
/// it, with 400, by how its message begins. What a tenant wrote may stand anywhere
/// after that.
fn is_of_account(error: &ApiError) -> bool {
    const KINDS: [&str; 6] = [
        "insufficient_quota",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "account_deactivated",
        "invalid_organization",
    ];
    const BEGINNINGS: [&str; 4] = [
        "Your credit balance is too low",
        "You exceeded your current quota",
        "This organization has been disabled",
        "Your organization has been disabled",
    ];
    let kinds = [Some(error.kind.as_str()), error.code.as_deref()];
    kinds.iter().flatten().any(|kind| KINDS.contains(kind))
        || BEGINNINGS
            .iter()
            .any(|words| error.message.starts_with(words))
}

/// Whose fault an error is that a stream or an answer held before any content, and
/// what the client is told; nobody's but the request's where there is no fault.
pub fn in_stream(error: Option<&ApiError>) -> (Option<Fault>, Refusal) {
    let Some(error) = error else {
        return (Some(Fault::BrokenStream), provider_failed());
    };
    let retry_after_ms = None;
    let (fault, status) = match (error.kind.as_str(), error.code.as_deref()) {
        ("rate_limit_error", _) => (Some(Fault::RateLimited { retry_after_ms }), 429),
        ("invalid_request_error", _) => (None, 400),
        (_, Some("overloaded")) => (Some(Fault::Overloaded { retry_after_ms }), 503),
        _ => (Some(Fault::Server), 502),
    };
    (fault, Refusal::of(status, error.clone()))
}

pub fn unavailable(status: u16, what: &str) -> Refusal {
    Refusal::server(
        status,
        "provider_error",
        format!("The model's provider {what}."),
    )
}

pub fn provider_failed() -> Refusal {
    unavailable(502, "broke off its answer")
}

/// The plan's time is over.
pub fn late(plan: &PlanName, time: Duration) -> Refusal {
    Refusal::server(
        504,
        "timeout",
        format!(
            "The model's provider did not answer in the {} s of the plan {plan}.",
            time.as_secs(),
        ),
    )
}

/// Nobody who could serve does just now.
pub fn all_down(retry_ms: u64) -> Refusal {
    Refusal::server(
        503,
        "providers_unavailable",
        "No provider of a model that could answer does so just now; try again later.",
    )
    .retry_after(retry_ms)
}

pub fn stopped() -> Refusal {
    Refusal::server(
        503,
        "router_stopping",
        "The router stops; send the request again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tenant_wrote_is_nothing_of_our_account() {
        let error = |kind, code, message| ApiError::new(kind, code, message);
        for (ours, error) in [
            (
                true,
                error("insufficient_quota", "insufficient_quota", "You exceeded"),
            ),
            (
                true,
                error(
                    "invalid_request_error",
                    "x",
                    "Your credit balance is too low to access the Anthropic API.",
                ),
            ),
            (
                false,
                error(
                    "invalid_request_error",
                    "invalid_value",
                    "Invalid value: 'organization'. Supported values are: 'system'.",
                ),
            ),
            (
                false,
                error(
                    "invalid_request_error",
                    "x",
                    "'billing': Your credit balance is too low",
                ),
            ),
        ] {
            assert_eq!(is_of_account(&error), ours, "{error:?}");
        }
    }
}
