//! Whether the meters at Stripe are what the configuration says, and how they want
//! their events.

use std::collections::BTreeMap;

use weir_meter_core::{meter::Meter, stripe::MeterEvent, stripe::MeterObject};

/// How a meter wants its events, and by which id its summaries are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterMapping {
    /// `mtr_...`
    pub id: String,
    event_name: String,
    customer_key: String,
    value_key: String,
}

/// The meters as Stripe has them, found good.
pub type Mappings = BTreeMap<Meter, MeterMapping>;

/// Why the meters can't be used.
pub enum MeterError {
    /// Stripe was not reached or did not answer well; try again.
    Unknown(anyhow::Error),
    /// They are not what they must be; the operator has to mend it.
    Wrong(String),
}

impl MeterMapping {
    /// The event that tells this meter of that value.
    pub fn event<'a>(
        &'a self,
        customer: &'a str,
        value: i64,
        (identifier, idempotency_key): (&'a str, &'a str),
        timestamp_s: i64,
    ) -> MeterEvent<'a> {
        MeterEvent {
            event_name: &self.event_name,
            customer_key: &self.customer_key,
            value_key: &self.value_key,
            customer,
            value,
            identifier,
            timestamp_s,
            idempotency_key,
        }
    }
}

/// Finds each configured meter among those that Stripe has; the message names the one
/// that is not what it must be.
pub fn check(
    configured: &BTreeMap<Meter, String>,
    found: &[MeterObject],
) -> Result<Mappings, String> {
    let mut mappings = Mappings::new();
    for (meter, event_name) in configured {
        let named = |m: &&MeterObject| m.event_name == *event_name && m.status == "active";
        let Some(object) = found.iter().find(named) else {
            return Err(format!(
                "stripe.meters.{meter}: Stripe has no active meter with the event_name {event_name}"
            ));
        };
        let formula = &object.default_aggregation.formula;
        if formula != "sum" {
            return Err(format!(
                "stripe.meters.{meter}: the meter {event_name} must aggregate by sum, found {formula}"
            ));
        }
        let kind = &object.customer_mapping.kind;
        if kind != "by_id" {
            return Err(format!(
                "stripe.meters.{meter}: the meter {event_name} must map customers by_id, found {kind}"
            ));
        }
        let customer_key = &object.customer_mapping.event_payload_key;
        let value_key = &object.value_settings.event_payload_key;
        if customer_key == value_key {
            return Err(format!(
                "stripe.meters.{meter}: the meter {event_name} looks for customer and value under the one key {value_key}"
            ));
        }
        let mapping = MeterMapping {
            id: object.id.clone(),
            event_name: event_name.clone(),
            customer_key: customer_key.clone(),
            value_key: value_key.clone(),
        };
        mappings.insert(meter.clone(), mapping);
    }
    Ok(mappings)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_refused(field: &str, value: &str, names: &str) {
        let mut object = json!({
            "id": "mtr_1", "event_name": "calls", "status": "active",
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"event_payload_key": "customer", "type": "by_id"},
            "value_settings": {"event_payload_key": "value"},
        });
        let configured = BTreeMap::from([(Meter::parse("api_calls").unwrap(), "calls".to_owned())]);
        let meter = |object: &serde_json::Value| {
            vec![serde_json::from_value::<MeterObject>(object.clone()).unwrap()]
        };
        let good = check(&configured, &meter(&object)).unwrap();
        assert_eq!(good.values().next().unwrap().id, "mtr_1");
        *object.pointer_mut(field).unwrap() = json!(value);
        let message = check(&configured, &meter(&object)).unwrap_err();
        assert!(
            message.starts_with("stripe.meters.api_calls: "),
            "{message}"
        );
        assert!(message.contains(names), "{message} should name {names}");
    }

    #[test]
    fn a_meter_that_does_not_add_up_is_refused() {
        check_refused("/event_name", "other", "no active meter");
        check_refused("/status", "inactive", "no active meter");
        check_refused("/default_aggregation/formula", "last", "found last");
        check_refused("/customer_mapping/type", "by_name", "found by_name");
        check_refused("/value_settings/event_payload_key", "customer", "one key");
    }
}
