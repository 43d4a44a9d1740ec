//! Takes a token apart and checks everything but its signature: what is
//! cheap to refuse is refused before anything dear is done.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use weir_wire::ids::{PlanName, TenantId};

use super::{Algorithm, Reason, config::IssuerConfig, json, jwk::KID_MAX_BYTES};

/// The longest token, in bytes.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// The latest time a token may name, in seconds of the Unix epoch: the year
/// 9999.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// A token in its parts.
pub(crate) struct Parts<'t> {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    pub claims: Map<String, Value>,
    /// The first two parts with their dot: what is signed.
    pub signing_input: &'t [u8],
    pub signature: Vec<u8>,
}

/// Reads the compact form (RFC 7515, section 7.1) and checks the header.
pub(crate) fn split(token: &[u8]) -> Result<Parts<'_>, Reason> {
    if token.len() > TOKEN_MAX_BYTES {
        return Err(Reason::TooLarge);
    }
    let mut segments = token.split(|b| *b == b'.');
    let (Some(header), Some(claims), Some(signature), None) = (
        segments.next(),
        segments.next(),
        segments.next(),
        segments.next(),
    ) else {
        return Err(Reason::Malformed);
    };
    let signed = header.len().saturating_add(claims.len()).saturating_add(1);
    let signing_input = token.get(..signed).ok_or(Reason::Malformed)?;
    let header = json::object(&decode(header)?).ok_or(Reason::Malformed)?;
    let (algorithm, kid) = check_header(&header)?;
    Ok(Parts {
        algorithm,
        kid,
        claims: json::object(&decode(claims)?).ok_or(Reason::Malformed)?,
        signing_input,
        signature: decode(signature)?,
    })
}

/// Base64url without padding, and in the one form that the bytes have: bits
/// that are left over must be zero.
fn decode(segment: &[u8]) -> Result<Vec<u8>, Reason> {
    if segment.is_empty() {
        return Err(Reason::Malformed);
    }
    URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| Reason::Malformed)
}

fn check_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), Reason> {
    for (name, reason) in [
        ("jwk", Reason::EmbeddedKey),
        ("jku", Reason::EmbeddedKey),
        ("x5u", Reason::EmbeddedKey),
        ("x5c", Reason::EmbeddedKey),
        ("crit", Reason::CriticalHeader),
        ("b64", Reason::CriticalHeader),
        ("enc", Reason::Type),
        ("zip", Reason::Type),
    ] {
        if header.contains_key(name) {
            return Err(reason);
        }
    }
    let algorithm = match header.get("alg") {
        Some(Value::String(name)) => Algorithm::parse(name).ok_or(Reason::Algorithm)?,
        _ => return Err(Reason::Algorithm),
    };
    match header.get("typ") {
        None => {}
        Some(Value::String(typ)) if is_jwt(typ) => {}
        Some(_) => return Err(Reason::Type),
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= KID_MAX_BYTES => Some(kid.clone()),
        Some(_) => return Err(Reason::Malformed),
    };
    Ok((algorithm, kid))
}

/// `JWT` (RFC 7519, section 5.1) or `at+jwt` (RFC 9068, section 2.1), in any
/// case and with or without `application/`.
fn is_jwt(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    matches!(typ, "jwt" | "at+jwt")
}

/// What the claims say.
pub(crate) struct Says {
    pub tenant: TenantId,
    pub plan: Option<PlanName>,
    pub exp_ms: u64,
    /// `exp` and the leeway.
    pub expires_at_ms: u64,
}

/// Checks the claims of a token of that issuer (RFC 7519, section 4.1) at
/// `wall_ms`, milliseconds of the Unix epoch.
pub(crate) fn check_claims(
    config: &IssuerConfig,
    claims: &Map<String, Value>,
    wall_ms: u64,
) -> Result<Says, Reason> {
    let leeway_ms = config.leeway_s.saturating_mul(1000);
    let exp_ms = time_ms(claims, "exp")?.ok_or(Reason::NoExpiry)?;
    let expires_at_ms = exp_ms.saturating_add(leeway_ms);
    if wall_ms >= expires_at_ms {
        return Err(Reason::Expired);
    }
    let latest = wall_ms.saturating_add(leeway_ms);
    let iat_ms = time_ms(claims, "iat")?;
    for begins_ms in [time_ms(claims, "nbf")?, iat_ms] {
        if begins_ms.is_some_and(|ms| ms > latest) {
            return Err(Reason::NotYetValid);
        }
    }
    if let Some(max_s) = config.max_lifetime_s {
        let lifetime_ms = exp_ms.saturating_sub(iat_ms.ok_or(Reason::Lifetime)?);
        if lifetime_ms > max_s.saturating_mul(1000) {
            return Err(Reason::Lifetime);
        }
    }
    check_audience(config, claims.get("aud"))?;
    let plan = match &config.plan_claim {
        Some(path) => path.plan(claims)?,
        None => None,
    };
    Ok(Says {
        tenant: config.tenant_claim.tenant(claims)?,
        plan,
        exp_ms,
        expires_at_ms,
    })
}

/// `aud` is one name or several; what is neither is no JWT.
fn check_audience(config: &IssuerConfig, aud: Option<&Value>) -> Result<(), Reason> {
    let named: Vec<&str> = match aud {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()
            .ok_or(Reason::Malformed)?,
        Some(_) => return Err(Reason::Malformed),
    };
    let is_meant = config.any_audience
        || named
            .iter()
            .any(|name| config.audiences.iter().any(|ours| ours == name));
    is_meant.then_some(()).ok_or(Reason::Audience)
}

/// A time in seconds, whole or not, as milliseconds.
fn time_ms(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Reason> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = match value {
        Value::Number(n) => n.as_f64().ok_or(Reason::Malformed)?,
        _ => return Err(Reason::Malformed),
    };
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(Reason::Malformed);
    }
    // The range leaves room: 53 bits hold the milliseconds of 285,000 years.
    let milliseconds = (seconds * 1000.0).floor();
    Ok(Some(milliseconds as u64))
}
