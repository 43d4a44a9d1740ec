//! Usage events as CloudEvents 1.0 in JSON, which is what stands on the stream,
//! so that other meters can read it.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::proto::usage::{UsageEvent, Witness};

/// The CloudEvents `type` of a request's usage.
pub const TYPE: &str = "weir.usage.v1.request";

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudEvent {
    /// `1.0`.
    pub specversion: String,
    /// The event's id, unique for its source.
    pub id: String,
    /// `weir/gateway` or `weir/router`.
    pub source: String,
    /// [`TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The tenant.
    pub subject: String,
    /// When the request began, RFC 3339 in UTC.
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

/// Writes the event as one line of JSON.
///
/// # Errors
/// [`CloudEventError::Time`] where its start is no time.
pub fn encode(event: UsageEvent) -> Result<String, CloudEventError> {
    let started = event.started_at_ms;
    let time =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(started).saturating_mul(1_000_000))
            .ok()
            .and_then(|t| t.format(&Rfc3339).ok())
            .ok_or(CloudEventError::Time(started))?;
    let source = match event.witness() {
        Witness::Router => "weir/router",
        Witness::Gateway | Witness::Unspecified => "weir/gateway",
    };
    Ok(serde_json::to_string(&CloudEvent {
        specversion: "1.0".to_owned(),
        id: event.event_id.clone(),
        source: source.to_owned(),
        kind: TYPE.to_owned(),
        subject: event.tenant.clone(),
        time,
        datacontenttype: "application/json".to_owned(),
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
        usage::tests::event,
    };

    /// The stream is read by later versions and by other meters.
    #[test]
    fn matches_the_golden_event() {
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
        let golden = include_str!("../../../fixtures/cloudevent.json").trim();
        assert_eq!(encode(sample.clone()).unwrap(), golden);
        assert_eq!(decode(golden.as_bytes()).unwrap(), sample);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        assert!(decode(b"{}").is_err());
        let mut sample = event();
        sample.started_at_ms = i64::MAX;
        assert!(encode(sample).is_err());
    }
}
