//! `/v1/billing/meter_events`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    error::StripeError,
    form::Form,
    meters::Meter,
    params::{Kind, Param, optional, required},
    routes::Call,
    store::Store,
};
use crate::ids;

/// The oldest timestamp that is accepted: 35 days back.
const PAST_S: i64 = 35 * 86_400;

/// The latest timestamp that is accepted: 5 minutes ahead.
const AHEAD_S: i64 = 300;

/// Stripe promises unique identifiers for at least 24 hours; the fake forgets
/// them right then, which is the worst that a caller has to expect.
const UNIQUE_S: i64 = 86_400;

/// Digits of the largest value.
const VALUE_DIGITS: usize = 15;

pub(super) const CREATE: &[Param] = &[
    required("event_name", Kind::Text(100)),
    required("payload[*]", Kind::AnyText),
    optional("identifier", Kind::Text(100)),
    optional("timestamp", Kind::Integer),
];

/// An event that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct MeterEvent {
    identifier: String,
    event_name: String,
    meter: String,
    customer: String,
    value: i64,
    timestamp: i64,
    /// When it was accepted.
    created: i64,
}

/// What an event adds to a customer's usage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) timestamp: i64,
    pub(super) created: i64,
    pub(super) value: i64,
}

/// The meter and customer that the event locks while it is accepted.
pub(super) fn lock(store: &Store, form: &Form) -> Option<(String, String)> {
    let meter = meter(store, form.get("event_name")?).ok()?;
    let customer = form.get(&format!("payload[{}]", meter.customer_key))?;
    Some((meter.id.clone(), customer.to_owned()))
}

pub(super) fn create(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let form = call.form;
    let meter = meter(store, form.need("event_name")?)?;
    let customer = payload(form, &meter.customer_key)?;
    let value = whole(payload(form, &meter.value_key)?, &meter.value_key)?;
    let timestamp = form.integer("timestamp").unwrap_or(call.now);
    in_time(timestamp, call.now)?;
    let identifier = form.get("identifier").map_or_else(uuid, str::to_owned);
    let accepted = store.identifiers.get(&identifier);
    if accepted.is_some_and(|at| call.now.saturating_sub(*at) < UNIQUE_S) {
        let message = format!("An event already exists with identifier {identifier}");
        return Err(StripeError::refused(
            "duplicate_identifier",
            "identifier",
            message,
        ));
    }
    let event = MeterEvent {
        identifier,
        event_name: meter.event_name.clone(),
        meter: meter.id.clone(),
        customer: customer.to_owned(),
        value,
        timestamp,
        created: call.now,
    };
    let payload: BTreeMap<&str, &str> = form.children("payload").collect();
    let rendered = json!({
        "object": "billing.meter_event",
        "created": event.created,
        "event_name": event.event_name,
        "identifier": event.identifier,
        "livemode": false,
        "payload": payload,
        "timestamp": event.timestamp,
    });
    store.identifiers.insert(event.identifier.clone(), call.now);
    if call.lose {
        store.lost.push(event);
    } else {
        book(store, event, call.now);
    }
    Ok(rendered)
}

fn book(store: &mut Store, event: MeterEvent, now: i64) {
    if store.customer(&event.customer, "customer").is_err() {
        // Stripe tells of these by a webhook, long after it said 200.
        store.report(&event.meter, &event.identifier, &event.customer, now);
        store.unmatched.push(event);
        return;
    }
    let sample = Sample {
        timestamp: event.timestamp,
        created: event.created,
        value: event.value,
    };
    let pair = (event.meter.clone(), event.customer.clone());
    store.usage.entry(pair).or_default().push(sample);
    store.events.push(event);
}

fn meter<'a>(store: &'a Store, event_name: &str) -> Result<&'a Meter, StripeError> {
    let named = |meter: &&Meter| meter.active && meter.event_name == event_name;
    store.meters.iter().find(named).ok_or_else(|| {
        let message = format!("No active meter has the event name '{event_name}'.");
        StripeError::invalid("resource_missing", "event_name", message)
    })
}

fn payload<'a>(form: &'a Form, name: &str) -> Result<&'a str, StripeError> {
    let key = format!("payload[{name}]");
    match form.need(&key)? {
        "" => Err(StripeError::empty(&key)),
        value => Ok(value),
    }
}

fn whole(value: &str, name: &str) -> Result<i64, StripeError> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let valid =
        (1..=VALUE_DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    match value.parse() {
        Ok(number) if valid => Ok(number),
        _ => {
            let message = format!(
                "Invalid value '{value}': a whole number of at most {VALUE_DIGITS} digits is needed."
            );
            Err(StripeError::refused(
                "invalid_value",
                &format!("payload[{name}]"),
                message,
            ))
        }
    }
}

fn in_time(timestamp: i64, now: i64) -> Result<(), StripeError> {
    let (reason, message) = if timestamp < now.saturating_sub(PAST_S) {
        (
            "timestamp_too_old",
            "The timestamp must be within the past 35 calendar days.",
        )
    } else if timestamp > now.saturating_add(AHEAD_S) {
        (
            "timestamp_in_future",
            "The timestamp must be at most 5 minutes in the future.",
        )
    } else {
        return Ok(());
    };
    Err(StripeError::refused(
        reason,
        "timestamp",
        message.to_owned(),
    ))
}

/// A random identifier in the shape of a UUID, version 4.
fn uuid() -> String {
    let hex = ids::random_hex("", 31);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    [
        part(0, 8),
        part(8, 12),
        format!("4{}", part(12, 15)),
        format!("8{}", part(15, 18)),
        part(18, 30),
    ]
    .join("-")
}
