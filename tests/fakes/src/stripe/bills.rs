//! Invoices that are final: `POST /__fake/invoices` makes one, `/v1/invoices/{id}` shows it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    error::StripeError,
    invoices::{self, Sum},
    list,
    params::{ENDING_BEFORE, LIMIT, Param, STARTING_AFTER},
    routes::Call,
    store::{Store, long_id},
};

pub(super) const LINES: &[Param] = &[LIMIT, STARTING_AFTER, ENDING_BEFORE];

/// How many lines an invoice shows by itself.
const EMBEDDED: usize = 10;

/// Where an invoice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Open,
    Paid,
    Void,
    Uncollectible,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Void => "void",
            Self::Uncollectible => "uncollectible",
        }
    }
}

/// An invoice.
#[derive(Debug)]
pub(super) struct Bill {
    id: String,
    number: usize,
    sum: Sum,
    status: Status,
    attempt_count: u32,
    finalized_at: i64,
    /// When it got its status.
    changed_at: i64,
}

/// The body of `POST /__fake/invoices/{id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    status: Option<Status>,
    attempt_count: Option<u32>,
}

impl Bill {
    pub(super) fn render(&self) -> Value {
        let lines = self.sum.lines.get(..EMBEDDED).unwrap_or(&self.sum.lines);
        let list = json!({
            "object": "list",
            "data": lines,
            "has_more": lines.len() < self.sum.lines.len(),
            "url": format!("/v1/invoices/{}/lines", self.id),
        });
        let mut value = self.sum.render(&self.id, list);
        let at = |status: Status| (self.status == status).then_some(self.changed_at);
        let paid = self.status == Status::Paid;
        let open = self.status == Status::Open;
        let changes = json!({
            "amount_paid": if paid { self.sum.total } else { 0 },
            "amount_remaining": if paid { 0 } else { self.sum.total },
            "attempt_count": self.attempt_count,
            "attempted": self.attempt_count > 0,
            "auto_advance": open,
            "billing_reason": "subscription_cycle",
            "created": self.finalized_at,
            "effective_at": self.finalized_at,
            "next_payment_attempt": open.then(|| self.finalized_at.saturating_add(86_400)),
            "number": format!("FAKE-{:04}", self.number),
            "status": self.status.as_str(),
            "status_transitions": {
                "finalized_at": self.finalized_at,
                "marked_uncollectible_at": at(Status::Uncollectible),
                "paid_at": at(Status::Paid),
                "voided_at": at(Status::Void),
            },
        });
        if let (Some(object), Value::Object(changes)) = (value.as_object_mut(), changes) {
            object.extend(changes);
        }
        value
    }
}

/// Makes the current period of the customer's subscription an invoice.
pub(super) fn finalize(store: &mut Store, customer: &str, now: i64) -> Result<Value, StripeError> {
    store.customer(customer, "customer")?;
    let mut open = store.subscriptions.iter();
    let subscription = open
        .find(|one| one.customer == customer && one.canceled_at.is_none())
        .ok_or_else(StripeError::no_preview)?;
    let id = long_id("in_1");
    let bill = Bill {
        sum: invoices::sum(store, subscription, (&id, "il_1"), now)?,
        id,
        number: store.bills.len().saturating_add(1),
        status: Status::Open,
        attempt_count: 0,
        finalized_at: now,
        changed_at: now,
    };
    let rendered = bill.render();
    store.bills.push(bill);
    Ok(rendered)
}

/// Changes an invoice, and tells what became of it.
pub(super) fn change(
    store: &mut Store,
    id: &str,
    change: &Change,
    now: i64,
) -> Result<Value, StripeError> {
    let found = store.bills.iter_mut().find(|bill| bill.id == id);
    let bill = found.ok_or_else(|| StripeError::no_such("invoice", id, "id"))?;
    let failed = change.attempt_count.is_some_and(|n| n > bill.attempt_count);
    bill.attempt_count = change.attempt_count.unwrap_or(bill.attempt_count);
    let status = change.status.filter(|status| *status != bill.status);
    if let Some(status) = status {
        bill.status = status;
        bill.changed_at = now;
    }
    let kind = match status {
        Some(Status::Paid) => Some("invoice.paid"),
        Some(Status::Void) => Some("invoice.voided"),
        Some(Status::Uncollectible) => Some("invoice.marked_uncollectible"),
        _ if failed && bill.status == Status::Open => Some("invoice.payment_failed"),
        _ => None,
    };
    let rendered = bill.render();
    if let Some(kind) = kind {
        store.tell(kind, rendered.clone(), now);
    }
    Ok(rendered)
}

pub(super) fn retrieve(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    find(store, call.id).map(Bill::render)
}

pub(super) fn lines(store: &mut Store, call: &Call<'_>) -> Result<Value, StripeError> {
    let bill = find(store, call.id)?;
    list::page(bill.sum.lines.clone(), call.form, call.path, "line item")
}

fn find<'a>(store: &'a Store, id: &str) -> Result<&'a Bill, StripeError> {
    let found = store.bills.iter().find(|bill| bill.id == id);
    found.ok_or_else(|| StripeError::no_such("invoice", id, "id"))
}
