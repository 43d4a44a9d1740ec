//! The embeddings API.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use weir_fakes::provider::{Outcome, count_tokens};

use crate::client::FakeProvider;

async fn embed(fake: &FakeProvider, input: Value, more: Value) -> Value {
    let mut body = json!({"model": "text-embedding-3-small", "input": input});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    fake.post("/v1/embeddings", &body)
        .await
        .with_status(200)
        .json()
}

fn floats(answer: &Value, index: usize) -> Vec<f32> {
    let vector = answer["data"][index]["embedding"].as_array().unwrap();
    vector.iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[tokio::test]
async fn every_kind_of_input_is_counted() {
    let fake = FakeProvider::start().await;
    let two = count_tokens("first text") + count_tokens("second, longer text");
    for (input, vectors, tokens) in [
        (json!("first text"), 1, count_tokens("first text")),
        (json!(["first text", "second, longer text"]), 2, two),
        (json!([17, 4, 99]), 1, 3),
        (json!([[17, 4, 99], [5]]), 2, 4),
    ] {
        let answer = embed(&fake, input.clone(), json!({"user": "t"})).await;
        assert_eq!(answer["data"].as_array().unwrap().len(), vectors, "{input}");
        assert_eq!(
            answer["usage"],
            json!({"prompt_tokens": tokens, "total_tokens": tokens})
        );
        let entry = fake.log().await.pop().unwrap();
        assert_eq!((entry.prompt_tokens, entry.completion_tokens), (tokens, 0));
        assert_eq!(
            (entry.outcome, entry.usage_sent),
            (Outcome::Completed, true)
        );
        assert_eq!(entry.user.as_deref(), Some("t"));
    }
}

#[tokio::test]
async fn vectors_are_unit_length_and_depend_on_the_input() {
    let fake = FakeProvider::start().await;
    let answer = embed(&fake, json!(["a", "b", "a"]), json!({})).await;
    let (a, b, again) = (floats(&answer, 0), floats(&answer, 1), floats(&answer, 2));
    assert_eq!((a.len(), &a), (1536, &again));
    assert_ne!(a, b);
    let norm: f32 = a.iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-3, "{norm}");
    assert_eq!(answer["model"], "text-embedding-3-small");
    assert_eq!(
        (&answer["object"], &answer["data"][1]["index"]),
        (&json!("list"), &json!(1))
    );
    let short = embed(&fake, json!("a"), json!({"dimensions": 8})).await;
    assert_eq!(floats(&short, 0).len(), 8);
}

#[tokio::test]
async fn base64_holds_the_same_little_endian_floats() {
    let fake = FakeProvider::start().await;
    let plain = embed(&fake, json!("same"), json!({"encoding_format": "float"})).await;
    let packed = embed(&fake, json!("same"), json!({"encoding_format": "base64"})).await;
    let bytes = STANDARD
        .decode(packed["data"][0]["embedding"].as_str().unwrap())
        .unwrap();
    let unpacked: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(unpacked, floats(&plain, 0));
}

#[tokio::test]
async fn faults_act_here_too() {
    let fake = FakeProvider::start().await;
    let body = json!({"model": "text-embedding-3-small", "input": "x"});
    fake.fault(&json!({"path": "/v1/embeddings", "times": 1, "missing_usage": true}))
        .await;
    let answer = fake.post("/v1/embeddings", &body).await.json();
    assert_eq!(answer.get("usage"), None);
    fake.fault(&json!({"path": "/v1/embeddings", "times": 1, "status": 503}))
        .await;
    fake.post("/v1/embeddings", &body).await.with_status(503);
    fake.fault(&json!({"times": 1, "cut_after_chunks": 0}))
        .await;
    fake.try_post("/v1/embeddings", &body).await.unwrap_err();
    let outcomes: Vec<_> = fake.log().await.iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Completed, Outcome::Fault, Outcome::Cut]);
}
