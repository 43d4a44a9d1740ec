//! A stream says what the whole answer says, however it is cut into pieces.

use proptest::prelude::*;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_dialects::sse::Splitter;

use super::super::{
    to_anthropic,
    to_openai::{self, Options},
};

/// A text, or a call with its arguments.
#[derive(Debug, Clone)]
enum Said {
    Text(String),
    Call(String, Value),
}

fn said() -> impl Strategy<Value = Said> {
    let call = (
        "[a-z]{1,4}",
        prop::collection::btree_map("[a-z}{\"]{1,3}", "[a-z}\"\\\\é]{0,6}", 0..3),
    );
    prop_oneof![
        "[a-zé\"\\\\\n]{1,9}".prop_map(Said::Text),
        call.prop_map(|(name, input)| Said::Call(name, json!(input))),
    ]
}

/// Cuts a text into pieces of about that many characters.
fn pieces(text: &str, size: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(size).map(|c| c.iter().collect()).collect()
}

fn events(bytes: &[u8]) -> Vec<Value> {
    let mut splitter = Splitter::new(1 << 20);
    let events = splitter.feed(bytes).unwrap();
    assert!(splitter.rest().is_empty());
    let data = events.iter().map(|e| e.data.as_slice());
    data.filter(|d| !d.is_empty() && *d != b"[DONE]")
        .map(super::json)
        .collect()
}

/// Puts a stream of OpenAI's together, as its SDK does.
fn openai_message(chunks: &[Value]) -> Value {
    let (mut content, mut calls, mut end) = (String::new(), Vec::<Value>::new(), Value::Null);
    for chunk in chunks {
        let choice = &chunk["choices"][0];
        content += choice["delta"]["content"].as_str().unwrap_or_default();
        for call in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let at = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            let function = &call["function"];
            if at == calls.len() {
                calls.push(json!({"id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": ""}}));
            }
            let arguments = calls[at]["function"]["arguments"]
                .as_str()
                .unwrap()
                .to_owned();
            calls[at]["function"]["arguments"] =
                json!(arguments + function["arguments"].as_str().unwrap());
        }
        if !choice["finish_reason"].is_null() {
            assert!(end.is_null(), "two ends");
            end = choice["finish_reason"].clone();
        }
    }
    json!({"content": content, "calls": calls, "end": end})
}

/// Puts a stream of Anthropic's together, as its SDK does, and checks that one
/// block is open at a time.
fn anthropic_message(events: &[Value]) -> Value {
    let (mut content, mut input, mut open) = (Vec::<Value>::new(), String::new(), false);
    assert_eq!(events[0]["type"], "message_start");
    for event in &events[1..events.len() - 2] {
        let index = event["index"].as_u64().unwrap();
        let last = u64::try_from(content.len()).unwrap();
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert!(!open && index == last);
                (open, input) = (true, String::new());
                content.push(event["content_block"].clone());
                continue;
            }
            "content_block_delta" => {
                assert!(open && index + 1 == last);
                let delta = &event["delta"];
                input += delta["text"]
                    .as_str()
                    .or(delta["partial_json"].as_str())
                    .unwrap();
            }
            "content_block_stop" => {
                assert!(open && index + 1 == last);
                open = false;
                let block = content.last_mut().unwrap();
                if block["type"] == "text" {
                    block["text"] = json!(input);
                } else if !input.is_empty() {
                    block["input"] = serde_json::from_str(&input).unwrap();
                }
            }
            other => panic!("{other}"),
        }
    }
    assert!(!open);
    assert_eq!(events[events.len() - 1]["type"], "message_stop");
    let end = &events[events.len() - 2];
    json!({"content": content, "end": end["delta"]["stop_reason"], "usage": end["usage"]})
}

fn anthropic_stream(all: &[Said], size: usize) -> Vec<Value> {
    let start =
        json!({"id": "msg_1", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}});
    let mut events = vec![json!({"type": "message_start", "message": start})];
    for (index, said) in all.iter().enumerate() {
        let (block, deltas) = match said {
            Said::Text(text) => (
                json!({"type": "text", "text": ""}),
                pieces(text, size)
                    .iter()
                    .map(|p| json!({"type": "text_delta", "text": p}))
                    .collect::<Vec<_>>(),
            ),
            Said::Call(name, input) => (
                json!({"type": "tool_use", "id": format!("t{index}"), "name": name, "input": {}}),
                pieces(&input.to_string(), size)
                    .iter()
                    .map(|p| json!({"type": "input_json_delta", "partial_json": p}))
                    .collect(),
            ),
        };
        events.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
        for delta in deltas {
            events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    let delta = json!({"stop_reason": "tool_use"});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}}));
    events.push(json!({"type": "message_stop"}));
    events
}

fn check_of_anthropic(all: &[Said], size: usize) {
    let mut stream = to_openai::Stream::new(Options {
        include_usage: true,
        created_s: 1,
    });
    let mut out = Vec::new();
    for event in anthropic_stream(all, size) {
        stream.take(event.to_string().as_bytes(), &mut out);
    }
    assert!(stream.is_done() && out.ends_with(b"data: [DONE]\n\n"));
    let block = |(index, said): (usize, &Said)| match said {
        Said::Text(text) => json!({"type": "text", "text": text}),
        Said::Call(name, input) => {
            json!({"type": "tool_use", "id": format!("t{index}"), "name": name, "input": input})
        }
    };
    let content: Vec<Value> = all.iter().enumerate().map(block).collect();
    let usage = json!({"input_tokens": 3, "output_tokens": 9});
    let body = json!({"type": "message", "id": "msg_1", "model": "m", "content": content, "stop_reason": "tool_use", "usage": usage});
    let whole = super::json(&to_openai::answer(body.to_string().as_bytes(), 1).unwrap());
    let chunks = events(&out);
    let message = &whole["choices"][0]["message"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let expected = json!({
        "content": text(&message["content"]),
        "calls": list(&message["tool_calls"]),
        "end": whole["choices"][0]["finish_reason"],
    });
    assert_eq!(openai_message(&chunks), expected);
    assert_eq!(chunks[chunks.len() - 1]["usage"], whole["usage"]);
}

/// Pieces of the calls in the order that `turns` says, each call's own in
/// theirs; a call begins no earlier than those before it.
fn openai_stream(
    text: &str,
    calls: &[(String, String)],
    size: usize,
    turns: &[usize],
) -> Vec<Value> {
    let chunk = |delta: Value, end: Value| json!({"id": "c1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]});
    let mut chunks = vec![chunk(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    )];
    chunks.extend(
        pieces(text, size)
            .iter()
            .map(|p| chunk(json!({"content": p}), Value::Null)),
    );
    let mut waiting: Vec<Vec<String>> = calls
        .iter()
        .map(|(_, arguments)| pieces(arguments, size))
        .collect();
    let mut begun = 0;
    let mut turn = turns.iter().cycle();
    while begun < calls.len() || waiting.iter().any(|w| !w.is_empty()) {
        let index = turn.next().unwrap() % (begun + 1);
        if index == begun {
            if begun < calls.len() {
                let function = json!({"name": calls[begun].0, "arguments": ""});
                let call = json!({"index": begun, "id": format!("t{begun}"), "function": function});
                chunks.push(chunk(json!({"tool_calls": [call]}), Value::Null));
                begun += 1;
            } else if let Some(index) = waiting.iter().position(|w| !w.is_empty()) {
                let call =
                    json!({"index": index, "function": {"arguments": waiting[index].remove(0)}});
                chunks.push(chunk(json!({"tool_calls": [call]}), Value::Null));
            }
        } else if !waiting[index].is_empty() {
            let call = json!({"index": index, "function": {"arguments": waiting[index].remove(0)}});
            chunks.push(chunk(json!({"tool_calls": [call]}), Value::Null));
        }
    }
    let end = if calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    };
    chunks.push(chunk(json!({}), json!(end)));
    chunks.push(
        json!({"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}),
    );
    chunks
}

fn check_of_openai(text: &str, calls: &[(String, String)], size: usize, turns: &[usize]) {
    let mut stream = to_anthropic::Stream::new();
    let mut out = Vec::new();
    for event in openai_stream(text, calls, size, turns) {
        stream.take(event.to_string().as_bytes(), &mut out);
    }
    stream.take(b"[DONE]", &mut out);
    assert!(stream.is_done());
    let call = |(index, (name, arguments)): (usize, &(String, String))| json!({"id": format!("t{index}"), "type": "function", "function": {"name": name, "arguments": arguments}});
    let tool_calls: Vec<Value> = calls.iter().enumerate().map(call).collect();
    let message = json!({"content": text, "tool_calls": tool_calls});
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 9});
    let body = json!({"id": "c1", "model": "m", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage});
    let whole = super::json(&to_anthropic::answer(body.to_string().as_bytes()).unwrap());
    let expected =
        json!({"content": whole["content"], "end": whole["stop_reason"], "usage": whole["usage"]});
    assert_eq!(anthropic_message(&events(&out)), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anthropics_stream_says_what_its_answer_says(
        all in prop::collection::vec(said(), 0..5),
        size in 1usize..9,
    ) {
        check_of_anthropic(&all, size);
    }

    #[test]
    fn openais_stream_says_what_its_answer_says(
        text in "[a-zé\"\\\\\n]{0,9}",
        calls in prop::collection::vec(
            ("[a-z]{1,4}", prop::collection::btree_map("[a-z}{\"]{1,3}", "[a-z}\"\\\\é]{0,6}", 0..3)),
            0..4,
        ),
        size in 1usize..9,
        turns in prop::collection::vec(0usize..8, 1..12),
    ) {
        let calls: Vec<(String, String)> =
            calls.into_iter().map(|(name, input)| (name, json!(input).to_string())).collect();
        // The last turn begins the next call or ends one, so that all come.
        let turns: Vec<usize> = turns.into_iter().chain([0, 1, 2, 3, 4]).collect();
        check_of_openai(&text, &calls, size, &turns);
    }
}
