//! Streams of providers of either dialect, their bytes cut anywhere.

use weir_dialects::sse::Splitter;
use weir_router_core::translate::{
    to_anthropic,
    to_openai::{self, Options},
};

use crate::golden::check;

/// What comes of a stream whose bytes come in two chunks, and whether it had
/// content and came to its end.
fn translated(stream: &str, cut: usize, take: &mut dyn FnMut(&[u8], &mut Vec<u8>)) -> String {
    let (a, b) = stream.as_bytes().split_at(cut);
    let mut splitter = Splitter::new(1 << 20);
    let mut out = Vec::new();
    for chunk in [a, b] {
        for event in splitter.feed(chunk).unwrap() {
            take(&event.data, &mut out);
        }
    }
    String::from_utf8(out).unwrap()
}

fn of_anthropic(name: &str, include_usage: bool, events: &[&str], ends: (bool, bool)) {
    let stream: String = events
        .iter()
        .map(|data| {
            let kind: serde_json::Value = serde_json::from_str(data).unwrap();
            format!(
                "event: {}\ndata: {data}\n\n",
                kind["type"].as_str().unwrap()
            )
        })
        .collect();
    let run = |cut| {
        let mut inner = to_openai::Stream::new(Options {
            include_usage,
            created_s: 1_700_000_000,
        });
        let out = translated(&stream, cut, &mut |data, out| inner.take(data, out));
        assert_eq!((inner.has_content(), inner.is_done()), ends, "{name}");
        out
    };
    let whole = run(0);
    check(name, &stream, &whole);
    for cut in 0..=stream.len() {
        assert_eq!(run(cut), whole, "{name} cut at {cut}");
    }
}

fn of_openai(name: &str, events: &[&str], ends: (bool, bool)) {
    let stream: String = events
        .iter()
        .map(|data| format!("data: {data}\n\n"))
        .collect();
    let run = |cut| {
        let mut inner = to_anthropic::Stream::new();
        let out = translated(&stream, cut, &mut |data, out| inner.take(data, out));
        assert_eq!((inner.has_content(), inner.is_done()), ends, "{name}");
        out
    };
    let whole = run(0);
    check(name, &stream, &whole);
    for cut in 0..=stream.len() {
        assert_eq!(run(cut), whole, "{name} cut at {cut}");
    }
}

const START: &str = r#"{"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":5,"cache_read_input_tokens":70,"output_tokens":1}}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;

#[test]
fn anthropic_text() {
    let events = [
        START,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hidden"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Héllo \"you\"\n"}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":""}}"#,
        r#"{"type":"event_of_tomorrow","delta":"x"}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":" again"}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}"#,
        STOP,
        r#"{"type":"ping"}"#,
    ];
    of_anthropic("stream_anthropic_text", false, &events, (true, true));
    of_anthropic("stream_anthropic_text_usage", true, &events, (true, true));
}

#[test]
fn anthropic_tools() {
    let events = [
        START,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"I "}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"look."}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"weather","input":{}}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\":"}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"\"Paris\"}"}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_2","name":"now","input":{}}}"#,
        r#"{"type":"content_block_stop","index":2}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":30,"output_tokens":15}}"#,
        STOP,
    ];
    of_anthropic("stream_anthropic_tools", true, &events, (true, true));
}

#[test]
fn anthropic_json_answer() {
    let events = [
        START,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"toolu_1","name":"json_answer","input":{}}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"name\":"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":" \"Ada\"}"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":15}}"#,
        STOP,
    ];
    of_anthropic("stream_anthropic_json", false, &events, (true, true));
}

#[test]
fn anthropic_errors() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    of_anthropic(
        "stream_anthropic_error_first",
        true,
        &[error, STOP],
        (false, false),
    );
    let text =
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#;
    of_anthropic(
        "stream_anthropic_error_later",
        true,
        &[START, text, error, STOP],
        (true, false),
    );
    let broken =
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":7}}"#;
    of_anthropic(
        "stream_anthropic_broken",
        true,
        &[START, broken, STOP],
        (false, false),
    );
}

const ROLE: &str = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4.1","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}"#;
const USAGE: &str = r#"{"id":"chatcmpl-1","model":"gpt-4.1","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":64}}}"#;
const DONE: &str = "[DONE]";

#[test]
fn openai_text() {
    let text = [
        // As Azure begins.
        r#"{"id":"","model":"","choices":[],"prompt_filter_results":[]}"#,
        ROLE,
        r#"{"id":"chatcmpl-1","model":"gpt-4.1","choices":[{"index":0,"delta":{"content":"Héllo \"you\"\n"},"finish_reason":null}]}"#,
        r#"{"id":"chatcmpl-1","model":"gpt-4.1","choices":[{"index":0,"delta":{"reasoning_content":"hidden","content":null},"finish_reason":null}]}"#,
        r#"{"id":"chatcmpl-1","model":"gpt-4.1","choices":[{"index":0,"delta":{"content":" again"},"finish_reason":null}]}"#,
        r#"{"id":"chatcmpl-1","model":"gpt-4.1","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#,
    ];
    let with_usage: Vec<&str> = text.into_iter().chain([USAGE, DONE]).collect();
    of_openai("stream_openai_text", &with_usage, (true, true));
    let without: Vec<&str> = text.into_iter().chain([DONE]).collect();
    of_openai("stream_openai_text_without_usage", &without, (true, true));
    of_openai("stream_openai_text_cut", &text, (true, false));
}

#[test]
fn openai_tools() {
    let events = [
        ROLE,
        r#"{"choices":[{"index":0,"delta":{"content":"I look."}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"weather","arguments":""}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"Par}is\"}"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_2","type":"function","function":{"name":"now","arguments":"{}"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
        USAGE,
        DONE,
    ];
    of_openai("stream_openai_tools", &events, (true, true));
}

#[test]
fn openai_interleaved_tools() {
    let events = [
        ROLE,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","function":{"name":"a","arguments":"{\"x\""}},{"index":1,"id":"call_2","function":{"name":"b","arguments":"{"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"\"y\""}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":":2}"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":2,"id":"call_3","function":{"name":"c"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":3,"function":{"name":"d","arguments":"{\"cut\":"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"after"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        DONE,
    ];
    of_openai("stream_openai_interleaved", &events, (true, true));
}

#[test]
fn openai_calls_without_positions() {
    let events = [
        r#"{"id":"c1","choices":[{"delta":{"tool_calls":[{"id":"","function":{"name":"a","arguments":"{}"}}]}}]}"#,
        r#"{"id":"c1","choices":[{"delta":{"tool_calls":[{"function":{"name":"b","arguments":"{}"}}]}}]}"#,
        DONE,
    ];
    of_openai("stream_openai_no_positions", &events, (true, true));
}

#[test]
fn openai_refusal() {
    let events = [
        ROLE,
        r#"{"choices":[{"index":0,"delta":{"refusal":"I can't."}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        USAGE,
        DONE,
    ];
    of_openai("stream_openai_refusal", &events, (true, true));
}

#[test]
fn openai_errors() {
    let error = r#"{"error":{"message":"slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
    of_openai("stream_openai_error_first", &[error, DONE], (false, false));
    let flat = r#"{"object":"error","message":"broke","type":"InternalServerError","code":500}"#;
    let text = r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#;
    of_openai(
        "stream_openai_error_later",
        &[ROLE, text, flat, DONE],
        (true, false),
    );
    of_openai("stream_openai_broken", &[ROLE, "{", DONE], (false, false));
    of_openai("stream_openai_nothing", &[DONE], (false, false));
}
