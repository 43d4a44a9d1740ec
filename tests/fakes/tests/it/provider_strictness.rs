//! Messages, tools and formats that OpenAI refuses in chat completions.

use serde_json::{Value, json};

use crate::client::{FakeProvider, PNG};

async fn check(fake: &FakeProvider, fields: Value, code: Option<&str>, param: &str) {
    let mut body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let reply = fake.chat(&body).await;
    let error = &reply.json()["error"];
    assert_eq!(
        (
            reply.status,
            error["code"].as_str(),
            error["param"].as_str()
        ),
        (400, code, Some(param)),
        "{fields}: {}",
        reply.text
    );
}

#[tokio::test]
async fn calls_and_results_belong_together() {
    let fake = FakeProvider::start().await;
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let asks = |calls: Value| json!({"role": "assistant", "content": null, "tool_calls": calls});
    let tool = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "7"});
    let user = json!({"role": "user", "content": "x"});
    let missing = Some("missing_required_parameter");
    #[rustfmt::skip] // a case a line
    let cases = [
        (json!([user, tool("a")]), None, "messages.[1].role"),
        (json!([user, asks(json!([call("a")]))]), None, "messages.[2].role"),
        (json!([user, asks(json!([call("a")])), user]), None, "messages.[2].role"),
        (json!([user, asks(json!([call("a"), call("b")])), tool("a"), user]), None, "messages.[3].role"),
        (json!([user, asks(json!([call("a")])), tool("b")]), None, "messages.[2].role"),
        (json!([user, asks(json!([call("a")])), tool("a"), user, tool("a")]), None, "messages.[4].role"),
        (json!([asks(json!([]))]), Some("empty_array"), "messages[0].tool_calls"),
        (json!([asks(json!([{"type": "function", "function": {"name": "f", "arguments": ""}}]))]), missing, "messages[0].tool_calls[0].id"),
        (json!([asks(json!([{"id": "a", "type": "function"}]))]), missing, "messages[0].tool_calls[0].function"),
        (json!([asks(json!([{"id": "a", "type": "function", "function": {"name": "f"}}]))]), missing, "messages[0].tool_calls[0].function.arguments"),
        (json!([asks(json!([{"id": "a", "type": "function", "function": {"name": "f", "arguments": {}}}]))]), Some("invalid_type"), "messages[0].tool_calls[0].function.arguments"),
        (json!([asks(json!([{"id": "a", "type": "tool", "function": {}}]))]), Some("invalid_value"), "messages[0].tool_calls[0].type"),
    ];
    for (messages, code, param) in cases {
        check(&fake, json!({"messages": messages}), code, param).await;
    }
}

#[tokio::test]
async fn parts_are_held_to_their_type() {
    let fake = FakeProvider::start().await;
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    let image = |url: &str| part(json!({"type": "image_url", "image_url": {"url": url}}));
    let jpeg = PNG.replace("image/png", "image/jpeg");
    let tiff = PNG.replace("image/png", "image/tiff");
    let missing = Some("missing_required_parameter");
    let at = "messages[0].content[0]";
    #[rustfmt::skip] // a case a line
    let cases = [
        (part(json!({"text": "x"})), missing, ".type"),
        (part(json!("x")), Some("invalid_type"), ""),
        (part(json!({"type": "image", "source": {}})), Some("invalid_value"), ""),
        (part(json!({"type": "text", "text": "x", "cache_control": {}})), Some("unknown_parameter"), ".cache_control"),
        (part(json!({"type": "image_url", "image_url": PNG})), Some("invalid_type"), ".image_url"),
        (part(json!({"type": "image_url", "image_url": {}})), missing, ".image_url.url"),
        (part(json!({"type": "image_url", "image_url": {"url": PNG, "detail": "most"}})), Some("invalid_value"), ".image_url.detail"),
        (image("ftp://example.com/a.png"), Some("invalid_image_url"), ".image_url.url"),
        (image("data:image/png;base64,%%"), Some("invalid_base64"), ".image_url.url"),
        (image("data:image/png,x"), Some("invalid_base64"), ".image_url.url"),
        (image(&jpeg), Some("invalid_image_format"), ".image_url.url"),
        (image(&tiff), Some("invalid_image_format"), ".image_url.url"),
        (part(json!({"type": "input_audio", "input_audio": {"data": "eA=="}})), missing, ".input_audio.format"),
        (part(json!({"type": "input_audio", "input_audio": {"data": "%", "format": "wav"}})), Some("invalid_base64"), ".input_audio.data"),
        (part(json!({"type": "file", "file": {}})), missing, ".file.file_data"),
        (json!({"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]}), Some("invalid_value"), ""),
    ];
    for (fields, code, param) in cases {
        check(&fake, fields, code, &format!("{at}{param}")).await;
    }
    let empty = json!({"messages": [{"role": "user", "content": []}]});
    check(&fake, empty, Some("empty_array"), "messages[0].content").await;
}

#[tokio::test]
async fn tools_and_formats() {
    let fake = FakeProvider::start().await;
    let function = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
    let chosen = |choice: Value| json!({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": choice});
    let format = |format: Value| json!({"response_format": format});
    let missing = Some("missing_required_parameter");
    let invalid = Some("invalid_value");
    #[rustfmt::skip] // a case a line
    let cases = [
        (json!({"tools": []}), Some("empty_array"), "tools"),
        (json!({"tools": ["f"]}), Some("invalid_type"), "tools[0]"),
        (json!({"tools": [{"type": "web_search"}]}), invalid, "tools[0].type"),
        (json!({"tools": [{"type": "function", "function": "f"}]}), Some("invalid_type"), "tools[0].function"),
        (function(json!({"name": "a b"})), invalid, "tools[0].function.name"),
        (function(json!({"name": ""})), invalid, "tools[0].function.name"),
        (function(json!({"name": "a".repeat(65)})), Some("string_above_max_length"), "tools[0].function.name"),
        (function(json!({"name": "f", "parameters": "x"})), Some("invalid_type"), "tools[0].function.parameters"),
        (function(json!({"name": "f", "parameters": {"type": "string"}})), Some("invalid_function_parameters"), "tools[0].function.parameters"),
        (function(json!({"name": "f", "input_schema": {}})), Some("unknown_parameter"), "tools[0].function.input_schema"),
        (chosen(json!("any")), invalid, "tool_choice"),
        (chosen(json!({"type": "tool", "name": "f"})), invalid, "tool_choice.type"),
        (chosen(json!({"type": "function"})), missing, "tool_choice.function.name"),
        (chosen(json!({"type": "function", "function": {"name": "g"}})), None, "tool_choice"),
        (json!({"parallel_tool_calls": true}), invalid, "parallel_tool_calls"),
        (format(json!({})), missing, "response_format.type"),
        (format(json!({"type": "xml"})), invalid, "response_format.type"),
        (format(json!({"type": "json_object"})), None, "messages"),
        (format(json!({"type": "json_schema"})), missing, "response_format.json_schema"),
        (format(json!({"type": "json_schema", "json_schema": {"name": "a"}})), missing, "response_format.json_schema.schema"),
        (format(json!({"type": "json_schema", "json_schema": {"schema": {}}})), missing, "response_format.json_schema.name"),
    ];
    for (fields, code, param) in cases {
        check(&fake, fields, code, param).await;
    }
}
