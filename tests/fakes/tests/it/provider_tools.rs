//! Tools, JSON and probabilities in chat completions, and the log's counts of what is in a prompt.

use serde_json::{Value, json};
use weir_fakes::provider::count_tokens;

use crate::{
    client::{FakeProvider, PNG, PROVIDER_KEY},
    sse::{self, Sse},
};

fn chat(prompt: &str, more: Value) -> Value {
    let mut body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}]});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

fn tools() -> Value {
    let schema = json!({"type": "object", "required": ["place", "unit"], "properties": {
        "place": {"type": "string"}, "unit": {"type": "string", "enum": ["m", "ft"]},
    }});
    json!([
        {"type": "function", "function": {"name": "level", "parameters": schema, "strict": true}},
        {"type": "function", "function": {"name": "gate"}},
    ])
}

async fn stream(fake: &FakeProvider, mut body: Value) -> Sse {
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let key = format!("Bearer {PROVIDER_KEY}");
    let headers = [
        ("authorization", key.as_str()),
        ("content-type", "application/json"),
    ];
    sse::post(fake.url("/v1/chat/completions"), &headers, &body).await
}

#[tokio::test]
async fn tools_are_called_by_a_rule() {
    let fake = FakeProvider::start().await;
    let check = async |prompt: &str, more: Value, names: &[&str]| {
        let mut body = chat(prompt, json!({"tools": tools()}));
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = fake.chat(&body).await.with_status(200).json();
        let choice = &answer["choices"][0];
        let calls = choice["message"]["tool_calls"].as_array().cloned();
        let calls = calls.unwrap_or_default();
        let found: Vec<&str> = calls
            .iter()
            .map(|call| call["function"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(found, names, "{body}: {answer}");
        if names.is_empty() {
            assert_eq!(choice["finish_reason"], "stop");
            assert!(choice["message"]["content"].is_string());
        } else {
            assert_eq!(choice["finish_reason"], "tool_calls");
            assert!(choice["message"]["content"].is_null());
        }
        for call in &calls {
            assert_eq!(call["type"], "function");
            assert!(call["id"].as_str().unwrap().starts_with("call_"));
            let arguments = call["function"]["arguments"].as_str().unwrap();
            let arguments: Value = serde_json::from_str(arguments).unwrap();
            if call["function"]["name"] == "level" {
                assert!(arguments["unit"] == "m" && arguments["place"].is_string());
            }
        }
        let entry = fake.log().await.pop().unwrap();
        assert_eq!(entry.tools, 2);
        assert_eq!(
            answer["usage"]["completion_tokens"],
            entry.completion_tokens
        );
    };
    let named =
        |name: &str| json!({"tool_choice": {"type": "function", "function": {"name": name}}});
    check("hello", json!({}), &[]).await;
    check("use a tool", json!({}), &["level"]).await;
    check("use two tools", json!({}), &["level", "gate"]).await;
    let one = json!({"parallel_tool_calls": false});
    check("use two tools", one, &["level"]).await;
    check("hello", json!({"tool_choice": "required"}), &["level"]).await;
    check("hello", named("gate"), &["gate"]).await;
    check("use a tool", json!({"tool_choice": "none"}), &[]).await;
    let function = json!({"name": "level", "arguments": "{}"});
    let results = json!({"messages": [
        {"role": "user", "content": "use a tool"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "a", "type": "function", "function": function},
            {"id": "b", "type": "function", "function": function},
        ]},
        {"role": "tool", "tool_call_id": "b", "content": "7"},
        {"role": "tool", "tool_call_id": "a", "content": "8"},
    ]});
    check("", results, &[]).await;
}

#[tokio::test]
async fn calls_are_streamed_in_pieces() {
    let fake = FakeProvider::start().await;
    let body = chat("use two tools", json!({"tools": tools()}));
    let whole = fake.chat(&body).await.with_status(200).json();
    let read = stream(&fake, body).await;
    assert!(read.done);
    let chunks = read.of(None);
    let mut calls: Vec<(Value, String)> = Vec::new();
    for chunk in &chunks {
        let Some(part) = chunk["choices"][0]["delta"]["tool_calls"].get(0) else {
            continue;
        };
        let index = part["index"].as_u64().unwrap() as usize;
        let arguments = part["function"]["arguments"].as_str().unwrap();
        if index == calls.len() {
            assert!(part["id"].is_string() && part["type"] == "function" && arguments.is_empty());
            calls.push((part["function"]["name"].clone(), String::new()));
        } else {
            assert!(part.get("id").is_none());
            calls[index].1.push_str(arguments);
        }
    }
    let expected: Vec<(Value, String)> = whole["choices"][0]["message"]["tool_calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| {
            let function = &call["function"];
            let arguments = function["arguments"].as_str().unwrap().to_owned();
            (function["name"].clone(), arguments)
        })
        .collect();
    assert_eq!(calls, expected);
    let (usage, rest) = chunks.split_last().unwrap();
    assert_eq!(usage["usage"], whole["usage"]);
    assert_eq!(rest[0]["choices"][0]["delta"]["content"], Value::Null);
    let reason = &rest.last().unwrap()["choices"][0]["finish_reason"];
    assert_eq!(reason, "tool_calls");
    let entry = fake.log().await.pop().unwrap();
    assert_eq!(usage["usage"]["completion_tokens"], entry.completion_tokens);
}

#[tokio::test]
async fn arguments_may_be_cut_off_by_the_limit() {
    let fake = FakeProvider::start().await;
    let more = json!({"tools": tools(), "tool_choice": "required", "max_tokens": 5});
    let answer = fake.chat(&chat("x", more)).await.with_status(200).json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 5);
}

#[tokio::test]
async fn answers_may_be_json() {
    let fake = FakeProvider::start().await;
    let said = async |prompt: &str, format: Value| {
        let body = chat(prompt, json!({"response_format": format}));
        let answer = fake.chat(&body).await.with_status(200).json();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert_eq!(answer["usage"]["completion_tokens"], count_tokens(text));
        serde_json::from_str::<Value>(text).unwrap()
    };
    assert!(
        said("as JSON", json!({"type": "json_object"}))
            .await
            .is_object()
    );
    let schema = json!({"type": "object", "required": ["high"], "properties": {"high": {"type": "integer"}}});
    let schema = json!({"name": "level", "strict": true, "schema": schema});
    let found = said(
        "hello",
        json!({"type": "json_schema", "json_schema": schema}),
    )
    .await;
    assert!(found["high"].is_i64());
}

#[tokio::test]
async fn probabilities_are_told_where_asked_for() {
    let fake = FakeProvider::start().await;
    let body = chat("hello", json!({"logprobs": true, "top_logprobs": 2}));
    let whole = fake.chat(&body).await.with_status(200).json();
    let choice = &whole["choices"][0];
    let told = choice["logprobs"]["content"].as_array().unwrap().clone();
    let text: String = told.iter().map(|t| t["token"].as_str().unwrap()).collect();
    assert_eq!(choice["message"]["content"], text);
    for token in &told {
        let top = token["top_logprobs"].as_array().unwrap();
        assert!(token["logprob"].as_f64().unwrap() <= 0.0 && top.len() == 2);
        assert_eq!(top[0]["token"], token["token"]);
        assert!(top[1]["logprob"].as_f64() < top[0]["logprob"].as_f64());
    }
    let read = stream(&fake, body).await;
    let chunks = read.of(None);
    let parts = chunks
        .iter()
        .filter_map(|c| c["choices"][0]["logprobs"]["content"].as_array());
    let streamed: Vec<Value> = parts.flatten().cloned().collect();
    assert_eq!(streamed, told);
    let without = fake
        .chat(&chat("hello", json!({"logprobs": false})))
        .await
        .json();
    assert!(without["choices"][0]["logprobs"].is_null());
}

#[tokio::test]
async fn the_log_counts_images_tools_and_the_cache() {
    let fake = FakeProvider::start().await;
    let image = json!({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}});
    let web = json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}});
    let sound = json!({"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}});
    let file = json!({"type": "file", "file": {"file_id": "file-1"}});
    let mut body = chat("x", json!({"tools": tools()}));
    body["messages"][0]["content"] = json!([image, web, sound, file]);
    fake.fault(&json!({"times": 1, "cached_tokens": 4, "cache_write_tokens": 9}))
        .await;
    let answer = fake.chat(&body).await.with_status(200).json();
    let details = json!({"cached_tokens": 4, "audio_tokens": 0, "cache_write_tokens": 9});
    assert_eq!(answer["usage"]["prompt_tokens_details"], details);
    let entry = fake.log().await.pop().unwrap();
    assert_eq!((entry.images, entry.tools), (2, 2));
    assert_eq!((entry.cached_tokens, entry.cache_write_tokens), (4, 9));
}
