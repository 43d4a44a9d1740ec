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

/// One item of the invoice.
struct Line {
    quantity: i64,
    amount: i64,
    period: (i64, i64),
}

pub(super) fn create_preview(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let subscription = subscription(store, call)?;
    let period = subscription.period(call.now);
    let id = long_id("upcoming_in_1");
    let mut lines = Vec::new();
    let mut total: i64 = 0;
    for item in &subscription.items {
        let line = line(store, subscription, item, call.now)?;
        total = total.checked_add(line.amount).ok_or_else(too_large)?;
        lines.push(render_line(store, subscription, item, &line, &id)?);
    }
    render(store, subscription, period, &id, lines, total, call.now)
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
    invoice: &str,
) -> Result<Value, StripeError> {
    let price = &item.price;
    let product = store.product(&price.product, "product")?;
    let unit = price.unit_amount.decimal();
    let description = format!(
        "{} × {} (at {unit} cents a unit, each {})",
        line.quantity, product.name, item.recurring.interval
    );
    Ok(json!({
        "id": long_id("il_tmp_1"),
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

fn render(
    store: &Store,
    subscription: &Subscription,
    (start, end): (i64, i64),
    id: &str,
    lines: Vec<Value>,
    total: i64,
    now: i64,
) -> Result<Value, StripeError> {
    let customer = store.customer(&subscription.customer, "customer")?;
    Ok(json!({
        "id": id,
        "object": "invoice",
        "amount_due": total,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": total,
        "attempt_count": 0,
        "attempted": false,
        "auto_advance": true,
        "automatic_tax": {"disabled_reason": null, "enabled": false, "liability": null},
        "billing_reason": "upcoming",
        "collection_method": "charge_automatically",
        "created": now,
        "currency": subscription.currency,
        "customer": customer.id,
        "customer_email": customer.email(),
        "customer_name": customer.name(),
        "discounts": [],
        "ending_balance": 0,
        "lines": {
            "object": "list",
            "total_count": lines.len(),
            "data": lines,
            "has_more": false,
            "url": format!("/v1/invoices/upcoming/lines?subscription={}", subscription.id),
        },
        "livemode": false,
        "metadata": {},
        "next_payment_attempt": end.saturating_add(3_600),
        "number": null,
        "parent": {
            "quote_details": null,
            "subscription_details": {"metadata": {}, "subscription": subscription.id},
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
    }))
}
