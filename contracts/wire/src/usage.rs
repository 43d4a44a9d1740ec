//! What a usage event must hold, and how two witnesses of one request rank.

use thiserror::Error;

use crate::{
    context::{self, ContextError},
    ids::{IdError, RequestId, TenantId},
    keys::Keyring,
    proto::usage::{Kind, Outcome, UsageEvent, UsageSource, Witness},
};

/// Where producers post their events (the shape of unary Connect).
pub const PUBLISH_PATH: &str = "/weir.usage.v1.UsageIngest/Publish";

/// The content type of a protobuf body.
pub const PROTO_CONTENT_TYPE: &str = "application/proto";

/// The most attempts one event may list.
pub const ATTEMPTS_MAX: usize = 32;

/// The most tokens one count may hold; beyond any model's context, and small
/// enough that sums of many stay exact.
pub const TOKENS_MAX: u64 = 1_000_000_000;

/// The most that one attempt may cost, in micro-dollars: as much as a budget may
/// have, and few enough that sums stay exact in doubles.
pub const MICROS_MAX: u64 = 1 << 50;

/// The most bytes of a model's name.
pub const MODEL_MAX_BYTES: usize = 256;

/// Why an event is not booked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventError {
    /// An enum has no or an unknown value.
    #[error("{field} is missing or unknown")]
    Unknown {
        /// Which.
        field: &'static str,
    },
    /// An identifier is not one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The signed context is not believed.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The signed context is another tenant's or another request's.
    #[error("{field} is not the tenant context's")]
    Mismatch {
        /// Which.
        field: &'static str,
    },
    /// A number or a list is beyond its bound.
    #[error("{field} is beyond its bound")]
    Bound {
        /// Which.
        field: &'static str,
    },
}

/// An event that was checked, with its identifiers as types.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedEvent {
    /// Whose.
    pub tenant: TenantId,
    /// Which request.
    pub request_id: RequestId,
    /// Who saw it.
    pub witness: Witness,
    /// How it ended.
    pub outcome: Outcome,
    /// All of it.
    pub event: UsageEvent,
}

/// Checks that the event is whole, within bounds and covered by a context that
/// a gateway signed.
///
/// # Errors
/// [`EventError`], the reason for its quarantine.
pub fn check(event: UsageEvent, keys: &Keyring) -> Result<CheckedEvent, EventError> {
    if event.kind() != Kind::Request {
        return Err(EventError::Unknown { field: "kind" });
    }
    let witness = match event.witness() {
        Witness::Unspecified => return Err(EventError::Unknown { field: "witness" }),
        known => known,
    };
    let outcome = match event.outcome() {
        Outcome::Unspecified => return Err(EventError::Unknown { field: "outcome" }),
        known => known,
    };
    let tenant = TenantId::new(event.tenant.as_str())?;
    let request_id = RequestId::parse(&event.request_id)?;
    let signed = context::verify_signature(event.tenant_context.as_bytes(), keys)?;
    if signed.tenant != tenant {
        return Err(EventError::Mismatch { field: "tenant" });
    }
    if signed.request_id != request_id {
        return Err(EventError::Mismatch {
            field: "request_id",
        });
    }
    check_bounds(&event)?;
    Ok(CheckedEvent {
        tenant,
        request_id,
        witness,
        outcome,
        event,
    })
}

fn check_bounds(event: &UsageEvent) -> Result<(), EventError> {
    let bound = |ok: bool, field| ok.then_some(()).ok_or(EventError::Bound { field });
    bound(
        !event.event_id.is_empty() && event.event_id.len() <= 64,
        "event_id",
    )?;
    bound(event.request_class.len() <= 64, "request_class")?;
    bound(event.producer_run.len() <= 64, "producer_run")?;
    bound(event.model_asked.len() <= MODEL_MAX_BYTES, "model_asked")?;
    bound(event.usage.len() <= ATTEMPTS_MAX, "usage")?;
    for usage in &event.usage {
        bound(
            usage.model_served.len() <= MODEL_MAX_BYTES,
            "usage.model_served",
        )?;
        bound(usage.provider.len() <= 64, "usage.provider")?;
        if usage.source() == UsageSource::Unspecified {
            return Err(EventError::Unknown {
                field: "usage.source",
            });
        }
        for (count, field) in [
            (usage.input_tokens, "usage.input_tokens"),
            (usage.cached_input_tokens, "usage.cached_input_tokens"),
            (
                usage.cache_write_input_tokens,
                "usage.cache_write_input_tokens",
            ),
            (usage.output_tokens, "usage.output_tokens"),
            (usage.reasoning_tokens, "usage.reasoning_tokens"),
            (usage.audio_input_tokens, "usage.audio_input_tokens"),
            (usage.audio_output_tokens, "usage.audio_output_tokens"),
        ] {
            bound(count <= TOKENS_MAX, field)?;
        }
        bound(
            usage.cost_micros.unwrap_or(0) <= MICROS_MAX,
            "usage.cost_micros",
        )?;
        let price_max = if usage.unbilled { 0 } else { MICROS_MAX };
        bound(
            usage.price_micros.unwrap_or(0) <= price_max,
            "usage.price_micros",
        )?;
    }
    Ok(())
}

/// How much a witness is to be believed: a higher rank replaces a lower one.
///
/// Router reported (5) > gateway reported (4) > router estimated (3) > gateway
/// estimated (2) > none (1). An event ranks as the least of its attempts does that
/// are billed: a guess at what nobody pays for makes the rest no less certain.
#[must_use]
pub fn rank(event: &UsageEvent) -> u8 {
    let router = event.witness() == Witness::Router;
    event
        .usage
        .iter()
        .filter(|usage| !usage.unbilled)
        .map(|usage| match (usage.source(), router) {
            (UsageSource::Reported, true) => 5,
            (UsageSource::Reported, false) => 4,
            (UsageSource::Estimated, true) => 3,
            (UsageSource::Estimated, false) => 2,
            (UsageSource::None | UsageSource::Unspecified, _) => 1,
        })
        .min()
        .unwrap_or(1)
}

#[cfg(feature = "json")]
pub mod cloudevents;
pub mod line;

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::proto::{context::TenantContext, usage::ModelUsage};

    const KEYS: &str = "k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn keys() -> Keyring {
        Keyring::parse(KEYS).unwrap()
    }

    pub(crate) fn event() -> UsageEvent {
        let request_id = RequestId::mint(1_795_000_000_000, [3; 10]).to_string();
        let signed = context::sign(
            &TenantContext {
                tenant: "acme".into(),
                plan: "starter".into(),
                request_id: request_id.clone(),
                issued_at_ms: 1_795_000_000_000,
            },
            &keys(),
        );
        UsageEvent {
            kind: Kind::Request.into(),
            event_id: "e1".into(),
            request_id,
            witness: Witness::Router.into(),
            tenant: "acme".into(),
            request_class: "chat".into(),
            outcome: Outcome::Completed.into(),
            usage: vec![ModelUsage {
                input_tokens: 7,
                source: UsageSource::Reported.into(),
                ..ModelUsage::default()
            }],
            tenant_context: signed,
            ..UsageEvent::default()
        }
    }

    #[track_caller]
    fn check_refused(change: impl FnOnce(&mut UsageEvent), names: &str) {
        let mut wrong = event();
        change(&mut wrong);
        let error = check(wrong, &keys()).unwrap_err().to_string();
        assert!(error.contains(names), "{error} should name {names}");
    }

    #[test]
    fn a_whole_event_passes() {
        let checked = check(event(), &keys()).unwrap();
        assert_eq!(checked.tenant.as_str(), "acme");
        assert_eq!(checked.witness, Witness::Router);
    }

    #[test]
    fn each_fault_is_named() {
        check_refused(|e| e.kind = 0, "kind");
        check_refused(|e| e.kind = 77, "kind");
        check_refused(|e| e.witness = 9, "witness");
        check_refused(|e| e.outcome = 0, "outcome");
        check_refused(|e| e.tenant = "other".into(), "tenant");
        check_refused(|e| e.tenant = "a b".into(), "tenant");
        check_refused(|e| e.request_id = "x".into(), "request id");
        check_refused(
            |e| e.request_id = RequestId::mint(1, [0; 10]).to_string(),
            "request_id",
        );
        check_refused(|e| e.tenant_context.push('x'), "tenant context");
        check_refused(|e| e.event_id.clear(), "event_id");
        check_refused(|e| e.usage[0].input_tokens = TOKENS_MAX + 1, "input_tokens");
        check_refused(|e| e.usage[0].source = 0, "usage.source");
        check_refused(|e| e.usage[0].cost_micros = Some(u64::MAX), "cost_micros");
        check_refused(|e| e.usage[0].price_micros = Some(u64::MAX), "price_micros");
        let priced = |e: &mut UsageEvent| {
            e.usage[0].unbilled = true;
            e.usage[0].price_micros = Some(1);
        };
        check_refused(priced, "price_micros");
        check_refused(|e| e.usage = vec![ModelUsage::default(); 33], "usage");
    }

    #[test]
    fn witnesses_rank_as_the_design_says() {
        let of = |witness: Witness, source: UsageSource| {
            let mut e = event();
            e.witness = witness.into();
            e.usage[0].source = source.into();
            rank(&e)
        };
        let order = [
            of(Witness::Router, UsageSource::Reported),
            of(Witness::Gateway, UsageSource::Reported),
            of(Witness::Router, UsageSource::Estimated),
            of(Witness::Gateway, UsageSource::Estimated),
            of(Witness::Router, UsageSource::None),
        ];
        assert!(order.windows(2).all(|w| w[0] > w[1]), "{order:?}");
        // What is not billed neither lowers nor raises it.
        for (source, other, expected) in [
            (UsageSource::Reported, UsageSource::Estimated, 5),
            (UsageSource::Reported, UsageSource::None, 5),
            (UsageSource::Estimated, UsageSource::Reported, 3),
        ] {
            let mut two = event();
            two.usage[0].source = source.into();
            let mut unbilled = two.usage[0].clone();
            unbilled.source = other.into();
            unbilled.unbilled = true;
            two.usage.push(unbilled);
            assert_eq!(rank(&two), expected);
            two.usage.remove(0);
            assert_eq!(rank(&two), 1);
        }
        let mut silent = event();
        silent.usage.clear();
        assert_eq!(rank(&silent), 1);
    }
}
