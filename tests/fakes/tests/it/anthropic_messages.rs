//! JSON answers of Anthropic's API, the count of tokens, and the list of models.

use serde_json::{Value, json};
use weir_fakes::provider::{Outcome, count_tokens};

use crate::anthropic_client::{FakeAnthropic, request, says};

fn level() -> Value {
    json!({"name": "level", "description": "measures", "input_schema": {
        "type": "object", "required": ["place", "unit", "at"],
        "properties": {
            "place": {"type": "string"}, "unit": {"enum": ["m", "ft"]},
            "at": {"type": "object", "required": ["hour"], "properties": {"hour": {"type": "integer"}}},
            "exact": {"type": "boolean"},
        },
    }})
}

fn gate() -> Value {
    json!({"name": "gate", "input_schema": {"type": "object"}})
}

#[tokio::test]
async fn an_answer_has_anthropics_shape_and_counts_its_own_text() {
    let fake = FakeAnthropic::start().await;
    let body = request(json!({"metadata": {"user_id": "tenant-7"}}));
    let reply = fake.messages(&body).await.with_status(200);
    assert!(reply.header("request-id").unwrap().starts_with("req_"));
    let answer = reply.json();
    assert!(answer["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(
        (&answer["type"], &answer["role"], &answer["model"]),
        (
            &json!("message"),
            &json!("assistant"),
            &json!("claude-sonnet-4-5-20250929")
        )
    );
    assert_eq!(
        (&answer["stop_reason"], &answer["stop_sequence"]),
        (&json!("end_turn"), &Value::Null)
    );
    assert_eq!(answer["content"].as_array().unwrap().len(), 1);
    let text = answer["content"][0]["text"].as_str().unwrap();
    let entry = fake.last().await;
    let usage = json!({
        "input_tokens": entry.prompt_tokens, "output_tokens": count_tokens(text),
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
    });
    assert_eq!(answer["usage"], usage);
    assert!(entry.prompt_tokens > count_tokens("How high is the river?"));
    assert_eq!(entry.completion_tokens, count_tokens(text));
    assert_eq!(
        (entry.model.as_deref(), entry.user.as_deref(), entry.outcome),
        (
            Some("claude-sonnet-4-5"),
            Some("tenant-7"),
            Outcome::Completed
        )
    );
    let again = fake.messages(&body).await.json();
    assert_eq!(again["content"], answer["content"]);
    let other = fake.messages(&says("Another prompt", json!({}))).await;
    assert_ne!(other.json()["content"], answer["content"]);
}

#[tokio::test]
async fn parameters_that_end_the_answer() {
    let fake = FakeAnthropic::start().await;
    let whole = fake.messages(&request(json!({}))).await.json();
    let whole = whole["content"][0]["text"].as_str().unwrap();
    let word = whole.split(' ').nth(3).unwrap();
    let before = &whole[..whole.find(word).unwrap()];
    let check = async |more: Value, text: &str, reason: &str, sequence: Value| {
        let answer = fake.messages(&request(more)).await.with_status(200).json();
        assert_eq!(answer["content"][0]["text"], text);
        assert_eq!(answer["stop_reason"], reason);
        assert_eq!(answer["stop_sequence"], sequence);
        assert_eq!(answer["usage"]["output_tokens"], count_tokens(text));
    };
    check(
        json!({"stop_sequences": ["nowhere", word]}),
        before,
        "stop_sequence",
        json!(word),
    )
    .await;
    let cut = fake.messages(&request(json!({"max_tokens": 5}))).await;
    let cut = cut.json()["content"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(whole.starts_with(&cut) && count_tokens(&cut) == 5);
    check(json!({"max_tokens": 5}), &cut, "max_tokens", Value::Null).await;
}

#[tokio::test]
async fn tools_are_used_by_a_rule() {
    let fake = FakeAnthropic::start().await;
    let result = json!([
        {"role": "user", "content": "use a tool"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "level", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "7 m"}]},
    ]);
    let check = async |text: &str, more: Value, names: &[&str], texts: usize| {
        let mut fields = json!({"tools": [level(), gate()]});
        let more = more.as_object().unwrap().clone();
        let messages = more.get("messages").cloned();
        fields.as_object_mut().unwrap().extend(more);
        let mut body = says(text, fields);
        if let Some(messages) = messages {
            body["messages"] = messages;
        }
        let answer = fake.messages(&body).await.with_status(200).json();
        let content = answer["content"].as_array().unwrap();
        let used: Vec<&Value> = content.iter().filter(|b| b["type"] == "tool_use").collect();
        let found: Vec<&str> = used.iter().map(|b| b["name"].as_str().unwrap()).collect();
        assert_eq!(found, names, "{body}: {answer}");
        assert_eq!(content.len() - used.len(), texts, "{body}: {answer}");
        let reason = if names.is_empty() {
            "end_turn"
        } else {
            "tool_use"
        };
        assert_eq!(answer["stop_reason"], reason);
        for block in used {
            assert!(block["id"].as_str().unwrap().starts_with("toolu_"));
            if block["name"] == "level" {
                let input = &block["input"];
                assert!(!input["place"].as_str().unwrap().is_empty());
                assert!(input["unit"] == "m" && input["at"]["hour"].is_i64());
                assert!(input.get("exact").is_none());
            }
        }
        let entry = fake.last().await;
        assert_eq!(entry.tools, 2);
        assert_eq!(answer["usage"]["output_tokens"], entry.completion_tokens);
    };
    check("hello", json!({}), &[], 1).await;
    check("use a tool", json!({}), &["level"], 1).await;
    check("use two tools", json!({}), &["level", "gate"], 1).await;
    let choice = |choice: Value| json!({"tool_choice": choice});
    check(
        "use two tools",
        choice(json!({"type": "auto", "disable_parallel_tool_use": true})),
        &["level"],
        1,
    )
    .await;
    check("hello", choice(json!({"type": "any"})), &["level"], 0).await;
    check(
        "hello",
        choice(json!({"type": "tool", "name": "gate"})),
        &["gate"],
        0,
    )
    .await;
    check("use a tool", choice(json!({"type": "none"})), &[], 1).await;
    check("", json!({"messages": result}), &[], 1).await;
}

#[tokio::test]
async fn a_use_of_a_tool_that_does_not_fit_is_left_out() {
    let fake = FakeAnthropic::start().await;
    let fields = json!({"tools": [level()], "tool_choice": {"type": "any"}, "max_tokens": 4});
    let answer = fake.messages(&says("x", fields)).await.json();
    assert_eq!(
        (&answer["stop_reason"], &answer["content"]),
        (&json!("max_tokens"), &json!([]))
    );
}

#[tokio::test]
async fn the_cache_is_counted_apart_from_the_input() {
    let fake = FakeAnthropic::start().await;
    let plain = fake.messages(&request(json!({}))).await.json();
    let all = plain["usage"]["input_tokens"].as_u64().unwrap();
    let check = async |fault: Value, ttl: &str, expected: [u64; 3], by_ttl: [u64; 2]| {
        fake.fault(&fault).await;
        let mut body = request(json!({}));
        body["messages"][0]["content"] = json!([{
            "type": "text", "text": "How high is the river?",
            "cache_control": {"type": "ephemeral", "ttl": ttl},
        }]);
        let usage = fake.messages(&body).await.with_status(200).json()["usage"].clone();
        let number = |name: &str| usage[name].as_u64().unwrap();
        let found = [
            number("input_tokens"),
            number("cache_read_input_tokens"),
            number("cache_creation_input_tokens"),
        ];
        assert_eq!(found, expected, "{fault}");
        let created = &usage["cache_creation"];
        assert_eq!(
            (
                &created["ephemeral_5m_input_tokens"],
                &created["ephemeral_1h_input_tokens"]
            ),
            (&json!(by_ttl[0]), &json!(by_ttl[1]))
        );
        let entry = fake.last().await;
        let logged = [
            entry.prompt_tokens,
            entry.cached_tokens,
            entry.cache_write_tokens,
        ];
        assert_eq!(logged, [all, expected[1], expected[2]]);
    };
    let fault = json!({"times": 1, "cached_tokens": 3, "cache_write_tokens": 2});
    check(fault.clone(), "5m", [all - 5, 3, 2], [2, 0]).await;
    check(fault, "1h", [all - 5, 3, 2], [0, 2]).await;
    let fault = json!({"times": 1, "cached_tokens": 2, "cache_write_tokens": 9_999});
    check(fault, "5m", [0, 2, all - 2], [all - 2, 0]).await;
}

#[tokio::test]
async fn thinking_comes_first_and_is_counted() {
    let fake = FakeAnthropic::start().await;
    let fields =
        json!({"max_tokens": 2_000, "thinking": {"type": "enabled", "budget_tokens": 1_024}});
    fake.fault(&json!({"times": 1, "reasoning_tokens": 30}))
        .await;
    let answer = fake
        .messages(&request(fields))
        .await
        .with_status(200)
        .json();
    let thinking = &answer["content"][0];
    assert_eq!(thinking["type"], "thinking");
    assert!(!thinking["signature"].as_str().unwrap().is_empty());
    let thought = count_tokens(thinking["thinking"].as_str().unwrap());
    let said = count_tokens(answer["content"][1]["text"].as_str().unwrap());
    assert_eq!(thought, 30);
    assert_eq!(answer["usage"]["output_tokens"], thought + said);
    let details = json!({"thinking_tokens": 30});
    assert_eq!(answer["usage"]["output_tokens_details"], details);
    let entry = fake.last().await;
    assert_eq!(
        (entry.reasoning_tokens, entry.completion_tokens),
        (30, 30 + said)
    );
}

#[tokio::test]
async fn an_answer_may_have_a_schema() {
    let fake = FakeAnthropic::start().await;
    let schema = json!({"type": "object", "required": ["high"], "properties": {"high": {"type": "boolean"}}});
    let config = json!({"format": {"type": "json_schema", "schema": schema}, "effort": "low"});
    let answer = fake
        .messages(&request(json!({"output_config": config})))
        .await;
    let answer = answer.with_status(200).json();
    let text = answer["content"][0]["text"].as_str().unwrap();
    let said: Value = serde_json::from_str(text).unwrap();
    assert!(said["high"].is_boolean(), "{text}");
}

#[tokio::test]
async fn known_arguments_are_accepted() {
    let fake = FakeAnthropic::start().await;
    let png = crate::client::PNG
        .strip_prefix("data:image/png;base64,")
        .unwrap();
    let marked =
        json!({"type": "text", "text": "be short", "cache_control": {"type": "ephemeral"}});
    let blocks = json!([
        {"type": "text", "text": "look"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a text"}, "title": "t"},
    ]);
    for more in [
        json!({"system": "be short", "temperature": 0.5, "top_k": 5}),
        json!({"system": [marked], "top_p": 1, "service_tier": "auto"}),
        json!({"thinking": {"type": "disabled"}, "stream": false, "metadata": {"user_id": null}}),
        json!({"messages": [
            {"role": "user", "content": blocks},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "tool_use", "id": "a", "name": "level", "input": {}},
                {"type": "tool_use", "id": "b", "name": "level", "input": {}},
            ]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "b"}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "is_error": true, "content": [{"type": "text", "text": "no"}]},
                {"type": "text", "text": "go on"},
            ]},
            {"role": "assistant", "content": "The river"},
        ]}),
    ] {
        fake.messages(&request(more)).await.with_status(200);
    }
    assert_eq!(fake.last().await.images, 2);
}

#[tokio::test]
async fn tokens_are_counted_without_an_answer() {
    let fake = FakeAnthropic::start().await;
    let body = request(json!({"system": "be short", "tools": [level()]}));
    let answer = fake.messages(&body).await.with_status(200).json();
    let mut counted = body.clone();
    counted.as_object_mut().unwrap().remove("max_tokens");
    let path = "/v1/messages/count_tokens";
    let count = fake.try_post(path, &counted).await.unwrap();
    let expected = json!({"input_tokens": answer["usage"]["input_tokens"]});
    assert_eq!(count.with_status(200).json(), expected);
    assert_eq!(fake.last().await.prompt_tokens, 0, "counting is free");
    let refused = fake.try_post(path, &body).await.unwrap().with_status(400);
    assert!(refused.text.contains("max_tokens: Extra inputs"));
}

#[tokio::test]
async fn models_are_listed_by_their_dated_names() {
    let fake = FakeAnthropic::start().await;
    let list = fake.get("/v1/models").await.with_status(200).json();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    let all = [
        "claude-opus-5-5",
        "claude-sonnet-5-5",
        "claude-opus-4-5-20251101",
        "claude-sonnet-4-5-20250929",
        "claude-haiku-4-5-20251001",
    ];
    assert_eq!(ids, all);
    assert_eq!(
        (&list["has_more"], &list["last_id"]),
        (&json!(false), &json!(all[4]))
    );
    let page = fake
        .get(&format!("/v1/models?limit=1&after_id={}", all[0]))
        .await
        .json();
    assert_eq!(
        (&page["first_id"], &page["has_more"]),
        (&json!(all[1]), &json!(true))
    );
    let one = fake
        .get("/v1/models/claude-opus-4-5")
        .await
        .with_status(200)
        .json();
    assert_eq!(
        (&one["type"], &one["id"]),
        (&json!("model"), &json!(all[2]))
    );
    fake.get("/v1/models/nope").await.with_status(404);
    fake.get("/v1/models?limit=0").await.with_status(400);
}
