//! Faults: which requests they act on, and how often; and the log's own paths.

use http::Method;
use serde_json::{Value, json};
use weir_fakes::provider::Outcome;

use crate::client::{FakeProvider, send};

fn body(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

#[tokio::test]
async fn status_faults_have_openais_shape() {
    for (status, kind, code) in [
        (429, "requests", Some("rate_limit_exceeded")),
        (500, "server_error", None),
        (503, "server_error", None),
        (401, "invalid_request_error", Some("invalid_api_key")),
        (418, "invalid_request_error", None),
    ] {
        let fake = FakeProvider::start().await;
        fake.fault(&json!({"times": 1, "status": status, "retry_after_s": 7}))
            .await;
        let reply = fake.chat(&body("gpt-4o")).await.with_status(status);
        let error = reply.json()["error"].clone();
        assert_eq!(
            (error["type"].as_str(), error["code"].as_str()),
            (Some(kind), code)
        );
        assert_eq!(reply.header("retry-after"), Some("7"));
        fake.chat(&body("gpt-4o")).await.with_status(200);
        let log = fake.log().await;
        assert_eq!(
            (log[0].outcome, log[0].status),
            (Outcome::Fault, Some(status))
        );
        assert_eq!(
            (log[0].prompt_tokens, log[1].outcome),
            (0, Outcome::Completed)
        );
    }
}

#[tokio::test]
async fn faults_match_and_are_used_up_in_order() {
    let fake = FakeProvider::start().await;
    let statuses = async |model: &str, times: usize| {
        let mut found = Vec::new();
        for _ in 0..times {
            found.push(fake.chat(&body(model)).await.status);
        }
        found
    };
    fake.fault(&json!({"model": "gpt-4o-mini", "times": 2, "status": 500}))
        .await;
    fake.fault(&json!({"path": "/v1/embeddings", "status": 502}))
        .await;
    fake.fault(&json!({"model": "gpt-4o-mini", "times": 1, "status": 429}))
        .await;
    assert_eq!(statuses("gpt-4o", 2).await, [200, 200]);
    assert_eq!(statuses("gpt-4o-mini", 4).await, [500, 500, 429, 200]);
    fake.fault(&json!({"status": 503})).await;
    assert_eq!(statuses("gpt-4o", 3).await, [503, 503, 503]);
    // A request that is refused for its own fault does not use one up.
    assert_eq!(statuses("nope", 1).await, [404]);
    send(Method::DELETE, fake.url("/__fake/faults"), &[], "")
        .await
        .unwrap()
        .with_status(204);
    assert_eq!(statuses("gpt-4o", 1).await, [200]);
}

#[tokio::test]
async fn a_json_answer_is_cut_in_half() {
    let fake = FakeProvider::start().await;
    fake.fault(&json!({"times": 1, "cut_after_chunks": 1}))
        .await;
    fake.try_post("/v1/chat/completions", &body("gpt-4o"))
        .await
        .unwrap_err();
    let entry = fake.log().await.pop().unwrap();
    assert_eq!((entry.outcome, entry.usage_sent), (Outcome::Cut, false));
    assert!(
        entry.completion_tokens > 0,
        "the answer was generated, and only lost"
    );
}

#[tokio::test]
async fn malformed_faults_are_refused() {
    let fake = FakeProvider::start().await;
    for (fault, named) in [
        (json!({"delay": 5}), "delay"),
        (json!({"status": 200}), "status"),
        (json!({"times": 0}), "times"),
        (json!({"retry_after_s": 1}), "retry_after_s"),
        (
            json!({"cut_after_chunks": 1, "error_in_stream_after_chunks": 1}),
            "cut_after_chunks",
        ),
        (json!({"delay_ms": "5"}), "invalid type"),
        (json!("x"), "invalid type"),
    ] {
        let url = fake.url("/__fake/faults");
        let reply = send(Method::POST, url, &[], fault.to_string())
            .await
            .unwrap()
            .with_status(400);
        let message = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(message.contains(named), "{fault}: {message}");
    }
    fake.chat(&body("gpt-4o")).await.with_status(200);
    send(Method::GET, fake.url("/__fake/nothing"), &[], "")
        .await
        .unwrap()
        .with_status(404);
    send(Method::GET, fake.url("/healthz"), &[], "")
        .await
        .unwrap()
        .with_status(200);
    assert_eq!(
        fake.log().await.len(),
        1,
        "the control API is not in the log"
    );
}

#[tokio::test]
async fn the_log_is_in_order_of_arrival_and_can_be_emptied() {
    let fake = FakeProvider::start().await;
    fake.fault(&json!({"model": "gpt-4o", "delay_ms": 60_000}))
        .await;
    let slow = async {
        let _ = fake.chat(&body("gpt-4o")).await;
    };
    let fast = async {
        crate::client::eventually(|| fake.provider.open_requests() == 1).await;
        fake.chat(&body("gpt-4o-mini")).await.with_status(200);
    };
    tokio::select! { () = slow => {}, () = fast => {} }
    let models: Vec<_> = fake
        .log()
        .await
        .iter()
        .map(|e| (e.seq, e.model.clone()))
        .collect();
    assert_eq!(
        models,
        [
            (1, Some("gpt-4o".to_owned())),
            (2, Some("gpt-4o-mini".to_owned()))
        ]
    );
    send(Method::DELETE, fake.url("/__fake/log"), &[], "")
        .await
        .unwrap()
        .with_status(204);
    assert!(fake.log().await.is_empty());
    fake.chat(&body("gpt-4o-mini")).await;
    assert_eq!(fake.log().await[0].seq, 3);
}

#[tokio::test]
async fn counts_are_exact_under_load() {
    let fake = FakeProvider::start().await;
    let mut expected: Vec<(Option<String>, u64)> = Vec::new();
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..60 {
        let url = fake.url("/v1/chat/completions");
        let mut body = body("gpt-4o-mini");
        body["user"] = json!(format!("tenant-{number}"));
        body["messages"][0]["content"] = json!("word ".repeat(number + 1));
        requests.spawn(async move {
            let key = format!("Bearer {}", crate::client::PROVIDER_KEY);
            let headers = [
                ("authorization", key.as_str()),
                ("content-type", "application/json"),
            ];
            let reply = send(Method::POST, url, &headers, body.to_string())
                .await
                .unwrap();
            (
                body["user"].as_str().map(str::to_owned),
                reply.json()["usage"]["total_tokens"].as_u64().unwrap(),
            )
        });
    }
    while let Some(result) = requests.join_next().await {
        expected.push(result.unwrap());
    }
    let mut logged: Vec<(Option<String>, u64)> = fake
        .log()
        .await
        .into_iter()
        .map(|e| (e.user, e.prompt_tokens + e.completion_tokens))
        .collect();
    expected.sort();
    logged.sort();
    assert_eq!(logged, expected);
}
