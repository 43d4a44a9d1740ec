//! Meters, customers, products and prices that are accepted.

use http::Method;
use serde_json::{Value, json};

use crate::client::{FakeStripe, NOW};

#[tokio::test]
async fn a_meters_life() {
    let fake = FakeStripe::start().await;
    let id = fake.meter("tokens").await;
    let meter = fake
        .get(&format!("/v1/billing/meters/{id}"), &[])
        .await
        .with_status(200)
        .json();
    assert!(id.starts_with("mtr_test_"));
    assert_eq!(
        meter["customer_mapping"],
        json!({"event_payload_key": "stripe_customer_id", "type": "by_id"})
    );
    assert_eq!(
        meter["value_settings"],
        json!({"event_payload_key": "value"})
    );
    assert_eq!(meter["default_aggregation"], json!({"formula": "sum"}));
    assert_eq!(
        (&meter["status"], &meter["created"]),
        (&json!("active"), &json!(NOW))
    );
    assert_eq!(
        (&meter["object"], &meter["livemode"]),
        (&json!("billing.meter"), &json!(false))
    );
    let step = async |verb: &str, status: u16, wanted: &str| {
        let reply = fake
            .post(&format!("/v1/billing/meters/{id}/{verb}"), &[])
            .await
            .with_status(status);
        if status == 200 {
            assert_eq!(reply.json()["status"], wanted);
        }
    };
    step("reactivate", 400, "").await;
    step("deactivate", 200, "inactive").await;
    step("deactivate", 400, "").await;
    // An inactive meter's event name is free, and then it can't come back.
    let second = fake.meter("tokens").await;
    step("reactivate", 400, "").await;
    fake.post(&format!("/v1/billing/meters/{second}/deactivate"), &[])
        .await
        .with_status(200);
    step("reactivate", 200, "active").await;
    for (status, wanted) in [("active", &id), ("inactive", &second)] {
        let list = fake
            .get("/v1/billing/meters", &[("status", status)])
            .await
            .json();
        assert_eq!(list["data"].as_array().unwrap().len(), 1);
        assert_eq!(list["data"][0]["id"], **wanted);
    }
}

#[tokio::test]
async fn customers_are_updated_field_by_field() {
    let fake = FakeStripe::start().await;
    let form = [
        ("name", "Acme"),
        ("email", "ops@acme.test"),
        ("metadata[tenant]", "acme"),
        ("metadata[plan]", "pro"),
    ];
    let id = fake.create("/v1/customers", &form).await;
    assert!(id.starts_with("cus_"));
    let path = format!("/v1/customers/{id}");
    let check = async |form: &[(&str, &str)], name: Value, metadata: Value| {
        let updated = fake.post(&path, form).await.with_status(200).json();
        assert_eq!(
            (&updated["name"], &updated["metadata"]),
            (&name, &metadata),
            "{form:?}"
        );
        assert_eq!(fake.get(&path, &[]).await.json(), updated);
    };
    check(
        &[("metadata[plan]", "")],
        json!("Acme"),
        json!({"tenant": "acme"}),
    )
    .await;
    check(
        &[("name", ""), ("metadata[x]", "1")],
        Value::Null,
        json!({"tenant": "acme", "x": "1"}),
    )
    .await;
    check(&[("metadata", "")], Value::Null, json!({})).await;
    let list = fake
        .get("/v1/customers", &[("email", "ops@acme.test")])
        .await
        .json();
    assert_eq!(list["data"][0]["id"], id);
    let none = fake
        .get("/v1/customers", &[("email", "other@acme.test")])
        .await
        .json();
    assert_eq!(none["data"], json!([]));
}

#[tokio::test]
async fn prices_show_exact_amounts() {
    let fake = FakeStripe::start().await;
    let meter = fake.meter("tokens").await;
    let price = fake.price(&meter, "0.000250").await;
    let price = fake
        .get(&format!("/v1/prices/{price}"), &[])
        .await
        .with_status(200)
        .json();
    assert_eq!(price["unit_amount"], Value::Null);
    assert_eq!(price["unit_amount_decimal"], "0.00025");
    let recurring = json!({
        "interval": "month", "interval_count": 1, "meter": meter,
        "trial_period_days": null, "usage_type": "metered",
    });
    assert_eq!(
        (&price["recurring"], &price["type"]),
        (&recurring, &json!("recurring"))
    );
    let product = price["product"].as_str().unwrap();
    let product = fake
        .get(&format!("/v1/products/{product}"), &[])
        .await
        .with_status(200)
        .json();
    assert_eq!(product["name"], "Tokens");
    let form = [
        ("currency", "EUR"),
        ("unit_amount", "250"),
        ("product", product["id"].as_str().unwrap()),
        ("lookup_key", "seat"),
        ("nickname", "Seat"),
        ("metadata[a]", "b"),
    ];
    let whole = fake.post("/v1/prices", &form).await.with_status(200).json();
    assert_eq!(
        (&whole["unit_amount"], &whole["unit_amount_decimal"]),
        (&json!(250), &json!("250"))
    );
    assert_eq!(
        (&whole["currency"], &whole["type"]),
        (&json!("eur"), &json!("one_time"))
    );
    assert_eq!(
        (&whole["recurring"], &whole["metadata"]),
        (&Value::Null, &json!({"a": "b"}))
    );
    for (query, count) in [
        (("lookup_keys[]", "seat"), 1),
        (("lookup_keys[0]", "other"), 0),
        (("type", "recurring"), 1),
        (("currency", "eur"), 1),
        (("active", "true"), 2),
        (("product", product["id"].as_str().unwrap()), 2),
    ] {
        let list = fake
            .get("/v1/prices", &[query])
            .await
            .with_status(200)
            .json();
        assert_eq!(list["data"].as_array().unwrap().len(), count, "{query:?}");
    }
    let list = fake
        .get("/v1/products", &[("active", "true"), ("ids[]", "prod_x")])
        .await
        .json();
    assert_eq!(list["data"], json!([]));
}

#[tokio::test]
async fn forms_may_be_written_in_every_way() {
    let fake = FakeStripe::start().await;
    let meter = fake.meter("tokens").await;
    let (a, b) = (fake.price(&meter, "1").await, fake.price(&meter, "2").await);
    let customer = fake.customer().await;
    for form in [
        [("items[0][price]", &a), ("items[1][price]", &b)],
        [("items[][price]", &a), ("items[][price]", &b)],
        [("items[5][price]", &a), ("items[10][price]", &b)],
    ] {
        let mut all = vec![("customer", customer.as_str())];
        all.extend(form.iter().map(|(key, value)| (*key, value.as_str())));
        let created = fake
            .post("/v1/subscriptions", &all)
            .await
            .with_status(200)
            .json();
        let prices: Vec<&Value> = created["items"]["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| &item["price"]["id"])
            .collect();
        assert_eq!(prices, [&a, &b], "{form:?}");
        let path = format!("/v1/subscriptions/{}", created["id"].as_str().unwrap());
        fake.try_call(Method::DELETE, &path, &[], &[])
            .await
            .unwrap()
            .with_status(200);
    }
}
