//! Parameters that Stripe refuses, with the code and the name of the one at fault.

use http::Method;

use crate::client::{FakeStripe, STRIPE_KEY, send};

type Form<'a> = &'a [(&'a str, &'a str)];

async fn check(
    fake: &FakeStripe,
    path: &str,
    form: Form<'_>,
    status: u16,
    code: &str,
    param: &str,
) {
    let reply = fake.post(path, form).await;
    let error = &reply.json()["error"];
    let found = (
        reply.status,
        error["code"].as_str().unwrap_or(""),
        error["param"].as_str().unwrap_or(""),
    );
    assert_eq!(
        found,
        (status, code, param),
        "{path} {form:?}: {}",
        reply.text
    );
    assert_eq!(error["type"], "invalid_request_error");
}

#[tokio::test]
async fn meters() {
    let fake = FakeStripe::start().await;
    let name = ("display_name", "T");
    let event = ("event_name", "t");
    let sum = ("default_aggregation[formula]", "sum");
    let path = "/v1/billing/meters";
    let long = "x".repeat(101);
    #[rustfmt::skip] // a case a line
    let cases: &[(Form<'_>, &str, &str)] = &[
        (&[event, sum], "parameter_missing", "display_name"),
        (&[name, sum], "parameter_missing", "event_name"),
        (&[name, event], "parameter_missing", "default_aggregation[formula]"),
        (&[name, event, sum, ("colour", "red")], "parameter_unknown", "colour"),
        (&[name, event, sum, ("value_settings[x]", "y")], "parameter_unknown", "value_settings[x]"),
        (&[name, event, sum, ("event_name[x]", "y")], "parameter_invalid", "event_name"),
        (&[name, event, sum, ("a[b", "y")], "parameter_invalid", "a[b"),
        (&[name, event, ("default_aggregation[formula]", "max")], "parameter_invalid_enum", "default_aggregation[formula]"),
        (&[name, ("event_name", ""), sum], "parameter_invalid_empty", "event_name"),
        (&[name, ("event_name", &long), sum], "parameter_invalid_string_too_long", "event_name"),
        (&[name, event, sum, ("customer_mapping[type]", "by_id")], "parameter_missing", "customer_mapping[event_payload_key]"),
        (&[name, event, sum, ("customer_mapping[type]", "by_name")], "parameter_invalid_enum", "customer_mapping[type]"),
    ];
    for (form, code, param) in cases {
        check(&fake, path, form, 400, code, param).await;
    }
    fake.meter("t").await;
    check(&fake, path, &[name, event, sum], 400, "", "event_name").await;
    check(
        &fake,
        "/v1/billing/meters/mtr_x/deactivate",
        &[],
        404,
        "resource_missing",
        "id",
    )
    .await;
}

#[tokio::test]
async fn customers_products_and_prices() {
    let fake = FakeStripe::start().await;
    let meter = fake.meter("tokens").await;
    let product = fake
        .create("/v1/products", &[("name", "P"), ("id", "prod_mine")])
        .await;
    let long = "x".repeat(501);
    check(
        &fake,
        "/v1/customers",
        &[("email", "nobody")],
        400,
        "email_invalid",
        "email",
    )
    .await;
    check(
        &fake,
        "/v1/customers",
        &[("metadata[a]", &long)],
        400,
        "metadata_invalid",
        "metadata",
    )
    .await;
    check(
        &fake,
        "/v1/customers",
        &[("metadata[a][b]", "x")],
        400,
        "parameter_unknown",
        "metadata[a][b]",
    )
    .await;
    check(
        &fake,
        "/v1/customers",
        &[("metadata", "x")],
        400,
        "parameter_invalid",
        "metadata",
    )
    .await;
    check(
        &fake,
        "/v1/customers/cus_nope",
        &[],
        404,
        "resource_missing",
        "id",
    )
    .await;
    check(&fake, "/v1/products", &[], 400, "parameter_missing", "name").await;
    check(
        &fake,
        "/v1/products",
        &[("name", "Q"), ("id", "prod_mine")],
        400,
        "resource_already_exists",
        "id",
    )
    .await;
    let usd = ("currency", "usd");
    let of = ("product", product.as_str());
    let one = ("unit_amount", "1");
    let monthly = ("recurring[interval]", "month");
    let metered = ("recurring[usage_type]", "metered");
    #[rustfmt::skip] // a case a line
    let cases: &[(Form<'_>, &str, &str)] = &[
        (&[of, one], "parameter_missing", "currency"),
        (&[("currency", "dollar"), of, one], "parameter_invalid_enum", "currency"),
        (&[usd, of], "parameter_missing", "unit_amount"),
        (&[usd, one], "parameter_missing", "product"),
        (&[usd, one, ("product", "prod_x")], "resource_missing", "product"),
        (&[usd, one, of, ("product_data[name]", "x")], "parameters_exclusive", "product"),
        (&[usd, one, of, ("unit_amount_decimal", "1")], "parameters_exclusive", "unit_amount"),
        (&[usd, of, ("unit_amount", "0.5")], "parameter_invalid_integer", "unit_amount"),
        (&[usd, of, ("unit_amount", "-1")], "parameter_invalid_integer", "unit_amount"),
        (&[usd, of, ("unit_amount_decimal", "1e-3")], "parameter_invalid_decimal", "unit_amount_decimal"),
        (&[usd, of, ("unit_amount_decimal", "0.0000000000001")], "parameter_invalid_decimal", "unit_amount_decimal"),
        (&[usd, of, one, metered], "parameter_missing", "recurring[interval]"),
        (&[usd, of, one, monthly, metered], "parameter_missing", "recurring[meter]"),
        (&[usd, of, one, monthly, metered, ("recurring[meter]", "mtr_x")], "resource_missing", "recurring[meter]"),
        (&[usd, of, one, monthly, ("recurring[meter]", &meter)], "", "recurring[meter]"),
        (&[usd, of, one, ("recurring[interval]", "hour")], "parameter_invalid_enum", "recurring[interval]"),
        (&[usd, of, one, monthly, ("recurring[interval_count]", "37")], "parameter_invalid_integer", "recurring[interval_count]"),
        (&[usd, of, one, ("active", "yes")], "parameter_invalid_boolean", "active"),
        (&[usd, of, one, ("tiers[0][up_to]", "5")], "parameter_unknown", "tiers[0][up_to]"),
    ];
    for (form, code, param) in cases {
        check(&fake, "/v1/prices", form, 400, code, param).await;
    }
    fake.post("/v1/prices", &[usd, of, one, ("lookup_key", "k")])
        .await
        .with_status(200);
    check(
        &fake,
        "/v1/prices",
        &[usd, of, one, ("lookup_key", "k")],
        400,
        "",
        "lookup_key",
    )
    .await;
    let transfer = [
        usd,
        of,
        one,
        ("lookup_key", "k"),
        ("transfer_lookup_key", "true"),
    ];
    fake.post("/v1/prices", &transfer).await.with_status(200);
    assert_eq!(fake.state().await["refused"]["parameter_missing"], 6);
}

#[tokio::test]
async fn subscriptions_and_previews() {
    let fake = FakeStripe::start().await;
    let meter = fake.meter("tokens").await;
    let customer = fake.customer().await;
    let price = fake.price(&meter, "1").await;
    let usd = [
        ("currency", "usd"),
        ("unit_amount", "5"),
        ("product_data[name]", "P"),
    ];
    let once = fake.create("/v1/prices", &usd).await;
    let yearly = fake
        .create(
            "/v1/prices",
            &[&usd[..], &[("recurring[interval]", "year")]].concat(),
        )
        .await;
    let eur = [
        ("currency", "eur"),
        usd[1],
        usd[2],
        ("recurring[interval]", "month"),
    ];
    let eur = fake.create("/v1/prices", &eur).await;
    let who = ("customer", customer.as_str());
    let item = ("items[0][price]", price.as_str());
    #[rustfmt::skip] // a case a line
    let cases: &[(Form<'_>, &str, &str)] = &[
        (&[item], "parameter_missing", "customer"),
        (&[("customer", "cus_x"), item], "resource_missing", "customer"),
        (&[who], "parameter_missing", "items"),
        (&[who, ("items[0][quantity]", "1")], "parameter_missing", "items[0][price]"),
        (&[who, ("items[0][price]", "price_x")], "resource_missing", "items[0][price]"),
        (&[who, ("items[0][price]", &once)], "", "items[0][price]"),
        (&[who, item, ("items[1][price]", &price)], "", "items[1][price]"),
        (&[who, item, ("items[1][price]", &yearly)], "", "items[1][price]"),
        (&[who, item, ("items[1][price]", &eur)], "", "items[1][price]"),
        (&[who, item, ("items[0][quantity]", "1")], "", "items[0][quantity]"),
        (&[who, item, ("currency", "eur")], "", "currency"),
        (&[who, item, ("backdate_start_date", "99999999999")], "", "backdate_start_date"),
        (&[who, item, ("billing_cycle_anchor", "5")], "", "billing_cycle_anchor"),
        (&[who, item, ("collection_method", "send_invoice")], "parameter_missing", "days_until_due"),
        (&[who, item, ("trial_period_days", "5")], "parameter_unknown", "trial_period_days"),
    ];
    for (form, code, param) in cases {
        check(&fake, "/v1/subscriptions", form, 400, code, param).await;
    }
    let preview = "/v1/invoices/create_preview";
    check(&fake, preview, &[], 400, "parameter_missing", "customer").await;
    check(
        &fake,
        preview,
        &[("subscription", "sub_x")],
        400,
        "resource_missing",
        "subscription",
    )
    .await;
    check(&fake, preview, &[who], 404, "invoice_upcoming_none", "").await;
    check(
        &fake,
        preview,
        &[who, ("price", "x")],
        400,
        "parameter_unknown",
        "price",
    )
    .await;
}

#[tokio::test]
async fn urls_and_bodies_that_are_not_stripes() {
    let fake = FakeStripe::start().await;
    let key = format!("Bearer {STRIPE_KEY}");
    let check = async |method: Method, path: &str, kind: &str, body: &str, status: u16| {
        let headers = [("authorization", key.as_str()), ("content-type", kind)];
        let reply = send(method.clone(), fake.url(path), &headers, body.to_owned())
            .await
            .unwrap();
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text);
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    };
    let form = "application/x-www-form-urlencoded";
    check(
        Method::POST,
        "/v1/customers",
        "application/json",
        "{\"name\":\"A\"}",
        400,
    )
    .await;
    check(Method::POST, "/v1/customers", "", "name=A", 400).await;
    check(
        Method::POST,
        "/v1/customers",
        form,
        &format!("name={}", "x".repeat(2 << 20)),
        413,
    )
    .await;
    check(Method::POST, "/v1/nothing", form, "", 404).await;
    check(Method::GET, "/v1/billing/meter_events", form, "", 404).await;
    check(Method::DELETE, "/v1/billing/meters", form, "", 404).await;
    check(Method::GET, "/v1/customers?colour=red", form, "", 400).await;
    check(Method::GET, "/v1/customers/cus_nope", form, "", 404).await;
    check(Method::GET, "/v1/prices/price_nope", form, "", 404).await;
    check(Method::GET, "/v1/products/prod_nope", form, "", 404).await;
    check(Method::GET, "/v1/subscriptions/sub_nope", form, "", 404).await;
    check(Method::DELETE, "/v1/subscriptions/sub_nope", form, "", 404).await;
    check(
        Method::GET,
        "/v1/subscriptions?customer=cus_nope",
        form,
        "",
        400,
    )
    .await;
}
