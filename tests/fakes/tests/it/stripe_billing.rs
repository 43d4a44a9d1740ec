//! Subscriptions and invoice previews: periods, quantities, exact amounts.

use http::Method;
use serde_json::{Value, json};

use crate::client::{FakeStripe, NOW};

/// 2026-11-01, 2026-12-01 and 2027-01-01, UTC.
const NOVEMBER: i64 = 1_793_491_200;
const DECEMBER: i64 = 1_796_083_200;
const JANUARY: i64 = 1_798_761_600;

/// A customer who subscribes to these prices from the first of November.
async fn subscribed(fake: &FakeStripe, prices: &[&str]) -> (String, String) {
    let customer = fake.customer().await;
    let start = NOVEMBER.to_string();
    let mut form = vec![
        ("customer", customer.as_str()),
        ("backdate_start_date", start.as_str()),
    ];
    form.extend(prices.iter().map(|price| ("items[][price]", *price)));
    let subscription = fake.create("/v1/subscriptions", &form).await;
    (customer, subscription)
}

async fn preview(fake: &FakeStripe, subscription: &str) -> Value {
    let path = "/v1/invoices/create_preview";
    fake.post(path, &[("subscription", subscription)])
        .await
        .with_status(200)
        .json()
}

async fn go_to(fake: &FakeStripe, time: i64) {
    fake.control("/__fake/clock", &json!({"offset_s": time - NOW}))
        .await;
}

#[tokio::test]
async fn a_subscriptions_life() {
    let fake = FakeStripe::start().await;
    let meter = fake.meter("tokens").await;
    let price = fake.price(&meter, "1").await;
    let (customer, id) = subscribed(&fake, &[&price]).await;
    let path = format!("/v1/subscriptions/{id}");
    let subscription = fake.get(&path, &[]).await.with_status(200).json();
    assert!(id.starts_with("sub_1"));
    assert_eq!(
        (&subscription["status"], &subscription["customer"]),
        (&json!("active"), &json!(customer))
    );
    let item = &subscription["items"]["data"][0];
    assert!(item["id"].as_str().unwrap().starts_with("si_"));
    assert_eq!(
        (&item["current_period_start"], &item["current_period_end"]),
        (&json!(NOVEMBER), &json!(DECEMBER))
    );
    assert_eq!(
        (&item["price"]["id"], item.get("quantity")),
        (&json!(price), None)
    );
    let listed = async |query: &[(&str, &str)]| {
        let list = fake
            .get("/v1/subscriptions", query)
            .await
            .with_status(200)
            .json();
        list["data"].as_array().unwrap().len()
    };
    assert_eq!(
        listed(&[("customer", &customer), ("price", &price)]).await,
        1
    );
    let cancelled = fake
        .try_call(Method::DELETE, &path, &[], &[])
        .await
        .unwrap()
        .with_status(200)
        .json();
    assert_eq!(
        (&cancelled["status"], &cancelled["canceled_at"]),
        (&json!("canceled"), &json!(NOW))
    );
    fake.try_call(Method::DELETE, &path, &[], &[])
        .await
        .unwrap()
        .with_status(404);
    assert_eq!(listed(&[]).await, 0);
    assert_eq!(listed(&[("status", "all")]).await, 1);
    assert_eq!(listed(&[("status", "canceled")]).await, 1);
    let path = "/v1/invoices/create_preview";
    fake.post(path, &[("subscription", &id)])
        .await
        .with_status(404);
}

#[tokio::test]
async fn amounts_are_exact_and_rounded_half_up_by_line() {
    for (cents, quantity, amount) in [
        ("0.00025", "2000", 1),
        ("0.00025", "1999", 0),
        ("0.5", "1", 1),
        ("0.5", "3", 2),
        ("0.000000000001", "499999999999", 0),
        ("0.000000000001", "500000000000", 1),
        ("0.1", "999999999999999", 100_000_000_000_000_i64),
        ("7", "-3", 0),
        ("7", "0", 0),
    ] {
        let fake = FakeStripe::start().await;
        let meter = fake.meter("tokens").await;
        let price = fake.price(&meter, cents).await;
        let (customer, subscription) = subscribed(&fake, &[&price]).await;
        fake.event("tokens", &customer, quantity, &[])
            .await
            .with_status(200);
        let invoice = preview(&fake, &subscription).await;
        let line = &invoice["lines"]["data"][0];
        let billed: i64 = quantity.parse::<i64>().unwrap().max(0);
        assert_eq!(
            (&line["amount"], &line["quantity"]),
            (&json!(amount), &json!(billed)),
            "{cents} × {quantity}"
        );
        for total in ["subtotal", "total", "amount_due", "amount_remaining"] {
            assert_eq!(invoice[total], amount, "{total} of {cents} × {quantity}");
        }
    }
}

#[tokio::test]
async fn a_preview_has_a_line_for_each_item() {
    let fake = FakeStripe::start().await;
    let (input, output) = (fake.meter("input").await, fake.meter("output").await);
    let (cheap, dear) = (
        fake.price(&input, "0.25").await,
        fake.price(&output, "1.5").await,
    );
    let seat = [
        ("currency", "usd"),
        ("unit_amount", "900"),
        ("recurring[interval]", "month"),
        ("product_data[name]", "Seat"),
    ];
    let seat = fake.create("/v1/prices", &seat).await;
    let (customer, id) = subscribed(&fake, &[&cheap, &dear, &seat]).await;
    for (name, value) in [
        ("input", "10"),
        ("input", "8"),
        ("output", "5"),
        ("input", "-4"),
    ] {
        fake.event(name, &customer, value, &[])
            .await
            .with_status(200);
    }
    let by_customer = fake
        .post("/v1/invoices/create_preview", &[("customer", &customer)])
        .await;
    let invoice = by_customer.with_status(200).json();
    let lines = invoice["lines"]["data"].as_array().unwrap();
    let found: Vec<_> = lines
        .iter()
        .map(|line| {
            let price = line["pricing"]["price_details"]["price"].as_str().unwrap();
            (
                price,
                line["quantity"].as_i64().unwrap(),
                line["amount"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (cheap.as_str(), 14, 4),
            (dear.as_str(), 5, 8),
            (seat.as_str(), 1, 900)
        ]
    );
    assert_eq!(
        (&invoice["total"], &invoice["currency"]),
        (&json!(912), &json!("usd"))
    );
    assert!(invoice["id"].as_str().unwrap().starts_with("upcoming_in_"));
    assert_eq!(
        (&invoice["period_start"], &invoice["period_end"]),
        (&json!(NOVEMBER), &json!(DECEMBER))
    );
    assert_eq!(
        lines[0]["period"],
        json!({"start": NOVEMBER, "end": DECEMBER})
    );
    assert_eq!(
        lines[2]["period"],
        json!({"start": DECEMBER, "end": JANUARY})
    );
    assert_eq!(lines[0]["pricing"]["unit_amount_decimal"], "0.25");
    assert_eq!(
        lines[0]["parent"]["subscription_item_details"]["subscription"],
        id
    );
    let other = fake.customer().await;
    let form = [("customer", other.as_str()), ("subscription", id.as_str())];
    fake.post("/v1/invoices/create_preview", &form)
        .await
        .with_status(404);
}

#[tokio::test]
async fn usage_belongs_to_the_period_of_its_timestamp() {
    let fake = FakeStripe::start().await;
    let meter = fake.meter("tokens").await;
    let price = fake.price(&meter, "1").await;
    let (customer, id) = subscribed(&fake, &[&price]).await;
    let send = async |at: i64, value: &str| {
        fake.event(
            "tokens",
            &customer,
            value,
            &[("timestamp", &at.to_string())],
        )
        .await
        .with_status(200);
    };
    let total = async || preview(&fake, &id).await["total"].as_i64().unwrap();
    send(NOVEMBER - 1, "1").await;
    send(NOVEMBER, "20").await;
    assert_eq!(total().await, 20);
    go_to(&fake, DECEMBER - 1).await;
    send(DECEMBER - 1, "300").await;
    send(DECEMBER, "4000").await;
    assert_eq!(total().await, 320);
    go_to(&fake, DECEMBER).await;
    assert_eq!(total().await, 4000);
    let invoice = preview(&fake, &id).await;
    assert_eq!(
        (&invoice["period_start"], &invoice["period_end"]),
        (&json!(DECEMBER), &json!(JANUARY))
    );
}

#[tokio::test]
async fn an_anchor_shortens_the_first_period() {
    let fake = FakeStripe::start().await;
    let meter = fake.meter("tokens").await;
    let price = fake.price(&meter, "1").await;
    let customer = fake.customer().await;
    let anchor = DECEMBER.to_string();
    let form = [
        ("customer", customer.as_str()),
        ("items[0][price]", price.as_str()),
        ("billing_cycle_anchor", anchor.as_str()),
    ];
    let id = fake.create("/v1/subscriptions", &form).await;
    let check = async |start: i64, end: i64| {
        let invoice = preview(&fake, &id).await;
        assert_eq!(
            (&invoice["period_start"], &invoice["period_end"]),
            (&json!(start), &json!(end))
        );
    };
    check(NOW, DECEMBER).await;
    go_to(&fake, DECEMBER).await;
    check(DECEMBER, JANUARY).await;
}
