//! The older completions API, and a server that is only compatible with OpenAI's.

use http::Method;
use serde_json::{Value, json};
use weir_fakes::provider::{Config, count_tokens};

use crate::{
    client::{FakeProvider, PROVIDER_KEY, send},
    sse,
};

const MODEL: &str = "gpt-3.5-turbo-instruct";
const PATH: &str = "/v1/completions";

fn completion(fields: Value) -> Value {
    let mut body = json!({"model": MODEL, "prompt": "The river"});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn text_is_completed() {
    let fake = FakeProvider::start().await;
    let answer = fake.post(PATH, &completion(json!({}))).await;
    let answer = answer.with_status(200).json();
    assert_eq!(
        (&answer["object"], &answer["model"]),
        (&json!("text_completion"), &json!(MODEL))
    );
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    let choice = &answer["choices"][0];
    let text = choice["text"].as_str().unwrap();
    assert_eq!(
        (count_tokens(text), &choice["finish_reason"]),
        (16, &json!("length"))
    );
    assert!(choice["logprobs"].is_null());
    let prompt = count_tokens("The river");
    let usage =
        json!({"prompt_tokens": prompt, "completion_tokens": 16, "total_tokens": prompt + 16});
    assert_eq!(answer["usage"], usage);
    let check = async |more: Value, texts: usize, completion_tokens: u64| {
        let answer = fake.post(PATH, &completion(more.clone())).await;
        let answer = answer.with_status(200).json();
        assert_eq!(answer["choices"].as_array().unwrap().len(), texts, "{more}");
        assert_eq!(
            answer["usage"]["completion_tokens"], completion_tokens,
            "{more}"
        );
        answer
    };
    check(json!({"n": 3, "max_tokens": 4}), 3, 12).await;
    check(
        json!({"prompt": ["a", "b"], "n": 2, "max_tokens": 4}),
        4,
        16,
    )
    .await;
    check(json!({"prompt": [[1, 2], [3]], "max_tokens": 0}), 2, 0).await;
    check(json!({"prompt": "", "best_of": 2, "suffix": "end"}), 1, 16).await;
    let word = text.split(' ').nth(2).unwrap();
    let before = &text[..text.find(word).unwrap()];
    let stopped = check(json!({"stop": word}), 1, count_tokens(before)).await;
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let echoed = check(json!({"echo": true, "logprobs": 2}), 1, 16).await;
    let choice = &echoed["choices"][0];
    assert_eq!(choice["text"], format!("The river{text}"));
    let logprobs = &choice["logprobs"];
    let tokens = logprobs["tokens"].as_array().unwrap();
    assert_eq!(logprobs["text_offset"][0], 0);
    for name in ["token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(
            logprobs[name].as_array().unwrap().len(),
            tokens.len(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn completions_are_streamed() {
    let fake = FakeProvider::start().await;
    let more = json!({"n": 2, "echo": true, "max_tokens": 9, "logprobs": 0});
    let whole = fake.post(PATH, &completion(more.clone())).await.json();
    let mut body = completion(more);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let key = format!("Bearer {PROVIDER_KEY}");
    let headers = [
        ("authorization", key.as_str()),
        ("content-type", "application/json"),
    ];
    let read = sse::post(fake.url(PATH), &headers, &body).await;
    assert!(read.done);
    let chunks = read.of(None);
    for index in 0..2 {
        let parts: Vec<&Value> = chunks
            .iter()
            .filter_map(|c| c["choices"].get(0))
            .filter(|c| c["index"] == index)
            .collect();
        let text: String = parts.iter().map(|c| c["text"].as_str().unwrap()).collect();
        let choice = &whole["choices"][index as usize];
        assert_eq!(choice["text"], text);
        assert_eq!(parts.last().unwrap()["finish_reason"], "length");
        let offsets = parts
            .iter()
            .filter_map(|c| c["logprobs"]["text_offset"].as_array());
        let offsets: Vec<Value> = offsets.flatten().cloned().collect();
        assert_eq!(choice["logprobs"]["text_offset"], json!(offsets));
    }
    let (usage, rest) = chunks.split_last().unwrap();
    assert_eq!(usage["usage"], whole["usage"]);
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null()));
    let entry = fake.log().await.pop().unwrap();
    assert!(entry.usage_sent && entry.completion_tokens == 18);
}

#[tokio::test]
async fn completions_that_are_invalid() {
    let fake = FakeProvider::start().await;
    let missing = Some("missing_required_parameter");
    #[rustfmt::skip] // a case a line
    let cases = [
        (json!({"prompt": null}), 400, missing, Some("prompt")),
        (json!({"model": null}), 400, missing, Some("model")),
        (json!({"model": "gpt-4o"}), 404, None, Some("model")),
        (json!({"prompt": {"a": 1}}), 400, Some("invalid_type"), Some("prompt")),
        (json!({"prompt": []}), 400, Some("invalid_value"), Some("prompt")),
        (json!({"max_tokens": -1}), 400, Some("integer_below_min_value"), Some("max_tokens")),
        (json!({"max_tokens": 4_096}), 400, Some("context_length_exceeded"), Some("prompt")),
        (json!({"logprobs": 6}), 400, Some("integer_above_max_value"), Some("logprobs")),
        (json!({"logprobs": true}), 400, Some("invalid_type"), Some("logprobs")),
        (json!({"n": 2, "best_of": 1}), 400, Some("invalid_value"), Some("best_of")),
        (json!({"stream": true, "best_of": 2}), 400, Some("invalid_value"), Some("best_of")),
        (json!({"stream_options": {"include_usage": true}}), 400, Some("invalid_value"), Some("stream_options")),
        (json!({"messages": []}), 400, None, None),
    ];
    for (fields, status, code, param) in cases {
        let reply = fake.post(PATH, &completion(fields.clone())).await;
        let error = &reply.json()["error"];
        let found = (
            reply.status,
            error["code"].as_str(),
            error["param"].as_str(),
        );
        assert_eq!(found, (status, code, param), "{fields}: {}", reply.text);
    }
}

#[tokio::test]
async fn a_compatible_server_is_lenient() {
    let fake = FakeProvider::with(Config::compatible(Vec::new())).await;
    let model = "mistralai/Mistral-7B-Instruct-v0.3";
    let post = async |path: &str, body: Value| {
        let headers = [("content-type", "application/json")];
        send(Method::POST, fake.url(path), &headers, body.to_string())
            .await
            .unwrap()
    };
    let user = json!({"role": "user", "content": "hello", "extra": 1});
    let both = json!({
        "model": model, "messages": [user], "max_tokens": 9, "max_completion_tokens": 5,
        "repetition_penalty": 1.1, "response_format": {"type": "json_object"},
    });
    let path = "/v1/chat/completions";
    let answer = post(path, both).await.with_status(200);
    assert!(answer.header("openai-version").is_none());
    assert_eq!(answer.json()["usage"]["completion_tokens"], 5);
    let body = json!({"model": model, "prompt": "hello", "top_k": 5});
    let answer = post(PATH, body).await.with_status(200).json();
    assert_eq!(
        (&answer["model"], &answer["usage"]["completion_tokens"]),
        (&json!(model), &json!(16))
    );
    let body = json!({"model": model, "input": "hello"});
    post("/v1/responses", body).await.with_status(404);
    let body = json!({"model": model, "messages": []});
    let error = post(path, body).await.with_status(400).json()["error"].clone();
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("BadRequestError"), &json!(400))
    );
    let body = json!({"model": "gpt-4o", "messages": [user]});
    let error = post(path, body).await.with_status(404).json()["error"].clone();
    assert_eq!(error["type"], "NotFoundError");
}

#[tokio::test]
async fn a_compatible_server_with_a_key_asks_for_it() {
    let fake = FakeProvider::with(Config::compatible(vec![PROVIDER_KEY.to_owned()])).await;
    fake.get("/v1/models").await.with_status(200);
    send(Method::GET, fake.url("/v1/models"), &[], "")
        .await
        .unwrap()
        .with_status(401);
}
