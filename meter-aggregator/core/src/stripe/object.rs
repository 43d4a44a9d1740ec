//! Stripe's objects, as far as they are needed: what is unknown is passed over, what
//! is needed must be there.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::number;

/// An answer that is not what Stripe's API promises.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not what Stripe's API promises: {0}")]
pub struct Wrong(#[from] serde_json::Error);

/// Reads the body of an answer.
///
/// # Errors
/// [`Wrong`], where something that is needed is missing or of another kind.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Wrong> {
    Ok(serde_json::from_slice(body)?)
}

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
pub struct Page<T> {
    /// In Stripe's order.
    pub data: Vec<T>,
    /// Whether another page follows.
    pub has_more: bool,
}

/// A meter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MeterObject {
    /// `mtr_...`
    pub id: String,
    /// The name by which events find it.
    pub event_name: String,
    /// `active` or `inactive`.
    pub status: String,
    /// How it makes one number of many.
    pub default_aggregation: Aggregation,
    /// How it knows the customer.
    pub customer_mapping: CustomerMapping,
    /// Where it finds the number.
    pub value_settings: PayloadKey,
}

/// How a meter makes one number of many.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Aggregation {
    /// `sum`, `count` or `last`.
    pub formula: String,
}

/// How a meter knows the customer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CustomerMapping {
    /// The key in an event's payload.
    pub event_payload_key: String,
    /// `by_id`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A key in an event's payload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PayloadKey {
    /// The key.
    pub event_payload_key: String,
}

/// What a meter says of a customer in one window of time.
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    /// Its cursor.
    pub id: String,
    /// Its first second.
    pub start_time: i64,
    /// The second after its last.
    pub end_time: i64,
    aggregated_value: Box<RawValue>,
}

/// A summary whose number is not whole, or too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("aggregated_value: must be a whole number of 64 bits, found {0}")]
pub struct SummaryError(String);

impl Summary {
    /// The number, which Stripe writes as any number of JSON.
    ///
    /// # Errors
    /// Where it is not whole or does not fit: nothing is rounded.
    pub fn value(&self) -> Result<i64, SummaryError> {
        let text = self.aggregated_value.get();
        number::whole(text).ok_or_else(|| SummaryError(text.chars().take(64).collect()))
    }
}

/// Where an invoice stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceStatus {
    /// Not yet final.
    Draft,
    /// Final and not paid.
    Open,
    /// Paid.
    Paid,
    /// Given up.
    Uncollectible,
    /// Withdrawn.
    Void,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

/// An invoice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Invoice {
    /// `in_...`
    pub id: String,
    /// Whose.
    pub customer: Option<String>,
    /// Where it stands.
    pub status: Option<InvoiceStatus>,
    /// How often a payment was tried.
    #[serde(default)]
    pub attempt_count: u32,
    /// The first second that it is for.
    pub period_start: i64,
    /// The second after the last.
    pub period_end: i64,
}

/// One line of an invoice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InvoiceLine {
    /// `il_...`
    pub id: String,
    /// What it comes to, in the currency's smallest unit.
    pub amount: i64,
    /// Three letters.
    pub currency: String,
    /// How many units.
    pub quantity: Option<i64>,
    /// For when.
    pub period: Period,
    /// At what price.
    pub pricing: Option<Pricing>,
    /// What it comes from.
    pub parent: Option<Parent>,
    /// As the customer reads it.
    #[serde(default)]
    pub description: Option<String>,
}

impl InvoiceLine {
    /// The price's id, where it is of one.
    #[must_use]
    pub fn price(&self) -> Option<&str> {
        let details = self.pricing.as_ref()?.price_details.as_ref()?;
        Some(&details.price)
    }

    /// The subscription that it is of.
    #[must_use]
    pub fn subscription(&self) -> Option<&str> {
        let parent = self.parent.as_ref()?;
        parent
            .subscription_item_details
            .as_ref()?
            .subscription
            .as_deref()
    }
}

/// A stretch of time, in seconds of the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Period {
    /// Its first second.
    pub start: i64,
    /// The second after its last.
    pub end: i64,
}

/// What a line's units cost.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pricing {
    /// Where the price is an object.
    #[serde(default)]
    pub price_details: Option<PriceDetails>,
    /// A unit's price, in the currency's smallest unit.
    #[serde(default)]
    pub unit_amount_decimal: Option<String>,
}

/// Which price.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PriceDetails {
    /// `price_...`
    pub price: String,
}

/// What a line comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Parent {
    /// Where that is an item of a subscription.
    #[serde(default)]
    pub subscription_item_details: Option<SubscriptionItem>,
}

/// An item of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SubscriptionItem {
    /// `si_...`
    pub subscription_item: String,
    /// `sub_...`
    #[serde(default)]
    pub subscription: Option<String>,
}

/// A price.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Price {
    /// `price_...`
    pub id: String,
    /// Absent where it is paid once.
    pub recurring: Option<Recurring>,
    /// How what was used becomes what is paid, where it is not the same.
    #[serde(default)]
    pub transform_quantity: Option<TransformQuantity>,
}

/// What was used is paid by so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct TransformQuantity {
    /// By how many.
    pub divide_by: i64,
    /// What happens to the rest.
    pub round: Round,
}

/// To which side a rest goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Round {
    /// It is paid.
    Up,
    /// It is not.
    Down,
}

impl TransformQuantity {
    /// What is paid of what was used, which is not negative.
    #[must_use]
    pub fn of(self, used: i64) -> Option<i64> {
        let whole = used.checked_div(self.divide_by)?;
        let rest = used.checked_rem(self.divide_by)?;
        match self.round {
            Round::Up if rest > 0 => whole.checked_add(1),
            Round::Up | Round::Down => Some(whole),
        }
    }
}

/// How a price comes again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Recurring {
    /// The meter that says how much.
    #[serde(default)]
    pub meter: Option<String>,
}

/// An event of `/v2/core/events`. What it tells of is there only when it is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CoreEvent {
    /// `evt_...`
    pub id: String,
    /// Such as `v1.billing.meter.error_report_triggered`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about.
    #[serde(default)]
    pub related_object: Option<RelatedObject>,
    /// What a meter did not count.
    #[serde(default)]
    pub data: Option<ErrorReport>,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RelatedObject {
    /// Its id.
    pub id: String,
    /// Such as `billing.meter`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// What a meter did not count of the events that Stripe accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ErrorReport {
    /// In a sentence.
    pub developer_message_summary: String,
    /// By kind.
    pub reason: Reason,
    /// From when on Stripe looked at events, milliseconds of the Unix epoch.
    #[serde(rename = "validation_start", deserialize_with = "rfc_3339")]
    pub since_ms: Option<i64>,
    /// Until when.
    #[serde(rename = "validation_end", deserialize_with = "rfc_3339")]
    pub until_ms: Option<i64>,
}

/// Why, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reason {
    /// Of all kinds together.
    pub error_count: i64,
    /// The kinds.
    pub error_types: Vec<ErrorType>,
}

/// One kind of errors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ErrorType {
    /// Such as `meter_event_customer_not_found`.
    pub code: String,
    /// How many.
    pub error_count: i64,
    /// Some of them.
    pub sample_errors: Vec<SampleError>,
}

/// An event that was not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SampleError {
    /// Why.
    pub error_message: String,
    /// Which.
    pub request: SampleRequest,
}

/// Which event was not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SampleRequest {
    /// Its identifier.
    pub identifier: String,
}

/// A time as `2024-09-26T17:46:10.000Z`; nothing where it is none.
fn rfc_3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let time = text.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok());
    let ms = |time: OffsetDateTime| {
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
    };
    Ok(time.and_then(ms))
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_summary_is_exact() {
        let check = |value: &str, wanted: Option<i64>| {
            let body = format!(
                r#"{{"id":"a","start_time":0,"end_time":3600,"more":1,"aggregated_value":{value}}}"#
            );
            let summary: Summary = read(body.as_bytes()).unwrap();
            assert_eq!(summary.value().ok(), wanted, "{value}");
        };
        check("25", Some(25));
        check("25.0", Some(25));
        check("9007199254740993.0", Some(9_007_199_254_740_993));
        check("0.5", None);
        check("\"25\"", None);
        assert!(read::<Summary>(br#"{"id":"a","start_time":0,"end_time":1}"#).is_err());
    }

    #[test]
    fn a_line_says_its_price_and_subscription() {
        let body = br#"{"data": [{"id": "il_1", "object": "line_item", "amount": 4,
            "currency": "usd", "quantity": 14, "period": {"start": 1, "end": 2},
            "parent": {"type": "subscription_item_details", "invoice_item_details": null,
              "subscription_item_details": {"subscription": "sub_1", "subscription_item": "si_1"}},
            "pricing": {"type": "price_details", "unit_amount_decimal": "0.25",
              "price_details": {"price": "price_1", "product": "prod_1"}}}], "has_more": false}"#;
        let page: Page<InvoiceLine> = read(body).unwrap();
        let line = &page.data[0];
        assert_eq!(
            (line.price(), line.subscription(), line.quantity),
            (Some("price_1"), Some("sub_1"), Some(14))
        );
    }

    #[test]
    fn an_invoice_of_an_unknown_status_is_read() {
        let check = |status: &str, wanted: Option<InvoiceStatus>| {
            let body = format!(
                r#"{{"id":"in_1","customer":"cus_1","status":{status},"attempt_count":2,
                    "period_start":0,"period_end":1}}"#
            );
            let invoice: Invoice = read(body.as_bytes()).unwrap();
            assert_eq!((invoice.status, invoice.attempt_count), (wanted, 2));
        };
        check("\"paid\"", Some(InvoiceStatus::Paid));
        check("\"uncollectible\"", Some(InvoiceStatus::Uncollectible));
        check("\"new\"", Some(InvoiceStatus::Unknown));
        check("null", None);
    }

    #[test]
    fn an_error_report_is_read() {
        let body = br#"{"id": "evt_1", "object": "v2.core.event", "livemode": false,
            "type": "v1.billing.meter.error_report_triggered", "created": "2026-09-26T17:46:22.134Z",
            "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/x"},
            "data": {"developer_message_summary": "There is 1 invalid event",
              "reason": {"error_count": 1, "error_types": [
                {"code": "meter_event_no_customer_defined", "error_count": 1, "sample_errors": [
                  {"error_message": "no", "request": {"identifier": "weir_1"}}]}]},
              "validation_start": "1970-01-01T00:00:01.500Z", "validation_end": "soon"}}"#;
        let event: CoreEvent = read(body).unwrap();
        let report = event.data.unwrap();
        assert_eq!(event.related_object.unwrap().id, "mtr_1");
        assert_eq!((report.since_ms, report.until_ms), (Some(1_500), None));
        let kind = &report.reason.error_types[0];
        assert_eq!(kind.sample_errors[0].request.identifier, "weir_1");
    }
}
