//! Server-sent events: their shape, their usage, and every way in which they end early.

use http::Method;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use weir_fakes::provider::{Entry, Outcome, count_tokens};

use crate::client::{FakeProvider, PROVIDER_KEY};

/// A stream as far as it came.
struct Stream {
    chunks: Vec<Value>,
    error: Option<Value>,
    done: bool,
    /// Whether the connection broke.
    broken: bool,
}

impl Stream {
    fn text(&self, choice: u64) -> String {
        let of_choice = self.chunks.iter().filter_map(|chunk| {
            let part = chunk["choices"].get(0)?;
            (part["index"] == choice).then(|| part["delta"]["content"].as_str().unwrap_or_default())
        });
        of_choice.collect()
    }
}

/// Streams an answer; stops reading after `most` chunks and leaves.
async fn stream(fake: &FakeProvider, more: Value, most: usize) -> Stream {
    let mut body = json!({
        "model": "gpt-4o", "stream": true,
        "messages": [{"role": "user", "content": "Stream about the river"}],
    });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let request = http::Request::builder()
        .method(Method::POST)
        .uri(fake.url("/v1/chat/completions"))
        .header("authorization", format!("Bearer {PROVIDER_KEY}"))
        .header("content-type", "application/json")
        .body(Full::new(bytes::Bytes::from(body.to_string())))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );
    let mut body = response.into_body();
    let mut read = Stream {
        chunks: Vec::new(),
        error: None,
        done: false,
        broken: false,
    };
    let mut buffer = String::new();
    while read.chunks.len() < most {
        match body.frame().await {
            None => break,
            Some(Err(_)) => {
                read.broken = true;
                break;
            }
            Some(Ok(frame)) => {
                buffer.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap())
            }
        }
        while let Some((event, rest)) = buffer.split_once("\n\n") {
            let data = event
                .strip_prefix("data: ")
                .expect("an event is one data line")
                .to_owned();
            buffer = rest.to_owned();
            assert!(!read.done, "nothing comes after [DONE]");
            match data.as_str() {
                "[DONE]" => read.done = true,
                data => {
                    let value: Value = serde_json::from_str(data).unwrap();
                    if value.get("error").is_some() {
                        read.error = Some(value);
                    } else {
                        read.chunks.push(value);
                    }
                }
            }
        }
    }
    read
}

async fn last(fake: &FakeProvider) -> Entry {
    fake.log().await.pop().unwrap()
}

#[tokio::test]
async fn a_stream_says_what_the_json_answer_says() {
    let fake = FakeProvider::start().await;
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Stream about the river"}]});
    let whole = fake.chat(&body).await.json();
    let read = stream(
        &fake,
        json!({"stream_options": {"include_usage": true}}),
        usize::MAX,
    )
    .await;
    assert!(read.done && !read.broken && read.error.is_none());
    assert_eq!(
        read.text(0),
        whole["choices"][0]["message"]["content"].as_str().unwrap()
    );
    let (usage, others) = read.chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"], whole["usage"]);
    assert!(
        others
            .iter()
            .all(|chunk| chunk.get("usage") == Some(&Value::Null))
    );
    assert!(others.len() >= 5, "{} chunks", others.len());
    assert_eq!(others[0]["choices"][0]["delta"]["role"], "assistant");
    let reasons: Vec<&Value> = others
        .iter()
        .map(|c| &c["choices"][0]["finish_reason"])
        .collect();
    assert_eq!(*reasons.last().unwrap(), "stop");
    assert!(reasons.iter().rev().skip(1).all(|reason| reason.is_null()));
    for chunk in &read.chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(
            (&chunk["id"], &chunk["model"]),
            (&usage["id"], &whole["model"])
        );
    }
    let entry = last(&fake).await;
    assert_eq!(
        (entry.outcome, entry.usage_sent, entry.stream),
        (Outcome::Completed, true, true)
    );
    assert_eq!(entry.chunks_sent as usize, read.chunks.len());
    assert_eq!(whole["usage"]["completion_tokens"], entry.completion_tokens);
    assert_eq!(whole["usage"]["prompt_tokens"], entry.prompt_tokens);
}

#[tokio::test]
async fn usage_is_in_the_stream_only_where_it_was_asked_for() {
    let fake = FakeProvider::start().await;
    let asked = json!({"stream_options": {"include_usage": true}});
    let check = async |more: Value, fault: Option<Value>| {
        if let Some(fault) = fault {
            fake.fault(&fault).await;
        }
        let read = stream(&fake, more, usize::MAX).await;
        assert!(read.done && read.chunks.iter().all(|chunk| chunk.get("usage").is_none()));
        let entry = last(&fake).await;
        assert_eq!(
            (entry.usage_sent, entry.outcome),
            (false, Outcome::Completed)
        );
        assert_eq!(entry.completion_tokens, count_tokens(&read.text(0)));
    };
    check(json!({}), None).await;
    check(json!({"stream_options": {"include_usage": false}}), None).await;
    check(asked, Some(json!({"times": 1, "missing_usage": true}))).await;
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]});
    fake.fault(&json!({"times": 1, "missing_usage": true}))
        .await;
    assert_eq!(fake.chat(&body).await.json().get("usage"), None);
    assert!(!last(&fake).await.usage_sent);
}

#[tokio::test]
async fn several_choices_take_turns() {
    let fake = FakeProvider::start().await;
    let read = stream(&fake, json!({"n": 2, "max_tokens": 9}), usize::MAX).await;
    let order: Vec<u64> = read
        .chunks
        .iter()
        .map(|chunk| chunk["choices"][0]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(order, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
    assert_ne!(read.text(0), read.text(1));
    let entry = last(&fake).await;
    assert_eq!((entry.completion_tokens, entry.chunks_sent), (18, 10));
    assert_eq!(
        read.chunks.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
}

#[tokio::test]
async fn a_cut_breaks_the_connection_after_exactly_so_many_chunks() {
    let fake = FakeProvider::start().await;
    for after in [0, 1, 3, 10_000] {
        fake.fault(&json!({"times": 1, "cut_after_chunks": after, "reasoning_tokens": 4}))
            .await;
        let read = stream(&fake, json!({}), usize::MAX).await;
        assert!(read.broken && !read.done, "cut after {after}");
        let entry = last(&fake).await;
        assert_eq!(entry.outcome, Outcome::Cut);
        assert_eq!(
            entry.chunks_sent as usize,
            read.chunks.len(),
            "cut after {after}"
        );
        assert!(after == 10_000 || read.chunks.len() == after);
        // Reasoning comes before the first chunk.
        let reasoning = if after == 0 { 0 } else { 4 };
        assert_eq!(
            entry.completion_tokens,
            reasoning + count_tokens(&read.text(0))
        );
        assert_eq!((entry.usage_sent, entry.status), (false, Some(200)));
    }
}

#[tokio::test]
async fn an_error_in_the_stream_ends_it_without_done() {
    let fake = FakeProvider::start().await;
    fake.fault(&json!({"times": 1, "error_in_stream_after_chunks": 2}))
        .await;
    // A JSON answer is not affected and does not use the fault up.
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]});
    fake.chat(&body).await.with_status(200);
    let read = stream(&fake, json!({}), usize::MAX).await;
    assert!(!read.done && !read.broken);
    assert_eq!(
        read.error.as_ref().unwrap()["error"]["type"],
        "server_error"
    );
    let entry = last(&fake).await;
    assert_eq!((entry.outcome, entry.chunks_sent), (Outcome::Fault, 2));
    assert_eq!(entry.completion_tokens, count_tokens(&read.text(0)));
}

#[tokio::test]
async fn a_client_that_leaves_is_in_the_log() {
    let fake = FakeProvider::start().await;
    fake.fault(&json!({"chunk_delay_ms": 20, "answer_words": 4000}))
        .await;
    let read = stream(&fake, json!({}), 3).await;
    assert_eq!(read.chunks.len(), 3);
    let entry = last(&fake).await;
    assert_eq!(
        (entry.outcome, entry.status),
        (Outcome::ClientGone, Some(200))
    );
    assert!(
        (3..100).contains(&entry.chunks_sent),
        "{}",
        entry.chunks_sent
    );
    assert!(entry.completion_tokens >= count_tokens(&read.text(0)));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_in_the_log() {
    let fake = FakeProvider::start().await;
    fake.fault(&json!({"delay_ms": 60_000})).await;
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]});
    tokio::select! {
        _ = fake.chat(&body) => panic!("answered"),
        () = crate::client::eventually(|| fake.provider.open_requests() == 1) => {}
    }
    let entry = last(&fake).await;
    assert_eq!((entry.outcome, entry.status), (Outcome::ClientGone, None));
    assert_eq!((entry.prompt_tokens, entry.completion_tokens), (0, 0));
}

#[tokio::test]
async fn delays_are_kept() {
    let fake = FakeProvider::start().await;
    fake.fault(&json!({"first_token_delay_ms": 60, "chunk_delay_ms": 10, "answer_words": 12}))
        .await;
    let started = std::time::Instant::now();
    let read = stream(&fake, json!({}), usize::MAX).await;
    let least = 60 + 10 * (read.chunks.len() as u128 - 1);
    assert!(started.elapsed().as_millis() >= least);
}
