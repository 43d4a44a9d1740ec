//! What Stripe answered, beside the object: errors, and whether to ask again.

use serde::Deserialize;

use crate::intent::Attempt;

/// The longest pause that an answer may ask for: an hour.
const RETRY_AFTER_MAX_S: i64 = 3_600;

/// The longest text of Stripe's that is kept, in characters.
const TEXT_MAX: usize = 500;

/// What an answer's headers say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// `Stripe-Should-Retry`, which wins over any rule of ours.
    pub should_retry: Option<bool>,
    /// `Retry-After`, in milliseconds, an hour at the most.
    pub retry_after_ms: Option<i64>,
    /// `Request-Id`, by which Stripe's support finds the call.
    pub request_id: Option<String>,
}

impl Heard {
    /// Reads the headers; `header` finds one by its name in small letters.
    pub fn of<'a>(header: impl Fn(&str) -> Option<&'a [u8]>) -> Self {
        let text = |name: &str| header(name).and_then(|value| str::from_utf8(value).ok());
        // A date, as proxies may write it, is not heeded: no clock here.
        let retry_after_ms = text("retry-after")
            .and_then(|value| value.trim().parse::<i64>().ok())
            .map(|s| s.clamp(0, RETRY_AFTER_MAX_S).saturating_mul(1_000));
        Self {
            should_retry: match text("stripe-should-retry") {
                Some("true") => Some(true),
                Some("false") => Some(false),
                _ => None,
            },
            retry_after_ms,
            request_id: text("request-id").map(short),
        }
    }
}

/// An answer without its object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `error.type`, empty where there is none.
    pub kind: String,
    /// `error.code`, empty where there is none.
    pub code: String,
    /// `error.message`, empty where there is none.
    pub message: String,
    /// What the headers say.
    pub heard: Heard,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorObject {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    message: Option<String>,
}

impl Answer {
    /// Reads an answer; a body that is no error object leaves the texts empty.
    #[must_use]
    pub fn of(status: u16, heard: Heard, body: &[u8]) -> Self {
        let error = match serde_json::from_slice::<ErrorBody>(body) {
            Ok(body) if !(200..=299).contains(&status) => body.error,
            _ => ErrorObject::default(),
        };
        let text = |found: Option<String>| short(&found.unwrap_or_default());
        Self {
            status,
            kind: text(error.kind),
            code: text(error.code),
            message: text(error.message),
            heard,
        }
    }

    /// Whether Stripe did what was asked.
    #[must_use]
    pub fn is_good(&self) -> bool {
        (200..=299).contains(&self.status)
    }

    /// Whether a call that changes nothing is worth making again.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.heard
            .should_retry
            .unwrap_or(matches!(self.status, 409 | 429 | 500..=599))
    }

    /// What the operator reads: never the key, though Stripe's message names its end.
    #[must_use]
    pub fn told(&self) -> String {
        let hint = match self.status {
            401 => "stripe.api_key_env: Stripe does not know the key",
            403 => {
                "stripe.api_key_env: the key may not do this; a restricted key needs to read \
                 meters, summaries, invoices, prices and events, and to write meter events"
            }
            _ if self.message.is_empty() => "Stripe said nothing more",
            _ => &self.message,
        };
        let code = if self.code.is_empty() {
            &self.kind
        } else {
            &self.code
        };
        let mut told = format!("{}: {hint}", self.status);
        if !code.is_empty() {
            told.push_str(&format!(" ({code})"));
        }
        if let Some(id) = &self.heard.request_id {
            told.push_str(&format!(" [{id}]"));
        }
        told
    }
}

/// What an answer to a meter event, or none, is for its intent.
#[must_use]
pub fn attempt(answer: Option<Answer>) -> Attempt {
    match answer {
        Some(answer) => Attempt::Answered {
            status: answer.status,
            message: answer.message,
            should_retry: answer.heard.should_retry,
            retry_after_ms: answer.heard.retry_after_ms,
        },
        None => Attempt::Unanswered,
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn heard(headers: &'static [(&str, &str)]) -> Heard {
        Heard::of(|name| {
            let found = headers.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_bytes())
        })
    }

    #[test]
    fn headers_are_read() {
        let all = heard(&[
            ("retry-after", "2"),
            ("stripe-should-retry", "true"),
            ("request-id", "req_1"),
        ]);
        assert_eq!(
            (all.should_retry, all.retry_after_ms, all.request_id),
            (Some(true), Some(2_000), Some("req_1".to_owned()))
        );
        assert_eq!(
            heard(&[("retry-after", "soon"), ("stripe-should-retry", "perhaps")]),
            Heard::default()
        );
        for (text, ms) in [("999999999", 3_600_000), ("-1", 0), (" 1 ", 1_000)] {
            let heard = Heard::of(|name| (name == "retry-after").then_some(text.as_bytes()));
            assert_eq!(heard.retry_after_ms, Some(ms));
        }
    }

    #[test]
    fn errors_are_read_whatever_the_body() {
        let body = br#"{"error":{"type":"invalid_request_error","code":"x","message":"no","y":1}}"#;
        let answer = Answer::of(400, Heard::default(), body);
        assert_eq!(
            (
                answer.kind.as_str(),
                answer.code.as_str(),
                answer.message.as_str()
            ),
            ("invalid_request_error", "x", "no")
        );
        assert_eq!(answer.told(), "400: no (x)");
        for body in [&b"<html>"[..], b"", b"{}", br#"{"error":[]}"#, b"\xff"] {
            let answer = Answer::of(502, Heard::default(), body);
            assert_eq!(answer.told(), "502: Stripe said nothing more");
        }
        for status in [401, 403] {
            let told = Answer::of(status, Heard::default(), b"").told();
            assert!(told.contains("stripe.api_key_env"), "{told}");
        }
    }

    #[test]
    fn what_passes_is_asked_again() {
        let check = |status: u16, should_retry: Option<bool>, passing: bool| {
            let heard = Heard {
                should_retry,
                ..Heard::default()
            };
            let answer = Answer::of(status, heard, b"");
            assert_eq!(answer.is_passing(), passing, "{status} {should_retry:?}");
        };
        for status in [409, 429, 500, 503] {
            check(status, None, true);
            check(status, Some(false), false);
        }
        for status in [400, 401, 403, 404] {
            check(status, None, false);
            check(status, Some(true), true);
        }
    }

    #[test]
    fn an_attempt_says_what_came() {
        let answer = Answer::of(400, heard(&[("stripe-should-retry", "false")]), b"");
        assert_eq!(attempt(None), Attempt::Unanswered);
        let Attempt::Answered {
            status,
            should_retry,
            ..
        } = attempt(Some(answer))
        else {
            panic!("an answer is one");
        };
        assert_eq!((status, should_retry), (400, Some(false)));
    }
}
