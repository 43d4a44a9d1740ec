//! The responses API: its answers, its events, what it refuses.

use serde_json::{Value, json};
use weir_fakes::provider::{Outcome, count_tokens};

use crate::{
    client::{FakeProvider, PNG, PROVIDER_KEY},
    sse::{self, Sse},
};

const PATH: &str = "/v1/responses";

fn request(fields: Value) -> Value {
    let mut body = json!({"model": "gpt-4o", "input": "How high is the river?"});
    for (name, value) in fields.as_object().unwrap() {
        if value.is_null() {
            body.as_object_mut().unwrap().remove(name);
        } else {
            body[name] = value.clone();
        }
    }
    body
}

fn tools() -> Value {
    let schema = json!({"type": "object", "required": ["place"], "properties": {"place": {"type": "string"}}});
    json!([{"type": "function", "name": "level", "parameters": schema, "strict": true}])
}

async fn stream(fake: &FakeProvider, mut body: Value) -> Sse {
    body["stream"] = json!(true);
    let key = format!("Bearer {PROVIDER_KEY}");
    let headers = [
        ("authorization", key.as_str()),
        ("content-type", "application/json"),
    ];
    sse::post(fake.url(PATH), &headers, &body).await
}

#[tokio::test]
async fn a_response_has_openais_shape() {
    let fake = FakeProvider::start().await;
    let fields = json!({"instructions": "be short", "store": true, "user": "tenant-7"});
    fake.fault(&json!({"times": 1, "cached_tokens": 3, "reasoning_tokens": 6}))
        .await;
    let answer = fake
        .post(PATH, &request(fields))
        .await
        .with_status(200)
        .json();
    assert_eq!(
        (&answer["object"], &answer["status"]),
        (&json!("response"), &json!("completed"))
    );
    assert!(answer["id"].as_str().unwrap().starts_with("resp_"));
    assert_eq!(answer["model"], "gpt-4o-2024-08-06");
    assert_eq!(answer["instructions"], "be short");
    let item = &answer["output"][0];
    assert_eq!(
        (&item["type"], &item["role"]),
        (&json!("message"), &json!("assistant"))
    );
    let part = &item["content"][0];
    assert_eq!(part["type"], "output_text");
    let said = count_tokens(part["text"].as_str().unwrap());
    let entry = fake.log().await.pop().unwrap();
    let usage = json!({
        "input_tokens": entry.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": said + 6,
        "output_tokens_details": {"reasoning_tokens": 6},
        "total_tokens": entry.prompt_tokens + said + 6,
    });
    assert_eq!(answer["usage"], usage);
    assert_eq!(
        (entry.completion_tokens, entry.cached_tokens),
        (said + 6, 3)
    );
    assert_eq!(
        (entry.path.as_str(), entry.user.as_deref()),
        (PATH, Some("tenant-7"))
    );
}

#[tokio::test]
async fn a_stream_says_what_the_json_answer_says() {
    let fake = FakeProvider::start().await;
    let whole = fake.post(PATH, &request(json!({}))).await.json();
    let read = stream(&fake, request(json!({}))).await;
    assert!(!read.done && !read.broken);
    let order = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(read.names(), order);
    for (number, (name, data)) in read.events.iter().enumerate() {
        assert_eq!(data["type"], name.clone().unwrap());
        assert_eq!(data["sequence_number"], number);
    }
    let deltas = read.of(Some("response.output_text.delta"));
    let text: String = deltas
        .iter()
        .map(|d| d["delta"].as_str().unwrap())
        .collect();
    assert_eq!(whole["output"][0]["content"][0]["text"], text);
    assert_eq!(read.of(Some("response.output_text.done"))[0]["text"], text);
    let created = &read.of(Some("response.created"))[0]["response"];
    assert_eq!(
        (&created["status"], &created["output"]),
        (&json!("in_progress"), &json!([]))
    );
    let completed = &read.of(Some("response.completed"))[0]["response"];
    assert_eq!(completed["usage"], whole["usage"]);
    assert_eq!(
        completed["output"][0],
        read.of(Some("response.output_item.done"))[0]["item"]
    );
    let entry = fake.log().await.pop().unwrap();
    assert!(entry.usage_sent && entry.outcome == Outcome::Completed);
    assert_eq!(entry.chunks_sent as usize, read.events.len() - 1);
    assert_eq!(whole["usage"]["output_tokens"], entry.completion_tokens);
}

#[tokio::test]
async fn tools_are_called_by_the_same_rule() {
    let fake = FakeProvider::start().await;
    let fields = json!({"tools": tools(), "input": "use two tools"});
    let whole = fake
        .post(PATH, &request(fields.clone()))
        .await
        .with_status(200)
        .json();
    let output = whole["output"].as_array().unwrap();
    assert_eq!(output.len(), 2);
    for item in output {
        assert_eq!(
            (&item["type"], &item["name"]),
            (&json!("function_call"), &json!("level"))
        );
        assert!(item["call_id"].as_str().unwrap().starts_with("call_"));
        let arguments: Value = serde_json::from_str(item["arguments"].as_str().unwrap()).unwrap();
        assert!(arguments["place"].is_string());
    }
    let read = stream(&fake, request(fields)).await;
    let deltas = read.of(Some("response.function_call_arguments.delta"));
    let done = read.of(Some("response.function_call_arguments.done"));
    for index in 0..2 {
        let of_item = deltas.iter().filter(|d| d["output_index"] == index);
        let arguments: String = of_item.map(|d| d["delta"].as_str().unwrap()).collect();
        assert_eq!(output[index]["arguments"], arguments);
        assert_eq!(done[index]["arguments"], arguments);
    }
    let check = async |more: Value, kind: &str| {
        let mut fields = json!({"tools": tools()});
        fields
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = fake
            .post(PATH, &request(fields))
            .await
            .with_status(200)
            .json();
        assert_eq!(answer["output"].as_array().unwrap().len(), 1, "{more}");
        assert_eq!(answer["output"][0]["type"], kind, "{more}");
    };
    check(json!({}), "message").await;
    check(json!({"tool_choice": "required"}), "function_call").await;
    check(
        json!({"tool_choice": {"type": "function", "name": "level"}}),
        "function_call",
    )
    .await;
    check(
        json!({"input": "two tools", "parallel_tool_calls": false}),
        "function_call",
    )
    .await;
    let results = json!([
        {"role": "user", "content": "use a tool"},
        {"type": "function_call", "call_id": "a", "name": "level", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "7"},
    ]);
    check(json!({"input": results}), "message").await;
}

#[tokio::test]
async fn limits_and_formats() {
    let fake = FakeProvider::start().await;
    fake.fault(&json!({"times": 2, "answer_words": 60})).await;
    let cut = json!({"max_output_tokens": 16});
    let answer = fake
        .post(PATH, &request(cut.clone()))
        .await
        .with_status(200)
        .json();
    assert_eq!(answer["status"], "incomplete");
    assert_eq!(
        answer["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
    assert_eq!(answer["usage"]["output_tokens"], 16);
    let read = stream(&fake, request(cut)).await;
    assert_eq!(read.names().last(), Some(&"response.incomplete"));
    let schema = json!({"type": "object", "required": ["high"], "properties": {"high": {"type": "boolean"}}});
    for format in [
        json!({"type": "json_schema", "name": "level", "schema": schema}),
        json!({"type": "json_object"}),
    ] {
        let fields = json!({"input": "as json", "text": {"format": format}});
        let answer = fake
            .post(PATH, &request(fields))
            .await
            .with_status(200)
            .json();
        let text = answer["output"][0]["content"][0]["text"].as_str().unwrap();
        assert!(serde_json::from_str::<Value>(text).unwrap().is_object());
    }
}

#[tokio::test]
async fn streams_end_early_on_demand() {
    let fake = FakeProvider::start().await;
    fake.fault(&json!({"times": 1, "cut_after_chunks": 10_000}))
        .await;
    let read = stream(&fake, request(json!({}))).await;
    assert!(read.broken && read.of(Some("response.completed")).is_empty());
    let entry = fake.log().await.pop().unwrap();
    assert_eq!((entry.outcome, entry.usage_sent), (Outcome::Cut, false));
    fake.fault(&json!({"times": 1, "error_in_stream_after_chunks": 3}))
        .await;
    let read = stream(&fake, request(json!({}))).await;
    let error = &read.events.last().unwrap().1;
    assert_eq!(
        (&error["type"], &error["sequence_number"]),
        (&json!("error"), &json!(3))
    );
    assert_eq!(error["code"], "server_error");
}

#[tokio::test]
async fn responses_that_are_invalid() {
    let fake = FakeProvider::start().await;
    let missing = Some("missing_required_parameter");
    let invalid = Some("invalid_value");
    let part = |role: &str, part: Value| json!({"input": [{"role": role, "content": [part]}]});
    let call = json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"});
    let result = json!({"type": "function_call_output", "call_id": "b", "output": "7"});
    #[rustfmt::skip] // a case a line
    let cases = [
        (json!({"model": null}), 400, missing, Some("model")),
        (json!({"input": null}), 400, missing, Some("input")),
        (json!({"input": 5}), 400, Some("invalid_type"), Some("input")),
        (json!({"input": []}), 400, Some("empty_array"), Some("input")),
        (json!({"model": "nope"}), 404, Some("model_not_found"), None),
        (json!({"model": "text-embedding-3-small"}), 404, None, Some("model")),
        (json!({"messages": []}), 400, Some("unknown_parameter"), Some("messages")),
        (json!({"max_tokens": 5}), 400, Some("unknown_parameter"), Some("max_tokens")),
        (json!({"max_output_tokens": 15}), 400, Some("integer_below_min_value"), Some("max_output_tokens")),
        (json!({"max_output_tokens": 16_385}), 400, Some("integer_above_max_value"), Some("max_output_tokens")),
        (json!({"temperature": 3}), 400, Some("decimal_above_max_value"), Some("temperature")),
        (json!({"previous_response_id": "resp_1"}), 400, Some("previous_response_not_found"), Some("previous_response_id")),
        (json!({"background": true}), 400, invalid, Some("background")),
        (json!({"tools": [{"type": "function", "function": {"name": "f"}}]}), 400, Some("unknown_parameter"), Some("tools[0].function")),
        (json!({"tools": [{"type": "function", "name": "a b"}]}), 400, invalid, Some("tools[0].name")),
        (json!({"tool_choice": "required"}), 400, None, Some("tool_choice")),
        (json!({"text": {"format": {"type": "json_object"}}}), 400, None, Some("input")),
        (json!({"text": {"format": {"type": "json_schema", "schema": {}}}}), 400, missing, Some("text.format.name")),
        (json!({"input": [{"role": "tool", "content": "x"}]}), 400, invalid, Some("input[0].role")),
        (json!({"input": [{"type": "nope"}]}), 400, invalid, Some("input[0]")),
        (json!({"input": [{"type": "item_reference", "id": "x"}]}), 400, None, Some("input")),
        (json!({"input": [call]}), 400, None, Some("input")),
        (json!({"input": [result]}), 400, None, Some("input")),
        (part("user", json!({"type": "text", "text": "x"})), 400, invalid, Some("input[0].content[0]")),
        (part("assistant", json!({"type": "input_text", "text": "x"})), 400, invalid, Some("input[0].content[0]")),
        (part("user", json!({"type": "input_text"})), 400, missing, Some("input[0].content[0].text")),
        (part("user", json!({"type": "input_image", "image_url": "data:image/png;base64,x"})), 400, Some("invalid_base64"), Some("input[0].content[0].image_url")),
    ];
    for (fields, status, code, param) in cases {
        let reply = fake.post(PATH, &request(fields.clone())).await;
        let error = &reply.json()["error"];
        let found = (
            reply.status,
            error["code"].as_str(),
            error["param"].as_str(),
        );
        assert_eq!(found, (status, code, param), "{fields}: {}", reply.text);
    }
    let image = part(
        "user",
        json!({"type": "input_image", "image_url": PNG, "detail": "auto"}),
    );
    fake.post(PATH, &request(image)).await.with_status(200);
    assert_eq!(fake.log().await.pop().unwrap().images, 1);
}
