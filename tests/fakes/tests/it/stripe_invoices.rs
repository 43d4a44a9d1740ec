//! Final invoices, and the webhooks that tell what becomes of them.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use weir_fakes::stripe::Config;
use weir_meter_core::stripe::{METER_ERRORS, Notice, What, parse, verify};

use crate::client::{FakeStripe, Reply, STRIPE_KEY, eventually, send};

const SECRET: &str = "whsec_fake";

async fn control(fake: &FakeStripe, path: &str, body: &Value) -> Reply {
    send(Method::POST, fake.url(path), &[], body.to_string())
        .await
        .unwrap()
}

/// A customer with an invoice of so many items, and the invoice.
async fn invoiced(fake: &FakeStripe, items: usize) -> (String, Value) {
    let customer = fake.customer().await;
    let mut form = vec![("customer", customer.clone())];
    for n in 0..items {
        let meter = fake.meter(&format!("m{n}_{customer}")).await;
        let price = fake.price(&meter, "0.25").await;
        form.push(("items[][price]", price));
    }
    let form: Vec<(&str, &str)> = form.iter().map(|(k, v)| (*k, v.as_str())).collect();
    fake.create("/v1/subscriptions", &form).await;
    fake.event(&format!("m0_{customer}"), &customer, "14", &[])
        .await
        .with_status(200);
    let reply = control(fake, "/__fake/invoices", &json!({"customer": customer})).await;
    (customer, reply.with_status(200).json())
}

#[tokio::test]
async fn an_invoice_is_what_the_preview_was() {
    let fake = FakeStripe::start().await;
    let (customer, invoice) = invoiced(&fake, 12).await;
    let id = invoice["id"].as_str().unwrap();
    assert!(id.starts_with("in_1"), "{id}");
    assert_eq!(
        (&invoice["status"], &invoice["total"], &invoice["customer"]),
        (&json!("open"), &json!(4), &json!(customer))
    );
    assert_eq!(invoice["lines"]["data"].as_array().unwrap().len(), 10);
    assert_eq!(invoice["lines"]["has_more"], true);
    let preview = fake
        .post("/v1/invoices/create_preview", &[("customer", &customer)])
        .await
        .with_status(200)
        .json();
    let essence = |line: &Value| {
        let mut line = line.clone();
        for name in ["id", "invoice"] {
            line[name] = Value::Null;
        }
        line
    };
    let path = format!("/v1/invoices/{id}/lines");
    let first = fake
        .get(&path, &[("limit", "7")])
        .await
        .with_status(200)
        .json();
    let after = first["data"][6]["id"].as_str().unwrap();
    let query = [("limit", "7"), ("starting_after", after)];
    let second = fake.get(&path, &query).await.with_status(200).json();
    assert_eq!(
        (&first["has_more"], &second["has_more"]),
        (&json!(true), &json!(false))
    );
    let lines = [&first, &second].map(|page| page["data"].as_array().unwrap().clone());
    let lines: Vec<Value> = lines.concat();
    for (line, previewed) in lines
        .iter()
        .zip(preview["lines"]["data"].as_array().unwrap())
    {
        assert!(line["id"].as_str().unwrap().starts_with("il_1"));
        assert_eq!(line["invoice"], id);
        assert_eq!(essence(line), essence(previewed));
    }
    assert_eq!(lines.len(), 12);
    // What comes after it is final changes nothing.
    fake.event(&format!("m0_{customer}"), &customer, "1000", &[])
        .await
        .with_status(200);
    let again = fake.get(&format!("/v1/invoices/{id}"), &[]).await.json();
    assert_eq!(again, invoice);
    fake.get("/v1/invoices/in_nope", &[]).await.with_status(404);
    for (body, status) in [
        (json!({"customer": "cus_nope"}), 400),
        (json!({"customer": fake.customer().await}), 404),
        (json!({"customers": 1}), 400),
    ] {
        control(&fake, "/__fake/invoices", &body)
            .await
            .with_status(status);
    }
}

#[tokio::test]
async fn an_invoice_is_paid_or_not() {
    let fake = FakeStripe::start().await;
    let (_, invoice) = invoiced(&fake, 1).await;
    let id = invoice["id"].as_str().unwrap();
    let check = async |change: Value, status: &str, attempts: u64, remaining: u64| {
        let path = format!("/__fake/invoices/{id}");
        control(&fake, &path, &change).await.with_status(200);
        let found = fake.get(&format!("/v1/invoices/{id}"), &[]).await.json();
        let wanted = (json!(status), json!(attempts), json!(remaining));
        let found = ["status", "attempt_count", "amount_remaining"].map(|n| found[n].clone());
        assert_eq!(found, [wanted.0, wanted.1, wanted.2], "{change}");
    };
    check(json!({"attempt_count": 2}), "open", 2, 4).await;
    check(json!({"status": "paid", "attempt_count": 3}), "paid", 3, 0).await;
    check(json!({"status": "void"}), "void", 3, 4).await;
    let path = format!("/__fake/invoices/{id}");
    for (path, change, status) in [
        (path.as_str(), json!({"status": "lost"}), 400),
        (&path, json!({"attempts": 1}), 400),
        ("/__fake/invoices/in_nope", json!({}), 404),
    ] {
        control(&fake, path, &change).await.with_status(status);
    }
}

/// Who gets webhooks: refuses the first of each, and keeps what it took.
#[derive(Clone, Default)]
struct Receiver {
    seen: Arc<Mutex<Vec<String>>>,
    taken: Arc<Mutex<Vec<Notice>>>,
}

impl Receiver {
    async fn start(fake: &FakeStripe, form: Option<&str>) -> Self {
        let receiver = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/hook", post(receive))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let mut body = json!({"url": url, "secret": SECRET});
        if let Some(form) = form {
            body["form"] = json!(form);
        }
        let reply = control(fake, "/__fake/webhooks", &body)
            .await
            .with_status(200);
        assert!(!reply.text.contains(SECRET));
        receiver
    }

    async fn kinds(&self, count: usize) -> Vec<String> {
        eventually(|| self.taken.lock().unwrap().len() >= count).await;
        let taken = self.taken.lock().unwrap();
        let mut kinds: Vec<String> = taken.iter().map(|n| n.kind.clone()).collect();
        kinds.sort();
        kinds
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_secs()).unwrap();
    let signature = headers["stripe-signature"].as_bytes();
    verify(signature, body.as_bytes(), &[SECRET.to_owned()], now).unwrap();
    let notice = parse(body.as_bytes()).unwrap();
    let mut seen = receiver.seen.lock().unwrap();
    if !seen.contains(&notice.id) {
        seen.push(notice.id);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    receiver.taken.lock().unwrap().push(notice);
    StatusCode::OK
}

#[tokio::test]
async fn whoever_registered_is_told_until_it_listens() {
    let fake = FakeStripe::start().await;
    let all = Receiver::start(&fake, None).await;
    let snapshots = Receiver::start(&fake, Some("snapshot")).await;
    let thin = Receiver::start(&fake, Some("thin")).await;
    let (customer, invoice) = invoiced(&fake, 1).await;
    let path = format!("/__fake/invoices/{}", invoice["id"].as_str().unwrap());
    for change in [
        json!({"attempt_count": 1}),
        json!({"status": "paid", "attempt_count": 2}),
        // Nothing becomes of it.
        json!({"status": "paid"}),
        json!({"status": "uncollectible"}),
        json!({"status": "void"}),
    ] {
        control(&fake, &path, &change).await.with_status(200);
    }
    let name = format!("m0_{customer}");
    fake.event(&name, "cus_nope", "5", &[("identifier", "weir_lost")])
        .await
        .with_status(200);
    let invoices = [
        "invoice.marked_uncollectible",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.voided",
    ];
    assert_eq!(snapshots.kinds(4).await, invoices);
    assert_eq!(thin.kinds(1).await, [METER_ERRORS]);
    assert_eq!(all.kinds(5).await.len(), 5);
    let notice = thin.taken.lock().unwrap()[0].clone();
    let event = fake
        .try_call(
            Method::GET,
            &format!("/v2/core/events/{}", notice.id),
            &[],
            &[("stripe-version", "2026-10-28.endive")],
        )
        .await
        .unwrap()
        .with_status(200)
        .json();
    let kind = &event["data"]["reason"]["error_types"][0];
    assert_eq!(
        (
            &kind["code"],
            &kind["sample_errors"][0]["request"]["identifier"]
        ),
        (
            &json!("meter_event_customer_not_found"),
            &json!("weir_lost")
        )
    );
    let meter = event["related_object"]["id"].as_str().unwrap().to_owned();
    assert_eq!(notice.what, What::MeterErrors(meter));
    // The second API has no default version.
    fake.get(&format!("/v2/core/events/{}", notice.id), &[])
        .await
        .with_status(400);
}

#[tokio::test]
async fn an_event_may_be_lost_behind_a_good_answer() {
    let fake = FakeStripe::start().await;
    fake.meter("tokens").await;
    let customer = fake.customer().await;
    fake.control(
        "/__fake/faults",
        &json!({"path": "/v1/billing/meter_events", "times": 1, "accept_then_lose": true}),
    )
    .await;
    for (identifier, status) in [("a", 200), ("b", 200), ("a", 400)] {
        fake.event("tokens", &customer, "5", &[("identifier", identifier)])
            .await
            .with_status(status);
    }
    let state = fake.state().await;
    let identifiers = |list: &str| {
        let list = state[list].as_array().unwrap();
        list.iter()
            .map(|e| e["identifier"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (identifiers("events"), identifiers("lost")),
        (vec![json!("b")], vec![json!("a")])
    );
}

#[tokio::test]
async fn a_sandbox_takes_so_many_events_a_second() {
    let mut config = Config::new(vec![STRIPE_KEY.to_owned()]);
    assert_eq!(config.events_per_second, Some(25));
    config.events_per_second = Some(2);
    let fake = FakeStripe::with(config).await;
    fake.meter("tokens").await;
    let customer = fake.customer().await;
    let mut refused = 0;
    for _ in 0..20 {
        let reply = fake.event("tokens", &customer, "1", &[]).await;
        if reply.status == 429 {
            assert_eq!(reply.json()["error"]["code"], "rate_limit");
            refused += 1;
        }
        // Nothing else is slowed.
        fake.customer().await;
    }
    let state = fake.state().await;
    assert!(refused >= 10, "{refused}");
    assert_eq!(state["refused"]["rate_limit"], refused);
}
