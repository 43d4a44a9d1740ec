//! Reads server-sent events to their end, however they end.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

/// A stream as far as it came.
pub struct Sse {
    /// Each event's name, where it has one, and its data.
    pub events: Vec<(Option<String>, Value)>,
    /// Whether `[DONE]` came.
    pub done: bool,
    /// Whether the connection broke.
    pub broken: bool,
}

impl Sse {
    /// The data of the events of that name, or without one.
    pub fn of(&self, name: Option<&str>) -> Vec<&Value> {
        let named = self.events.iter().filter(|(n, _)| n.as_deref() == name);
        named.map(|(_, data)| data).collect()
    }

    /// The names in order, each one only once in a row.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .events
            .iter()
            .filter_map(|(name, _)| name.as_deref())
            .collect();
        names.dedup();
        names
    }
}

/// Posts `body`, which must be answered with a stream.
pub async fn post(url: String, headers: &[(&str, &str)], body: &Value) -> Sse {
    let mut request = Request::builder().method(Method::POST).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_string())));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request.unwrap()).await.unwrap();
    let status = response.status();
    let kind = response.headers()["content-type"].clone();
    let mut body = response.into_body();
    let mut text = String::new();
    let mut broken = false;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap()),
            Err(_) => {
                broken = true;
                break;
            }
        }
    }
    assert_eq!(status, 200, "{text}");
    assert!(kind.to_str().unwrap().starts_with("text/event-stream"));
    let mut read = Sse {
        events: Vec::new(),
        done: false,
        broken,
    };
    for event in text.split_terminator("\n\n") {
        assert!(!read.done, "nothing comes after [DONE]");
        let (name, data) = match event.split_once('\n') {
            Some((name, data)) => (name.strip_prefix("event: "), data),
            None => (None, event),
        };
        match data.strip_prefix("data: ").expect("data is one line") {
            "[DONE]" => read.done = true,
            data => {
                let data: Value = serde_json::from_str(data).unwrap();
                read.events.push((name.map(str::to_owned), data));
            }
        }
    }
    read
}
