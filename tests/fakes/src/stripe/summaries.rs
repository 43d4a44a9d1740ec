//! `/v1/billing/meters/{id}/event_summaries`, and the sums that invoices are made of.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    error::StripeError,
    events::Sample,
    form::Form,
    list,
    meters::{Formula, Meter},
    params::{ENDING_BEFORE, Kind, LIMIT, Param, STARTING_AFTER, TEXT, optional, required},
    routes::Call,
    store::Store,
};
use crate::ids;

pub(super) const LIST: &[Param] = &[
    required("customer", TEXT),
    required("start_time", Kind::Integer),
    required("end_time", Kind::Integer),
    optional("value_grouping_window", Kind::OneOf(&["day", "hour"])),
    LIMIT,
    STARTING_AFTER,
    ENDING_BEFORE,
];

/// Without a window there is one summary, even of nothing; with one, a window
/// without events has none.
pub(super) fn list(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let form = call.form;
    let meter = store.meter(call.id, "id")?;
    let customer = store.customer(form.need("customer")?, "customer")?;
    let window = match form.get("value_grouping_window") {
        Some("day") => Some(86_400),
        Some(_) => Some(3_600),
        None => None,
    };
    let alignment = window.unwrap_or(60);
    let start = aligned(form, "start_time", alignment)?;
    let end = aligned(form, "end_time", alignment)?;
    if end <= start {
        let message = "end_time must be after start_time.".to_owned();
        return Err(StripeError::refused("time_range", "end_time", message));
    }
    let samples = samples(store, meter, &customer.id, (start, end), call.now);
    let mut windows: BTreeMap<i64, Vec<Sample>> = BTreeMap::new();
    match window {
        None => {
            windows.insert(start, samples);
        }
        Some(length) => {
            for sample in samples {
                let offset = sample.timestamp.checked_rem_euclid(length).unwrap_or(0);
                windows
                    .entry(sample.timestamp.saturating_sub(offset))
                    .or_default()
                    .push(sample);
            }
        }
    }
    let length = window.unwrap_or(end.saturating_sub(start));
    let newest_first = windows.iter().rev().map(|(from, samples)| {
        let to = from.saturating_add(length);
        let seed = format!("{} {} {from} {to}", meter.id, customer.id);
        json!({
            "id": ids::derived("mtrusg_test_", &seed),
            "object": "billing.meter_event_summary",
            "aggregated_value": aggregate(meter.formula, samples),
            "end_time": to,
            "livemode": false,
            "meter": meter.id,
            "start_time": from,
        })
    });
    list::page(
        newest_first.collect(),
        form,
        call.path,
        "billing meter event summary",
    )
}

/// The meter's number for this customer in `[start, end)`.
pub(super) fn total(
    store: &Store,
    meter: &Meter,
    customer: &str,
    period: (i64, i64),
    now: i64,
) -> i64 {
    aggregate(meter.formula, &samples(store, meter, customer, period, now))
}

/// The samples in the period that the aggregation has seen by now.
fn samples(
    store: &Store,
    meter: &Meter,
    customer: &str,
    (start, end): (i64, i64),
    now: i64,
) -> Vec<Sample> {
    let seen = now.saturating_sub(store.summary_lag_s);
    let all = store.usage.get(&(meter.id.clone(), customer.to_owned()));
    let all = all.map_or(&[][..], Vec::as_slice).iter().copied();
    all.filter(|s| (start..end).contains(&s.timestamp) && s.created <= seen)
        .collect()
}

fn aggregate(formula: Formula, samples: &[Sample]) -> i64 {
    match formula {
        Formula::Sum => samples
            .iter()
            .fold(0, |sum, sample| sum.saturating_add(sample.value)),
        Formula::Count => i64::try_from(samples.len()).unwrap_or(i64::MAX),
        // Of two at the same time, the one that came later.
        Formula::Last => samples
            .iter()
            .max_by_key(|s| s.timestamp)
            .map_or(0, |s| s.value),
    }
}

fn aligned(form: &Form, key: &str, to_s: i64) -> Result<i64, StripeError> {
    form.need(key)?;
    let time = form.integer(key).unwrap_or(0);
    if time.checked_rem_euclid(to_s) != Some(0) {
        let unit = match to_s {
            86_400 => "day (UTC)",
            3_600 => "hour",
            _ => "minute",
        };
        let message = format!("{key} must be aligned to the start of a {unit}.");
        return Err(StripeError::refused("time_alignment", key, message));
    }
    Ok(time)
}
