//! What Anthropic refuses, the fake refuses, in Anthropic's words.

use http::Method;
use serde_json::{Value, json};
use weir_fakes::{anthropic::Config, provider::Outcome};

use crate::{
    anthropic_client::{FakeAnthropic, HEADERS, KEY, request},
    client::{PNG, Reply, send},
};

fn check_error(reply: &Reply, status: u16, kind: &str, named: &str) {
    let found = reply.json();
    assert_eq!(reply.status, status, "{named}: {}", reply.text);
    assert_eq!(
        (&found["type"], &found["error"]["type"]),
        (&json!("error"), &json!(kind)),
        "{named}"
    );
    let message = found["error"]["message"].as_str().unwrap();
    assert!(message.contains(named), "{named}: {message}");
    assert_eq!(found["request_id"].as_str(), reply.header("request-id"));
}

/// Sends the valid request with these fields changed.
async fn check(fake: &FakeAnthropic, fields: Value, named: &str) {
    let reply = fake.messages(&request(fields)).await;
    check_error(&reply, 400, "invalid_request_error", named);
    let entry = fake.last().await;
    assert_eq!((entry.outcome, entry.prompt_tokens), (Outcome::Refused, 0));
}

#[tokio::test]
async fn arguments_that_are_invalid() {
    let fake = FakeAnthropic::start().await;
    let thinking = json!({"type": "enabled", "budget_tokens": 1_024});
    #[rustfmt::skip] // a case a line
    let cases = [
        (json!({"foo": 1}), "foo: Extra inputs are not permitted"),
        (json!({"model": null}), "model: Field required"),
        (json!({"model": 7}), "model: Input should be a valid string"),
        (json!({"max_tokens": null}), "max_tokens: Field required"),
        (json!({"max_tokens": 0}), "max_tokens: Input should be greater than or equal to 1"),
        (json!({"max_tokens": 64_001}), "max_tokens: 64001 > 64000, which is the maximum allowed number of output tokens for claude-sonnet-4-5-20250929"),
        (json!({"max_completion_tokens": 5}), "max_completion_tokens: Extra inputs"),
        (json!({"temperature": 1.5}), "temperature: Input should be less than or equal to 1"),
        (json!({"top_p": -0.1}), "top_p: Input should be greater than or equal to 0"),
        (json!({"temperature": 1, "top_p": 1}), "`temperature` and `top_p` cannot both be specified"),
        (json!({"top_k": "5"}), "top_k: Input should be a valid integer"),
        (json!({"stream": "yes"}), "stream: Input should be a valid boolean"),
        (json!({"stop_sequences": "x"}), "stop_sequences: Input should be a valid list"),
        (json!({"stop_sequences": [" "]}), "stop_sequences: each stop sequence must contain non-whitespace"),
        (json!({"stop_sequences": [1]}), "stop_sequences.0: Input should be a valid string"),
        (json!({"stop": ["x"]}), "stop: Extra inputs"),
        (json!({"system": 1}), "system: Input should be a valid string or an array"),
        (json!({"system": [{"type": "text", "text": ""}]}), "system: text content blocks must be non-empty"),
        (json!({"system": [{"type": "image"}]}), "system.0: Input tag 'image'"),
        (json!({"metadata": {"user": "x"}}), "metadata.user: Extra inputs"),
        (json!({"metadata": {"user_id": "x".repeat(257)}}), "metadata.user_id: String should have at most 256"),
        (json!({"service_tier": "flex"}), "service_tier: Input should be 'auto' or 'standard_only'"),
        (json!({"thinking": {"type": "enabled"}}), "thinking.enabled.budget_tokens: Field required"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 10}}), "greater than or equal to 1024"),
        (json!({"thinking": {"type": "disabled", "budget_tokens": 1_024}}), "thinking.disabled.budget_tokens: Extra"),
        (json!({"thinking": thinking}), "`max_tokens` must be greater than `thinking.budget_tokens`"),
        (json!({"thinking": thinking, "max_tokens": 2_000, "temperature": 0.5}), "`temperature` may only be set to 1"),
        (json!({"thinking": thinking, "max_tokens": 2_000, "top_k": 5}), "`top_k` must be unset"),
        (json!({"output_config": {"format": {"type": "json_object"}}}), "output_config.format.type: Input should be 'json_schema'"),
        (json!({"output_config": {"format": {"type": "json_schema"}}}), "output_config.format.schema: Field required"),
        (json!({"output_config": {"effort": "none"}}), "output_config.effort: Input should be"),
    ];
    for (fields, named) in cases {
        check(&fake, fields, named).await;
    }
}

#[tokio::test]
async fn tools_that_are_invalid() {
    let fake = FakeAnthropic::start().await;
    let tool = json!({"name": "level", "input_schema": {"type": "object"}});
    let with = |choice: Value| json!({"tools": [tool], "tool_choice": choice});
    #[rustfmt::skip] // a case a line
    let cases = [
        (json!({"tools": [{"input_schema": {"type": "object"}}]}), "tools.0.custom.name: Field required"),
        (json!({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}), "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"),
        (json!({"tools": [{"name": "a".repeat(129), "input_schema": {"type": "object"}}]}), "tools.0.custom.name"),
        (json!({"tools": [{"name": "a"}]}), "tools.0.custom.input_schema: Field required"),
        (json!({"tools": [{"name": "a", "input_schema": {}}]}), "input_schema.type: Field required"),
        (json!({"tools": [{"name": "a", "input_schema": {"type": "string"}}]}), "Input should be 'object'"),
        (json!({"tools": [tool, tool]}), "Tool names must be unique"),
        (json!({"tools": [{"type": "function", "function": {"name": "a"}}]}), "tools.0.custom.function: Extra inputs"),
        (with(json!("auto")), "tool_choice: Input should be a valid dictionary"),
        (with(json!({"type": "required"})), "tool_choice.type: Input should be"),
        (with(json!({"type": "tool"})), "tool_choice.tool.name: Field required"),
        (with(json!({"type": "tool", "name": "x"})), "Tool 'x' not found in provided tools"),
        (with(json!({"type": "any", "name": "level"})), "tool_choice.any.name: Extra inputs"),
        (with(json!({"type": "none", "disable_parallel_tool_use": true})), "tool_choice.none.disable_parallel_tool_use"),
        (json!({"tool_choice": {"type": "auto"}}), "tool_choice may only be specified while providing tools"),
        (json!({"tools": [tool], "tool_choice": {"type": "any"}, "max_tokens": 2_000, "thinking": {"type": "enabled", "budget_tokens": 1_024}}), "Thinking may not be enabled when tool_choice forces tool use"),
    ];
    for (fields, named) in cases {
        check(&fake, fields, named).await;
    }
}

#[tokio::test]
async fn messages_that_are_invalid() {
    let fake = FakeAnthropic::start().await;
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let image = |source: Value| user(json!([{"type": "image", "source": source}]));
    let png = PNG.strip_prefix("data:image/png;base64,").unwrap();
    let used = |ids: &[&str], next: Value| {
        let uses: Vec<Value> = ids
            .iter()
            .map(|id| json!({"type": "tool_use", "id": id, "name": "n", "input": {}}))
            .collect();
        let mut messages = vec![
            json!({"role": "user", "content": "x"}),
            json!({"role": "assistant", "content": uses}),
        ];
        messages.extend(next.as_array().unwrap().iter().cloned());
        json!({"messages": messages})
    };
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id});
    let marked = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
    #[rustfmt::skip] // a case a line
    let cases = [
        (json!({"messages": null}), "messages: Field required"),
        (json!({"messages": []}), "messages: at least one message is required"),
        (json!({"messages": [{"role": "system", "content": "x"}]}), "Unexpected role \"system\""),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "Unexpected role \"tool\""),
        (json!({"messages": [{"content": "x"}]}), "messages.0.role: Field required"),
        (json!({"messages": [{"role": "user"}]}), "messages.0.content: Field required"),
        (json!({"messages": [{"role": "user", "content": "x", "name": "y"}]}), "messages.0.name: Extra inputs"),
        (user(json!("")), "messages.0: all messages must have non-empty content"),
        (user(json!([])), "messages.0: all messages must have non-empty content"),
        (user(json!("  ")), "text content blocks must contain non-whitespace text"),
        (user(json!([{"type": "text", "text": ""}])), "messages: text content blocks must be non-empty"),
        (user(json!([{"type": "text"}])), "messages.0.content.0.text.text: Field required"),
        (user(json!([{"text": "x"}])), "messages.0.content.0.type: Field required"),
        (user(json!([{"type": "image_url", "image_url": {"url": PNG}}])), "Input tag 'image_url' found using 'type'"),
        (user(json!([{"type": "tool_use", "id": "a", "name": "n", "input": {}}])), "Input tag 'tool_use'"),
        (user(json!([{"type": "text", "text": "x", "cache_control": {"type": "forever"}}])), "cache_control.type: Input should be 'ephemeral'"),
        (user(json!([marked, marked, marked, marked, marked])), "A maximum of 4 blocks with cache_control"),
        (image(json!({"type": "base64", "media_type": "image/tiff", "data": png})), "media_type: Input should be 'image/jpeg' or"),
        (image(json!({"type": "base64", "media_type": "image/png", "data": "%%"})), "invalid base64 data"),
        (image(json!({"type": "base64", "media_type": "image/jpeg", "data": png})), "Image does not match the provided media type image/jpeg"),
        (image(json!({"type": "url", "url": PNG})), "Only HTTP(S) URLs are supported"),
        (image(json!({"type": "file", "file_id": "f"})), "Input tag 'file'"),
        (user(json!([{"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": "eA=="}}])), "Input should be 'application/pdf'"),
        (json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "The "}]}), "final assistant content cannot end with trailing whitespace"),
        (used(&["a"], json!([])), "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: a"),
        (used(&["a"], json!([{"role": "user", "content": "y"}])), "ids were found without `tool_result`"),
        (used(&["a", "b"], json!([{"role": "user", "content": [result("a")]}])), "immediately after: b."),
        (used(&["a"], json!([{"role": "user", "content": [{"type": "text", "text": "y"}, result("a")]}])), "ids were found without `tool_result`"),
        (used(&["a"], json!([{"role": "user", "content": [result("b")]}])), "messages.2.content.0: unexpected `tool_use_id` found in `tool_result` blocks: b"),
        (used(&["a", "a"], json!([{"role": "user", "content": [result("a")]}])), "`tool_use` ids must be unique"),
        (used(&["a.b"], json!([])), "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"),
        (user(json!([result("a")])), "unexpected `tool_use_id`"),
        (user(json!("a-".repeat(150_000))), "prompt is too long: 300"),
    ];
    for (fields, named) in cases {
        check(&fake, fields, named).await;
    }
}

#[tokio::test]
async fn requests_that_never_get_to_a_model() {
    let fake = FakeAnthropic::start().await;
    let [key, version, kind] = HEADERS;
    let valid = request(json!({})).to_string();
    let check = async |method: Method,
                       path: &str,
                       headers: &[(&str, &str)],
                       body: &str,
                       status: u16,
                       named: &str| {
        let reply = send(method, fake.url(path), headers, body.to_owned())
            .await
            .unwrap();
        let error = match status {
            401 => "authentication_error",
            404 => "not_found_error",
            _ => "invalid_request_error",
        };
        check_error(&reply, status, error, named);
    };
    let path = "/v1/messages";
    let post = Method::POST;
    check(
        post.clone(),
        path,
        &[version, kind],
        &valid,
        401,
        "x-api-key header is required",
    )
    .await;
    let other = [("x-api-key", "sk-other"), version, kind];
    check(post.clone(), path, &other, &valid, 401, "invalid x-api-key").await;
    let bearer = [("authorization", "Bearer sk-other"), version, kind];
    check(
        post.clone(),
        path,
        &bearer,
        &valid,
        401,
        "invalid x-api-key",
    )
    .await;
    // The newer version took parameters away, and reads keys as bearers'.
    let authorised = format!("Bearer {KEY}");
    let newer = ("anthropic-version", "2026-10-21");
    let newer = [("authorization", authorised.as_str()), newer, kind];
    let warm = request(json!({"temperature": 1.0})).to_string();
    check(
        post.clone(),
        path,
        &newer,
        &warm,
        400,
        "temperature: Extra inputs",
    )
    .await;
    let reply = send(post.clone(), fake.url(path), &newer, valid.clone()).await;
    assert_eq!(reply.unwrap().status, 200);
    check(
        post.clone(),
        path,
        &[key, kind],
        &valid,
        400,
        "anthropic-version: header is required",
    )
    .await;
    let old = [key, ("anthropic-version", "2022-01-01"), kind];
    check(post.clone(), path, &old, &valid, 400, "not a valid version").await;
    let plain = [key, version, ("content-type", "text/plain")];
    check(post.clone(), path, &plain, &valid, 400, "content-type").await;
    check(
        post.clone(),
        path,
        &HEADERS,
        "{\"model\":",
        400,
        "not valid JSON",
    )
    .await;
    check(post.clone(), path, &HEADERS, "[]", 400, "not valid JSON").await;
    check(
        post.clone(),
        "/v1/complete",
        &HEADERS,
        &valid,
        404,
        "Not found",
    )
    .await;
    check(
        post.clone(),
        "/v1/chat/completions",
        &HEADERS,
        &valid,
        404,
        "Not found",
    )
    .await;
    let unknown = request(json!({"model": "gpt-4o"})).to_string();
    check(post.clone(), path, &HEADERS, &unknown, 404, "model: gpt-4o").await;
    check(Method::GET, path, &HEADERS, "", 405, "Method Not Allowed").await;
    check(
        post,
        "/v1/models",
        &HEADERS,
        "{}",
        405,
        "Method Not Allowed",
    )
    .await;
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let mut config = Config::new(vec![KEY.to_owned()]);
    config.max_body_bytes = 1_000;
    let fake = FakeAnthropic::with(config).await;
    let large = request(json!({"system": "x".repeat(2_000)}));
    let reply = fake.messages(&large).await;
    check_error(
        &reply,
        413,
        "request_too_large",
        "Request exceeds the maximum size",
    );
    fake.messages(&request(json!({}))).await.with_status(200);
}

#[tokio::test]
async fn newer_models_are_not_forced() {
    let fake = FakeAnthropic::start().await;
    let tools = json!([{"name": "f", "input_schema": {"type": "object"}}]);
    let model = "claude-sonnet-5-5";
    for (fields, named) in [
        (
            json!({"model": model, "tools": tools, "tool_choice": {"type": "any"}}),
            "tool_choice",
        ),
        (
            json!({"model": model, "tools": tools, "tool_choice": {"type": "tool", "name": "f"}}),
            "tool_choice",
        ),
        (json!({"model": model, "temperature": 0.5}), "temperature"),
    ] {
        check(&fake, fields, named).await;
    }
    for fields in [
        json!({"model": model, "tools": tools}),
        json!({"model": model, "temperature": 1.0}),
    ] {
        assert_eq!(fake.messages(&request(fields)).await.status, 200);
    }
}
