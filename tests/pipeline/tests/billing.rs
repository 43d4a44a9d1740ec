//! The main job: what a tenant uses is what Stripe bills, to the token.

use serde_json::json;
use weir_harness::Options;
use weir_pipeline_tests::{Pipeline, chat};

#[test]
fn an_sdks_requests_become_invoice_lines() {
    let p = Pipeline::start();
    p.python("openai_sdk.py");
    let served = p.check_adds_up();
    assert_eq!(served.len(), 2, "{served:?}");
    assert!(
        served
            .values()
            .all(|[calls, input, output]| *calls == 4 && *input > 0 && *output > 0)
    );

    // And on the invoice, by Stripe's own arithmetic.
    let account = p.stack.account();
    for (tenant, customer) in &p.stack.customers {
        let invoice = account.preview(customer).unwrap();
        let lines = invoice["lines"]["data"].as_array().unwrap();
        let mut quantities: Vec<i64> = lines
            .iter()
            .map(|line| line["quantity"].as_i64().unwrap())
            .filter(|quantity| *quantity > 0)
            .collect();
        let mut expected = served[tenant].to_vec();
        quantities.sort_unstable();
        expected.sort_unstable();
        assert_eq!(quantities, expected, "{invoice}");
    }
}

#[test]
fn an_hour_that_is_closed_again_bills_only_what_came_since() {
    let p = Pipeline::start();
    assert_eq!(p.chat("solo", "one").status(), 200);
    let first = p.check_adds_up();
    assert_eq!(p.check_adds_up(), first, "nothing new");
    assert_eq!(p.chat("solo", "two").status(), 200);
    let second = p.check_adds_up();
    assert_eq!(second["solo"][0], 2);
}

#[test]
fn timestamps_lie_in_the_hour_of_the_request() {
    let p = Pipeline::start();
    let before = weir_pipeline_tests::now_s();
    assert_eq!(p.chat("acme", "now").status(), 200);
    let after = weir_pipeline_tests::now_s();
    p.check_adds_up();
    let stripe = p.stack.stripe.as_ref().unwrap().url();
    let state: serde_json::Value = p
        .http
        .get(format!("{stripe}/__fake/state"))
        .send()
        .unwrap()
        .json()
        .unwrap();
    let events = state["events"].as_array().unwrap();
    assert!(!events.is_empty());
    for event in events {
        let timestamp = event["timestamp"].as_i64().unwrap();
        let hours = before / 3_600..=after / 3_600;
        assert!(hours.contains(&(timestamp / 3_600)), "{event}");
        assert!(timestamp <= weir_pipeline_tests::now_s(), "{event}");
    }
}

#[test]
fn refused_and_failed_requests_bill_nothing() {
    let p = Pipeline::alone();
    let path = "/v1/chat/completions";
    let mut premium = chat("x", false);
    premium["model"] = json!("gpt-4o");
    assert_eq!(p.post("solo", path, premium).status(), 403);
    assert_eq!(
        p.post("solo", path, json!({"model": "gpt-4o-mini"}))
            .status(),
        400
    );
    assert_eq!(p.post("solo", "/v1/nothing", json!({})).status(), 404);
    for (status, answered) in [(500, 500), (429, 429), (401, 502)] {
        p.provider_fault(&json!({"status": status, "times": 1}));
        assert_eq!(p.chat("solo", "x").status(), answered);
    }
    p.close_hour();
    assert!(p.billed().is_empty(), "{:?}", p.billed());
    assert_eq!(p.chat("solo", "x").status(), 200);
    assert_eq!(p.check_adds_up()["solo"][0], 1);
}

#[test]
fn cached_and_reasoning_tokens_are_billed_once() {
    let p = Pipeline::start();
    p.provider_fault(&json!({"cached_tokens": 3, "reasoning_tokens": 5}));
    assert_eq!(p.chat("acme", "a prompt of some length").status(), 200);
    assert_eq!(
        p.post("acme", "/v1/chat/completions", chat("another prompt", true))
            .status(),
        200
    );
    let log = p.provider_log();
    assert!(
        log.iter()
            .all(|e| e["cached_tokens"] == 3 && e["reasoning_tokens"] == 5),
        "{log:?}"
    );
    p.check_adds_up();
    let account = p.stack.account();
    let now = weir_pipeline_tests::now_s().div_euclid(60) * 60;
    let cached = "weir_cached_input_tokens";
    let customer = &p.stack.customers["acme"];
    let apart = account.metered(cached, customer, now - 3_600, now + 3_600);
    assert_eq!(
        apart.unwrap(),
        6,
        "what the cache served has a meter of its own"
    );
}

#[test]
fn two_gateways_bill_each_request_once() {
    let p = Pipeline::with(Options {
        gateways: 2,
        ..Options::default()
    });
    std::thread::scope(|scope| {
        for gateway in &p.stack.gateways {
            let p = &p;
            scope.spawn(move || {
                for n in 0..20 {
                    let mut body = chat(&format!("request {n}"), n % 2 == 0);
                    body["user"] = json!("solo");
                    let answer = p
                        .http
                        .post(format!("{}/v1/chat/completions", gateway.url))
                        .bearer_auth(p.key("solo"))
                        .json(&body)
                        .send()
                        .unwrap();
                    assert_eq!(answer.status(), 200);
                    let text = answer.text().unwrap();
                    assert!(n % 2 == 1 || text.ends_with("data: [DONE]\n\n"), "{text}");
                }
            });
        }
    });
    assert_eq!(p.check_adds_up()["solo"][0], 40);
}
