//! What a client is told of its limits.
//!
//! `RateLimit` and `RateLimit-Policy` are those of the IETF draft
//! (draft-ietf-httpapi-ratelimit-headers-10, structured fields); the
//! `x-ratelimit-*-requests` are what OpenAI's API sends and its SDKs read.

use crate::record::Told;

/// Headers of an answer, names in lower case.
pub type Headers = Vec<(&'static str, String)>;

/// The headers for a request that passed or was refused: all limits as policies,
/// and how much is left of the tightest one. None where nothing limits it.
#[must_use]
pub fn headers(limits: &[Told], class: &str, now_ms: u64) -> Headers {
    let Some(tightest) = limits
        .iter()
        .min_by_key(|limit| (limit.remaining, u64::MAX.saturating_sub(limit.reset_at_ms)))
    else {
        return Vec::new();
    };
    let policy = |limit: &Told| {
        let name = name(limit, class);
        format!("{name};q={};w={}", limit.requests, limit.window_s)
    };
    let policies: Vec<String> = limits.iter().map(policy).collect();
    let reset_s = tightest
        .reset_at_ms
        .saturating_sub(now_ms)
        .div_ceil(1_000)
        .min(u64::from(tightest.window_s).saturating_add(60));
    let remaining = tightest.remaining;
    vec![
        ("ratelimit-policy", policies.join(", ")),
        (
            "ratelimit",
            format!("{};r={remaining};t={reset_s}", name(tightest, class)),
        ),
        ("x-ratelimit-limit-requests", tightest.requests.to_string()),
        ("x-ratelimit-remaining-requests", remaining.to_string()),
        ("x-ratelimit-reset-requests", duration(reset_s)),
    ]
}

/// Whole seconds until then, never too early, at least one.
#[must_use]
pub fn retry_after_s(retry_at_ms: u64, now_ms: u64) -> u64 {
    retry_at_ms.saturating_sub(now_ms).div_ceil(1_000).max(1)
}

/// `"requests-60s"`, or `"chat-60s"` for one class.
fn name(limit: &Told, class: &str) -> String {
    let class = if limit.of_class { class } else { "requests" };
    format!("\"{class}-{}s\"", limit.window_s)
}

/// As OpenAI writes it: `1s`, `6m0s`, `1h0m0s`.
fn duration(seconds: u64) -> String {
    let (minutes, s) = (seconds / 60, seconds % 60);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{s}s"),
        (0, m) => format!("{m}m{s}s"),
        (h, m) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_tightest_limit_is_shown_and_all_are_named() {
        let minute = Told {
            requests: 100,
            window_s: 60,
            of_class: false,
            remaining: 40,
            reset_at_ms: 61_000,
        };
        let second = Told {
            requests: 5,
            window_s: 1,
            of_class: true,
            remaining: 2,
            reset_at_ms: 1_400,
        };
        let shown = headers(&[minute, second], "chat", 500);
        let expected = [
            (
                "ratelimit-policy",
                "\"requests-60s\";q=100;w=60, \"chat-1s\";q=5;w=1",
            ),
            ("ratelimit", "\"chat-1s\";r=2;t=1"),
            ("x-ratelimit-limit-requests", "5"),
            ("x-ratelimit-remaining-requests", "2"),
            ("x-ratelimit-reset-requests", "1s"),
        ];
        for ((name, value), expected) in shown.iter().zip(expected) {
            assert_eq!((*name, value.as_str()), expected);
        }
        assert_eq!(shown.len(), expected.len());
        assert_eq!(headers(&[minute], "chat", 500)[4].1, "1m1s");
        assert!(headers(&[], "chat", 0).is_empty());
    }

    #[test]
    fn a_time_to_wait_is_never_too_early() {
        assert_eq!(retry_after_s(5_001, 5_000), 1);
        assert_eq!(retry_after_s(6_001, 5_000), 2);
        assert_eq!(retry_after_s(0, 5_000), 1);
        assert_eq!(duration(3_605), "1h0m5s");
    }
}
