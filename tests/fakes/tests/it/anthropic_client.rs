//! A fake Anthropic on port 0, and requests to it.

use std::net::SocketAddr;

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use weir_fakes::{
    anthropic::{Anthropic, Config},
    provider::Entry,
    server,
};

use crate::{
    client::{Reply, eventually, send},
    sse::{self, Sse},
};

pub const KEY: &str = "sk-ant-fake";

/// The headers that a request must have.
pub const HEADERS: [(&str, &str); 3] = [
    ("x-api-key", KEY),
    ("anthropic-version", "2023-06-01"),
    ("content-type", "application/json"),
];

/// A running fake Anthropic.
pub struct FakeAnthropic {
    pub address: SocketAddr,
    pub anthropic: Anthropic,
}

impl FakeAnthropic {
    pub async fn start() -> Self {
        Self::with(Config::new(vec![KEY.to_owned()])).await
    }

    pub async fn with(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let anthropic = Anthropic::new(config);
        tokio::spawn(server::serve_until(
            listener,
            anthropic.router(),
            std::future::pending(),
        ));
        Self { address, anthropic }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Reply, String> {
        send(Method::POST, self.url(path), &HEADERS, body.to_string()).await
    }

    pub async fn messages(&self, body: &Value) -> Reply {
        self.try_post("/v1/messages", body).await.unwrap()
    }

    pub async fn stream(&self, body: &Value) -> Sse {
        let mut body = body.clone();
        body["stream"] = json!(true);
        sse::post(self.url("/v1/messages"), &HEADERS, &body).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        send(Method::GET, self.url(path), &HEADERS, "")
            .await
            .unwrap()
    }

    pub async fn fault(&self, fault: &Value) {
        let url = self.url("/__fake/faults");
        send(Method::POST, url, &[], fault.to_string())
            .await
            .unwrap()
            .with_status(200);
    }

    /// The log's last entry once no request is open.
    pub async fn last(&self) -> Entry {
        eventually(|| self.anthropic.open_requests() == 0).await;
        let url = self.url("/__fake/log");
        let reply = send(Method::GET, url, &[], "").await.unwrap();
        let mut log: Vec<Entry> = serde_json::from_value(reply.json()).unwrap();
        log.pop().unwrap()
    }
}

/// A valid request with these fields set, or removed where `null`.
pub fn request(fields: Value) -> Value {
    let mut body = json!({
        "model": "claude-sonnet-4-5", "max_tokens": 1_000,
        "messages": [{"role": "user", "content": "How high is the river?"}],
    });
    for (name, value) in fields.as_object().unwrap() {
        if value.is_null() {
            body.as_object_mut().unwrap().remove(name);
        } else {
            body[name] = value.clone();
        }
    }
    body
}

/// A request of one user message.
pub fn says(text: &str, mut fields: Value) -> Value {
    fields["messages"] = json!([{"role": "user", "content": text}]);
    request(fields)
}
