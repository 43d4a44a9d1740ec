//! What is refused, with the parameter that is named.

use weir_router_core::{
    refusal::Refusal,
    translate::{Target, to_anthropic, to_openai},
};

use crate::golden::{ANTHROPIC, COMPATIBLE, OPENAI};

type Translate = fn(&[u8], &Target<'_>) -> Result<Vec<u8>, Refusal>;

/// A text that no error may repeat.
const SECRET: &str = "s3cret";

#[track_caller]
fn check(translate: Translate, target: &Target<'_>, body: &str, param: Option<&str>, code: &str) {
    let refusal = translate(body.as_bytes(), target).expect_err(body);
    assert_eq!(refusal.status, 400, "{body}");
    assert_eq!(
        refusal.error.code.as_deref(),
        Some(code),
        "{body}: {refusal:?}"
    );
    assert_eq!(refusal.error.param.as_deref(), param, "{body}: {refusal:?}");
    let message = &refusal.error.message;
    assert!(!message.contains(SECRET), "{message}");
    if let Some(param) = param {
        assert!(message.contains(&format!("'{param}'")), "{message}");
    }
}

const UNSUPPORTED: &str = "unsupported_parameter";
const UNKNOWN: &str = "unknown_parameter";
const TYPE: &str = "invalid_type";
const VALUE: &str = "invalid_value";
const MISSING: &str = "missing_required_parameter";
const TWICE: &str = "duplicate_parameter";

#[test]
fn openai_members_of_the_request() {
    for (member, param, code) in [
        (r#""n":2"#, "n", UNSUPPORTED),
        (r#""logprobs":true"#, "logprobs", UNSUPPORTED),
        (r#""top_logprobs":3"#, "top_logprobs", UNSUPPORTED),
        (r#""logit_bias":{"1":2}"#, "logit_bias", UNSUPPORTED),
        (r#""presence_penalty":0.1"#, "presence_penalty", UNSUPPORTED),
        (
            r#""frequency_penalty":-1"#,
            "frequency_penalty",
            UNSUPPORTED,
        ),
        (r#""seed":0"#, "seed", UNSUPPORTED),
        (r#""audio":{"voice":"alloy"}"#, "audio", UNSUPPORTED),
        (
            r#""modalities":["text","audio"]"#,
            "modalities",
            UNSUPPORTED,
        ),
        (
            r#""prediction":{"type":"content","content":"s3cret"}"#,
            "prediction",
            UNSUPPORTED,
        ),
        (
            r#""reasoning_effort":"low""#,
            "reasoning_effort",
            UNSUPPORTED,
        ),
        (r#""verbosity":"low""#, "verbosity", UNSUPPORTED),
        (
            r#""web_search_options":{}"#,
            "web_search_options",
            UNSUPPORTED,
        ),
        (r#""moderation":{"model":"m"}"#, "moderation", UNSUPPORTED),
        (r#""metadata":{"a":"s3cret"}"#, "metadata", UNSUPPORTED),
        (r#""store":true"#, "store", UNSUPPORTED),
        (r#""service_tier":"flex""#, "service_tier", UNSUPPORTED),
        (
            r#""prompt_cache_key":"s3cret""#,
            "prompt_cache_key",
            UNSUPPORTED,
        ),
        (
            r#""prompt_cache_retention":"24h""#,
            "prompt_cache_retention",
            UNSUPPORTED,
        ),
        (
            r#""prompt_cache_options":{}"#,
            "prompt_cache_options",
            UNSUPPORTED,
        ),
        (r#""functions":[{"name":"f"}]"#, "functions", UNSUPPORTED),
        (r#""function_call":"auto""#, "function_call", UNSUPPORTED),
        (r#""temperature":1.5"#, "temperature", UNSUPPORTED),
        (r#""temperature":"s3cret""#, "temperature", TYPE),
        (r#""top_p":[]"#, "top_p", TYPE),
        (r#""max_tokens":-1"#, "max_tokens", TYPE),
        (
            r#""max_completion_tokens":1.5"#,
            "max_completion_tokens",
            TYPE,
        ),
        (r#""stream":"s3cret""#, "stream", TYPE),
        (r#""stream_options":{"x":1}"#, "stream_options.x", UNKNOWN),
        (
            r#""stream_options":{"include_usage":1}"#,
            "stream_options.include_usage",
            TYPE,
        ),
        (r#""stop":7"#, "stop", TYPE),
        (r#""stop":["a",7]"#, "stop[1]", TYPE),
        (r#""stop":["a","\n\n"]"#, "stop[1]", UNSUPPORTED),
        (r#""stop":" ""#, "stop", UNSUPPORTED),
        (r#""user":"a","safety_identifier":"b""#, "user", UNSUPPORTED),
        (r#""top_k":3"#, "top_k", UNKNOWN),
        (r#""tools":{}"#, "tools", TYPE),
        (
            r#""tools":[{"type":"custom","custom":{"name":"f"}}]"#,
            "tools[0].type",
            UNSUPPORTED,
        ),
        (
            r#""tools":[{"function":{"name":"f"}}]"#,
            "tools[0].type",
            MISSING,
        ),
        (
            r#""tools":[{"type":"function","function":{}}]"#,
            "tools[0].function.name",
            MISSING,
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"f"},"x":1}]"#,
            "tools[0].x",
            UNKNOWN,
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"f","x":1}}]"#,
            "tools[0].function.x",
            UNKNOWN,
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"json_answer"}}]"#,
            "tools[0].function.name",
            VALUE,
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"f","parameters":"s3cret"}}]"#,
            "tools[0].function.parameters",
            TYPE,
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"array"}}}]"#,
            "tools[0].function.parameters.type",
            UNSUPPORTED,
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":null,"a":1}}}]"#,
            "tools[0].function.parameters",
            VALUE,
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","type":"object"}}}]"#,
            "tools[0].function.parameters.type",
            TWICE,
        ),
        (r#""tool_choice":"required""#, "tool_choice", VALUE),
        (r#""tool_choice":"s3cret""#, "tool_choice", VALUE),
        (
            r#""tool_choice":{"type":"allowed_tools","allowed_tools":{}}"#,
            "tool_choice.type",
            UNSUPPORTED,
        ),
        (
            r#""tool_choice":{"type":"function","function":{"name":"f"}}"#,
            "tool_choice",
            VALUE,
        ),
        (r#""parallel_tool_calls":1"#, "parallel_tool_calls", TYPE),
        (
            r#""response_format":{"type":"grammar"}"#,
            "response_format.type",
            VALUE,
        ),
        (
            r#""response_format":{"type":"text","x":1}"#,
            "response_format.x",
            UNKNOWN,
        ),
        (
            r#""response_format":{"type":"json_schema"}"#,
            "response_format.json_schema",
            MISSING,
        ),
        (
            r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"array"}}}"#,
            "response_format.json_schema.schema.type",
            UNSUPPORTED,
        ),
        (
            r#""response_format":{"type":"json_schema","json_schema":{"name":"n","x":1}}"#,
            "response_format.json_schema.x",
            UNKNOWN,
        ),
    ] {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],{member}}}"#);
        check(to_anthropic::request, &ANTHROPIC, &body, Some(param), code);
    }
}

#[test]
fn openai_members_of_messages() {
    for (message, param, code) in [
        (r#"{"content":"s3cret"}"#, "role", MISSING),
        (r#"{"role":"s3cret","content":"x"}"#, "role", VALUE),
        (
            r#"{"role":"function","name":"f","content":"x"}"#,
            "role",
            UNSUPPORTED,
        ),
        (r#"{"role":"user"}"#, "content", MISSING),
        (r#"{"role":"user","content":7}"#, "content", TYPE),
        (
            r#"{"role":"user","content":"x","name":"s3cret"}"#,
            "name",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"system","content":"x","name":"s3cret"}"#,
            "name",
            UNSUPPORTED,
        ),
        (r#"{"role":"user","content":"x","y":1}"#, "y", UNKNOWN),
        (
            r#"{"role":"user","content":"x","content":"s3cret"}"#,
            "content",
            TWICE,
        ),
        (
            r#"{"role":"system","content":[{"type":"image_url","image_url":{}}]}"#,
            "content[0].type",
            VALUE,
        ),
        (
            r#"{"role":"user","content":[{"type":"s3cret"}]}"#,
            "content[0].type",
            VALUE,
        ),
        (
            r#"{"role":"user","content":[{"type":"text"}]}"#,
            "content[0].text",
            MISSING,
        ),
        (
            r#"{"role":"user","content":[{"type":"text","text":"x","y":1}]}"#,
            "content[0].y",
            UNKNOWN,
        ),
        (
            r#"{"role":"user","content":[{"type":"text","text":"x","prompt_cache_breakpoint":{"mode":"explicit"}}]}"#,
            "content[0].prompt_cache_breakpoint",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"","format":"wav"}}]}"#,
            "content[0].type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"image_url","image_url":"https://x"}]}"#,
            "content[0].image_url",
            TYPE,
        ),
        (
            r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"ftp://s3cret"}}]}"#,
            "content[0].image_url.url",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png,s3cret"}}]}"#,
            "content[0].image_url.url",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/svg+xml;base64,AA"}}]}"#,
            "content[0].image_url.url",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x","detail":"high"}}]}"#,
            "content[0].image_url.detail",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x","y":1}}]}"#,
            "content[0].image_url.y",
            UNKNOWN,
        ),
        (
            r#"{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}"#,
            "content[0].file.file_id",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"file","file":{"file_data":"data:text/csv;base64,AA"}}]}"#,
            "content[0].file.file_data",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"assistant","content":"x","function_call":{"name":"f"}}"#,
            "function_call",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"assistant","audio":{"id":"a"}}"#,
            "audio",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"assistant","content":"x","annotations":[{}]}"#,
            "annotations",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"assistant","content":"x","reasoning_content":"s3cret"}"#,
            "reasoning_content",
            UNKNOWN,
        ),
        (
            r#"{"role":"assistant","tool_calls":[{"id":"c","type":"custom","custom":{}}]}"#,
            "tool_calls[0].type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"assistant","tool_calls":[{"type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
            "tool_calls[0].id",
            MISSING,
        ),
        (
            r#"{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{s3cret"}}]}"#,
            "tool_calls[0].function.arguments",
            VALUE,
        ),
        (
            r#"{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"[]"}}]}"#,
            "tool_calls[0].function.arguments",
            VALUE,
        ),
        (
            r#"{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":{}}}]}"#,
            "tool_calls[0].function.arguments",
            TYPE,
        ),
        (r#"{"role":"tool","content":"x"}"#, "tool_call_id", MISSING),
        (
            r#"{"role":"tool","tool_call_id":"c","content":[{"type":"image_url","image_url":{"url":"https://x"}}]}"#,
            "content[0].type",
            VALUE,
        ),
    ] {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}},{message}]}}"#);
        let param = format!("messages[1].{param}");
        check(to_anthropic::request, &ANTHROPIC, &body, Some(&param), code);
    }
}

#[test]
fn anthropic_members_of_the_request() {
    for (member, param, code) in [
        (r#""top_k":5"#, "top_k", UNSUPPORTED),
        (
            r#""service_tier":"standard_only""#,
            "service_tier",
            UNSUPPORTED,
        ),
        (r#""container":"c""#, "container", UNSUPPORTED),
        (r#""mcp_servers":[{}]"#, "mcp_servers", UNSUPPORTED),
        (
            r#""context_management":{}"#,
            "context_management",
            UNSUPPORTED,
        ),
        (r#""inference_geo":"us""#, "inference_geo", UNSUPPORTED),
        (r#""diagnostics":{}"#, "diagnostics", UNSUPPORTED),
        (r#""speed":"fast""#, "speed", UNSUPPORTED),
        (r#""user_profile_id":"u""#, "user_profile_id", UNSUPPORTED),
        (
            r#""thinking":{"type":"enabled","budget_tokens":1024}"#,
            "thinking",
            UNSUPPORTED,
        ),
        (r#""thinking":{"type":"adaptive"}"#, "thinking", UNSUPPORTED),
        (
            r#""thinking":{"type":"disabled","x":1}"#,
            "thinking.x",
            UNKNOWN,
        ),
        (
            r#""output_config":{"effort":"low"}"#,
            "output_config.effort",
            UNSUPPORTED,
        ),
        (r#""output_config":{"x":1}"#, "output_config.x", UNKNOWN),
        (
            r#""output_config":{"format":{"type":"xml"}}"#,
            "output_config.format.type",
            VALUE,
        ),
        (
            r#""output_config":{"format":{"type":"json_schema"}}"#,
            "output_config.format.schema",
            MISSING,
        ),
        (
            r#""cache_control":{"type":"forever"}"#,
            "cache_control.type",
            VALUE,
        ),
        (
            r#""cache_control":{"type":"ephemeral","ttl":"9h"}"#,
            "cache_control.ttl",
            VALUE,
        ),
        (
            r#""stop_sequences":["a","b","c","d","e"]"#,
            "stop_sequences",
            UNSUPPORTED,
        ),
        (r#""stop_sequences":"a""#, "stop_sequences", TYPE),
        (r#""temperature":"s3cret""#, "temperature", TYPE),
        (r#""metadata":{"user_id":"a","x":1}"#, "metadata.x", UNKNOWN),
        (r#""system":7"#, "system", TYPE),
        (
            r#""system":[{"type":"image"}]"#,
            "system[0].type",
            UNSUPPORTED,
        ),
        (
            r#""system":[{"type":"text","text":"x","citations":[{}]}]"#,
            "system[0].citations",
            UNSUPPORTED,
        ),
        (r#""stream":1"#, "stream", TYPE),
        (r#""n":1"#, "n", UNKNOWN),
        (
            r#""tools":[{"type":"web_search_20250305","name":"web_search"}]"#,
            "tools[0].type",
            UNSUPPORTED,
        ),
        (
            r#""tools":[{"name":"f"}]"#,
            "tools[0].input_schema",
            MISSING,
        ),
        (
            r#""tools":[{"name":"f","input_schema":{},"defer_loading":true}]"#,
            "tools[0].defer_loading",
            UNSUPPORTED,
        ),
        (
            r#""tools":[{"name":"f","input_schema":{},"input_examples":[{}]}]"#,
            "tools[0].input_examples",
            UNSUPPORTED,
        ),
        (
            r#""tools":[{"name":"f","input_schema":{},"allowed_callers":["code_execution_20250825"]}]"#,
            "tools[0].allowed_callers",
            UNSUPPORTED,
        ),
        (
            r#""tools":[{"name":"f","input_schema":{},"x":1}]"#,
            "tools[0].x",
            UNKNOWN,
        ),
        (r#""tool_choice":{"type":"auto"}"#, "tool_choice", VALUE),
        (
            r#""tool_choice":{"type":"s3cret"}"#,
            "tool_choice.type",
            VALUE,
        ),
        (
            r#""tool_choice":{"type":"tool"}"#,
            "tool_choice.name",
            MISSING,
        ),
        (r#""max_tokens":2"#, "max_tokens", TWICE),
    ] {
        let body = format!(
            r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":"x"}}],{member}}}"#
        );
        check(to_openai::request, &OPENAI, &body, Some(param), code);
    }
    let body = r#"{"max_tokens":1,"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"s3cret"}]}"#;
    check(
        to_openai::request,
        &OPENAI,
        body,
        Some("messages"),
        UNSUPPORTED,
    );
    let body = format!(
        r#"{{"max_tokens":1,"messages":[{}]}}"#,
        vec!["0"; 100_001].join(",")
    );
    check(to_openai::request, &OPENAI, &body, Some("messages"), VALUE);
    let body = r#"{"model":"m","messages":[]}"#;
    check(
        to_openai::request,
        &OPENAI,
        body,
        Some("max_tokens"),
        MISSING,
    );
}

#[test]
fn anthropic_members_of_messages() {
    for (message, param, code) in [
        (r#"{"role":"tool","content":"x"}"#, "role", VALUE),
        (r#"{"role":"user"}"#, "content", MISSING),
        (r#"{"role":"user","content":{}}"#, "content", TYPE),
        (r#"{"role":"user","content":"x","y":1}"#, "y", UNKNOWN),
        (
            r#"{"role":"user","content":[{"type":"text","text":"x","y":1}]}"#,
            "content[0].y",
            UNKNOWN,
        ),
        (
            r#"{"role":"user","content":[{"type":"text","text":"x","text":"s3cret"}]}"#,
            "content[0].text",
            TWICE,
        ),
        (
            r#"{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"s3cret"}}]}"#,
            "content[0].cache_control.type",
            VALUE,
        ),
        (
            r#"{"role":"user","content":[{"type":"tool_use"}]}"#,
            "content[0].type",
            VALUE,
        ),
        (
            r#"{"role":"user","content":[{"type":"search_result"}]}"#,
            "content[0].type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"assistant","content":[{"type":"image"}]}"#,
            "content[0].type",
            VALUE,
        ),
        (
            r#"{"role":"assistant","content":[{"type":"thinking","thinking":"s3cret","signature":""}]}"#,
            "content[0].type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"assistant","content":[{"type":"redacted_thinking","data":"s3cret"}]}"#,
            "content[0].type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"assistant","content":[{"type":"server_tool_use","id":"s","name":"web_search","input":{}}]}"#,
            "content[0].type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":"s3cret"}]}"#,
            "content[0].input",
            TYPE,
        ),
        (
            r#"{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{},"caller":{"type":"code_execution_20250825"}}]}"#,
            "content[0].caller.type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}"#,
            "content[0].source.type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"document","source":{"type":"url","url":"https://x"}}]}"#,
            "content[0].source.type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"document","source":{"type":"base64","media_type":"text/csv","data":"s3cret"}}]}"#,
            "content[0].source.media_type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"document","context":"s3cret","source":{"type":"base64"}}]}"#,
            "content[0].context",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"document","citations":{"enabled":true},"source":{"type":"base64"}}]}"#,
            "content[0].citations.enabled",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"image"}]}]}"#,
            "content[0].content[0].type",
            UNSUPPORTED,
        ),
        (
            r#"{"role":"user","content":[{"type":"tool_result"}]}"#,
            "content[0].tool_use_id",
            MISSING,
        ),
        (
            r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","toolset_name":"b"}]}"#,
            "content[0].toolset_name",
            UNSUPPORTED,
        ),
    ] {
        let body = format!(
            r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":"x"}},{message}]}}"#
        );
        let param = format!("messages[1].{param}");
        check(to_openai::request, &OPENAI, &body, Some(&param), code);
    }
    let body = r#"{"max_tokens":1,"messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":""}}]}]}"#;
    check(
        to_openai::request,
        &COMPATIBLE,
        body,
        Some("messages[0].content[0].type"),
        UNSUPPORTED,
    );
}

#[test]
fn servers_that_copy_openai_take_more_stop_sequences() {
    let body = r#"{"max_tokens":1,"messages":[],"stop_sequences":["a","b","c","d","e"]}"#;
    assert!(to_openai::request(body.as_bytes(), &COMPATIBLE).is_ok());
}

#[test]
fn bodies_that_are_no_request() {
    let many = format!(
        "{{{}}}",
        (0..65)
            .map(|i| format!("\"a{i}\":1"))
            .collect::<Vec<_>>()
            .join(",")
    );
    for translate in [to_anthropic::request as Translate, to_openai::request] {
        for body in ["", "{", "[]", "null", "\"s3cret\"", "{\"s3cret\"}", "{}x"] {
            check(translate, &OPENAI, body, None, "invalid_json");
        }
        check(translate, &OPENAI, &many, None, "invalid_json");
        check(
            translate,
            &OPENAI,
            r#"{"max_tokens":1,"messages":7}"#,
            Some("messages"),
            TYPE,
        );
        check(
            translate,
            &OPENAI,
            r#"{"max_tokens":1}"#,
            Some("messages"),
            MISSING,
        );
        assert_eq!(translate(b"\xff", &OPENAI).unwrap_err().error.param, None);
    }
    for messages in [
        "[]",
        r#"[{"role":"system","content":"x"}]"#,
        r#"[{"role":"user","content":""}]"#,
        r#"[{"role":"user","content":"x"},{"role":"assistant","content":"s3cret"}]"#,
    ] {
        let body = format!(r#"{{"messages":{messages}}}"#);
        check(
            to_anthropic::request,
            &ANTHROPIC,
            &body,
            Some("messages"),
            UNSUPPORTED,
        );
    }
}
