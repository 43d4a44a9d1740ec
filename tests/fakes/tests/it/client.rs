//! A small HTTP client, and fakes on port 0 to point it at.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::net::TcpListener;
use weir_fakes::{
    provider::{self, Provider},
    server,
    stripe::{self, Stripe},
};

pub const PROVIDER_KEY: &str = "sk-fake-provider";
pub const STRIPE_KEY: &str = "sk_test_fake";

/// A picture of one pixel.
pub const PNG: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// The time that a fake Stripe starts at: 2026-11-10 12:34:56 UTC.
pub const NOW: i64 = 1_794_314_096;

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e} in {:?}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The same, where it has this status.
    #[track_caller]
    pub fn with_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

/// Sends one request on a connection of its own; an error is a connection that broke.
pub async fn send(
    method: Method,
    url: String,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Reply, String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let response = client.request(request).await.map_err(|e| e.to_string())?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    Ok(Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        text,
    })
}

/// A running fake provider.
pub struct FakeProvider {
    pub address: SocketAddr,
    pub provider: Provider,
}

impl FakeProvider {
    pub async fn start() -> Self {
        Self::with(provider::Config::new(vec![PROVIDER_KEY.to_owned()])).await
    }

    pub async fn with(config: provider::Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Provider::new(config);
        let routes = provider.router();
        tokio::spawn(server::serve_until(
            listener,
            routes,
            std::future::pending(),
        ));
        Self { address, provider }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Reply, String> {
        let key = format!("Bearer {PROVIDER_KEY}");
        let headers = [
            ("authorization", key.as_str()),
            ("content-type", "application/json"),
        ];
        send(Method::POST, self.url(path), &headers, body.to_string()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.try_post(path, body).await.unwrap()
    }

    pub async fn chat(&self, body: &Value) -> Reply {
        self.post("/v1/chat/completions", body).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        let key = format!("Bearer {PROVIDER_KEY}");
        send(Method::GET, self.url(path), &[("authorization", &key)], "")
            .await
            .unwrap()
    }

    /// Adds a fault by the control API.
    pub async fn fault(&self, fault: &Value) {
        send(
            Method::POST,
            self.url("/__fake/faults"),
            &[],
            fault.to_string(),
        )
        .await
        .unwrap()
        .with_status(200);
    }

    /// The log once no request is open: a client that left is noticed a moment later.
    pub async fn log(&self) -> Vec<provider::Entry> {
        eventually(|| self.provider.open_requests() == 0).await;
        let reply = send(Method::GET, self.url("/__fake/log"), &[], "")
            .await
            .unwrap();
        assert_eq!(reply.header("x-fake-open-requests"), Some("0"));
        serde_json::from_value(reply.json()).unwrap()
    }
}

/// Waits until it is so, and fails after a minute.
pub async fn eventually(mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_secs(60) {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not happen within a minute");
}

/// A running fake Stripe whose clock stands still at [`NOW`].
pub struct FakeStripe {
    pub address: SocketAddr,
    pub stripe: Stripe,
}

impl FakeStripe {
    pub async fn start() -> Self {
        let mut config = stripe::Config::new(vec![STRIPE_KEY.to_owned()]);
        config.clock = Arc::new(|| NOW);
        config.event_ms = 0;
        config.events_per_second = None;
        Self::with(config).await
    }

    pub async fn with(config: stripe::Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stripe = Stripe::new(config);
        let routes = stripe.router();
        tokio::spawn(server::serve_until(
            listener,
            routes,
            std::future::pending(),
        ));
        Self { address, stripe }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// One call with the right key; a form is the body of a POST and the query of others.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        form: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Result<Reply, String> {
        let key = format!("Bearer {STRIPE_KEY}");
        let mut all = vec![("authorization", key.as_str())];
        all.extend(headers);
        let encoded = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        if method == Method::POST {
            all.push(("content-type", "application/x-www-form-urlencoded"));
            return send(method, self.url(path), &all, encoded).await;
        }
        let query = if encoded.is_empty() {
            encoded
        } else {
            format!("?{encoded}")
        };
        send(method, self.url(&format!("{path}{query}")), &all, "").await
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        self.try_call(Method::POST, path, form, &[]).await.unwrap()
    }

    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Reply {
        self.try_call(Method::GET, path, query, &[]).await.unwrap()
    }

    /// Creates something, which must work, and gives its id.
    pub async fn create(&self, path: &str, form: &[(&str, &str)]) -> String {
        let reply = self.post(path, form).await.with_status(200);
        reply.json()["id"].as_str().unwrap_or_default().to_owned()
    }

    /// A meter of that event name that sums up.
    pub async fn meter(&self, event_name: &str) -> String {
        self.meter_of("sum", event_name).await
    }

    pub async fn meter_of(&self, formula: &str, event_name: &str) -> String {
        let form = [
            ("display_name", "Tokens"),
            ("event_name", event_name),
            ("default_aggregation[formula]", formula),
        ];
        self.create("/v1/billing/meters", &form).await
    }

    pub async fn customer(&self) -> String {
        self.create("/v1/customers", &[("name", "Acme")]).await
    }

    /// A monthly metered price in cents a unit.
    pub async fn price(&self, meter: &str, cents: &str) -> String {
        let form = [
            ("currency", "usd"),
            ("unit_amount_decimal", cents),
            ("recurring[interval]", "month"),
            ("recurring[usage_type]", "metered"),
            ("recurring[meter]", meter),
            ("product_data[name]", "Tokens"),
        ];
        self.create("/v1/prices", &form).await
    }

    /// Sends an event and more fields.
    pub async fn event(
        &self,
        name: &str,
        customer: &str,
        value: &str,
        more: &[(&str, &str)],
    ) -> Reply {
        let mut form = vec![
            ("event_name", name),
            ("payload[stripe_customer_id]", customer),
            ("payload[value]", value),
        ];
        form.extend(more);
        self.post("/v1/billing/meter_events", &form).await
    }

    pub async fn control(&self, path: &str, body: &Value) {
        send(Method::POST, self.url(path), &[], body.to_string())
            .await
            .unwrap()
            .with_status(200);
    }

    pub async fn state(&self) -> Value {
        send(Method::GET, self.url("/__fake/state"), &[], "")
            .await
            .unwrap()
            .json()
    }
}
