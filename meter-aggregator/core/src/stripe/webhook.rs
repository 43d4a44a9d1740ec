//! Webhooks: whether Stripe sent one, and what it tells
//! (docs.stripe.com/webhooks, docs.stripe.com/event-destinations).

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;

/// How far the time in a signature may be from now, either way: five minutes.
pub const TOLERANCE_S: i64 = 300;

/// The type of the event that tells of usage that a meter did not count.
pub const METER_ERRORS: &str = "v1.billing.meter.error_report_triggered";

/// The most signatures of one header that are looked at. Stripe writes two while a
/// secret is being replaced.
const SIGNATURES_MAX: usize = 8;

/// The longest id or type of an event.
const NAME_MAX: usize = 255;

/// Why a webhook is not taken as Stripe's. The text is for whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No header, or none that can be read.
    #[error("stripe-signature: must be t=<seconds>,v1=<64 hexadecimal digits>")]
    Malformed,
    /// Too old or too far ahead.
    #[error("stripe-signature: t is {0} s from this clock; at most 300 are allowed")]
    Time(i64),
    /// None of the secrets made it.
    #[error("stripe-signature: no v1 is by a secret of webhook.secrets_env over this body")]
    Wrong,
}

/// Checks a webhook's `Stripe-Signature`: HMAC-SHA256 with one of the secrets over the
/// time, a dot and the body, and the time not far from `now_s`.
///
/// # Errors
/// [`SignatureError`].
pub fn verify(
    header: &[u8],
    body: &[u8],
    secrets: &[String],
    now_s: i64,
) -> Result<(), SignatureError> {
    let header = str::from_utf8(header).map_err(|_| SignatureError::Malformed)?;
    let mut time = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", text)) if time.is_none() => time = Some(text),
            Some(("v1", text)) if signatures.len() < SIGNATURES_MAX => {
                signatures.extend(digest(text));
            }
            _ => {}
        }
    }
    let time = time.ok_or(SignatureError::Malformed)?;
    let seconds: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    if signatures.is_empty() {
        return Err(SignatureError::Malformed);
    }
    // Before the time is judged: only who has a secret is told of the clock.
    let made = |secret: &String| {
        let mac = mac(secret, time, body);
        signatures
            .iter()
            .any(|s| mac.clone().is_some_and(|mac| mac.verify_slice(s).is_ok()))
    };
    if !secrets.iter().any(made) {
        return Err(SignatureError::Wrong);
    }
    let away = now_s.saturating_sub(seconds);
    if away.saturating_abs() > TOLERANCE_S {
        return Err(SignatureError::Time(away));
    }
    Ok(())
}

/// The header that Stripe would send: for tests and fakes.
#[must_use]
pub fn sign(secret: &str, time_s: i64, body: &[u8]) -> String {
    let time = time_s.to_string();
    let digest = mac(secret, &time, body).map(|mac| mac.finalize().into_bytes());
    let mut header = format!("t={time},v1=");
    for byte in digest.unwrap_or_default() {
        header.push_str(&format!("{byte:02x}"));
    }
    header
}

fn mac(secret: &str, time: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

/// 32 bytes of hexadecimal digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits: Vec<u32> = text.chars().map_while(|c| c.to_digit(16)).collect();
    if digits.len() != 64 || text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = u8::try_from(high.checked_mul(16)?.checked_add(*low)?).ok()?;
    }
    Some(bytes)
}

/// What a webhook tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The event's id: the same each time that it is sent.
    pub id: String,
    /// The event's type.
    pub kind: String,
    /// What is to be looked at.
    pub what: What,
}

/// What is to be looked at. The event itself says no more than that: it may be old,
/// come twice or come after a newer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Something became of this invoice.
    Invoice(String),
    /// This meter did not count some events; [`super::CoreEvent`] says which.
    MeterErrors(String),
    /// Nothing that is dealt with here.
    Other,
}

/// Why a body that Stripe signed can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// Not what an event is.
    #[error("body: is no event of Stripe's: {0}")]
    Malformed(String),
    /// A name that no event has.
    #[error("body: {0} must have 1 to 255 characters")]
    Name(&'static str),
    /// Neither kind of event.
    #[error("body: object must be event or v2.core.event, found {0:?}")]
    Object(String),
}

#[derive(Deserialize)]
struct EventBody {
    id: String,
    object: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Option<Snapshot>,
    #[serde(default)]
    related_object: Option<Related>,
}

#[derive(Deserialize)]
struct Snapshot {
    #[serde(default)]
    object: Option<Related>,
}

#[derive(Deserialize)]
struct Related {
    #[serde(default)]
    id: Option<String>,
}

/// Reads an event in either form: one with a snapshot of its object (`event`), or a
/// thin one that only names it (`v2.core.event`).
///
/// # Errors
/// [`NoticeError`]; an event of a type that is not known is none.
pub fn parse(body: &[u8]) -> Result<Notice, NoticeError> {
    let event: EventBody =
        serde_json::from_slice(body).map_err(|e| NoticeError::Malformed(e.to_string()))?;
    for (name, text) in [("id", &event.id), ("type", &event.kind)] {
        if !(1..=NAME_MAX).contains(&text.len()) {
            return Err(NoticeError::Name(name));
        }
    }
    let related = match event.object.as_str() {
        "event" => event.data.and_then(|data| data.object),
        "v2.core.event" => event.related_object,
        other => return Err(NoticeError::Object(other.chars().take(64).collect())),
    };
    let id = related.and_then(|related| related.id);
    let what = match (event.object.as_str(), event.kind.as_str(), id) {
        (
            "event",
            "invoice.payment_failed"
            | "invoice.paid"
            | "invoice.voided"
            | "invoice.marked_uncollectible",
            Some(id),
        ) => What::Invoice(id),
        ("v2.core.event", METER_ERRORS, Some(id)) => What::MeterErrors(id),
        _ => What::Other,
    };
    Ok(Notice {
        id: event.id,
        kind: event.kind,
        what,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const NOW: i64 = 1_794_314_096;

    fn secrets() -> Vec<String> {
        vec!["whsec_old".to_owned(), "whsec_new".to_owned()]
    }

    #[test]
    fn a_signature_is_golden() {
        // RFC 2104 by another hand: openssl dgst -sha256 -hmac whsec_new.
        assert_eq!(sign("whsec_new", NOW, b"{}"), GOLDEN);
    }

    const GOLDEN: &str =
        "t=1794314096,v1=a432f1f047d67d9bfd6ab0edf84ae6c85ccd3e0846e0a592e3f413b5263d1169";

    #[track_caller]
    fn check(header: &str, now_s: i64, wanted: Result<(), SignatureError>) {
        assert_eq!(
            verify(header.as_bytes(), b"{}", &secrets(), now_s),
            wanted,
            "{header}"
        );
    }

    #[test]
    fn only_who_has_a_secret_is_heard() {
        let [old, new, other] = ["whsec_old", "whsec_new", "whsec_no"].map(|s| sign(s, NOW, b"{}"));
        for good in [&old, &new] {
            check(good, NOW, Ok(()));
        }
        let v1 = |header: &str| header.split_once(",").unwrap().1.to_owned();
        check(&format!("{other},{}", v1(&new)), NOW, Ok(()));
        check(&format!("{new},v0=ab,scheme"), NOW, Ok(()));
        check(&other, NOW, Err(SignatureError::Wrong));
        check(
            &sign("whsec_new", NOW, b"{ }"),
            NOW,
            Err(SignatureError::Wrong),
        );
        // The time is signed, too, and the first one counts.
        let moved = format!("t={},{}", NOW + 1, v1(&new));
        check(&moved, NOW, Err(SignatureError::Wrong));
        check(&format!("{moved},t={NOW}"), NOW, Err(SignatureError::Wrong));
        assert_eq!(
            verify(new.as_bytes(), b"{}", &[], NOW),
            Err(SignatureError::Wrong)
        );
    }

    #[test]
    fn a_signature_ages() {
        let header = sign("whsec_new", NOW, b"{}");
        for away in [0, 300, -300] {
            check(&header, NOW + away, Ok(()));
        }
        for away in [301, -301] {
            check(&header, NOW + away, Err(SignatureError::Time(away)));
        }
        check(&header, i64::MIN, Err(SignatureError::Time(i64::MIN)));
    }

    #[test]
    fn what_is_no_signature_is_said_to_be_none() {
        let hex = "0".repeat(64);
        for header in [
            String::new(),
            "t=1".to_owned(),
            format!("v1={hex}"),
            format!("t=,v1={hex}"),
            format!("t=1e3,v1={hex}"),
            "t=1,v1=00".to_owned(),
            format!("t=1,v1={hex}00"),
            format!("t=1,v1={}g", &hex[1..]),
        ] {
            check(&header, NOW, Err(SignatureError::Malformed));
        }
        assert_eq!(
            verify(b"\xff", b"", &secrets(), NOW),
            Err(SignatureError::Malformed)
        );
    }

    #[track_caller]
    fn check_notice(body: &str, kind: &str, what: What) {
        let notice = parse(body.as_bytes()).unwrap();
        let wanted = Notice {
            id: "evt_1".to_owned(),
            kind: kind.to_owned(),
            what,
        };
        assert_eq!(notice, wanted, "{body}");
    }

    #[test]
    fn both_forms_are_read() {
        for kind in [
            "invoice.payment_failed",
            "invoice.paid",
            "invoice.voided",
            "invoice.marked_uncollectible",
        ] {
            let body = format!(
                r#"{{"id":"evt_1","object":"event","type":"{kind}","more":[],
                    "data":{{"object":{{"id":"in_1","object":"invoice"}}}}}}"#
            );
            check_notice(&body, kind, What::Invoice("in_1".into()));
        }
        let thin = format!(
            r#"{{"id":"evt_1","object":"v2.core.event","type":"{METER_ERRORS}","context":null,
                "related_object":{{"id":"mtr_1","type":"billing.meter","url":"/x"}}}}"#
        );
        check_notice(&thin, METER_ERRORS, What::MeterErrors("mtr_1".into()));
        // A type of the other form, one without its object, one that is not known.
        let snapshot = format!(r#"{{"id":"evt_1","object":"event","type":"{METER_ERRORS}"}}"#);
        check_notice(&snapshot, METER_ERRORS, What::Other);
        let bare = r#"{"id":"evt_1","object":"event","type":"invoice.paid","data":{}}"#;
        check_notice(bare, "invoice.paid", What::Other);
        let unknown = r#"{"id":"evt_1","object":"v2.core.event","type":"x","related_object":null}"#;
        check_notice(unknown, "x", What::Other);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for (body, names) in [
            ("", "body"),
            ("[]", "body"),
            (r#"{"object":"event","type":"x"}"#, "id"),
            (r#"{"id":"","object":"event","type":"x"}"#, "id"),
            (r#"{"id":"e","object":"event","type":""}"#, "type"),
            (r#"{"id":"e","object":"list","type":"x"}"#, "object"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(names), "{error} of {body}");
        }
        let long = format!(
            r#"{{"id":"{}","object":"event","type":"x"}}"#,
            "e".repeat(256)
        );
        assert_eq!(parse(long.as_bytes()), Err(NoticeError::Name("id")));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics(header in "[tv01=,a-f]{0,90}", body in ".{0,60}", now: i64) {
            let _ = verify(header.as_bytes(), body.as_bytes(), &secrets(), now);
            let _ = parse(body.as_bytes());
        }

        #[test]
        fn what_is_signed_is_heard(body: Vec<u8>, time in 0_i64..4_000_000_000, flip: u16) {
            let header = sign("whsec_new", time, &body);
            prop_assert_eq!(verify(header.as_bytes(), &body, &secrets(), time), Ok(()));
            let mut other = body.clone();
            if let Some(byte) = body.len().checked_sub(1).map(|n| usize::from(flip) % (n + 1)) {
                other[byte] ^= 1;
                prop_assert_eq!(
                    verify(header.as_bytes(), &other, &secrets(), time),
                    Err(SignatureError::Wrong)
                );
            }
        }
    }
}
