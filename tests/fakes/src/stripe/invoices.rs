//! `/v1/invoices/create_preview`: what the current period comes to.

use serde_json::{Value, json};

use super::{
    error::StripeError,
    params::{Param, TEXT, optional},
    routes::Call,
    store::{Store, long_id},
    subscriptions::{Item, Subscription},
    summaries,
};

pub(super) const PREVIEW: &[Param] = &[optional("customer", TEXT), optional("subscription", TEXT)];

/// What a period comes to.
#[derive(Debug)]
pub(super) struct Sum {
    customer: (String, Option<String>, Option<String>),
    subscription: String,
    currency: String,
    period: (i64, i64),
    now: i64,
    /// As Stripe writes them.
    pub(super) lines: Vec<Value>,
    /// In the currency's smallest unit.
    pub(super) total: i64,
}

/// One item of the invoice.
struct Line {
    quantity: i64,
    amount: i64,
    period: (i64, i64),
}

pub(super) fn create_preview(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let subscription = subscription(store, call)?;
    let id = long_id("upcoming_in_1");
    let sum = sum(store, subscription, (&id, "il_tmp_1"), call.now)?;
    let lines = json!({
        "object": "list",
        "data": sum.lines,
        "has_more": false,
        "url": format!("/v1/invoices/upcoming/lines?subscription={}", subscription.id),
    });
    Ok(sum.render(&id, lines))
}

/// What the subscription's current period comes to; of an invoice's id and the
/// beginning of its lines' ids.
pub(super) fn sum(
    store: &Store,
    subscription: &Subscription,
    (invoice, line_id): (&str, &str),
    now: i64,
) -> Result<Sum, StripeError> {
    let customer = store.customer(&subscription.customer, "customer")?;
    let mut lines = Vec::new();
    let mut total: i64 = 0;
    for item in &subscription.items {
        let line = line(store, subscription, item, now)?;
        total = total.checked_add(line.amount).ok_or_else(too_large)?;
        let ids = (invoice, long_id(line_id));
        lines.push(render_line(store, subscription, item, &line, ids)?);
    }
    let text = |value: Option<&str>| value.map(str::to_owned);
    Ok(Sum {
        customer: (
            customer.id.clone(),
            text(customer.email()),
            text(customer.name()),
        ),
        subscription: subscription.id.clone(),
        currency: subscription.currency.clone(),
        period: subscription.period(now),
        now,
        lines,
        total,
    })
}

fn subscription<'a>(store: &'a Store, call: &Call<'_>) -> Result<&'a Subscription, StripeError> {
    let form = call.form;
    let customer = form
        .get("customer")
        .map(|id| store.customer(id, "customer"))
        .transpose()?;
    let mut open = store
        .subscriptions
        .iter()
        .filter(|one| one.canceled_at.is_none());
    match (form.get("subscription"), customer) {
        (Some(id), customer) => {
            let exists = store.subscriptions.iter().any(|one| one.id == id);
            let owned = |one: &&Subscription| {
                one.id == id && customer.is_none_or(|customer| customer.id == one.customer)
            };
            match open.find(owned) {
                Some(found) => Ok(found),
                None if exists => Err(StripeError::no_preview()),
                None => Err(StripeError::no_such("subscription", id, "subscription")),
            }
        }
        (None, Some(customer)) => open
            .find(|one| one.customer == customer.id)
            .ok_or_else(StripeError::no_preview),
        (None, None) => Err(StripeError::missing("customer")),
    }
}

/// Usage is charged for the period that ends, a licence for the one that begins.
fn line(
    store: &Store,
    subscription: &Subscription,
    item: &Item,
    now: i64,
) -> Result<Line, StripeError> {
    let (start, end) = subscription.period(now);
    let (quantity, period) = match &item.recurring.meter {
        Some(meter) => {
            let meter = store.meter(meter, "price")?;
            let total = summaries::total(store, meter, &subscription.customer, (start, end), now);
            (total.max(0), (start, end))
        }
        None => (
            item.quantity.unwrap_or(1),
            (end, subscription.next_end(end)),
        ),
    };
    let amount = item
        .price
        .unit_amount
        .times(quantity)
        .ok_or_else(too_large)?;
    Ok(Line {
        quantity,
        amount,
        period,
    })
}

fn too_large() -> StripeError {
    let message = "The amount is larger than an invoice can have.".to_owned();
    StripeError::invalid("amount_too_large", "subscription", message)
}

fn render_line(
    store: &Store,
    subscription: &Subscription,
    item: &Item,
    line: &Line,
    (invoice, id): (&str, String),
) -> Result<Value, StripeError> {
    let price = &item.price;
    let product = store.product(&price.product, "product")?;
    let unit = price.unit_amount.decimal();
    let description = format!(
        "{} × {} (at {unit} cents a unit, each {})",
        line.quantity, product.name, item.recurring.interval
    );
    Ok(json!({
        "id": id,
        "object": "line_item",
        "amount": line.amount,
        "currency": price.currency,
        "description": description,
        "discount_amounts": [],
        "discountable": true,
        "discounts": [],
        "invoice": invoice,
        "livemode": false,
        "metadata": {},
        "parent": {
            "invoice_item_details": null,
            "subscription_item_details": {
                "invoice_item": null,
                "proration": false,
                "proration_details": {"credited_items": null},
                "subscription": subscription.id,
                "subscription_item": item.id,
            },
            "type": "subscription_item_details",
        },
        "period": {"start": line.period.0, "end": line.period.1},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price.id, "product": price.product},
            "type": "price_details",
            "unit_amount_decimal": unit,
        },
        "quantity": line.quantity,
        "quantity_decimal": line.quantity.to_string(),
        "subscription": subscription.id,
        "subtotal": line.amount,
        "taxes": [],
    }))
}

impl Sum {
    /// The invoice, as long as it is a draft.
    pub(super) fn render(&self, id: &str, lines: Value) -> Value {
        let (start, end) = self.period;
        let total = self.total;
        let (customer, email, name) = &self.customer;
        json!({
            "id": id,
            "object": "invoice",
            "amount_due": total,
            "amount_overpaid": 0,
            "amount_paid": 0,
            "amount_remaining": total,
            "attempt_count": 0,
            "attempted": false,
            "auto_advance": true,
            "automatic_tax": {
                "disabled_reason": null,
                "enabled": false,
                "liability": null,
                "provider": null,
                "status": null,
            },
            "billing_reason": "upcoming",
            "collection_method": "charge_automatically",
            "created": self.now,
            "currency": self.currency,
            "customer": customer,
            "customer_email": email,
            "customer_name": name,
            "discounts": [],
            "ending_balance": 0,
            "lines": lines,
            "livemode": false,
            "metadata": {},
            "next_payment_attempt": end.saturating_add(3_600),
            "number": null,
            "parent": {
                "quote_details": null,
                "subscription_details": {"metadata": {}, "subscription": self.subscription},
                "type": "subscription_details",
            },
            "period_end": end,
            "period_start": start,
            "starting_balance": 0,
            "status": "draft",
            "subtotal": total,
            "subtotal_excluding_tax": total,
            "total": total,
            "total_discount_amounts": [],
            "total_excluding_tax": total,
            "total_taxes": [],
        })
    }
}
