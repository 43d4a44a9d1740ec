//! Tests of what an answer shows of its use.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const JSON: &str = include_str!("../../../../contracts/fixtures/openai-chat.json");

#[test]
fn a_whole_chat_answer_is_read() {
    let seen = Seen::of_json(Wire::Chat, JSON.as_bytes());
    assert_eq!(seen.model.as_deref(), Some("gpt-4o-2024-08-06"));
    assert_eq!(seen.usage.unwrap().cached_input, 16);
    assert_eq!(seen.output_bytes, "Paris, \"model\":\"x\"".len());
    let tools = br#"{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"ab","arguments":"{}"}}]}}]}"#;
    assert_eq!(Seen::of_json(Wire::Chat, tools).output_bytes, 4);
    let text = br#"{"choices":[{"text":"abc"}]}"#;
    assert_eq!(Seen::of_json(Wire::Chat, text).output_bytes, 3);
    assert!(Seen::of_json(Wire::Chat, br#"{"error":{"message":"m"}}"#).error);
    assert!(!Seen::of_json(Wire::Chat, br#"{"error":null}"#).error);
}

#[test]
fn what_is_odd_hides_nothing_else() {
    let body = br#"{"model":5,"choices":[{"message":{"content":[{"type":"text"}],"tool_calls":7}}],"usage":{"prompt_tokens":2,"completion_tokens":3}}"#;
    let seen = Seen::of_json(Wire::Chat, body);
    assert_eq!(seen.usage.map(|u| (u.input, u.output)), Some((2, 3)));
    assert!(seen.understood);
    for (wire, body) in [
        (Wire::Chat, "<html></html>"),
        (Wire::Chat, ""),
        (Wire::Chat, "{}"),
        (Wire::Chat, "data: {\"choices\":[]}"),
        (Wire::Messages, r#"{"choices":[]}"#),
        (Wire::Responses, r#"{"choices":[]}"#),
    ] {
        assert!(!Seen::of_json(wire, body.as_bytes()).understood, "{body}");
    }
    assert!(Seen::of_json(Wire::Chat, br#"{"data":[]}"#).understood);
    assert!(Seen::of_json(Wire::Messages, br#"{"input_tokens":3}"#).understood);
}

#[test]
fn every_word_of_a_model_counts() {
    for delta in [
        r#"{"function_call":{"name":"abc"}}"#,
        r#"{"reasoning":"abc"}"#,
        r#"{"reasoning_content":"abc"}"#,
        r#"{"refusal":"abc"}"#,
    ] {
        let chunk = format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#);
        let mut seen = Seen::default();
        seen.take(Wire::Chat, chunk.as_bytes());
        assert_eq!(seen.output_bytes, 3, "{delta}");
    }
}

#[test]
fn a_whole_message_is_read() {
    let body =
        br#"{"type":"message","model":"claude-x","content":[{"type":"text","text":"H\u00e9"},
        {"type":"tool_use","name":"f","input":{"a":1}}],"stop_reason":"end_turn",
        "usage":{"input_tokens":3,"cache_creation_input_tokens":2,"output_tokens":5}}"#;
    let seen = Seen::of_json(Wire::Messages, body);
    assert_eq!(seen.model.as_deref(), Some("claude-x"));
    let usage = seen.usage.unwrap();
    assert_eq!((usage.input, usage.cache_write, usage.output), (3, 2, 5));
    assert_eq!(seen.output_bytes, "Hé".len() + 1 + "{\"a\":1}".len());
    let error = br#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#;
    assert!(Seen::of_json(Wire::Messages, error).error);
}

#[test]
fn a_whole_response_is_read() {
    let body = br#"{"object":"response","model":"gpt-x","error":null,"output":[
        {"type":"message","content":[{"type":"output_text","text":"abc"}]},
        {"type":"function_call","name":"f","arguments":"{}"}],
        "usage":{"input_tokens":3,"output_tokens":4,"output_tokens_details":{"reasoning_tokens":1}}}"#;
    let seen = Seen::of_json(Wire::Responses, body);
    assert_eq!((seen.output_bytes, seen.error), (6, false));
    assert_eq!(seen.usage.map(|u| (u.output, u.reasoning)), Some((3, 1)));
}

#[track_caller]
fn check_events(wire: Wire, events: &[&str], expected: (usize, Option<u64>, bool, bool)) {
    let mut seen = Seen::default();
    for event in events {
        seen.take(wire, event.as_bytes());
    }
    let usage = seen.usage.map(|u| u.output);
    assert_eq!(
        (seen.output_bytes, usage, seen.done, seen.error),
        expected,
        "{events:?}"
    );
}

#[test]
fn events_of_messages_are_read() {
    let start = r#"{"type":"message_start","message":{"model":"c","usage":{"input_tokens":9,"output_tokens":1}}}"#;
    let text = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"abc"}}"#;
    let json = r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{\"a"}}"#;
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}"#;
    let stop = r#"{"type":"message_stop"}"#;
    check_events(
        Wire::Messages,
        &[start, text, json],
        (6, None, false, false),
    );
    check_events(
        Wire::Messages,
        &[start, text, end, stop],
        (3, Some(7), true, false),
    );
    let error = r#"{"type":"error","error":{"type":"overloaded_error"}}"#;
    check_events(Wire::Messages, &[start, error], (0, None, false, true));
}

#[test]
fn events_of_responses_are_read() {
    let text = r#"{"type":"response.output_text.delta","delta":"abc"}"#;
    let end = r#"{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":7}}}"#;
    let failed = r#"{"type":"response.failed","response":{"error":{"code":"server_error"}}}"#;
    check_events(Wire::Responses, &[text, end], (3, Some(7), true, false));
    check_events(Wire::Responses, &[text, failed], (3, None, false, true));
}
