//! What the ledger knows of each request is what the providers served: one event for
//! each, with its class, its model, its tokens and how it ended.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_harness::{Options, providers::PROVIDERS};
use weir_pipeline_tests::{Pipeline, chat};

/// A request as both ends tell of it: class, model, and tokens of input, from the
/// cache, of output, of reasoning.
type Told = (String, String, [i64; 4]);

fn class_of(path: &str) -> &'static str {
    match path {
        "/v1/chat/completions" | "/v1/messages" => "chat",
        "/v1/responses" => "responses",
        "/v1/embeddings" => "embedding",
        other => panic!("{other} is served by no provider here"),
    }
}

/// What the fakes served a tenant. A chat in one dialect may have been served in the
/// other: both are chats.
fn served(p: &Pipeline, tenant: &str) -> BTreeMap<Told, usize> {
    let log = PROVIDERS.iter().flat_map(|name| p.log_of(name));
    let own = log.filter(|entry| entry["user"] == tenant && entry["path"] != "/v1/models");
    count(own.map(|entry| {
        let number = |name: &str| entry[name].as_i64().unwrap();
        (
            class_of(entry["path"].as_str().unwrap()).to_owned(),
            entry["model"].as_str().unwrap().to_owned(),
            [
                number("prompt_tokens"),
                number("cached_tokens"),
                number("completion_tokens"),
                number("reasoning_tokens"),
            ],
        )
    }))
}

fn count(told: impl Iterator<Item = Told>) -> BTreeMap<Told, usize> {
    told.fold(BTreeMap::new(), |mut counts, one| {
        *counts.entry(one).or_default() += 1;
        counts
    })
}

fn told(event: &Value) -> Told {
    let number = |name: &str| event[name].as_i64().unwrap();
    let cached = number("cached_input_tokens");
    let reasoning = number("reasoning_tokens");
    let asked = event["model_asked"].as_str().unwrap();
    // Answers name it with its date.
    let served = event["model_served"].as_str().unwrap();
    assert!(served.starts_with(asked), "{event}");
    (
        event["class"].as_str().unwrap().to_owned(),
        asked.to_owned(),
        [
            number("input_tokens") + cached + number("cache_write_input_tokens"),
            cached,
            number("output_tokens") + reasoning,
            reasoning,
        ],
    )
}

/// Whether the gateway and the router told of it.
fn has_both(event: &Value) -> bool {
    event["witnesses"] == json!(["gateway", "router"])
}

#[test]
fn the_ledger_holds_what_the_providers_served_for_each_request() {
    let p = Pipeline::with(Options {
        limits: vec![("starter".into(), 100_000), ("enterprise".into(), 100_000)],
        // What is left is read on to its end, and who leaves has the time to.
        router: json!({"drain_s": 120, "plans": {"starter": {"timeout_s": 30}}}),
        ..Options::default()
    });
    // Those that leave must leave in the middle: a stream of theirs lasts 16 s.
    for (name, path) in [
        ("openai", "/v1/chat/completions"),
        ("anthropic", "/v1/messages"),
    ] {
        p.fault_of(
            name,
            &json!({"path": path, "chunk_delay_ms": 40, "answer_words": 400}),
        );
    }
    let late = json!({"path": "/v1/responses", "delay_ms": 12_000});
    p.fault_of("openai", &late);
    let printed = p.python("usage.py");
    let ids: Vec<&str> = printed.lines().collect();
    // What was left is answered to its end first.
    let _ = p.served();
    p.check_adds_up();
    let events = p.events_once(&["--limit", "1000"], |events| {
        events.len() >= ids.len() + 50 && events.iter().all(has_both)
    });

    // Each once, and each answer's id is in the ledger.
    let all: BTreeMap<&str, &Value> = events
        .iter()
        .map(|e| (e["request_id"].as_str().unwrap(), e))
        .collect();
    assert_eq!(all.len(), events.len());
    assert_eq!(all.len(), ids.len() + 50);
    for id in ids {
        let event = all[id];
        assert_eq!(event["outcome"], "completed", "{event}");
        assert_eq!(event["tenant"], "acme");
        assert_eq!(event["witnesses"], json!(["gateway", "router"]), "{event}");
    }
    for event in all.values().filter(|e| e["tenant"] == "solo") {
        assert_eq!(event["outcome"], "client_disconnected", "{event}");
        let class = event["class"].as_str().unwrap();
        assert!(["chat", "responses"].contains(&class), "{event}");
    }
    for tenant in ["acme", "solo"] {
        let own = events
            .iter()
            .filter(|e| e["tenant"] == tenant && e["class"] != "models");
        assert_eq!(count(own.map(told)), served(&p, tenant), "{tenant}");
    }
}

#[test]
fn what_is_refused_on_the_way_is_one_event_too() {
    let p = Pipeline::alone();
    let path = "/v1/chat/completions";
    let mut ids = BTreeMap::new();
    let mut note = |answer: reqwest::blocking::Response, class: &'static str, outcome| {
        let id = answer.headers()["x-weir-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(id.len(), 36);
        let status = answer.status().as_u16();
        assert!(answer.text().unwrap().contains("error"));
        ids.insert(id, (status, class, outcome));
    };
    // By request-classification, by the router, by the provider.
    let broken = p.http.post(format!("{}{path}", p.stack.url()));
    let broken = broken.bearer_auth(p.key("solo")).body("{\"model\":");
    note(broken.send().unwrap(), "chat", "rejected");
    note(
        p.post("solo", "/v1/nothing", json!({})),
        "unclassified",
        "rejected",
    );
    let mut rag = chat("x", false);
    rag["retrieval"] = json!({});
    note(p.post("solo", path, rag), "rag", "rejected");
    note(
        p.post("solo", path, json!({"model": "gpt-9", "messages": []})),
        "chat",
        "rejected",
    );
    p.provider_fault(&json!({"status": 500, "times": 1}));
    note(p.chat("solo", "x"), "chat", "upstream_error");
    // Each is told of by one witness or by both, in either order.
    let _ = p.events_once(&[], |events| {
        ids.iter().all(|(id, (status, class, outcome))| {
            let told = events.iter().find(|event| event["request_id"] == **id);
            told.is_some_and(|event| {
                event["status"] == *status
                    && event["class"] == *class
                    && event["outcome"] == *outcome
            })
        })
    });
    p.close_hour();
    for (id, (status, class, outcome)) in &ids {
        let events = p.events(&["--request", id]);
        assert_eq!(events.len(), 1, "{events:?}");
        let event = &events[0];
        assert_eq!(event["class"], *class, "{event}");
        assert_eq!(event["outcome"], *outcome, "{event}");
        assert_eq!(event["status"], *status, "{event}");
    }
    assert_eq!(p.events(&[]).len(), ids.len());
    assert!(p.billed().is_empty());
}

#[test]
fn azures_client_is_served_by_the_model_of_its_path() {
    let p = Pipeline::start();
    let post = |path: &str| {
        let request = p.http.post(format!("{}{path}", p.stack.url()));
        let body = json!({"messages": [{"role": "user", "content": "x"}], "user": "acme"});
        request
            .header("api-key", p.key("acme"))
            .json(&body)
            .send()
            .unwrap()
    };
    let answer = post("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21");
    assert_eq!(answer.status(), 200);
    let body: Value = answer.json().unwrap();
    assert_eq!(body["object"], "chat.completion", "{body}");
    p.check_adds_up();
    let events = p.events_once(&[], |events| events.iter().all(has_both));
    assert_eq!(events[0]["model_asked"], "gpt-4o", "{events:?}");
    assert_eq!(events[0]["class"], "chat");
}

#[test]
fn a_gateway_that_is_stopped_loses_no_event() {
    // Nothing by HTTP: what counts is in the log.
    let mut p = Pipeline::with(Options {
        access_log: true,
        limits: vec![("starter".into(), 100_000), ("enterprise".into(), 100_000)],
        ..Options::default()
    });
    p.fault_of("openai", &json!({"chunk_delay_ms": 5}));
    std::thread::scope(|scope| {
        for n in 0..8 {
            let p = &p;
            scope.spawn(move || {
                for turn in 0..6 {
                    let body = chat(&format!("{n} {turn}"), turn % 2 == 0);
                    let _ = p.post("solo", "/v1/chat/completions", body).text();
                }
            });
        }
    });
    p.stack.stop_gateways();
    p.check_adds_up();
    let events = p.events_once(&["--limit", "1000"], |events| {
        events.len() >= 48 && events.iter().all(has_both)
    });
    assert_eq!(events.len(), 48);
    for event in &events {
        assert_eq!(event["witnesses"], json!(["gateway", "router"]), "{event}");
    }
}
