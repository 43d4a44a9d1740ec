//! A Stripe of a few lines for tests, on a port of its own.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    sync::{Arc, Mutex, Once},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use tokio::net::TcpListener;
use weir_meter_core::meter::Meter;

use super::Stripe;
use crate::config::StripeSettings;

pub const KEY: &str = "sk_test_never_in_a_log";

/// What to answer: status, headers, body.
pub type Canned = (u16, &'static [(&'static str, &'static str)], String);

/// What it was asked: method, path with query, headers.
pub type Asked = (String, String, BTreeMap<String, String>);

#[derive(Clone, Default)]
pub struct Stub {
    /// One after the other.
    pub answers: Arc<Mutex<VecDeque<Canned>>>,
    /// To a path, again and again; these come first.
    pub objects: Arc<Mutex<BTreeMap<String, Canned>>>,
    pub asked: Arc<Mutex<Vec<Asked>>>,
}

async fn answer(State(stub): State<Stub>, request: Request) -> Response {
    let headers = request.headers().iter().map(|(name, value)| {
        let value = value.to_str().unwrap_or_default().to_owned();
        (name.to_string(), value)
    });
    let asked = (
        request.method().to_string(),
        request.uri().to_string(),
        headers.collect(),
    );
    stub.asked.lock().unwrap().push(asked);
    let object = stub
        .objects
        .lock()
        .unwrap()
        .get(request.uri().path())
        .cloned();
    let (status, headers, body) = object
        .or_else(|| stub.answers.lock().unwrap().pop_front())
        .unwrap_or((404, &[], String::new()));
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(body)).unwrap()
}

pub async fn start(answers: Vec<Canned>, calls_per_second: u32) -> (Stub, Stripe) {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let stub = Stub {
        answers: Arc::new(Mutex::new(answers.into())),
        ..Stub::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().fallback(answer).with_state(stub.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let stripe = Stripe::new(StripeSettings {
        api_base: format!("http://{address}"),
        api_key: KEY.to_owned(),
        account: "main".to_owned(),
        meters: BTreeMap::from([(Meter::parse("api_calls").unwrap(), "calls".to_owned())]),
        customers: BTreeMap::from([("acme".to_owned(), "cus_1".to_owned())]),
        calls_per_second: NonZeroU32::new(calls_per_second).unwrap(),
    });
    (stub, stripe.unwrap())
}

pub fn good(body: &str) -> Canned {
    (200, &[], body.to_owned())
}
