//! Every call that the aggregator can make, and what the fake answers, against Stripe's
//! OpenAPI.

use http::Method;
use serde_json::{Value, json};
use weir_meter_core::{
    hour::Hour,
    intent::{self, Key},
    meter::{Dimension, Meter},
    stripe::{self as core, Call, MeterEvent},
};

use crate::{
    client::{FakeStripe, NOW},
    openapi::OpenApi,
};

/// The call as a caller makes it, and what it came to.
async fn ask(fake: &FakeStripe, call: &Call) -> Value {
    let method = match call.method {
        core::Method::Get => Method::GET,
        core::Method::Post => Method::POST,
    };
    let form: Vec<(&str, &str)> = call
        .params
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut headers = vec![("stripe-version", core::VERSION)];
    if let Some(key) = &call.idempotency_key {
        headers.push(("idempotency-key", key));
    }
    fake.try_call(method, &call.path, &form, &headers)
        .await
        .unwrap()
        .with_status(200)
        .json()
}

/// A meter event as the ledger makes it, with the longest name and value.
fn meter_event<'a>(customer: &'a str, identifier: &'a str, key: &'a str) -> MeterEvent<'a> {
    MeterEvent {
        event_name: "tokens",
        customer_key: "stripe_customer_id",
        value_key: "value",
        customer,
        value: -999_999_999_999_999,
        identifier,
        timestamp_s: NOW - 3_600,
        idempotency_key: key,
    }
}

fn identifier() -> String {
    intent::identifier(&Key {
        account: "main",
        ledger: "0123456789abcdef",
        tenant: "acme",
        meter: &Meter::of(Dimension::InputTokens),
        hour: Hour::of_ms(NOW * 1_000),
        revision: i64::MAX,
        generation: i64::MAX,
    })
}

#[tokio::test]
async fn calls_and_answers_are_as_stripe_says() {
    let Some(api) = OpenApi::open() else { return };
    assert_eq!(api.version(), core::VERSION);
    let fake = FakeStripe::start().await;
    let meter = fake.meter("tokens").await;
    fake.meter("others").await;
    let price = fake.price(&meter, "0.25").await;
    let customer = fake.customer().await;
    let form = [
        ("customer", customer.as_str()),
        ("items[0][price]", price.as_str()),
    ];
    fake.create("/v1/subscriptions", &form).await;
    let identifier = identifier();
    let key = format!("{identifier}-{}", i64::MAX);
    let sent = Call::meter_event(&meter_event(&customer, &identifier, &key));
    let check = async |call: &Call| {
        assert_eq!(api.call_errors(call), [""; 0], "{call:?}");
        let answer = ask(&fake, call).await;
        assert_eq!(
            api.answer_errors(call, &answer),
            [""; 0],
            "{call:?}: {answer}"
        );
        answer
    };
    check(&sent).await;
    let meters = check(&Call::meters(None)).await;
    let last = meters["data"][0]["id"].as_str().unwrap();
    check(&Call::meters(Some(last))).await;
    let hour = Hour::of_ms(NOW * 1_000);
    let hours = (Hour(hour.0 - 5), Hour(hour.0 + 1));
    let summaries = check(&Call::summaries(&meter, &customer, hours, None).unwrap()).await;
    let last = summaries["data"][0]["id"].as_str().unwrap();
    check(&Call::summaries(&meter, &customer, hours, Some(last)).unwrap()).await;
    check(&Call::price(&price).unwrap()).await;
    fake.control("/__fake/invoices", &json!({"customer": customer}))
        .await;
    let id = fake.state().await["invoices"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let invoice = check(&Call::invoice(&id).unwrap()).await;
    let line = invoice["lines"]["data"][0]["id"].as_str().unwrap();
    check(&Call::invoice_lines(&id, None).unwrap()).await;
    check(&Call::invoice_lines(&id, Some(line)).unwrap()).await;
    fake.control(
        &format!("/__fake/invoices/{id}"),
        &json!({"status": "paid"}),
    )
    .await;
    check(&Call::invoice(&id).unwrap()).await;
    // Not the aggregator's, but what people look at.
    let preview = Call {
        method: core::Method::Post,
        path: "/v1/invoices/create_preview".to_owned(),
        params: vec![("customer".to_owned(), customer.clone())],
        idempotency_key: None,
    };
    check(&preview).await;
}

/// The file has of thin events what they hold, not how they are fetched.
#[tokio::test]
async fn an_error_report_is_as_stripe_says() {
    let Some(api) = OpenApi::open() else { return };
    let fake = FakeStripe::start().await;
    fake.meter("tokens").await;
    let sent = Call::meter_event(&meter_event("cus_nope", "weir_1", "weir_1-0"));
    ask(&fake, &sent).await;
    let id = fake.state().await["core_events"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let call = Call::core_event(&id).unwrap();
    assert!(api.operation(&call).is_none());
    let event = ask(&fake, &call).await;
    let schema = "v2.core.event.v1.billing.meter.error_report_triggered";
    assert_eq!(
        api.object_errors(schema, &event["data"]),
        [""; 0],
        "{event}"
    );
    let read: core::CoreEvent = core::read(event.to_string().as_bytes()).unwrap();
    let report = read.data.unwrap();
    assert_eq!(report.since_ms, Some(NOW * 1_000));
    assert_eq!(
        report.reason.error_types[0].sample_errors[0]
            .request
            .identifier,
        "weir_1"
    );
}

#[test]
fn the_validator_finds_what_is_wrong() {
    let Some(api) = OpenApi::open() else { return };
    let good = Call::meter_event(&meter_event("cus_1", "weir_1", "weir_1-0"));
    let summaries = Call::summaries("mtr_1", "cus_1", (Hour(0), Hour(1)), None).unwrap();
    let check = |call: &Call, change: &dyn Fn(&mut Call), names: &str| {
        let mut call = call.clone();
        change(&mut call);
        let errors = api.call_errors(&call).join("; ");
        assert!(errors.contains(names), "{errors} should name {names}");
    };
    let set = |name: &'static str, value: String| {
        move |call: &mut Call| {
            call.params.retain(|(known, _)| known != name);
            call.params.push((name.to_owned(), value.clone()));
        }
    };
    let drop = |name: &'static str| move |call: &mut Call| call.params.retain(|(n, _)| n != name);
    check(&good, &drop("event_name"), "event_name");
    check(&good, &drop("payload[value]"), "value");
    check(&good, &set("identifier", "x".repeat(101)), "longer");
    check(&good, &set("timestamp", "now".to_owned()), "timestamp");
    check(&good, &set("time", "1".to_owned()), "/time is unknown");
    check(&good, &|c| c.idempotency_key = Some("x".repeat(256)), "key");
    check(&good, &|c| c.path.push('x'), "not Stripe's");
    check(&summaries, &drop("customer"), "customer");
    check(
        &summaries,
        &set("start_time", "1.5".to_owned()),
        "start_time",
    );
    check(
        &summaries,
        &set("value_grouping_window", "week".to_owned()),
        "week",
    );
    check(
        &summaries,
        &set("limits", "1".to_owned()),
        "limits is unknown",
    );
    let answer = json!({"object": "list", "data": [{"id": 1, "object": "x", "new": 2}], "url": ""});
    let errors = api.answer_errors(&summaries, &answer).join("; ");
    for names in ["has_more", "[0]/id", "[0]/object", "[0]/new is unknown"] {
        assert!(errors.contains(names), "{errors} should name {names}");
    }
}
