//! Whole answers, and errors, of providers of either dialect.

use weir_router_core::translate::{to_anthropic, to_openai};
use weir_wire::error::ApiError;

use crate::golden::{check, pretty};

const CREATED_S: i64 = 1_700_000_000;

#[track_caller]
fn of_anthropic(name: &str, body: &str) {
    let out = to_openai::answer(body.as_bytes(), CREATED_S).unwrap();
    check(name, body, &pretty(&out));
}

#[track_caller]
fn of_openai(name: &str, body: &str) {
    let out = to_anthropic::answer(body.as_bytes()).unwrap();
    check(name, body, &pretty(&out));
}

#[test]
fn anthropic_text_and_usage() {
    of_anthropic(
        "answer_anthropic_text",
        r#"
{
  "id": "msg_01", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
  "content": [
    {"type": "thinking", "thinking": "hidden", "signature": "s"},
    {"type": "redacted_thinking", "data": "d"},
    {"type": "text", "text": "Hello \"you\"\n", "citations": null},
    {"type": "text", "text": "again"}
  ],
  "stop_reason": "end_turn", "stop_sequence": null, "stop_details": null,
  "usage": {"input_tokens": 10, "cache_creation_input_tokens": 200, "cache_read_input_tokens": 3000, "output_tokens": 44,
    "output_tokens_details": {"thinking_tokens": 30}, "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 0}, "service_tier": "standard"}
}"#,
    );
}

#[test]
fn anthropic_tool_calls() {
    of_anthropic(
        "answer_anthropic_tools",
        r#"
{
  "id": "msg_02", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
  "content": [
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Par is", "n": 1.50}},
    {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}
  ],
  "stop_reason": "tool_use", "stop_sequence": null,
  "usage": {"input_tokens": 1, "output_tokens": 2}
}"#,
    );
}

#[test]
fn anthropic_json_answer() {
    of_anthropic(
        "answer_anthropic_json",
        r#"
{
  "id": "msg_03", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
  "content": [{"type": "tool_use", "id": "toolu_1", "name": "json_answer", "input": {"name": "Ada", "age": 36}}],
  "stop_reason": "tool_use", "stop_sequence": null,
  "usage": {"input_tokens": 1, "output_tokens": 2}
}"#,
    );
}

#[test]
fn openai_text_and_usage() {
    of_openai(
        "answer_openai_text",
        r#"
{
  "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4.1-2025-04-14", "system_fingerprint": "fp",
  "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello \"you\"\n", "refusal": null, "annotations": []}, "logprobs": null, "finish_reason": "stop"}],
  "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150, "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 0}}
}"#,
    );
}

#[test]
fn openai_tool_calls() {
    of_openai(
        "answer_openai_tools",
        r#"
{
  "id": "chatcmpl-2", "model": "gpt-4.1",
  "choices": [{"index": 0, "message": {"role": "assistant", "content": "I look.", "tool_calls": [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Paris\"}"}},
    {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}},
    {"type": "function", "function": {"name": "weak", "arguments": "{\"cut\": \"of"}},
    {"id": "", "type": "function", "function": {"name": "list", "arguments": "[1]"}}
  ]}, "finish_reason": "stop"}],
  "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
}"#,
    );
}

#[test]
fn openai_refusal() {
    of_openai(
        "answer_openai_refusal",
        r#"
{
  "id": "chatcmpl-3", "model": "gpt-4.1",
  "choices": [{"index": 0, "message": {"role": "assistant", "content": null, "refusal": "I can't."}, "finish_reason": "stop"}]
}"#,
    );
}

#[test]
fn reasons_why_the_model_stopped() {
    for (stop_reason, expected) in [
        (r#""end_turn""#, "stop"),
        (r#""stop_sequence""#, "stop"),
        (r#""max_tokens""#, "length"),
        (r#""model_context_window_exceeded""#, "length"),
        (r#""tool_use""#, "tool_calls"),
        (r#""refusal""#, "content_filter"),
        (r#""pause_turn""#, "stop"),
        ("null", "stop"),
        (r#""of tomorrow""#, "stop"),
    ] {
        let body = format!(
            r#"{{"type":"message","content":[{{"type":"tool_use","id":"t","name":"f","input":{{}}}}],"stop_reason":{stop_reason}}}"#
        );
        let out = to_openai::answer(body.as_bytes(), CREATED_S).unwrap();
        let out: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            out["choices"][0]["finish_reason"], expected,
            "{stop_reason}"
        );
    }
    for (finish_reason, calls, expected) in [
        (r#""stop""#, false, "end_turn"),
        (r#""stop""#, true, "tool_use"),
        (r#""length""#, true, "max_tokens"),
        (r#""tool_calls""#, true, "tool_use"),
        (r#""content_filter""#, false, "refusal"),
        ("null", false, "end_turn"),
    ] {
        let calls = if calls {
            r#"[{"id":"c","function":{"name":"f","arguments":"{}"}}]"#
        } else {
            "null"
        };
        let body = format!(
            r#"{{"choices":[{{"message":{{"content":"x","tool_calls":{calls}}},"finish_reason":{finish_reason}}}]}}"#
        );
        let out = to_anthropic::answer(body.as_bytes()).unwrap();
        let out: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(out["stop_reason"], expected, "{finish_reason}");
    }
}

#[test]
fn what_is_no_answer_is_none() {
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "<html>",
        r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#,
        r#"{"type":"message"}"#,
    ] {
        assert_eq!(
            to_openai::answer(body.as_bytes(), CREATED_S),
            None,
            "{body}"
        );
        assert_eq!(to_anthropic::answer(body.as_bytes()), None, "{body}");
    }
    assert_eq!(to_anthropic::answer(br#"{"choices":[]}"#), None);
    assert_eq!(to_anthropic::answer(br#"{"error":{"message":"m"}}"#), None);
}

fn error(kind: &str, param: Option<&str>, code: Option<&str>) -> ApiError {
    ApiError {
        message: "m".to_owned(),
        kind: kind.to_owned(),
        param: param.map(str::to_owned),
        code: code.map(str::to_owned),
    }
}

#[test]
fn anthropics_errors_are_said_in_openais_words() {
    for (theirs, kind, code) in [
        ("invalid_request_error", "invalid_request_error", None),
        (
            "authentication_error",
            "invalid_request_error",
            Some("invalid_api_key"),
        ),
        (
            "billing_error",
            "insufficient_quota",
            Some("insufficient_quota"),
        ),
        (
            "permission_error",
            "invalid_request_error",
            Some("permission_denied"),
        ),
        (
            "not_found_error",
            "invalid_request_error",
            Some("model_not_found"),
        ),
        (
            "request_too_large",
            "invalid_request_error",
            Some("request_too_large"),
        ),
        (
            "rate_limit_error",
            "rate_limit_error",
            Some("rate_limit_exceeded"),
        ),
        ("timeout_error", "server_error", Some("timeout")),
        ("overloaded_error", "server_error", Some("overloaded")),
        ("api_error", "server_error", Some("provider_error")),
        ("error_of_tomorrow", "server_error", Some("provider_error")),
    ] {
        let body = format!(
            r#"{{"type":"error","error":{{"type":"{theirs}","message":"m"}},"request_id":"r"}}"#
        );
        assert_eq!(
            to_openai::error(body.as_bytes()),
            Some(error(kind, None, code)),
            "{theirs}"
        );
    }
    for body in [
        "",
        "{}",
        "<html>",
        r#"{"error":"m"}"#,
        r#"{"error":{"message":"m"}}"#,
    ] {
        assert_eq!(to_openai::error(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn openais_errors_and_those_of_its_copies_are_read() {
    for (body, expected) in [
        (
            r#"{"error":{"message":"m","type":"invalid_request_error","param":"n","code":"c"}}"#,
            error("invalid_request_error", Some("n"), Some("c")),
        ),
        (
            r#"{"error":{"code":500,"message":"m","type":"server_error"}}"#,
            error("server_error", None, Some("500")),
        ),
        (
            r#"{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}"#,
            error("BadRequestError", None, Some("400")),
        ),
        (
            r#"{"error":"m"}"#,
            error("server_error", None, Some("provider_error")),
        ),
        (
            r#"{"error":{"message":"m"}}"#,
            error("server_error", None, None),
        ),
    ] {
        assert_eq!(
            to_anthropic::error(body.as_bytes()),
            Some(expected),
            "{body}"
        );
    }
    for body in ["", "{}", "<html>", r#"{"message":"m"}"#, r#"{"error":{}}"#] {
        assert_eq!(to_anthropic::error(body.as_bytes()), None, "{body}");
    }
}
