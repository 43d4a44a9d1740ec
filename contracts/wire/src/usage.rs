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

/// What many clients of protobuf say instead.
pub const PROTO_CONTENT_TYPE_OLD: &str = "application/x-protobuf";

/// The most attempts one event may list.
pub const ATTEMPTS_MAX: usize = 32;

/// The most tokens one count may hold; beyond any model's context, and small
/// enough that sums of many stay exact.
pub const TOKENS_MAX: u64 = 1_000_000_000;

/// The most that one attempt may cost, in micro-dollars: as much as a budget may
/// have, and few enough that sums stay exact in doubles.
pub const MICROS_MAX: u64 = 1 << 50;

/// The most that one event may tell of storage, in megabyte-hours: an exabyte for an
/// hour.
pub const STORAGE_MB_HOURS_MAX: u64 = 1_000_000_000_000;

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
    /// The kind is not one that this witness may tell of.
    #[error("kind is not what a {witness} may send")]
    Kind {
        /// Whose it is, as the event says.
        witness: &'static str,
    },
    /// A field is set that an event of its kind has not.
    #[error("{field} must not be set in an event of this kind")]
    Unexpected {
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

/// What is known of an event that was checked, its identifiers as types.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedEvent {
    /// Whose.
    pub tenant: TenantId,
    /// Which request.
    pub request_id: RequestId,
    /// Who saw it.
    pub witness: Witness,
    /// How it ended; [`Outcome::Unspecified`] of storage.
    pub outcome: Outcome,
}

/// Whether an event has to bear a context that a gateway signed. One that is there
/// must be good under either rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextRule {
    /// A producer's request must bear it: who speaks for a tenant shows that one asked.
    Needed,
    /// An operator who brings in what was lost is believed without.
    IfPresent,
}

/// Checks that the event is whole, within bounds and, where it is of a request,
/// covered by a context that a gateway signed. A service's event bears none.
///
/// # Errors
/// [`EventError`], the reason for its quarantine.
pub fn check(
    event: &UsageEvent,
    keys: &Keyring,
    rule: ContextRule,
) -> Result<CheckedEvent, EventError> {
    let kind = event.kind();
    let witness = event.witness();
    match (kind, witness) {
        (_, Witness::Unspecified) => return Err(EventError::Unknown { field: "witness" }),
        (Kind::Request, Witness::Gateway | Witness::Router) => {}
        (Kind::Storage, Witness::Service) => {}
        (Kind::Request | Kind::Storage, _) => {
            return Err(EventError::Kind {
                witness: witness_name(witness),
            });
        }
        (Kind::Unspecified | Kind::Job, _) => return Err(EventError::Unknown { field: "kind" }),
    }
    let tenant = TenantId::new(event.tenant.as_str())?;
    let request_id = RequestId::parse(&event.request_id)?;
    let outcome = event.outcome();
    if kind == Kind::Request {
        if outcome == Outcome::Unspecified {
            return Err(EventError::Unknown { field: "outcome" });
        }
        check_context(event, &tenant, request_id, keys, rule)?;
    }
    check_bounds(event)?;
    check_storage(event)?;
    Ok(CheckedEvent {
        tenant,
        request_id,
        witness,
        outcome,
    })
}

fn check_context(
    event: &UsageEvent,
    tenant: &TenantId,
    request_id: RequestId,
    keys: &Keyring,
    rule: ContextRule,
) -> Result<(), EventError> {
    if rule == ContextRule::IfPresent && event.tenant_context.is_empty() {
        return Ok(());
    }
    let signed = context::verify_signature(event.tenant_context.as_bytes(), keys)?;
    if signed.tenant != *tenant {
        return Err(EventError::Mismatch { field: "tenant" });
    }
    if signed.request_id != request_id {
        return Err(EventError::Mismatch {
            field: "request_id",
        });
    }
    Ok(())
}

/// What is stored is told by a service, and nothing else is told with it.
fn check_storage(event: &UsageEvent) -> Result<(), EventError> {
    if event.kind() != Kind::Storage {
        return match event.storage_mb_hours {
            0 => Ok(()),
            _ => Err(EventError::Unexpected {
                field: "storage_mb_hours",
            }),
        };
    }
    for (is_absent, field) in [
        (event.tenant_context.is_empty(), "tenant_context"),
        (event.usage.is_empty(), "usage"),
        (event.outcome == 0, "outcome"),
    ] {
        if !is_absent {
            return Err(EventError::Unexpected { field });
        }
    }
    bound(
        event.storage_mb_hours <= STORAGE_MB_HOURS_MAX,
        "storage_mb_hours",
    )
}

fn witness_name(witness: Witness) -> &'static str {
    match witness {
        Witness::Unspecified => "unknown",
        Witness::Gateway => "gateway",
        Witness::Router => "router",
        Witness::Service => "service",
    }
}

fn bound(is_within: bool, field: &'static str) -> Result<(), EventError> {
    is_within.then_some(()).ok_or(EventError::Bound { field })
}

fn check_bounds(event: &UsageEvent) -> Result<(), EventError> {
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
mod tests;
