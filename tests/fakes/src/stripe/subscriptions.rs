//! `/v1/subscriptions`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{
    error::StripeError,
    form::Form,
    list,
    params::{ENDING_BEFORE, Kind, LIMIT, METADATA, Param, STARTING_AFTER, TEXT, optional},
    period::Interval,
    prices::{Price, Recurring},
    routes::Call,
    store::{Store, long_id, metadata, short_id},
};

/// The most items of a subscription.
const MAX_ITEMS: usize = 20;

pub(super) const CREATE: &[Param] = &[
    optional("customer", TEXT),
    optional("items[#][price]", TEXT),
    optional("items[#][quantity]", Kind::Integer),
    optional("backdate_start_date", Kind::Integer),
    optional("billing_cycle_anchor", Kind::Integer),
    optional(
        "collection_method",
        Kind::OneOf(&["charge_automatically", "send_invoice"]),
    ),
    optional("currency", TEXT),
    optional("days_until_due", Kind::Integer),
    optional("description", TEXT),
    METADATA[0],
    METADATA[1],
];

pub(super) const LIST: &[Param] = &[
    LIMIT,
    STARTING_AFTER,
    ENDING_BEFORE,
    optional("customer", TEXT),
    optional("price", TEXT),
    optional(
        "status",
        Kind::OneOf(&["active", "all", "canceled", "ended"]),
    ),
];

/// A price within a subscription.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) price: Price,
    pub(super) recurring: Recurring,
    /// None for a metered price.
    pub(super) quantity: Option<i64>,
}

/// A subscription.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) customer: String,
    pub(super) items: Vec<Item>,
    pub(super) currency: String,
    pub(super) canceled_at: Option<i64>,
    interval: Interval,
    start: i64,
    anchor: i64,
    collection_method: String,
    days_until_due: Option<i64>,
    description: Option<String>,
    metadata: Map<String, Value>,
    created: i64,
}

impl Subscription {
    /// The billing period `[start, end)` that `now` is in; the first one may be
    /// shorter, up to an anchor that was set.
    pub(super) fn period(&self, now: i64) -> (i64, i64) {
        let now = self.canceled_at.unwrap_or(now).max(self.start);
        if now < self.anchor {
            return (self.start, self.anchor);
        }
        self.interval.current(self.anchor, now)
    }

    /// The end of the period after the one that ends at `end`.
    pub(super) fn next_end(&self, end: i64) -> i64 {
        self.interval.current(self.anchor, end).1
    }

    fn render(&self, now: i64) -> Value {
        let (start, end) = self.period(now);
        let item = |item: &Item| {
            let mut value = json!({
                "id": item.id,
                "object": "subscription_item",
                "billing_thresholds": null,
                "created": self.created,
                "current_period_end": end,
                "current_period_start": start,
                "discounts": [],
                "metadata": {},
                "price": item.price.render(),
                "subscription": self.id,
                "tax_rates": [],
            });
            if let (Some(quantity), Some(object)) = (item.quantity, value.as_object_mut()) {
                object.insert("quantity".to_owned(), Value::from(quantity));
            }
            value
        };
        let items: Vec<Value> = self.items.iter().map(item).collect();
        json!({
            "id": self.id,
            "object": "subscription",
            "automatic_tax": {"disabled_reason": null, "enabled": false, "liability": null},
            "billing_cycle_anchor": self.anchor,
            "cancel_at": null,
            "cancel_at_period_end": false,
            "canceled_at": self.canceled_at,
            "collection_method": self.collection_method,
            "created": self.created,
            "currency": self.currency,
            "customer": self.customer,
            "days_until_due": self.days_until_due,
            "description": self.description,
            "discounts": [],
            "ended_at": self.canceled_at,
            "items": {
                "object": "list",
                "data": items,
                "has_more": false,
                "url": format!("/v1/subscription_items?subscription={}", self.id),
            },
            "latest_invoice": null,
            "livemode": false,
            "metadata": self.metadata,
            "start_date": self.start,
            "status": if self.canceled_at.is_some() { "canceled" } else { "active" },
            "test_clock": null,
            "trial_end": null,
            "trial_start": null,
        })
    }
}

pub(super) fn create(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let form = call.form;
    let customer = store
        .customer(form.need("customer")?, "customer")?
        .id
        .clone();
    let items = items(store, form)?;
    let first = items.first().ok_or_else(|| StripeError::missing("items"))?;
    let interval = first.recurring.period();
    let currency = first.price.currency.clone();
    if form
        .get("currency")
        .is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&currency))
    {
        let message = "The items' prices have another currency.".to_owned();
        return Err(StripeError::refused(
            "currency_mismatch",
            "currency",
            message,
        ));
    }
    let (start, anchor) = dates(form, interval, call.now)?;
    let subscription = Subscription {
        id: long_id("sub_1"),
        customer,
        interval,
        currency,
        items,
        canceled_at: None,
        start,
        anchor,
        collection_method: form
            .get("collection_method")
            .unwrap_or("charge_automatically")
            .to_owned(),
        days_until_due: days_until_due(form)?,
        description: form.get("description").map(str::to_owned),
        metadata: metadata(form),
        created: call.now,
    };
    let rendered = subscription.render(call.now);
    store.subscriptions.push(subscription);
    Ok(rendered)
}

pub(super) fn list(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let form = call.form;
    if let Some(customer) = form.get("customer") {
        store.customer(customer, "customer")?;
    }
    let chosen = |one: &&Subscription| {
        let canceled = one.canceled_at.is_some();
        let status = match form.get("status") {
            Some("all") => true,
            Some("canceled" | "ended") => canceled,
            _ => !canceled,
        };
        let price = |wanted: &str| one.items.iter().any(|item| item.price.id == wanted);
        status
            && form
                .get("customer")
                .is_none_or(|wanted| wanted == one.customer)
            && form.get("price").is_none_or(price)
    };
    let found = store.subscriptions.iter().rev().filter(chosen);
    list::page(
        found.map(|one| one.render(call.now)).collect(),
        form,
        call.path,
        "subscription",
    )
}

pub(super) fn retrieve(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let found = store.subscriptions.iter().find(|one| one.id == call.id);
    let found = found.ok_or_else(|| StripeError::no_such("subscription", call.id, "id"))?;
    Ok(found.render(call.now))
}

pub(super) fn cancel(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    // Stripe says "no such subscription" of one that is cancelled, too.
    let mut open = store
        .subscriptions
        .iter_mut()
        .filter(|one| one.canceled_at.is_none());
    let found = open.find(|one| one.id == call.id);
    let found = found.ok_or_else(|| StripeError::no_such("subscription", call.id, "id"))?;
    found.canceled_at = Some(call.now);
    Ok(found.render(call.now))
}

fn items(store: &Store, form: &Form) -> Result<Vec<Item>, StripeError> {
    let indices = form.indices("items");
    if indices.len() > MAX_ITEMS {
        let message = format!("A subscription has at most {MAX_ITEMS} items.");
        return Err(StripeError::refused("too_many_items", "items", message));
    }
    let mut seen = HashSet::new();
    let mut items: Vec<Item> = Vec::new();
    for index in indices {
        let param = format!("items[{index}][price]");
        let refuse = |reason: &'static str, message: &str| {
            Err(StripeError::refused(reason, &param, message.to_owned()))
        };
        let price = store.price(form.need(&param)?, &param)?.clone();
        let Some(recurring) = price.recurring.clone() else {
            return refuse("price_not_recurring", "The price is not recurring.");
        };
        if !price.active {
            return refuse("price_inactive", "The price is inactive.");
        }
        if !seen.insert(price.id.clone()) {
            return refuse("price_twice", "The price is in another item already.");
        }
        if items
            .iter()
            .any(|item| item.price.currency != price.currency)
        {
            return refuse(
                "currency_mismatch",
                "All prices must have the same currency.",
            );
        }
        if items
            .iter()
            .any(|item| item.recurring.period() != recurring.period())
        {
            return refuse(
                "interval_mismatch",
                "All prices must have the same interval.",
            );
        }
        let quantity = quantity(form, index, recurring.meter.is_some())?;
        items.push(Item {
            id: short_id("si_"),
            price,
            recurring,
            quantity,
        });
    }
    Ok(items)
}

fn quantity(form: &Form, index: usize, metered: bool) -> Result<Option<i64>, StripeError> {
    let param = format!("items[{index}][quantity]");
    match form.integer(&param) {
        Some(_) if metered => {
            let message = "A metered price takes no quantity: its meter counts.".to_owned();
            Err(StripeError::refused("quantity_of_metered", &param, message))
        }
        Some(quantity) if quantity < 0 => {
            let message = format!("Invalid quantity: {quantity}");
            Err(StripeError::parameter(
                "parameter_invalid_integer",
                &param,
                message,
            ))
        }
        given => Ok((!metered).then(|| given.unwrap_or(1))),
    }
}

/// When the subscription starts, and the time from which its periods are counted.
fn dates(form: &Form, interval: Interval, now: i64) -> Result<(i64, i64), StripeError> {
    let start = form.integer("backdate_start_date").unwrap_or(now);
    if start > now {
        let message = "backdate_start_date must be in the past.".to_owned();
        return Err(StripeError::refused(
            "start_in_future",
            "backdate_start_date",
            message,
        ));
    }
    let anchor = form.integer("billing_cycle_anchor").unwrap_or(start);
    let given = form.get("billing_cycle_anchor").is_some();
    if given && (anchor < now || anchor > interval.step(now, 1)) {
        let message = "billing_cycle_anchor must be within the next period.".to_owned();
        return Err(StripeError::refused(
            "anchor_out_of_range",
            "billing_cycle_anchor",
            message,
        ));
    }
    Ok((start, anchor))
}

fn days_until_due(form: &Form) -> Result<Option<i64>, StripeError> {
    let days = form.integer("days_until_due");
    let invoiced = form.get("collection_method") == Some("send_invoice");
    match (days, invoiced) {
        (None, true) => Err(StripeError::missing("days_until_due")),
        (Some(_), false) => {
            let message = "days_until_due needs collection_method=send_invoice.".to_owned();
            Err(StripeError::refused(
                "days_until_due",
                "days_until_due",
                message,
            ))
        }
        _ => Ok(days),
    }
}
