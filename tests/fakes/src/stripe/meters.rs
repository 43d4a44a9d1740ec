//! `/v1/billing/meters`.

use serde_json::{Value, json};

use super::{
    error::StripeError,
    list,
    params::{ENDING_BEFORE, Kind, LIMIT, Param, STARTING_AFTER, optional, required},
    routes::Call,
    store::Store,
};
use crate::ids;

pub(super) const CREATE: &[Param] = &[
    required("display_name", Kind::Text(250)),
    required("event_name", Kind::Text(100)),
    required(
        "default_aggregation[formula]",
        Kind::OneOf(&["count", "last", "sum"]),
    ),
    optional("customer_mapping[type]", Kind::OneOf(&["by_id"])),
    optional("customer_mapping[event_payload_key]", Kind::Text(100)),
    optional("value_settings[event_payload_key]", Kind::Text(100)),
    optional("event_time_window", Kind::OneOf(&["day", "hour"])),
];

pub(super) const LIST: &[Param] = &[
    LIMIT,
    STARTING_AFTER,
    ENDING_BEFORE,
    optional("status", Kind::OneOf(&["active", "inactive"])),
];

/// How a meter makes one number of many events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Formula {
    Sum,
    Count,
    Last,
}

/// A meter.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    pub(super) id: String,
    pub(super) event_name: String,
    pub(super) formula: Formula,
    pub(super) customer_key: String,
    pub(super) value_key: String,
    pub(super) active: bool,
    display_name: String,
    event_time_window: Option<String>,
    created: i64,
    updated: i64,
    deactivated_at: Option<i64>,
}

impl Meter {
    pub(super) fn render(&self) -> Value {
        let formula = match self.formula {
            Formula::Sum => "sum",
            Formula::Count => "count",
            Formula::Last => "last",
        };
        json!({
            "id": self.id,
            "object": "billing.meter",
            "created": self.created,
            "customer_mapping": {"event_payload_key": self.customer_key, "type": "by_id"},
            "default_aggregation": {"formula": formula},
            "display_name": self.display_name,
            "event_name": self.event_name,
            "event_time_window": self.event_time_window,
            "livemode": false,
            "status": if self.active { "active" } else { "inactive" },
            "status_transitions": {"deactivated_at": self.deactivated_at},
            "updated": self.updated,
            "value_settings": {"event_payload_key": self.value_key},
        })
    }
}

pub(super) fn create(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let form = call.form;
    let event_name = form.need("event_name")?;
    unique(store, event_name, "event_name")?;
    if form.has("customer_mapping") {
        // Within an object that may be left out, both are needed.
        form.need("customer_mapping[type]")?;
        form.need("customer_mapping[event_payload_key]")?;
    }
    let text = |key: &str, default: &str| form.get(key).unwrap_or(default).to_owned();
    let meter = Meter {
        id: ids::random("mtr_test_", 32),
        event_name: event_name.to_owned(),
        formula: match form.need("default_aggregation[formula]")? {
            "count" => Formula::Count,
            "last" => Formula::Last,
            _ => Formula::Sum,
        },
        customer_key: text("customer_mapping[event_payload_key]", "stripe_customer_id"),
        value_key: text("value_settings[event_payload_key]", "value"),
        active: true,
        display_name: form.need("display_name")?.to_owned(),
        event_time_window: form.get("event_time_window").map(str::to_owned),
        created: call.now,
        updated: call.now,
        deactivated_at: None,
    };
    let rendered = meter.render();
    store.meters.push(meter);
    Ok(rendered)
}

pub(super) fn list(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let wanted = call.form.get("status").map(|status| status == "active");
    let meters = store.meters.iter().rev();
    let meters = meters.filter(|meter| wanted.is_none_or(|active| meter.active == active));
    list::page(
        meters.map(Meter::render).collect(),
        call.form,
        call.path,
        "meter",
    )
}

pub(super) fn retrieve(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    store.meter(call.id, "id").map(Meter::render)
}

pub(super) fn deactivate(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    if !store.meter(call.id, "id")?.active {
        let message = "This meter is inactive already.".to_owned();
        return Err(StripeError::refused("meter_inactive", "id", message));
    }
    set_active(store, call, false)
}

pub(super) fn reactivate(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let meter = store.meter(call.id, "id")?;
    if meter.active {
        let message = "This meter is active already.".to_owned();
        return Err(StripeError::refused("meter_active", "id", message));
    }
    unique(store, &meter.event_name, "id")?;
    set_active(store, call, true)
}

fn set_active(store: &mut Store, call: &Call<'_>, active: bool) -> Result<Value, StripeError> {
    let meter = store.meters.iter_mut().find(|meter| meter.id == call.id);
    let meter = meter.ok_or_else(|| StripeError::no_such("meter", call.id, "id"))?;
    meter.active = active;
    meter.updated = call.now;
    meter.deactivated_at = (!active).then_some(call.now);
    Ok(meter.render())
}

/// Of active meters, each has an event name of its own.
fn unique(store: &Store, event_name: &str, param: &str) -> Result<(), StripeError> {
    if store
        .meters
        .iter()
        .any(|meter| meter.active && meter.event_name == event_name)
    {
        let message = format!("An active meter with event name '{event_name}' already exists.");
        return Err(StripeError::refused("event_name_taken", param, message));
    }
    Ok(())
}
