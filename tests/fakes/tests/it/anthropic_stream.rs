//! Anthropic's events: their order, their usage, every way in which they end early, and other faults.

use serde_json::{Value, json};
use weir_fakes::provider::{Outcome, count_tokens};

use crate::anthropic_client::{FakeAnthropic, request, says};

fn text(deltas: &[&Value]) -> String {
    let texts = deltas.iter().filter_map(|d| d["delta"]["text"].as_str());
    texts.collect()
}

#[tokio::test]
async fn a_stream_says_what_the_json_answer_says() {
    let fake = FakeAnthropic::start().await;
    let body = request(json!({}));
    let whole = fake.messages(&body).await.json();
    let read = fake.stream(&body).await;
    assert!(!read.done && !read.broken);
    let order = [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(read.names(), order);
    for (name, data) in &read.events {
        assert_eq!(data["type"], name.clone().unwrap());
    }
    let deltas = read.of(Some("content_block_delta"));
    assert_eq!(text(&deltas), whole["content"][0]["text"].as_str().unwrap());
    let started = &read.of(Some("message_start"))[0]["message"];
    assert_eq!(
        (&started["content"], &started["stop_reason"]),
        (&json!([]), &Value::Null)
    );
    assert_eq!(started["model"], whole["model"]);
    let mut usage = whole["usage"].clone();
    usage["output_tokens"] = json!(1);
    assert_eq!(started["usage"], usage);
    let ended = read.of(Some("message_delta"))[0];
    assert_eq!(
        ended["delta"],
        json!({"stop_reason": "end_turn", "stop_sequence": null})
    );
    for name in [
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    ] {
        assert_eq!(ended["usage"][name], whole["usage"][name], "{name}");
    }
    let entry = fake.last().await;
    assert_eq!(
        (entry.outcome, entry.usage_sent, entry.stream),
        (Outcome::Completed, true, true)
    );
    assert_eq!(entry.chunks_sent as usize, read.events.len() - 1);
    assert_eq!(whole["usage"]["output_tokens"], entry.completion_tokens);
}

#[tokio::test]
async fn tools_and_thinking_are_streamed_in_blocks_of_their_own() {
    let fake = FakeAnthropic::start().await;
    let schema = json!({"type": "object", "required": ["place"], "properties": {"place": {"type": "string"}}});
    let tool = json!({"name": "level", "input_schema": schema});
    let thinking = json!({"type": "enabled", "budget_tokens": 1_024});
    let body = says(
        "use two tools",
        json!({"tools": [tool], "thinking": thinking, "max_tokens": 2_000}),
    );
    let whole = fake.messages(&body).await.with_status(200).json();
    let read = fake.stream(&body).await;
    let started = read.of(Some("content_block_start"));
    let kinds: Vec<&str> = started
        .iter()
        .map(|s| s["content_block"]["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
    let indices: Vec<u64> = started
        .iter()
        .map(|s| s["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    let deltas = read.of(Some("content_block_delta"));
    for index in [2, 3] {
        let of_block = deltas.iter().filter(|d| d["index"] == index);
        let pieces: Vec<&str> = of_block
            .map(|d| d["delta"]["partial_json"].as_str().unwrap())
            .collect();
        assert!(pieces[0].is_empty() && pieces.len() > 1);
        let input: Value = serde_json::from_str(&pieces.concat()).unwrap();
        assert_eq!(input, whole["content"][index]["input"]);
        assert_eq!(started[index]["content_block"]["input"], json!({}));
    }
    let thought: String = deltas
        .iter()
        .filter_map(|d| d["delta"]["thinking"].as_str())
        .collect();
    assert_eq!(whole["content"][0]["thinking"], thought);
    assert!(
        deltas
            .iter()
            .any(|d| d["delta"]["type"] == "signature_delta")
    );
    let ended = read.of(Some("message_delta"))[0];
    assert_eq!(ended["delta"]["stop_reason"], "tool_use");
    let entry = fake.last().await;
    assert_eq!(ended["usage"]["output_tokens"], entry.completion_tokens);
    assert_eq!(whole["usage"]["output_tokens"], entry.completion_tokens);
}

#[tokio::test]
async fn a_cut_breaks_the_connection_after_exactly_so_many_events() {
    let fake = FakeAnthropic::start().await;
    for after in [0, 1, 5, 10_000] {
        fake.fault(&json!({"times": 1, "cut_after_chunks": after}))
            .await;
        let read = fake.stream(&request(json!({}))).await;
        assert!(read.broken, "cut after {after}");
        let entry = fake.last().await;
        assert_eq!(entry.outcome, Outcome::Cut);
        assert_eq!(entry.chunks_sent as usize, read.events.len());
        assert!(after == 10_000 || read.events.len() == after);
        let deltas = read.of(Some("content_block_delta"));
        // Events of text have four tokens each, but the last one.
        let generated = match after {
            10_000 => count_tokens(&text(&deltas)),
            _ => 4 * deltas.len() as u64,
        };
        assert_eq!(entry.completion_tokens, generated);
        assert!(read.of(Some("message_stop")).is_empty());
        assert_eq!(entry.usage_sent, after == 10_000);
    }
    fake.fault(&json!({"times": 1, "cut_after_chunks": 1}))
        .await;
    let body = request(json!({}));
    fake.try_post("/v1/messages", &body).await.unwrap_err();
    assert_eq!(fake.last().await.outcome, Outcome::Cut);
}

#[tokio::test]
async fn an_error_in_the_stream_ends_it() {
    let fake = FakeAnthropic::start().await;
    fake.fault(&json!({"times": 1, "error_in_stream_after_chunks": 4}))
        .await;
    let read = fake.stream(&request(json!({}))).await;
    assert!(!read.broken && read.events.len() == 5);
    let expected =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    assert_eq!(read.of(Some("error")), [&expected]);
    let entry = fake.last().await;
    assert_eq!((entry.outcome, entry.chunks_sent), (Outcome::Fault, 4));
}

#[tokio::test]
async fn usage_is_left_out_on_demand() {
    let fake = FakeAnthropic::start().await;
    fake.fault(&json!({"times": 2, "missing_usage": true}))
        .await;
    let read = fake.stream(&request(json!({}))).await;
    assert!(
        read.events
            .iter()
            .all(|(_, data)| data.get("usage").is_none())
    );
    assert!(
        read.of(Some("message_start"))[0]["message"]
            .get("usage")
            .is_none()
    );
    assert!(!fake.last().await.usage_sent);
    let whole = fake.messages(&request(json!({}))).await.json();
    assert!(whole.get("usage").is_none() && !fake.last().await.usage_sent);
}

#[tokio::test]
async fn status_faults_have_anthropics_shape() {
    let fake = FakeAnthropic::start().await;
    for (status, kind) in [
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (418, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ] {
        fake.fault(&json!({"times": 1, "status": status, "retry_after_s": 7}))
            .await;
        let reply = fake.messages(&request(json!({}))).await.with_status(status);
        assert_eq!(reply.json()["error"]["type"], kind);
        assert_eq!(reply.header("retry-after"), Some("7"));
        assert_eq!(fake.last().await.outcome, Outcome::Fault);
    }
}

#[tokio::test]
async fn delays_and_lengths_are_kept() {
    let fake = FakeAnthropic::start().await;
    let fault = json!({"first_token_delay_ms": 60, "chunk_delay_ms": 10, "answer_words": 12});
    fake.fault(&fault).await;
    let started = std::time::Instant::now();
    let read = fake.stream(&request(json!({}))).await;
    let least = 60 + 10 * (read.events.len() as u128 - 1);
    assert!(started.elapsed().as_millis() >= least);
    let said = text(&read.of(Some("content_block_delta")));
    assert_eq!(said.split(' ').count(), 12);
}
