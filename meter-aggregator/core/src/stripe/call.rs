//! The calls that the aggregator makes to Stripe, each as a value.

use form_urlencoded::Serializer;

use crate::hour::Hour;

/// The API version that the calls are written for; every call names it, those of
/// `/v2`, which demand it, too.
pub const VERSION: &str = "2026-10-28.endive";

/// The most objects on a page, for all of Stripe's lists.
const PAGE: &str = "100";

/// The longest id that is put in a path.
const ID_MAX: usize = 255;

/// How a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It changes nothing, and may be made again.
    Get,
    /// It changes something.
    Post,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Of HTTP.
    pub method: Method,
    /// From `/v1` or `/v2` on; its ids need no escapes.
    pub path: String,
    /// The query of a GET, the form of a POST, before they are encoded.
    pub params: Vec<(String, String)>,
    /// The `Idempotency-Key` of a POST.
    pub idempotency_key: Option<String>,
}

/// An id that no object of Stripe's has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of Stripe's: they have 1 to 255 of A-Z a-z 0-9 _ -")]
pub struct WrongId(pub String);

/// What a meter event says.
#[derive(Debug, Clone, Copy)]
pub struct MeterEvent<'a> {
    /// The meter's `event_name`.
    pub event_name: &'a str,
    /// Under which key of the payload the meter looks for the customer.
    pub customer_key: &'a str,
    /// Under which key of the payload the meter looks for the number.
    pub value_key: &'a str,
    /// The customer's id.
    pub customer: &'a str,
    /// What is added; may be negative.
    pub value: i64,
    /// The same for every attempt, at most 100 characters.
    pub identifier: &'a str,
    /// When it was used, seconds of the Unix epoch.
    pub timestamp_s: i64,
    /// Another one after each answer that came: Stripe replays a stored answer to
    /// a key that it knows, a 500 as well.
    pub idempotency_key: &'a str,
}

impl Call {
    /// A page of the active meters, behind that one.
    #[must_use]
    pub fn meters(after: Option<&str>) -> Self {
        let mut call = Self::get("/v1/billing/meters".to_owned());
        call.param("status", "active");
        call.paged(after)
    }

    /// Tells of usage.
    #[must_use]
    pub fn meter_event(event: &MeterEvent<'_>) -> Self {
        let mut call = Self {
            method: Method::Post,
            path: "/v1/billing/meter_events".to_owned(),
            params: Vec::new(),
            idempotency_key: Some(event.idempotency_key.to_owned()),
        };
        call.param("event_name", event.event_name);
        call.param(&format!("payload[{}]", event.customer_key), event.customer);
        call.param(
            &format!("payload[{}]", event.value_key),
            &event.value.to_string(),
        );
        call.param("identifier", event.identifier);
        call.param("timestamp", &event.timestamp_s.to_string());
        call
    }

    /// A page of what a meter says of a customer by the hour, in `[start, end)`.
    ///
    /// # Errors
    /// [`WrongId`], for the meter.
    pub fn summaries(
        meter: &str,
        customer: &str,
        (start, end): (Hour, Hour),
        after: Option<&str>,
    ) -> Result<Self, WrongId> {
        let meter = segment(meter)?;
        let mut call = Self::get(format!("/v1/billing/meters/{meter}/event_summaries"));
        call.param("customer", customer);
        call.param("start_time", &start.start_s().to_string());
        call.param("end_time", &end.start_s().to_string());
        call.param("value_grouping_window", "hour");
        Ok(call.paged(after))
    }

    /// An invoice as it is now.
    ///
    /// # Errors
    /// [`WrongId`].
    pub fn invoice(id: &str) -> Result<Self, WrongId> {
        Ok(Self::get(format!("/v1/invoices/{}", segment(id)?)))
    }

    /// A page of an invoice's lines.
    ///
    /// # Errors
    /// [`WrongId`].
    pub fn invoice_lines(id: &str, after: Option<&str>) -> Result<Self, WrongId> {
        Ok(Self::get(format!("/v1/invoices/{}/lines", segment(id)?)).paged(after))
    }

    /// A price, which says what meter a line of an invoice comes from.
    ///
    /// # Errors
    /// [`WrongId`].
    pub fn price(id: &str) -> Result<Self, WrongId> {
        Ok(Self::get(format!("/v1/prices/{}", segment(id)?)))
    }

    /// An event of which a webhook told nothing but the id
    /// (docs.stripe.com/api/v2/core/events/retrieve).
    ///
    /// # Errors
    /// [`WrongId`].
    pub fn core_event(id: &str) -> Result<Self, WrongId> {
        Ok(Self::get(format!("/v2/core/events/{}", segment(id)?)))
    }

    /// The parameters as they go into the query or the body.
    #[must_use]
    pub fn encoded(&self) -> String {
        Serializer::new(String::new())
            .extend_pairs(&self.params)
            .finish()
    }

    fn get(path: String) -> Self {
        Self {
            method: Method::Get,
            path,
            params: Vec::new(),
            idempotency_key: None,
        }
    }

    fn param(&mut self, name: &str, value: &str) {
        self.params.push((name.to_owned(), value.to_owned()));
    }

    fn paged(mut self, after: Option<&str>) -> Self {
        self.param("limit", PAGE);
        if let Some(id) = after {
            self.param("starting_after", id);
        }
        self
    }
}

/// An id that may stand in a path as it is.
fn segment(id: &str) -> Result<&str, WrongId> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if (1..=ID_MAX).contains(&id.len()) && id.bytes().all(good) {
        Ok(id)
    } else {
        Err(WrongId(id.chars().take(ID_MAX).collect()))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(call: &Call, method: Method, path: &str, encoded: &str) {
        assert_eq!(
            (call.method, call.path.as_str(), call.encoded().as_str()),
            (method, path, encoded)
        );
    }

    #[test]
    fn calls_are_golden() {
        check(
            &Call::meters(None),
            Method::Get,
            "/v1/billing/meters",
            "status=active&limit=100",
        );
        check(
            &Call::meters(Some("mtr_1")),
            Method::Get,
            "/v1/billing/meters",
            "status=active&limit=100&starting_after=mtr_1",
        );
        let hours = (Hour(2), Hour(5));
        check(
            &Call::summaries("mtr_1", "cus_1", hours, Some("mtrusg_9")).unwrap(),
            Method::Get,
            "/v1/billing/meters/mtr_1/event_summaries",
            "customer=cus_1&start_time=7200&end_time=18000&value_grouping_window=hour\
             &limit=100&starting_after=mtrusg_9",
        );
        check(
            &Call::invoice("in_1").unwrap(),
            Method::Get,
            "/v1/invoices/in_1",
            "",
        );
        check(
            &Call::invoice_lines("in_1", None).unwrap(),
            Method::Get,
            "/v1/invoices/in_1/lines",
            "limit=100",
        );
        check(
            &Call::price("price_1").unwrap(),
            Method::Get,
            "/v1/prices/price_1",
            "",
        );
        check(
            &Call::core_event("evt_test_6").unwrap(),
            Method::Get,
            "/v2/core/events/evt_test_6",
            "",
        );
    }

    #[test]
    fn a_meter_event_is_a_form() {
        let call = Call::meter_event(&MeterEvent {
            event_name: "a b&c",
            customer_key: "stripe_customer_id",
            value_key: "value",
            customer: "cus_1",
            value: -12,
            identifier: "weir_0",
            timestamp_s: 7_200,
            idempotency_key: "weir_0-1",
        });
        check(
            &call,
            Method::Post,
            "/v1/billing/meter_events",
            "event_name=a+b%26c&payload%5Bstripe_customer_id%5D=cus_1&payload%5Bvalue%5D=-12\
             &identifier=weir_0&timestamp=7200",
        );
        assert_eq!(call.idempotency_key.as_deref(), Some("weir_0-1"));
    }

    #[test]
    fn an_id_never_leaves_its_segment() {
        for id in ["", "in_1/../x", "in_1?x", "in 1", "in_\u{e9}", "%2e"] {
            assert_eq!(Call::invoice(id), Err(WrongId(id.to_owned())));
        }
        assert!(Call::invoice(&"a".repeat(256)).is_err());
    }
}
