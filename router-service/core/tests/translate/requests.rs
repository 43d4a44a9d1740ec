//! Requests of clients of either dialect.

use weir_router_core::translate::{Target, to_anthropic, to_openai};

use crate::golden::{ANTHROPIC, COMPATIBLE, OPENAI, check, pretty};

#[track_caller]
fn of_openai(name: &str, body: &str) {
    let out = to_anthropic::request(body.as_bytes(), &ANTHROPIC).unwrap();
    check(name, body, &pretty(&out));
}

#[track_caller]
fn of_anthropic(name: &str, body: &str, target: &Target<'_>) {
    let out = to_openai::request(body.as_bytes(), target).unwrap();
    check(name, body, &pretty(&out));
}

#[test]
fn openai_turns_and_sampling() {
    of_openai(
        "request_openai_turns",
        r#"
{
  "model": "sonnet",
  "messages": [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello\n\"you\" \u00e9"},
    {"role": "assistant", "content": [{"type": "text", "text": "Hi."}, {"type": "refusal", "refusal": "I can't say more."}]},
    {"role": "developer", "content": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": ""}]},
    {"role": "assistant", "content": "", "refusal": "No.", "audio": null, "annotations": []},
    {"role": "user", "content": " \n"},
    {"role": "user", "content": [{"type": "text", "text": "Go on"}]}
  ],
  "max_completion_tokens": 9999,
  "temperature": 0.25,
  "top_p": 1.0,
  "stop": ["\nEND", "STOP"],
  "safety_identifier": "u-1",
  "user": "u-1",
  "stream": true,
  "stream_options": {"include_usage": true}
}"#,
    );
}

#[test]
fn openai_defaults_are_as_good_as_absence() {
    of_openai(
        "request_openai_defaults",
        r#"
{
  "model": "sonnet",
  "messages": [{"role": "user", "content": "x", "name": null}],
  "n": 1, "logprobs": false, "top_logprobs": null, "logit_bias": {}, "presence_penalty": 0,
  "frequency_penalty": 0.0, "seed": null, "store": false, "metadata": {}, "service_tier": "auto",
  "modalities": ["text"], "verbosity": "medium", "parallel_tool_calls": true, "temperature": 1,
  "response_format": {"type": "text"}, "tool_choice": "auto", "stop": null, "functions": null,
  "tools": [], "stream": false, "stream_options": null, "reasoning_effort": null
}"#,
    );
}

#[test]
fn openai_images_and_files() {
    of_openai(
        "request_openai_images",
        r#"
{
  "model": "sonnet",
  "messages": [{"role": "user", "content": [
    {"type": "text", "text": "Compare"},
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "auto"}},
    {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,\/9j\/4AAQ"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    {"type": "file", "file": {"filename": "report.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"}}
  ]}]
}"#,
    );
}

#[test]
fn openai_tools() {
    of_openai(
        "request_openai_tools",
        r#"
{
  "model": "sonnet",
  "messages": [
    {"role": "user", "content": "Weather in Paris and Rome?"},
    {"role": "assistant", "content": null, "tool_calls": [
      {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Paris\", \"n\": 1.50}"}},
      {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}}
    ]},
    {"role": "tool", "tool_call_id": "call_1", "content": "18 °C"},
    {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "noon"}, {"type": "text", "text": "UTC"}]},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "One more.", "tool_calls": [
      {"id": "call_3", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    ]},
    {"role": "tool", "tool_call_id": "call_3", "content": ""}
  ],
  "tools": [
    {"type": "function", "function": {"name": "weather", "description": "Of a city", "strict": true, "parameters": {
      "type": "object", "required": ["city"], "properties": {"n": {"type": "number"}, "city": {"type": "string"}}, "additionalProperties": false}}},
    {"type": "function", "function": {"name": "now"}},
    {"type": "function", "function": {"name": "untyped", "strict": false, "parameters": {"properties": {"a": {"type": "null"}}}}},
    {"type": "function", "function": {"name": "empty", "parameters": {}}}
  ],
  "tool_choice": {"type": "function", "function": {"name": "now"}},
  "parallel_tool_calls": false
}"#,
    );
}

#[test]
fn openai_json_mode() {
    of_openai(
        "request_openai_json_schema",
        r#"
{
  "model": "sonnet",
  "messages": [{"role": "user", "content": "Who?"}],
  "response_format": {"type": "json_schema", "json_schema": {"name": "person", "description": "A person.", "strict": true,
    "schema": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"], "additionalProperties": false}}}
}"#,
    );
    of_openai(
        "request_openai_json_object_and_tools",
        r#"
{
  "model": "sonnet",
  "messages": [{"role": "user", "content": "Who? In JSON."}],
  "response_format": {"type": "json_object"},
  "tools": [{"type": "function", "function": {"name": "now"}}]
}"#,
    );
}

#[test]
fn anthropic_turns_and_sampling() {
    let body = r#"
{
  "model": "gpt",
  "max_tokens": 9999,
  "system": [
    {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    {"type": "text", "text": "Be kind."}
  ],
  "messages": [
    {"role": "user", "content": "Hello \u00e9"},
    {"role": "assistant", "content": [{"type": "text", "text": "Hi."}, {"type": "text", "text": "You?", "citations": null}]},
    {"role": "system", "content": "Be quick."},
    {"role": "user", "content": [{"type": "text", "text": "Go on", "cache_control": {"type": "ephemeral"}}]},
    {"role": "assistant", "content": "So"},
    {"role": "user", "content": "So?"}
  ],
  "temperature": 0.50,
  "top_p": 0.9,
  "stop_sequences": ["END"],
  "metadata": {"user_id": "u-1"},
  "thinking": {"type": "disabled"},
  "service_tier": "auto",
  "output_config": {"effort": "high"},
  "stream": true
}"#;
    of_anthropic("request_anthropic_turns", body, &OPENAI);
    of_anthropic("request_anthropic_turns_compatible", body, &COMPATIBLE);
}

#[test]
fn anthropic_images_and_documents() {
    of_anthropic(
        "request_anthropic_images",
        r#"
{
  "model": "gpt",
  "max_tokens": 10,
  "messages": [{"role": "user", "content": [
    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
    {"type": "document", "title": "report.pdf", "citations": {"enabled": false}, "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}},
    {"type": "text", "text": "Compare"}
  ]}]
}"#,
        &OPENAI,
    );
}

#[test]
fn anthropic_tools() {
    of_anthropic(
        "request_anthropic_tools",
        r#"
{
  "model": "gpt",
  "max_tokens": 10,
  "messages": [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": [
      {"type": "text", "text": "I look."},
      {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Par is", "n": 1.50}, "caller": {"type": "direct"}},
      {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}
    ]},
    {"role": "user", "content": [
      {"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 °C"},
      {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": true, "content": [{"type": "text", "text": "no clock"}], "cache_control": {"type": "ephemeral"}},
      {"type": "text", "text": "And?"}
    ]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_3", "name": "now", "input": {}}]},
    {"role": "user", "content": [
      {"type": "tool_result", "tool_use_id": "toolu_3", "is_error": false},
      {"type": "tool_result", "tool_use_id": "toolu_4", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]}
  ],
  "tools": [
    {"name": "weather", "description": "Of a city", "input_schema": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}, "strict": true, "cache_control": {"type": "ephemeral"}},
    {"type": "custom", "name": "now", "input_schema": {"type": "object"}, "defer_loading": false, "input_examples": [], "allowed_callers": ["direct"], "eager_input_streaming": true}
  ],
  "tool_choice": {"type": "any", "disable_parallel_tool_use": true}
}"#,
        &OPENAI,
    );
}

#[test]
fn anthropic_structured_output() {
    of_anthropic(
        "request_anthropic_json_schema",
        r#"
{
  "model": "gpt",
  "max_tokens": 10,
  "messages": [{"role": "user", "content": "Who?"}],
  "output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {"name": {"type": "string"}}}}}
}"#,
        &OPENAI,
    );
}

/// The members that say how tools are chosen, of a request that has one tool.
#[track_caller]
fn check_choice_of_openai(asked: &str, tools: &str, choice: &str) {
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"tools":[{{"type":"function","function":{{"name":"f"}}}}]{asked}}}"#
    );
    let out = to_anthropic::request(body.as_bytes(), &ANTHROPIC).unwrap();
    let out: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let names: Vec<&str> = out["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.join(" "), tools, "{asked}");
    let choice: serde_json::Value = serde_json::from_str(choice).unwrap();
    assert_eq!(out["tool_choice"], choice, "{asked}");
}

#[test]
fn openai_choices_of_tools() {
    let json = r#","response_format":{"type":"json_object"}"#;
    for (asked, tools, choice) in [
        ("", "f", "null"),
        (r#","tool_choice":"auto""#, "f", "null"),
        (
            r#","parallel_tool_calls":false"#,
            "f",
            r#"{"type":"auto","disable_parallel_tool_use":true}"#,
        ),
        (r#","tool_choice":"none""#, "f", r#"{"type":"none"}"#),
        (
            r#","tool_choice":"none","parallel_tool_calls":false"#,
            "f",
            r#"{"type":"none"}"#,
        ),
        (r#","tool_choice":"required""#, "f", r#"{"type":"any"}"#),
        (
            r#","tool_choice":"required","parallel_tool_calls":false"#,
            "f",
            r#"{"type":"any","disable_parallel_tool_use":true}"#,
        ),
        (
            json,
            "f json_answer",
            r#"{"type":"any","disable_parallel_tool_use":true}"#,
        ),
        (
            &format!(r#"{json},"tool_choice":"none""#),
            "f json_answer",
            r#"{"type":"tool","name":"json_answer","disable_parallel_tool_use":true}"#,
        ),
        (
            &format!(r#"{json},"tool_choice":"required""#),
            "f",
            r#"{"type":"any"}"#,
        ),
        (
            &format!(r#"{json},"tool_choice":{{"type":"function","function":{{"name":"f"}}}}"#),
            "f",
            r#"{"type":"tool","name":"f"}"#,
        ),
    ] {
        check_choice_of_openai(asked, tools, choice);
    }
}

#[test]
fn anthropic_choices_of_tools() {
    for (asked, choice, parallel) in [
        ("", "null", "null"),
        (r#","tool_choice":{"type":"auto"}"#, r#""auto""#, "null"),
        (
            r#","tool_choice":{"type":"auto","disable_parallel_tool_use":true}"#,
            r#""auto""#,
            "false",
        ),
        (r#","tool_choice":{"type":"any"}"#, r#""required""#, "null"),
        (r#","tool_choice":{"type":"none"}"#, r#""none""#, "null"),
        (
            r#","tool_choice":{"type":"tool","name":"f"}"#,
            r#"{"type":"function","function":{"name":"f"}}"#,
            "null",
        ),
    ] {
        let body = format!(
            r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":"x"}}],"tools":[{{"name":"f","input_schema":{{"type":"object"}}}}]{asked}}}"#
        );
        let out = to_openai::request(body.as_bytes(), &OPENAI).unwrap();
        let out: serde_json::Value = serde_json::from_slice(&out).unwrap();
        for (member, expected) in [("tool_choice", choice), ("parallel_tool_calls", parallel)] {
            let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
            assert_eq!(out[member], expected, "{asked}");
        }
    }
}
