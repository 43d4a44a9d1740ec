//! What OpenAI refuses, the fake refuses, in OpenAI's words' shape.

use http::Method;
use serde_json::{Value, json};
use weir_fakes::provider::{Config, Outcome};

use crate::client::{FakeProvider, PROVIDER_KEY, send};

/// A valid chat request with these fields set, or removed where `null`.
fn chat(fields: Value) -> Value {
    let mut body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]});
    for (name, value) in fields.as_object().unwrap() {
        if value.is_null() {
            body.as_object_mut().unwrap().remove(name);
        } else {
            body[name] = value.clone();
        }
    }
    body
}

async fn check(path: &str, body: &Value, status: u16, code: Option<&str>, param: Option<&str>) {
    let fake = FakeProvider::start().await;
    let reply = fake.post(path, body).await;
    let error = &reply.json()["error"];
    assert_eq!(
        (reply.status, error["code"].as_str()),
        (status, code),
        "{body}: {}",
        reply.text
    );
    assert_eq!(error["param"].as_str(), param, "{body}: {}", reply.text);
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert_eq!(error["type"], "invalid_request_error");
    assert!(
        reply
            .header("x-request-id")
            .is_some_and(|id| id.starts_with("req_"))
    );
    let log = fake.log().await;
    assert_eq!(
        (log[0].outcome, log[0].status),
        (Outcome::Refused, Some(status))
    );
    assert_eq!(
        (
            log[0].prompt_tokens,
            log[0].completion_tokens,
            log[0].usage_sent
        ),
        (0, 0, false)
    );
}

#[tokio::test]
async fn chat_requests_that_are_invalid() {
    let missing = Some("missing_required_parameter");
    let kind = Some("invalid_type");
    #[rustfmt::skip] // a case a line
    let cases: &[(Value, u16, Option<&str>, Option<&str>)] = &[
        (json!({"model": null}), 400, missing, Some("model")),
        (json!({"messages": null}), 400, missing, Some("messages")),
        (json!({"messages": []}), 400, Some("empty_array"), Some("messages")),
        (json!({"messages": "hi"}), 400, kind, Some("messages")),
        (json!({"messages": ["hi"]}), 400, kind, Some("messages[0]")),
        (json!({"messages": [{"content": "x"}]}), 400, missing, Some("messages[0].role")),
        (json!({"messages": [{"role": "user"}]}), 400, missing, Some("messages[0].content")),
        (json!({"messages": [{"role": "user", "content": 3}]}), 400, kind, Some("messages[0].content")),
        (json!({"messages": [{"role": "pirate", "content": "x"}]}), 400, Some("invalid_value"), Some("messages[0].role")),
        (json!({"messages": [{"role": "user", "content": "x", "y": 1}]}), 400, Some("unknown_parameter"), Some("messages[0].y")),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), 400, missing, Some("messages[0].tool_call_id")),
        (json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}), 400, missing, Some("messages[0].content[0].text")),
        (json!({"model": 7}), 400, kind, Some("model")),
        (json!({"model": "gpt-5-nope"}), 404, Some("model_not_found"), None),
        (json!({"model": "text-embedding-3-small"}), 404, None, Some("model")),
        (json!({"temperature": "hot"}), 400, kind, Some("temperature")),
        (json!({"temperature": 2.5}), 400, Some("decimal_above_max_value"), Some("temperature")),
        (json!({"top_p": -0.1}), 400, Some("decimal_below_min_value"), Some("top_p")),
        (json!({"n": 0}), 400, Some("integer_below_min_value"), Some("n")),
        (json!({"n": 129}), 400, Some("integer_above_max_value"), Some("n")),
        (json!({"n": 1.5}), 400, kind, Some("n")),
        (json!({"max_tokens": 0}), 400, Some("integer_below_min_value"), Some("max_tokens")),
        (json!({"max_tokens": 16385}), 400, Some("invalid_value"), Some("max_tokens")),
        (json!({"max_tokens": 5, "max_completion_tokens": 5}), 400, Some("invalid_parameter_combination"), Some("max_tokens")),
        (json!({"stream": "yes"}), 400, kind, Some("stream")),
        (json!({"stream_options": {"include_usage": true}}), 400, Some("invalid_value"), Some("stream_options")),
        (json!({"stream": true, "stream_options": {"usage": true}}), 400, Some("unknown_parameter"), Some("stream_options.usage")),
        (json!({"stream": true, "stream_options": {"include_usage": 1}}), 400, kind, Some("stream_options.include_usage")),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), 400, Some("array_above_max_length"), Some("stop")),
        (json!({"stop": [1]}), 400, kind, Some("stop")),
        (json!({"user": 5}), 400, kind, Some("user")),
        (json!({"top_logprobs": 2}), 400, Some("invalid_value"), Some("top_logprobs")),
        (json!({"tools": [{"type": "function"}]}), 400, missing, Some("tools[0].function.name")),
        (json!({"tool_choice": "auto"}), 400, Some("invalid_value"), Some("tool_choice")),
        (json!({"max_token": 5}), 400, None, None),
        (json!({"messages": [{"role": "user", "content": "a-".repeat(70_000)}]}), 400, Some("context_length_exceeded"), Some("messages")),
    ];
    for (fields, status, code, param) in cases {
        check(
            "/v1/chat/completions",
            &chat(fields.clone()),
            *status,
            *code,
            *param,
        )
        .await;
    }
}

#[tokio::test]
async fn embedding_requests_that_are_invalid() {
    let model = "text-embedding-3-small";
    let invalid = Some("invalid_value");
    #[rustfmt::skip] // a case a line
    let cases: &[(Value, u16, Option<&str>, Option<&str>)] = &[
        (json!({"input": "x"}), 400, Some("missing_required_parameter"), Some("model")),
        (json!({"model": model}), 400, Some("missing_required_parameter"), Some("input")),
        (json!({"model": "gpt-4o", "input": "x"}), 403, None, None),
        (json!({"model": "nope", "input": "x"}), 404, Some("model_not_found"), None),
        (json!({"model": model, "input": ""}), 400, invalid, Some("input")),
        (json!({"model": model, "input": []}), 400, invalid, Some("input")),
        (json!({"model": model, "input": ["a", ""]}), 400, invalid, Some("input")),
        (json!({"model": model, "input": [[1], []]}), 400, invalid, Some("input")),
        (json!({"model": model, "input": ["a", 1]}), 400, Some("invalid_type"), Some("input")),
        (json!({"model": model, "input": [1, "a"]}), 400, Some("invalid_type"), Some("input")),
        (json!({"model": model, "input": {"a": 1}}), 400, Some("invalid_type"), Some("input")),
        (json!({"model": model, "input": vec!["a"; 2049]}), 400, Some("array_above_max_length"), Some("input")),
        (json!({"model": model, "input": vec![7; 8193]}), 400, None, None),
        (json!({"model": model, "input": "x", "dimensions": 0}), 400, Some("integer_below_min_value"), Some("dimensions")),
        (json!({"model": model, "input": "x", "dimensions": 1537}), 400, Some("integer_above_max_value"), Some("dimensions")),
        (json!({"model": model, "input": "x", "encoding_format": "hex"}), 400, invalid, Some("encoding_format")),
        (json!({"model": model, "input": "x", "stream": true}), 400, None, None),
    ];
    for (body, status, code, param) in cases {
        check("/v1/embeddings", body, *status, *code, *param).await;
    }
}

#[tokio::test]
async fn unknown_arguments_are_named() {
    let fake = FakeProvider::start().await;
    let reply = fake
        .chat(&chat(json!({"temprature": 1})))
        .await
        .with_status(400);
    let message = "Unrecognized request argument supplied: temprature";
    assert_eq!(reply.json()["error"]["message"], message);
}

#[tokio::test]
async fn requests_that_never_get_to_a_model() {
    let fake = FakeProvider::start().await;
    let key = format!("Bearer {PROVIDER_KEY}");
    let json_type = ("content-type", "application/json");
    let right = [("authorization", key.as_str()), json_type];
    let chat_path = "/v1/chat/completions";
    let invalid = chat(json!({})).to_string();
    let check = async |method: Method,
                       path: &str,
                       headers: &[(&str, &str)],
                       body: &str,
                       status: u16,
                       code: Option<&str>| {
        let url = fake.url(path);
        let reply = send(method.clone(), url, headers, body.to_owned())
            .await
            .unwrap();
        let found = reply.json();
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text);
        assert_eq!(
            found["error"]["code"].as_str(),
            code,
            "{method} {path}: {}",
            reply.text
        );
    };
    check(
        Method::POST,
        chat_path,
        &[json_type],
        &invalid,
        401,
        Some("invalid_api_key"),
    )
    .await;
    let wrong = [("authorization", "Bearer sk-other"), json_type];
    check(
        Method::POST,
        chat_path,
        &wrong,
        &invalid,
        401,
        Some("invalid_api_key"),
    )
    .await;
    let basic = [("authorization", "Basic c2stZmFrZQ=="), json_type];
    check(
        Method::POST,
        chat_path,
        &basic,
        &invalid,
        401,
        Some("invalid_api_key"),
    )
    .await;
    check(Method::POST, chat_path, &right, "{\"model\":", 400, None).await;
    check(Method::POST, chat_path, &right, "[]", 400, None).await;
    check(Method::POST, chat_path, &right, "", 400, None).await;
    let plain = [
        ("authorization", key.as_str()),
        ("content-type", "text/plain"),
    ];
    check(Method::POST, chat_path, &plain, &invalid, 400, None).await;
    check(
        Method::GET,
        chat_path,
        &right,
        "",
        405,
        Some("method_not_supported"),
    )
    .await;
    check(
        Method::POST,
        "/v1/models",
        &right,
        "{}",
        405,
        Some("method_not_supported"),
    )
    .await;
    check(
        Method::POST,
        "/v1/moderations",
        &right,
        "{}",
        404,
        Some("unknown_url"),
    )
    .await;
    check(Method::GET, "/", &right, "", 404, Some("unknown_url")).await;
    check(
        Method::GET,
        "/v1/models/nope",
        &right,
        "",
        404,
        Some("model_not_found"),
    )
    .await;
    let log = fake.log().await;
    assert_eq!(log.len(), 12);
    assert!(log.iter().all(|entry| entry.outcome == Outcome::Refused));
    assert!(log.iter().zip(1..).all(|(entry, seq)| entry.seq == seq));
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let mut config = Config::new(vec![PROVIDER_KEY.to_owned()]);
    config.max_body_bytes = 1_000;
    let fake = FakeProvider::with(config).await;
    let large = chat(json!({"messages": [{"role": "user", "content": "x".repeat(2_000)}]}));
    fake.chat(&large).await.with_status(413);
    fake.chat(&chat(json!({}))).await.with_status(200);
}
