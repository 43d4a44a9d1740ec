//! JSON answers of the chat API, and the list of models.

use serde_json::{Value, json};
use weir_fakes::provider::{Outcome, count_tokens};

use crate::client::{FakeProvider, PNG};

fn chat(prompt: &str, more: Value) -> Value {
    let mut body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}]});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

fn text(answer: &Value, choice: usize) -> &str {
    answer["choices"][choice]["message"]["content"]
        .as_str()
        .unwrap()
}

#[tokio::test]
async fn an_answer_has_openais_shape_and_counts_its_own_text() {
    let fake = FakeProvider::start().await;
    let reply = fake
        .chat(&chat("How high is the river?", json!({"user": "tenant-7"})))
        .await;
    let reply = reply.with_status(200);
    for header in ["x-request-id", "openai-processing-ms", "openai-version"] {
        assert!(reply.header(header).is_some(), "{header}");
    }
    let answer = reply.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "gpt-4o-2024-08-06");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(answer["created"].as_i64().unwrap() > 1_700_000_000);
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["index"], &choice["finish_reason"]),
        (&json!(0), &json!("stop"))
    );
    assert_eq!(choice["message"]["role"], "assistant");
    let words = text(&answer, 0).split(' ').count();
    assert!((12..=40).contains(&words), "{words} words");
    let usage = &answer["usage"];
    let completion = count_tokens(text(&answer, 0));
    assert_eq!(usage["completion_tokens"], completion);
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    assert!(prompt > count_tokens("How high is the river?"));
    assert_eq!(usage["total_tokens"], prompt + completion);
    assert_eq!(
        usage["prompt_tokens_details"],
        json!({"cached_tokens": 0, "audio_tokens": 0})
    );
    let details = json!({
        "reasoning_tokens": 0, "audio_tokens": 0,
        "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
    });
    assert_eq!(usage["completion_tokens_details"], details);
    let entry = &fake.log().await[0];
    assert_eq!(
        (entry.prompt_tokens, entry.completion_tokens),
        (prompt, completion)
    );
    assert_eq!(
        (entry.outcome, entry.status),
        (Outcome::Completed, Some(200))
    );
    assert_eq!(
        (entry.model.as_deref(), entry.user.as_deref()),
        (Some("gpt-4o"), Some("tenant-7"))
    );
    assert_eq!(
        (entry.stream, entry.usage_sent, entry.chunks_sent),
        (false, true, 0)
    );
    assert_eq!(
        (entry.seq, entry.path.as_str()),
        (1, "/v1/chat/completions")
    );
}

#[tokio::test]
async fn answers_and_counts_depend_on_the_prompt_alone() {
    let fake = FakeProvider::start().await;
    let ask = async |prompt: &str| {
        let answer = fake.chat(&chat(prompt, json!({}))).await.json();
        (text(&answer, 0).to_owned(), answer["usage"].clone())
    };
    let first = ask("one prompt").await;
    assert_eq!(ask("one prompt").await, first);
    let other = ask("another prompt, and rather longer than the first").await;
    assert_ne!(other.0, first.0);
    assert_ne!(other.1["prompt_tokens"], first.1["prompt_tokens"]);
}

#[tokio::test]
async fn parameters_that_shape_the_answer() {
    let fake = FakeProvider::start().await;
    let prompt = "Tell me about weirs";
    let whole = fake.chat(&chat(prompt, json!({}))).await.json();
    let whole = text(&whole, 0);
    let check = async |more: Value, tokens: u64, reason: &str, prefix: bool| {
        let answer = fake
            .chat(&chat(prompt, more.clone()))
            .await
            .with_status(200)
            .json();
        let total: u64 = answer["usage"]["completion_tokens"].as_u64().unwrap();
        assert_eq!(total, tokens, "{more}");
        assert_eq!(answer["choices"][0]["finish_reason"], reason, "{more}");
        if prefix {
            assert!(whole.starts_with(text(&answer, 0)), "{more}");
            assert_eq!(count_tokens(text(&answer, 0)), tokens, "{more}");
        }
    };
    check(json!({"max_tokens": 5}), 5, "length", true).await;
    check(json!({"max_completion_tokens": 7}), 7, "length", true).await;
    check(
        json!({"max_tokens": count_tokens(whole)}),
        count_tokens(whole),
        "stop",
        true,
    )
    .await;
    let third = whole.split(' ').nth(3).unwrap();
    let before = &whole[..whole.find(third).unwrap()];
    check(json!({"stop": third}), count_tokens(before), "stop", true).await;
    check(
        json!({"stop": ["nowhere", third]}),
        count_tokens(before),
        "stop",
        true,
    )
    .await;
    check(json!({"n": 3, "max_tokens": 4}), 12, "length", false).await;
}

#[tokio::test]
async fn several_choices_differ_and_are_all_counted() {
    let fake = FakeProvider::start().await;
    let answer = fake
        .chat(&chat("Three, please", json!({"n": 3})))
        .await
        .json();
    let texts: Vec<&str> = (0..3).map(|choice| text(&answer, choice)).collect();
    assert!(texts[0] != texts[1] && texts[1] != texts[2]);
    let total: u64 = texts.iter().map(|text| count_tokens(text)).sum();
    assert_eq!(answer["usage"]["completion_tokens"], total);
}

#[tokio::test]
async fn known_arguments_are_accepted() {
    let fake = FakeProvider::start().await;
    let tool = json!({"type": "function", "function": {"name": "level", "parameters": {}}});
    for more in [
        json!({"temperature": 0, "top_p": 1, "presence_penalty": 1.5, "frequency_penalty": -2}),
        json!({"seed": 7, "logit_bias": {}, "metadata": {"a": "b"}, "store": false}),
        json!({"tools": [tool], "tool_choice": "auto", "parallel_tool_calls": true}),
        json!({"response_format": {"type": "text"}, "service_tier": "auto", "stop": null}),
        json!({"logprobs": true, "top_logprobs": 2, "reasoning_effort": "low"}),
        json!({"stream": false, "stream_options": null, "max_tokens": null, "user": null}),
        json!({"messages": [
            {"role": "developer", "content": "be short"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": PNG}}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "level", "arguments": "{}"}}]},
            {"role": "tool", "content": "7", "tool_call_id": "c"},
        ]}),
    ] {
        fake.chat(&chat("hi", more)).await.with_status(200);
    }
}

#[tokio::test]
async fn knobs_change_the_usage() {
    let fake = FakeProvider::start().await;
    let prompt = "Count this prompt to the last token";
    let plain = fake.chat(&chat(prompt, json!({}))).await.json();
    let check = async |fault: Value, more: Value, expected: (u64, u64, u64)| {
        fake.fault(&fault).await;
        let answer = fake.chat(&chat(prompt, more)).await.with_status(200).json();
        let usage = &answer["usage"];
        let found = (
            usage["prompt_tokens_details"]["cached_tokens"]
                .as_u64()
                .unwrap(),
            usage["completion_tokens_details"]["reasoning_tokens"]
                .as_u64()
                .unwrap(),
            usage["completion_tokens"].as_u64().unwrap(),
        );
        assert_eq!(found, expected, "{fault}");
        assert_eq!(usage["prompt_tokens"], plain["usage"]["prompt_tokens"]);
        let entry = fake.log().await.pop().unwrap();
        let logged = (
            entry.cached_tokens,
            entry.reasoning_tokens,
            entry.completion_tokens,
        );
        assert_eq!(logged, expected, "{fault}");
    };
    let visible = plain["usage"]["completion_tokens"].as_u64().unwrap();
    let all = plain["usage"]["prompt_tokens"].as_u64().unwrap();
    check(
        json!({"times": 1, "cached_tokens": 3}),
        json!({}),
        (3, 0, visible),
    )
    .await;
    check(
        json!({"times": 1, "cached_tokens": 9_999}),
        json!({}),
        (all, 0, visible),
    )
    .await;
    check(
        json!({"times": 1, "reasoning_tokens": 50}),
        json!({}),
        (0, 50, visible + 50),
    )
    .await;
    let capped = json!({"max_completion_tokens": 10});
    check(
        json!({"times": 1, "reasoning_tokens": 6}),
        capped.clone(),
        (0, 6, 10),
    )
    .await;
    check(
        json!({"times": 1, "reasoning_tokens": 50}),
        capped,
        (0, 10, 10),
    )
    .await;
    fake.fault(&json!({"times": 1, "answer_words": 100})).await;
    let long = fake.chat(&chat(prompt, json!({}))).await.json();
    assert_eq!(text(&long, 0).split(' ').count(), 100);
}

#[tokio::test]
async fn models_are_listed_under_both_names() {
    let fake = FakeProvider::start().await;
    let list = fake.get("/v1/models").await.with_status(200).json();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            "gpt-4o",
            "gpt-4o-2024-08-06",
            "gpt-4o-mini",
            "gpt-4o-mini-2024-07-18",
            "gpt-3.5-turbo-instruct",
            "text-embedding-3-small",
            "text-embedding-3-large",
        ]
    );
    let one = fake
        .get("/v1/models/gpt-4o-mini")
        .await
        .with_status(200)
        .json();
    assert_eq!(
        (&one["id"], &one["object"]),
        (&json!("gpt-4o-mini"), &json!("model"))
    );
    let log = fake.log().await;
    assert!(
        log.iter()
            .all(|e| e.outcome == Outcome::Completed && e.prompt_tokens == 0)
    );
}
