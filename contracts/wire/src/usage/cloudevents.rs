//! Usage events as CloudEvents 1.0 in JSON, which is what stands on the stream,
//! so that other meters can read it.

use std::borrow::Borrow;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::proto::usage::{Kind, UsageEvent, Witness};

/// The CloudEvents `type` of a request's usage.
pub const TYPE: &str = "weir.usage.v1.request";

/// The CloudEvents `type` of what a tenant stores.
pub const STORAGE_TYPE: &str = "weir.usage.v1.storage";

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudEvent {
    /// `1.0`.
    pub specversion: String,
    /// The event's id, unique for its source.
    pub id: String,
    /// `weir/gateway`, `weir/router` or `weir/service`.
    pub source: String,
    /// [`TYPE`] or [`STORAGE_TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The tenant.
    pub subject: String,
    /// When the request began, or what was stored was measured, RFC 3339 in UTC.
    pub time: String,
    /// `application/json`.
    pub datacontenttype: String,
    /// The event in the JSON mapping of protobuf.
    pub data: UsageEvent,
}

/// Why an event has no CloudEvents form.
#[derive(Debug, Error)]
pub enum CloudEventError {
    /// `started_at_ms` is no time of the years 0 to 9999.
    #[error("started_at_ms {0} is not a time")]
    Time(i64),
    /// Not JSON, or not this event.
    #[error("not a usage event")]
    Json(#[from] serde_json::Error),
}

/// A [`CloudEvent`] of an event that is only looked at.
#[derive(Serialize)]
struct Written<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    data: &'a UsageEvent,
}

/// Writes the event as one line of JSON.
///
/// # Errors
/// [`CloudEventError::Time`] where its start is no time.
pub fn encode(event: impl Borrow<UsageEvent>) -> Result<String, CloudEventError> {
    let event = event.borrow();
    let started = event.started_at_ms;
    let time =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(started).saturating_mul(1_000_000))
            .ok()
            .and_then(|t| t.format(&Rfc3339).ok())
            .ok_or(CloudEventError::Time(started))?;
    let source = match event.witness() {
        Witness::Router => "weir/router",
        Witness::Service => "weir/service",
        Witness::Gateway | Witness::Unspecified => "weir/gateway",
    };
    let kind = match event.kind() {
        Kind::Storage => STORAGE_TYPE,
        Kind::Request | Kind::Job | Kind::Unspecified => TYPE,
    };
    Ok(serde_json::to_string(&Written {
        specversion: "1.0",
        id: &event.event_id,
        source,
        kind,
        subject: &event.tenant,
        time,
        datacontenttype: "application/json",
        data: event,
    })?)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`CloudEventError::Json`] for anything else.
pub fn decode(line: &[u8]) -> Result<UsageEvent, CloudEventError> {
    Ok(serde_json::from_slice::<CloudEvent>(line)?.data)
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::{
        proto::usage::{ModelUsage, UsageSource},
        usage::tests::{event, storage},
    };

    /// The stream is read by later versions and by other meters.
    #[test]
    fn matches_the_golden_events() {
        let mut sample = event();
        sample.started_at_ms = 1_795_000_000_123;
        sample.tenant_context = "v1.k.x.y".into();
        sample.usage[0].cost_micros = Some(35);
        sample.usage[0].price_micros = Some(42);
        sample.usage.push(ModelUsage {
            attempt: 2,
            source: UsageSource::Estimated.into(),
            price_micros: Some(0),
            unbilled: true,
            ..ModelUsage::default()
        });
        for (sample, golden) in [
            (sample, include_str!("../../../fixtures/cloudevent.json")),
            (
                storage(),
                include_str!("../../../fixtures/cloudevent-storage.json"),
            ),
        ] {
            let golden = golden.trim();
            assert_eq!(encode(sample.clone()).unwrap(), golden);
            assert_eq!(decode(golden.as_bytes()).unwrap(), sample);
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        assert!(decode(b"{}").is_err());
        let mut sample = event();
        sample.started_at_ms = i64::MAX;
        assert!(encode(sample).is_err());
    }
}
