//! Everything that the fake remembers.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    bills::Bill,
    customers::Customer,
    error::StripeError,
    events::{MeterEvent, Sample},
    form::Form,
    idempotency::Keys,
    meters::Meter,
    prices::Price,
    products::Product,
    subscriptions::Subscription,
    webhooks::{Endpoint, Event},
};
use crate::ids;

/// The account's objects, each kind in the order of creation.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) meters: Vec<Meter>,
    pub(super) customers: Vec<Customer>,
    pub(super) products: Vec<Product>,
    pub(super) prices: Vec<Price>,
    pub(super) subscriptions: Vec<Subscription>,
    /// Invoices that are final.
    pub(super) bills: Vec<Bill>,
    /// Events of `/v2/core/events`.
    pub(super) core_events: Vec<Value>,
    /// Who gets webhooks.
    pub(super) endpoints: Vec<Endpoint>,
    /// What is to be posted to them.
    pub(super) outbox: Vec<Event>,
    /// Accepted events of customers that exist.
    pub(super) events: Vec<MeterEvent>,
    /// Accepted events that name a customer that does not exist; they bill nobody.
    pub(super) unmatched: Vec<MeterEvent>,
    /// Accepted events that a fault lost: nothing knows of them but their identifiers.
    pub(super) lost: Vec<MeterEvent>,
    /// Usage by meter and customer.
    pub(super) usage: HashMap<(String, String), Vec<Sample>>,
    /// When each identifier was accepted.
    pub(super) identifiers: HashMap<String, i64>,
    /// Meter and customer of the events that are just being accepted.
    pub(super) busy: HashSet<(String, String)>,
    pub(super) keys: Keys,
    /// How many requests were refused, by reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// How many seconds an event takes to show in summaries and previews.
    pub(super) summary_lag_s: i64,
}

/// What `GET /__fake/state` tells.
#[derive(Debug, Serialize)]
struct Snapshot<'a> {
    meters: Vec<Value>,
    customers: Vec<Value>,
    events: &'a [MeterEvent],
    unmatched: &'a [MeterEvent],
    lost: &'a [MeterEvent],
    invoices: Vec<Value>,
    core_events: &'a [Value],
    refused: &'a BTreeMap<&'static str, u64>,
    summary_lag_s: i64,
}

impl Store {
    pub(super) fn count_refusal(&mut self, reason: &'static str) {
        let count = self.refused.entry(reason).or_default();
        *count = count.saturating_add(1);
    }

    /// The customer of that id; `param` is the parameter that names it.
    pub(super) fn customer(&self, id: &str, param: &str) -> Result<&Customer, StripeError> {
        let found = self.customers.iter().find(|customer| customer.id == id);
        found.ok_or_else(|| StripeError::no_such("customer", id, param))
    }

    pub(super) fn meter(&self, id: &str, param: &str) -> Result<&Meter, StripeError> {
        let found = self.meters.iter().find(|meter| meter.id == id);
        found.ok_or_else(|| StripeError::no_such("meter", id, param))
    }

    pub(super) fn product(&self, id: &str, param: &str) -> Result<&Product, StripeError> {
        let found = self.products.iter().find(|product| product.id == id);
        found.ok_or_else(|| StripeError::no_such("product", id, param))
    }

    pub(super) fn price(&self, id: &str, param: &str) -> Result<&Price, StripeError> {
        let found = self.prices.iter().find(|price| price.id == id);
        found.ok_or_else(|| StripeError::no_such("price", id, param))
    }

    pub(super) fn snapshot(&self) -> Value {
        let snapshot = Snapshot {
            meters: self.meters.iter().map(Meter::render).collect(),
            customers: self.customers.iter().map(Customer::render).collect(),
            events: &self.events,
            unmatched: &self.unmatched,
            lost: &self.lost,
            core_events: &self.core_events,
            invoices: self.bills.iter().map(Bill::render).collect(),
            refused: &self.refused,
            summary_lag_s: self.summary_lag_s,
        };
        serde_json::to_value(snapshot).unwrap_or_default()
    }
}

/// The `metadata` of a new object.
pub(super) fn metadata(form: &Form) -> Map<String, Value> {
    let mut metadata = Map::new();
    update_metadata(&mut metadata, form);
    metadata
}

/// Sets what the form gives; an empty value removes a name, `metadata=` all of them.
pub(super) fn update_metadata(metadata: &mut Map<String, Value>, form: &Form) {
    if form.get("metadata").is_some() {
        metadata.clear();
    }
    for (name, value) in form.children("metadata") {
        if value.is_empty() {
            metadata.remove(name);
        } else {
            metadata.insert(name.to_owned(), Value::from(value));
        }
    }
}

/// An id of the classic kind, as `cus_` and 14 characters.
pub(super) fn short_id(prefix: &str) -> String {
    ids::random(prefix, 14)
}

/// An id of the long kind, as `price_1` and 23 characters.
pub(super) fn long_id(prefix: &str) -> String {
    ids::random(prefix, 23)
}
