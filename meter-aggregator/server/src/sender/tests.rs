//! Sending and reconciling against a Stripe that counts who calls at the same time.

#![allow(clippy::arithmetic_side_effects)]

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Form, Query, State as Shares},
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use weir_meter_core::{ledger::book, policy::Policy, tariff::Tariff};
use weir_meter_store::{
    ledger::{IntentFilter, Ledger},
    stream::Stream,
};
use weir_wire::{
    ids::RequestId,
    proto::usage::{Kind, Outcome, UsageEvent, Witness},
};

use super::*;
use crate::{
    config::{Billing, StripeSettings},
    reconciler::Reconciler,
};

const TENANTS: usize = 12;

/// Requests of each tenant, each of an hour of its own.
const HOURS: usize = 3;

/// Some days ago, at the beginning of an hour.
fn hour_ms(hour: usize) -> i64 {
    now_ms() / 3_600_000 * 3_600_000 - (24 + hour as i64) * 3_600_000
}

/// What the Stripe of this test saw.
#[derive(Default)]
struct Seen {
    under_way: BTreeMap<String, usize>,
    most_of_one: usize,
    most: usize,
    /// Whether it refuses the key.
    is_closed: bool,
    refused: usize,
    /// By customer and hour.
    counted: BTreeMap<(String, i64), i64>,
}

type Shared = Arc<Mutex<Seen>>;

async fn meters() -> Json<Value> {
    Json(json!({"object": "list", "has_more": false, "data": [{
        "id": "mtr_1", "event_name": "calls", "status": "active",
        "default_aggregation": {"formula": "sum"},
        "customer_mapping": {"event_payload_key": "customer", "type": "by_id"},
        "value_settings": {"event_payload_key": "value"},
    }]}))
}

async fn take(
    Shares(seen): Shares<Shared>,
    Form(form): Form<BTreeMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    let customer = form["payload[customer]"].clone();
    {
        let mut seen = seen.lock().unwrap();
        if seen.is_closed {
            seen.refused += 1;
            let error = json!({"error": {"message": "Expired API Key provided"}});
            return (StatusCode::UNAUTHORIZED, Json(error));
        }
        *seen.under_way.entry(customer.clone()).or_default() += 1;
        seen.most_of_one = seen.most_of_one.max(seen.under_way[&customer]);
        seen.most = seen.most.max(seen.under_way.values().sum());
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut seen = seen.lock().unwrap();
    *seen.under_way.get_mut(&customer).unwrap() -= 1;
    let hour = form["timestamp"].parse::<i64>().unwrap() / 3_600;
    let value: i64 = form["payload[value]"].parse().unwrap();
    *seen.counted.entry((customer, hour)).or_default() += value;
    let event = json!({"object": "billing.meter_event"});
    (StatusCode::OK, Json(event))
}

async fn summaries(
    Shares(seen): Shares<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Value> {
    let seen = seen.lock().unwrap();
    let of = seen
        .counted
        .iter()
        .filter(|((customer, _), _)| *customer == query["customer"]);
    let data: Vec<Value> = of
        .map(|((_, hour), sum)| {
            let start = hour * 3_600;
            json!({"id": format!("s{hour}"), "start_time": start, "end_time": start + 3_600,
                   "aggregated_value": sum})
        })
        .collect();
    Json(json!({"object": "list", "has_more": false, "data": data}))
}

struct Fixture {
    books: Books,
    sender: Arc<Sender>,
    seen: Shared,
    _folder: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let seen = Shared::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new()
        .route("/v1/billing/meters", get(meters))
        .route("/v1/billing/meter_events", post(take))
        .route("/v1/billing/meters/mtr_1/event_summaries", get(summaries))
        .with_state(seen.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let meter = Meter::parse("api_calls").unwrap();
    let stripe = Stripe::new(StripeSettings {
        api_base: format!("http://{address}"),
        api_key: "sk_test_x".to_owned(),
        account: "main".to_owned(),
        meters: BTreeMap::from([(meter.clone(), "calls".to_owned())]),
        customers: (0..TENANTS)
            .map(|n| (format!("t{n}"), format!("cus_{n}")))
            .collect(),
        calls_per_second: NonZeroU32::new(10_000).unwrap(),
    });
    let billing = Billing {
        policy: Arc::new(Policy {
            two_witnesses: false,
            settle_ms: 0,
            ..Policy::default()
        }),
        tariff: Arc::new(Tariff::new([meter], [])),
    };
    let folder = tempfile::tempdir().unwrap();
    let stream = Stream::open(folder.path()).unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let books = Books::alone(ledger, stream, billing.clone()).unwrap();
    let events = (0..TENANTS * HOURS).map(|n| {
        let ms = hour_ms(n / TENANTS).cast_unsigned();
        let event = UsageEvent {
            kind: Kind::Request.into(),
            request_id: RequestId::mint(ms, [n as u8; 10]).to_string(),
            tenant: format!("t{}", n % TENANTS),
            witness: Witness::Router.into(),
            outcome: Outcome::Completed.into(),
            ..UsageEvent::default()
        };
        (n as i64 + 1, event)
    });
    let events: Vec<(i64, UsageEvent)> = events.collect();
    let book = move |ledger: &mut Ledger| {
        ledger.transaction(Scope::Whole, |change| {
            book::book_numbered(change, events, &billing.rules(), now_ms())
        })
    };
    books.with(book).await.unwrap();
    let sender = Arc::new(Sender::new(stripe.unwrap(), books.clone()));
    assert_eq!(
        sender.plan(Scope::Whole, false).await.unwrap(),
        TENANTS * HOURS
    );
    Fixture {
        books,
        sender,
        seen,
        _folder: folder,
    }
}

impl Fixture {
    async fn in_state(&self, state: State) -> usize {
        let filter = IntentFilter {
            state: Some(state),
            limit: 1_000,
            ..IntentFilter::default()
        };
        let intents = self.books.look(move |ledger| ledger.intents(&filter));
        intents.await.unwrap().len()
    }
}

#[tokio::test]
async fn many_calls_are_under_way_and_one_of_a_tenant_and_meter() {
    let f = fixture().await;
    f.sender.send_due(Scope::Whole).await.unwrap();
    assert_eq!(f.in_state(State::Accepted).await, TENANTS * HOURS);
    let (most_of_one, most) = {
        let seen = f.seen.lock().unwrap();
        assert!(seen.counted.values().all(|sum| *sum == 1));
        assert_eq!(seen.counted.len(), TENANTS * HOURS);
        (seen.most_of_one, seen.most)
    };
    assert_eq!(most_of_one, 1);
    assert!((2..=CALLS_MAX).contains(&most), "{most}");

    // What Stripe counted is confirmed by its sums.
    let reconciler = Reconciler::new(f.books.clone(), f.sender.clone());
    assert_eq!(reconciler.run(Scope::Whole).await.unwrap(), TENANTS * HOURS);
    assert_eq!(f.in_state(State::Confirmed).await, TENANTS * HOURS);
}

#[tokio::test]
async fn who_stops_begins_no_call_and_waits_for_those_under_way() {
    let f = fixture().await;
    let sender = f.sender.clone();
    let sending = tokio::spawn(async move { sender.send_due(Scope::Whole).await });
    while f.seen.lock().unwrap().most == 0 {
        tokio::task::yield_now().await;
    }
    f.sender.stop();
    sending.await.unwrap().unwrap();
    let sent = f.seen.lock().unwrap().counted.len();
    assert!((1..TENANTS * HOURS).contains(&sent), "{sent}");
    // Each of them is written down, and none is left in the middle.
    assert_eq!(f.in_state(State::Accepted).await, sent);
    assert_eq!(f.in_state(State::Sending).await, 0);
    let rest = TENANTS * HOURS - sent;
    assert_eq!(f.in_state(State::Planned).await, rest);
}

#[tokio::test]
async fn a_key_that_is_refused_holds_no_intent() {
    let f = fixture().await;
    f.seen.lock().unwrap().is_closed = true;
    let error = f
        .sender
        .send_due(Scope::Whole)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("401: Expired API Key"), "{error}");
    // No more than were under way.
    assert!(f.seen.lock().unwrap().refused <= CALLS_MAX);
    assert_eq!(f.in_state(State::Held).await, 0);
    f.seen.lock().unwrap().is_closed = false;
    let hurry = f.books.with(|ledger| ledger.hurry(Scope::Whole));
    hurry.await.unwrap();
    f.sender.send_due(Scope::Whole).await.unwrap();
    assert_eq!(f.in_state(State::Accepted).await, TENANTS * HOURS);
}
