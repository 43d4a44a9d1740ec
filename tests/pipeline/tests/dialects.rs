//! Every dialect to every provider: SDKs, streams that fail, and what a plan has.

use std::time::Duration;

use serde_json::{Value, json};
use weir_pipeline_tests::{Pipeline, chat};

#[test]
fn each_sdk_gets_its_dialect_from_each_model_and_all_of_it_is_billed() {
    let p = Pipeline::start();
    p.python("dialects.py");
    p.check_adds_up();
    // The providers saw what was sent: images and tools among it.
    for name in ["openai", "anthropic"] {
        let log = p.log_of(name);
        let has = |field: &str| log.iter().any(|e| e[field].as_u64() > Some(0));
        assert!(has("images") && has("tools"), "{name}");
    }
}

/// Asks for a stream in a dialect; gives status and body.
fn stream(p: &Pipeline, path: &str, model: &str) -> (u16, String) {
    let body = json!({
        "model": model,
        "max_tokens": 100,
        "stream": true,
        "messages": [{"role": "user", "content": "go on"}],
    });
    let request = p
        .http
        .post(format!("{}{path}", p.stack.url()))
        .bearer_auth(p.key("acme"));
    let mut response = request.json(&body).send().expect("the gateway answers");
    let status = response.status().as_u16();
    let mut text = Vec::new();
    // A cut is an error here; what came before it counts.
    let _ = std::io::copy(&mut response, &mut text);
    (status, String::from_utf8_lossy(&text).into_owned())
}

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

#[test]
fn a_stream_that_fails_never_ends_well_in_any_dialect() {
    let p = Pipeline::alone();
    for (path, model, provider) in [
        (CHAT, "gpt-4o", "openai"),
        (CHAT, "claude-opus-5-5", "anthropic"),
        (MESSAGES, "gpt-4o", "openai"),
        (MESSAGES, "claude-opus-5-5", "anthropic"),
        (MESSAGES, "mistral-7b", "self-hosted"),
    ] {
        for fault in [
            json!({"cut_after_chunks": 5, "times": 1}),
            json!({"error_in_stream_after_chunks": 5, "times": 1}),
        ] {
            p.fault_of(provider, &fault);
            let (status, text) = stream(&p, path, model);
            let told = format!("{path} {model} {fault}: {text}");
            assert_eq!(status, 200, "{told}");
            assert!(text.contains("\"error\":"), "{told}");
            assert!(
                !text.contains("[DONE]") && !text.contains("message_stop"),
                "{told}"
            );
            assert_eq!(text.contains("event: error"), path == MESSAGES, "{told}");
        }
        // Before any content there is a status, not a stream.
        p.fault_of(provider, &json!({"cut_after_chunks": 1, "times": 1}));
        let (status, text) = stream(&p, path, model);
        assert_eq!(status, 502, "{path} {model}: {text}");
        let error: Value = serde_json::from_str(&text).expect("an error object");
        assert_eq!(error["type"] == "error", path == MESSAGES, "{error}");
        assert_eq!(stream(&p, path, model).0, 200);
    }
}

#[test]
fn errors_of_a_provider_come_in_the_clients_words() {
    let p = Pipeline::alone();
    for (path, model, provider, status, told, kind) in [
        (
            CHAT,
            "claude-opus-5-5",
            "anthropic",
            529,
            503,
            "server_error",
        ),
        (
            CHAT,
            "claude-opus-5-5",
            "anthropic",
            429,
            429,
            "rate_limit_error",
        ),
        (
            MESSAGES,
            "claude-opus-5-5",
            "anthropic",
            529,
            529,
            "overloaded_error",
        ),
        (MESSAGES, "gpt-4o", "openai", 429, 429, "rate_limit_error"),
        (MESSAGES, "gpt-4o", "openai", 500, 500, "api_error"),
        (
            CHAT,
            "claude-opus-5-5",
            "anthropic",
            401,
            502,
            "server_error",
        ),
        (MESSAGES, "gpt-4o", "openai", 401, 502, "api_error"),
    ] {
        p.fault_of(
            provider,
            &json!({"status": status, "retry_after_s": 7, "times": 1}),
        );
        let (found, text) = stream(&p, path, model);
        assert_eq!(found, told, "{path} {model} {status}: {text}");
        let error: Value = serde_json::from_str(&text).expect("an error object");
        assert_eq!(error["error"]["type"], kind, "{error}");
        assert_eq!(error["type"] == "error", path == MESSAGES, "{error}");
    }
}

#[test]
fn a_plan_has_its_time() {
    let p = Pipeline::alone();
    // A starter has five seconds: to the first token of a stream, and in all.
    for (fault, stream) in [
        (json!({"delay_ms": 20_000, "times": 1}), false),
        (json!({"first_token_delay_ms": 20_000, "times": 1}), true),
    ] {
        p.provider_fault(&fault);
        let answer = p.post("solo", CHAT, chat("late", stream));
        assert_eq!(answer.status(), 504, "{fault}");
        let error: Value = answer.json().unwrap();
        assert_eq!(error["error"]["code"], "timeout", "{error}");
    }
    // A stream that began in time may take longer: eight seconds.
    p.provider_fault(&json!({"chunk_delay_ms": 200, "answer_words": 40, "times": 1}));
    let answer = p.post("solo", CHAT, chat("slowly, in many words", true));
    assert_eq!(answer.status(), 200);
    assert!(answer.text().unwrap().ends_with("data: [DONE]\n\n"));
    std::thread::sleep(Duration::from_secs(2));
    p.provider_heals();
}

#[test]
fn the_gateways_own_refusals_have_the_dialect_of_the_path() {
    let p = Pipeline::start();
    let answer = p
        .http
        .post(format!("{}{MESSAGES}", p.stack.url()))
        .header("x-api-key", "wrong")
        .body("{}")
        .send()
        .unwrap();
    assert_eq!(answer.status(), 401);
    let error: Value = answer.json().unwrap();
    assert_eq!(error["type"], "error", "{error}");
    assert_eq!(error["error"]["type"], "authentication_error", "{error}");
    // Envoy's own: there is no such path behind it.
    let answer = p
        .http
        .get(format!("{}{MESSAGES}", p.stack.url()))
        .bearer_auth(p.key("acme"))
        .send()
        .unwrap();
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.json::<Value>().unwrap()["type"], "error");
}

#[test]
fn no_request_takes_the_router_down() {
    let p = Pipeline::start();
    // A schema without a bottom once overflowed a stack. The gateway refuses what is
    // very deep; the rest is the router's to refuse.
    let deep = |depth: usize| {
        format!(
            r#"{{"model":"claude-haiku-4-5","max_tokens":9,"messages":[{{"role":"user","content":"x"}}],"response_format":{{"type":"json_schema","json_schema":{{"name":"a","schema":{}1{}}}}}}}"#,
            r#"{"type":"object","items":"#.repeat(depth),
            "}".repeat(depth),
        )
    };
    let image = json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "DUPLICATE"}],
    });
    let twice = image.to_string().replace(
        "\"DUPLICATE\"",
        r#"[{"type":"text","type":"image_url","image_url":{"url":"u"}}]"#,
    );
    for (path, body) in [(CHAT, deep(20_000)), (CHAT, deep(120)), (CHAT, twice)] {
        let answer = p
            .http
            .post(format!("{}{path}", p.stack.url()))
            .bearer_auth(p.key("acme"))
            .header("content-type", "application/json")
            .body(body);
        let answer = answer.send().unwrap();
        assert_eq!(answer.status(), 400);
        let error: Value = answer.json().unwrap();
        let error = &error["error"];
        let is_named = error["param"].is_string() || error["code"] == "invalid_json";
        assert!(is_named, "{error}");
    }
    assert_eq!(p.chat("acme", "still there").status(), 200);
}
