//! Meter events: what is accepted once, refused, or accepted and never billed.

use std::sync::Arc;

use serde_json::{Value, json};
use weir_fakes::stripe::Config;

use crate::client::{FakeStripe, NOW, STRIPE_KEY};

const DAY: i64 = 86_400;

type Form<'a> = &'a [(&'a str, &'a str)];

#[tokio::test]
async fn an_accepted_event_is_echoed_and_kept() {
    let fake = FakeStripe::start().await;
    let meter = fake.meter("tokens").await;
    let customer = fake.customer().await;
    let at = (NOW - 60).to_string();
    let more = [
        ("identifier", "id-1"),
        ("timestamp", at.as_str()),
        ("payload[model]", "gpt-4o"),
    ];
    let event = fake
        .event("tokens", &customer, "25", &more)
        .await
        .with_status(200)
        .json();
    let expected = json!({
        "object": "billing.meter_event", "created": NOW, "event_name": "tokens",
        "identifier": "id-1", "livemode": false, "timestamp": NOW - 60,
        "payload": {"stripe_customer_id": customer, "value": "25", "model": "gpt-4o"},
    });
    assert_eq!(event, expected);
    let kept = json!([{
        "identifier": "id-1", "event_name": "tokens", "meter": meter, "customer": customer,
        "value": 25, "timestamp": NOW - 60, "created": NOW,
    }]);
    let state = fake.state().await;
    assert_eq!((&state["events"], &state["unmatched"]), (&kept, &json!([])));
    let minted = fake
        .event("tokens", &customer, "1", &[])
        .await
        .with_status(200)
        .json();
    assert_eq!(minted["timestamp"], NOW);
    assert_eq!(minted["identifier"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn values_are_whole_numbers() {
    let fake = FakeStripe::start().await;
    fake.meter("tokens").await;
    let customer = fake.customer().await;
    for (value, status) in [
        ("0", 200),
        ("-5", 200),
        ("999999999999999", 200),
        ("007", 200),
        ("1.5", 400),
        ("1e5", 400),
        ("", 400),
        ("-", 400),
        ("+5", 400),
        (" 5", 400),
        ("1_000", 400),
        ("five", 400),
        ("1000000000000000", 400),
        ("٣", 400),
    ] {
        let reply = fake.event("tokens", &customer, value, &[]).await;
        assert_eq!(reply.status, status, "{value:?}: {}", reply.text);
        if status == 400 {
            assert_eq!(reply.json()["error"]["param"], "payload[value]");
        }
    }
    assert_eq!(fake.state().await["events"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn timestamps_are_within_35_days_and_5_minutes() {
    let fake = FakeStripe::start().await;
    fake.meter("tokens").await;
    let customer = fake.customer().await;
    for (offset, status) in [
        (-35 * DAY, 200),
        (-35 * DAY - 1, 400),
        (300, 200),
        (301, 400),
        (0, 200),
    ] {
        let at = (NOW + offset).to_string();
        let reply = fake
            .event("tokens", &customer, "1", &[("timestamp", &at)])
            .await;
        assert_eq!(reply.status, status, "{offset}: {}", reply.text);
        if status == 400 {
            assert_eq!(reply.json()["error"]["param"], "timestamp");
        }
    }
    fake.event("tokens", &customer, "1", &[("timestamp", "now")])
        .await
        .with_status(400);
}

#[tokio::test]
async fn events_that_are_invalid_are_refused_and_counted() {
    let fake = FakeStripe::start().await;
    let meter = fake.meter("tokens").await;
    let customer = fake.customer().await;
    let long = "x".repeat(101);
    let name = ("event_name", "tokens");
    let who = ("payload[stripe_customer_id]", customer.as_str());
    let one = ("payload[value]", "1");
    #[rustfmt::skip] // a case a line
    let cases: &[(Form<'_>, Option<&str>, &str)] = &[
        (&[who, one], Some("parameter_missing"), "event_name"),
        (&[name], Some("parameter_missing"), "payload"),
        (&[name, one], Some("parameter_missing"), "payload[stripe_customer_id]"),
        (&[name, who], Some("parameter_missing"), "payload[value]"),
        (&[name, ("payload[stripe_customer_id]", ""), one], Some("parameter_invalid_empty"), "payload[stripe_customer_id]"),
        (&[("event_name", "other"), who, one], Some("resource_missing"), "event_name"),
        (&[name, who, one, ("identifier", &long)], Some("parameter_invalid_string_too_long"), "identifier"),
        (&[name, who, one, ("identifier", "")], Some("parameter_invalid_empty"), "identifier"),
        (&[name, who, one, ("customer", "x")], Some("parameter_unknown"), "customer"),
        (&[name, who, one, ("payload[a][b]", "x")], Some("parameter_unknown"), "payload[a][b]"),
    ];
    for (form, code, param) in cases {
        let reply = fake
            .post("/v1/billing/meter_events", form)
            .await
            .with_status(400);
        let error = &reply.json()["error"];
        assert_eq!(
            (error["code"].as_str(), error["param"].as_str()),
            (*code, Some(*param)),
            "{form:?}"
        );
    }
    fake.post(&format!("/v1/billing/meters/{meter}/deactivate"), &[])
        .await
        .with_status(200);
    fake.event("tokens", &customer, "1", &[])
        .await
        .with_status(400);
    let state = fake.state().await;
    assert_eq!(state["events"], json!([]));
    let refused = json!({
        "parameter_invalid_empty": 2, "parameter_invalid_string_too_long": 1,
        "parameter_missing": 4, "parameter_unknown": 2, "resource_missing": 2,
    });
    assert_eq!(state["refused"], refused);
}

#[tokio::test]
async fn an_identifier_is_accepted_once_in_24_hours() {
    let fake = FakeStripe::start().await;
    fake.meter("tokens").await;
    fake.meter("requests").await;
    let (one, other) = (fake.customer().await, fake.customer().await);
    let id = [("identifier", "a".repeat(100))];
    let id = [(id[0].0, id[0].1.as_str())];
    fake.event("tokens", &one, "1", &id).await.with_status(200);
    let check = async |name: &str, customer: &str, status: u16| {
        let reply = fake
            .event(name, customer, "2", &id)
            .await
            .with_status(status);
        if status == 400 {
            let error = &reply.json()["error"];
            let message = format!("An event already exists with identifier {}", id[0].1);
            assert_eq!(
                (&error["message"], &error["type"]),
                (&json!(message), &json!("invalid_request_error"))
            );
        }
    };
    check("tokens", &one, 400).await;
    check("tokens", &other, 400).await;
    check("requests", &one, 400).await;
    fake.control("/__fake/clock", &json!({"offset_s": DAY - 1}))
        .await;
    check("tokens", &one, 400).await;
    fake.control("/__fake/clock", &json!({"offset_s": DAY}))
        .await;
    check("tokens", &one, 200).await;
    assert_eq!(fake.state().await["refused"]["duplicate_identifier"], 4);
}

#[tokio::test]
async fn a_refused_event_does_not_use_up_its_identifier() {
    let fake = FakeStripe::start().await;
    fake.meter("tokens").await;
    let customer = fake.customer().await;
    let id = [("identifier", "again")];
    fake.event("tokens", &customer, "x", &id)
        .await
        .with_status(400);
    fake.control("/__fake/faults", &json!({"times": 1, "status": 500}))
        .await;
    fake.event("tokens", &customer, "1", &id)
        .await
        .with_status(500);
    fake.event("tokens", &customer, "1", &id)
        .await
        .with_status(200);
    // One that was accepted before the answer was lost does.
    for fault in [
        json!({"accept_then_drop": true}),
        json!({"accept_then_status": 500}),
    ] {
        let mut fault = fault.clone();
        fault["times"] = json!(1);
        fake.control("/__fake/faults", &fault).await;
        let id = fault.to_string();
        let form = [
            ("event_name", "tokens"),
            ("payload[stripe_customer_id]", customer.as_str()),
            ("payload[value]", "1"),
            ("identifier", id.as_str()),
        ];
        let lost = fake
            .try_call(http::Method::POST, "/v1/billing/meter_events", &form, &[])
            .await;
        assert!(lost.map_or(true, |reply| reply.status == 500));
        fake.post("/v1/billing/meter_events", &form)
            .await
            .with_status(400);
    }
    assert_eq!(fake.state().await["events"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn unknown_customers_are_accepted_and_bill_nobody() {
    let fake = FakeStripe::start().await;
    fake.meter("tokens").await;
    fake.event("tokens", "cus_nobody", "7", &[("identifier", "u")])
        .await
        .with_status(200);
    fake.event("tokens", "cus_nobody", "7", &[("identifier", "u")])
        .await
        .with_status(400);
    let state = fake.state().await;
    assert_eq!(state["events"], json!([]));
    assert_eq!(
        (
            &state["unmatched"][0]["customer"],
            &state["unmatched"][0]["value"]
        ),
        (&json!("cus_nobody"), &json!(7))
    );
}

#[tokio::test]
async fn payload_keys_are_the_meters() {
    let fake = FakeStripe::start().await;
    let form = [
        ("display_name", "T"),
        ("event_name", "custom"),
        ("default_aggregation[formula]", "sum"),
        ("customer_mapping[type]", "by_id"),
        ("customer_mapping[event_payload_key]", "who"),
        ("value_settings[event_payload_key]", "tokens"),
    ];
    fake.create("/v1/billing/meters", &form).await;
    let customer = fake.customer().await;
    fake.event("custom", &customer, "1", &[])
        .await
        .with_status(400);
    let form = [
        ("event_name", "custom"),
        ("payload[who]", customer.as_str()),
        ("payload[tokens]", "9"),
    ];
    fake.post("/v1/billing/meter_events", &form)
        .await
        .with_status(200);
    assert_eq!(fake.state().await["events"][0]["value"], 9);
}

#[tokio::test]
async fn one_call_at_a_time_for_a_customer_and_meter() {
    let mut config = Config::new(vec![STRIPE_KEY.to_owned()]);
    config.clock = Arc::new(|| NOW);
    config.event_ms = 300;
    let fake = FakeStripe::with(config).await;
    fake.meter("tokens").await;
    fake.meter("requests").await;
    let (one, other) = (fake.customer().await, fake.customer().await);
    let (a, b, c, d) = tokio::join!(
        fake.event("tokens", &one, "1", &[]),
        fake.event("tokens", &one, "1", &[]),
        fake.event("tokens", &other, "1", &[]),
        fake.event("requests", &one, "1", &[]),
    );
    let mut same = [a, b];
    same.sort_by_key(|reply| reply.status);
    assert_eq!((same[0].status, same[1].status), (200, 429));
    assert_eq!(same[1].json()["error"]["code"], "lock_timeout");
    assert_eq!((c.status, d.status), (200, 200));
    fake.event("tokens", &one, "1", &[]).await.with_status(200);
    let values: Vec<Value> = fake.state().await["events"].as_array().unwrap().clone();
    assert_eq!(values.len(), 4);
}
