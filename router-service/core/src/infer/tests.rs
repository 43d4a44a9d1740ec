//! Tests of the typed API in terms of chat completions.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_wire::proto::router::{Part as PartMessage, ToolCall, ToolResult};

use super::*;

fn message(role: Role, parts: Vec<Part>) -> Message {
    let parts = parts
        .into_iter()
        .map(|part| PartMessage { part: Some(part) });
    Message {
        role: role.into(),
        parts: parts.collect(),
    }
}

fn request() -> InferRequest {
    let call = ToolCall {
        id: "c1".into(),
        name: "f".into(),
        arguments: "{\"a\":1}".into(),
    };
    let result = ToolResult {
        tool_call_id: "c1".into(),
        text: "42".into(),
    };
    let image = Image {
        media_type: "image/png".into(),
        data: vec![1, 2, 3],
        url: String::new(),
    };
    InferRequest {
        model: "m".into(),
        messages: vec![
            message(Role::System, vec![Part::Text("s".into())]),
            message(Role::User, vec![Part::Text("q".into()), Part::Image(image)]),
            message(Role::Assistant, vec![Part::ToolCall(call)]),
            message(
                Role::User,
                vec![Part::Text("so?".into()), Part::ToolResult(result)],
            ),
        ],
        max_tokens: Some(7),
        stop: vec!["x".into()],
        tools: vec![Tool {
            name: "f".into(),
            ..Tool::default()
        }],
        tool_name: "f".into(),
        one_tool_at_a_time: true,
        json_schema: r#"{"type":"object"}"#.into(),
        ..InferRequest::default()
    }
}

#[test]
fn a_request_is_a_chat_completion() {
    let found: Value = serde_json::from_slice(&body(&request()).unwrap()).unwrap();
    let expected = json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "content": [
                {"type": "text", "text": "q"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQID"}}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            {"role": "user", "content": [{"type": "text", "text": "so?"}]}],
        "stream": true,
        "stream_options": {"include_usage": true},
        "max_completion_tokens": 7,
        "stop": ["x"],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": false,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
    });
    assert_eq!(found, expected);
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut InferRequest), field: &str) {
    let mut request = request();
    change(&mut request);
    let refusal = body(&request).unwrap_err();
    assert_eq!(refusal.error.param.as_deref(), Some(field), "{refusal:?}");
}

#[test]
fn what_is_wrong_is_named() {
    check_refused(|r| r.messages.clear(), "messages");
    check_refused(|r| r.messages[0].role = 0, "messages[0].role");
    check_refused(|r| r.messages[0].parts.clear(), "messages[0].parts");
    check_refused(
        |r| r.messages[0].parts[0].part = None,
        "messages[0].parts[0]",
    );
    check_refused(|r| r.messages[2].role = 2, "messages[2].parts[0]");
    check_refused(
        |r| r.tools[0].parameters = "[]".into(),
        "tools[0].parameters",
    );
    check_refused(|r| r.json_schema = "x".into(), "json_schema");
    check_refused(|r| r.temperature = Some(f64::NAN), "temperature");
}

#[test]
fn a_stream_becomes_events() {
    let stream = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hé\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );
    let read = |chunks: &[&[u8]]| -> Vec<Told> {
        let mut events = Events::default();
        chunks
            .iter()
            .flat_map(|c| events.feed(c).unwrap())
            .collect()
    };
    let whole = read(&[stream.as_bytes()]);
    let call = ToolCallDelta {
        index: 0,
        id: "c".into(),
        name: "f".into(),
        arguments: "{}".into(),
    };
    let usage = Usage {
        input_tokens: 3,
        output_tokens: 2,
        ..Usage::default()
    };
    let finished = Finished {
        reason: FinishReason::ToolCalls.into(),
        usage: Some(usage),
    };
    let expected = [
        Event::Text("Hé".into()),
        Event::ToolCall(call),
        Event::Finished(finished),
    ];
    assert_eq!(whole, expected.map(said));
    for cut in 0..=stream.len() {
        let (a, b) = stream.as_bytes().split_at(cut);
        assert_eq!(read(&[a, b]), whole, "cut at {cut}");
    }
    let error = "data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\",\"param\":null,\"code\":\"c\"}}\n\n";
    let failed = read(&[error.as_bytes()]);
    assert!(matches!(failed.as_slice(), [Told::Failed(e)] if e.message == "m"));
}
