//! What becomes of requests while providers fail: others serve them, or the client
//! is told, and what is billed is what it was served.

use std::{
    io::Read as _,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use reqwest::blocking::Response;
use serde_json::{Value, json};
use weir_harness::Options;
use weir_pipeline_tests::{PATIENCE, Pipeline, chat};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    let value = answer.headers().get(name);
    value.map_or("", |v| v.to_str().unwrap())
}

/// A chat of acme's with that model.
fn ask(p: &Pipeline, path: &str, model: &str, stream: bool) -> Response {
    let mut body = chat("a story, please", stream);
    body["model"] = json!(model);
    body["max_tokens"] = json!(64);
    p.post("acme", path, body)
}

#[track_caller]
fn check_served(answer: Response, provider: &str, attempts: &str) -> String {
    let headers = answer.headers().clone();
    let status = answer.status();
    let text = answer.text().unwrap();
    assert_eq!(status, 200, "{text}");
    assert_eq!(headers["x-weir-provider"], provider, "{text}");
    assert_eq!(headers["x-weir-attempts"], attempts);
    let reason = headers.get("x-weir-model-reason");
    let is_other = attempts != "1";
    assert_eq!(reason.is_some_and(|r| r == "failover"), is_other);
    text
}

#[test]
fn anthropic_down_goes_to_openai_and_both_down_to_the_self_hosted() {
    let p = Pipeline::start();
    for (path, stream) in [
        (CHAT, false),
        (CHAT, true),
        (MESSAGES, false),
        (MESSAGES, true),
    ] {
        for fault in [
            json!({"status": 529}),
            json!({"status": 500}),
            json!({"status": 429, "retry_after_s": 1}),
            json!({"status": 401}),
            json!({"cut_after_chunks": 0}),
        ] {
            p.heal("anthropic");
            let mut fault = fault;
            fault["times"] = json!(1);
            p.fault_of("anthropic", &fault);
            let answer = ask(&p, path, "claude-sonnet-5-5", stream);
            let provider = header(&answer, "x-weir-provider").to_owned();
            // One that was told to wait, or was taken for broken, is not asked.
            assert_eq!(
                provider,
                "openai",
                "{path} {stream} {fault} {:?}",
                answer.headers()
            );
            let text = answer.text().unwrap();
            let end = match (path, stream) {
                (_, false) => "}",
                (CHAT, true) => "data: [DONE]",
                (_, true) => "message_stop",
            };
            assert!(text.contains(end), "{text}");
            assert!(!text.contains("error"), "{text}");
        }
    }
    p.heal("anthropic");
    p.fault_of("anthropic", &json!({"status": 529}));
    p.fault_of("openai", &json!({"status": 503}));
    for stream in [false, true] {
        let answer = ask(&p, CHAT, "claude-opus-5-5", stream);
        assert_eq!(header(&answer, "x-weir-provider"), "self-hosted");
        assert_eq!(header(&answer, "x-weir-model"), "mistral-7b");
        assert_eq!(header(&answer, "x-weir-model-reason"), "failover");
        assert_eq!(answer.status(), 200);
    }
    p.check_adds_up();
}

#[test]
fn an_error_before_the_first_content_of_a_stream_is_nobodys_to_see() {
    let p = Pipeline::start();
    for path in [CHAT, MESSAGES] {
        p.fault_of(
            "anthropic",
            &json!({"error_in_stream_after_chunks": 0, "times": 1}),
        );
        let answer = ask(&p, path, "claude-haiku-4-5", true);
        let text = check_served(answer, "openai", "2");
        assert!(!text.contains("error"), "{text}");
    }
    // Later than that the client is told, and never that the answer is whole.
    p.fault_of(
        "anthropic",
        &json!({"error_in_stream_after_chunks": 6, "times": 1}),
    );
    let mut answer = ask(&p, MESSAGES, "claude-haiku-4-5", true);
    let mut text = String::new();
    let clean = answer.read_to_string(&mut text).is_ok();
    assert!(!clean && text.contains("event: error"), "{text}");
    assert!(!text.contains("message_stop"), "{text}");
}

#[test]
fn a_provider_that_does_not_begin_makes_way_in_time() {
    // The slow one has six tenths of the time, and the other one the rest.
    let time_s = 20;
    let p = Pipeline::with(Options {
        router: json!({"plans": {"starter": {"timeout_s": time_s}}}),
        ..Options::default()
    });
    p.fault_of(
        "openai",
        &json!({"delay_ms": 60_000, "model": "gpt-4o-mini"}),
    );
    for stream in [true, false] {
        let start = Instant::now();
        let answer = p.post("solo", CHAT, chat("hello", stream));
        assert_eq!(header(&answer, "x-weir-provider"), "anthropic");
        assert!(start.elapsed() < Duration::from_secs(time_s));
    }
}

#[test]
fn all_down_is_503_with_a_time_to_come_again() {
    let p = Pipeline::start();
    for name in ["anthropic", "openai", "self-hosted"] {
        p.fault_of(name, &json!({"status": 503, "retry_after_s": 7}));
    }
    for (path, stream) in [(CHAT, true), (MESSAGES, false)] {
        let answer = ask(&p, path, "claude-opus-5-5", stream);
        assert_eq!(answer.status(), 503);
        let wait: u64 = header(&answer, "retry-after").parse().unwrap();
        assert!((1..=7).contains(&wait), "{wait}");
        let error: Value = answer.json().unwrap();
        assert!(error["error"]["message"].is_string(), "{error}");
    }
    p.close_hour();
    assert_eq!(p.billed().get("acme").map_or(0, |s| s[0]), 0);
}

#[test]
fn what_is_the_requests_fault_is_asked_of_nobody_else() {
    let p = Pipeline::start();
    p.fault_of("anthropic", &json!({"status": 400, "times": 1}));
    let answer = ask(&p, MESSAGES, "claude-opus-5-5", false);
    assert_eq!(answer.status(), 400);
    assert!(p.log_of("openai").is_empty());
}

#[test]
fn a_broken_provider_is_left_alone_and_asked_again_later() {
    let p = Pipeline::with(Options {
        router: json!({"failover": {"health": {"open_ms": 1_000}}}),
        ..Options::default()
    });
    p.fault_of("anthropic", &json!({"status": 500}));
    for _ in 0..30 {
        assert_eq!(ask(&p, CHAT, "claude-haiku-4-5", false).status(), 200);
    }
    let asked = p.log_of("anthropic").len();
    assert!((5..=12).contains(&asked), "{asked}");
    p.heal("anthropic");
    // The pause doubles with each call that tries and fails: it may be as long as all of
    // that took.
    let start = Instant::now();
    while header(&ask(&p, CHAT, "claude-haiku-4-5", false), "x-weir-provider") != "anthropic" {
        assert!(start.elapsed() < 2 * PATIENCE, "it is not asked again");
        std::thread::sleep(Duration::from_millis(100));
    }
    for _ in 0..3 {
        let answer = ask(&p, CHAT, "claude-haiku-4-5", false);
        assert_eq!(header(&answer, "x-weir-provider"), "anthropic");
    }
    p.check_adds_up();
}

#[test]
fn a_slow_first_token_is_hedged_and_paid_once() {
    let p = Pipeline::with(Options {
        router: json!({"plans": {"enterprise": {"hedge_ms": 200}}}),
        ..Options::default()
    });
    p.fault_of(
        "anthropic",
        &json!({"first_token_delay_ms": 25_000, "delay_ms": 0}),
    );
    let start = Instant::now();
    let answer = ask(&p, CHAT, "claude-haiku-4-5", true);
    let text = check_served(answer, "openai", "2");
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    p.heal("anthropic");
    let log = p.log_of("openai");
    let tokens = ["prompt_tokens", "completion_tokens"].map(|name| log[0][name].as_i64().unwrap());
    let once = [1, tokens[0], tokens[1]];
    p.billed_once(|billed| billed.get("acme") == Some(&once));
}

#[test]
fn a_self_hosted_model_that_is_away_is_probed_and_comes_back() {
    let p = Pipeline::with(Options {
        router: json!({"providers": {"self-hosted": {"probe": {"every_ms": 200, "timeout_ms": 2_000}}}}),
        ..Options::default()
    });
    let ask = |p: &Pipeline| ask(p, CHAT, "mistral-7b", false);
    let check_becomes = |status: u16| {
        let start = Instant::now();
        while ask(&p).status() != status {
            assert!(start.elapsed() < 2 * PATIENCE, "it is never {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    check_becomes(200);
    let fake = p.stack.providers.get("self-hosted").fake.as_ref().unwrap();
    fake.process.signal(Signal::SIGSTOP);
    // Who asks before a probe found it out waits for the fake.
    check_becomes(503);
    let start = Instant::now();
    let answer = ask(&p);
    assert_eq!(answer.status(), 503);
    assert!(!header(&answer, "retry-after").is_empty());
    assert!(start.elapsed() < Duration::from_secs(10));
    fake.process.signal(Signal::SIGCONT);
    check_becomes(200);
}

#[test]
fn one_tenants_batch_does_not_starve_another_at_the_self_hosted() {
    let p = Pipeline::with(Options {
        router: json!({"providers": {"self-hosted": {
            "share": {"capacity": 2, "queue": 64},
        }}, "plans": {"starter": {"tiers": ["fast", "self-hosted"], "timeout_s": 30}}}),
        ..Options::default()
    });
    p.fault_of("self-hosted", &json!({"delay_ms": 500}));
    let mut body = chat("one of very many", false);
    body["model"] = json!("mistral-7b");
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            let body = body.clone();
            scope.spawn(|| {
                assert_eq!(p.post("acme", CHAT, body).status(), 200);
                done.fetch_add(1, Relaxed);
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        // Some of acme's are over, and all others were there before.
        assert_eq!(p.post("solo", CHAT, body.clone()).status(), 200);
        let before = done.load(Relaxed);
        assert!(before < 30, "{before} of acme's 40 came first");
    });
    p.check_adds_up();
}
