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
    let code = match code {
        "unsupported" => "unsupported_parameter",
        "unknown" => "unknown_parameter",
        "type" => "invalid_type",
        "value" => "invalid_value",
        "missing" => "missing_required_parameter",
        "twice" => "duplicate_parameter",
        code => code,
    };
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

/// The lines of a table: code, parameter, and what the body holds.
fn cases(table: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    table.trim().lines().map(|line| {
        let (code, rest) = line.split_once(' ').unwrap();
        let (param, member) = rest.split_once(' ').unwrap();
        (code, param, member)
    })
}

/// Members of a request of OpenAI's dialect.
const OPENAI_REQUEST: &str = r#"
unsupported n "n":2
unsupported logprobs "logprobs":true
unsupported top_logprobs "top_logprobs":3
unsupported logit_bias "logit_bias":{"1":2}
unsupported presence_penalty "presence_penalty":0.1
unsupported frequency_penalty "frequency_penalty":-1
unsupported seed "seed":0
unsupported audio "audio":{"voice":"alloy"}
unsupported modalities "modalities":["text","audio"]
unsupported prediction "prediction":{"type":"content","content":"s3cret"}
unsupported reasoning_effort "reasoning_effort":"low"
unsupported verbosity "verbosity":"low"
unsupported web_search_options "web_search_options":{}
unsupported moderation "moderation":{"model":"m"}
unsupported metadata "metadata":{"a":"s3cret"}
unsupported store "store":true
unsupported service_tier "service_tier":"flex"
unsupported prompt_cache_key "prompt_cache_key":"s3cret"
unsupported prompt_cache_retention "prompt_cache_retention":"24h"
unsupported prompt_cache_options "prompt_cache_options":{}
unsupported functions "functions":[{"name":"f"}]
unsupported function_call "function_call":"auto"
unsupported temperature "temperature":1.5
type temperature "temperature":"s3cret"
type top_p "top_p":[]
type max_tokens "max_tokens":-1
type max_completion_tokens "max_completion_tokens":1.5
type stream "stream":"s3cret"
unknown stream_options.x "stream_options":{"x":1}
type stream_options.include_usage "stream_options":{"include_usage":1}
type stop "stop":7
type stop[1] "stop":["a",7]
unsupported stop[1] "stop":["a","\n\n"]
unsupported stop "stop":" "
unsupported user "user":"a","safety_identifier":"b"
unknown top_k "top_k":3
type tools "tools":{}
unsupported tools[0].type "tools":[{"type":"custom","custom":{"name":"f"}}]
missing tools[0].type "tools":[{"function":{"name":"f"}}]
missing tools[0].function.name "tools":[{"type":"function","function":{}}]
unknown tools[0].x "tools":[{"type":"function","function":{"name":"f"},"x":1}]
unknown tools[0].function.x "tools":[{"type":"function","function":{"name":"f","x":1}}]
value tools[0].function.name "tools":[{"type":"function","function":{"name":"json_answer"}}]
type tools[0].function.parameters "tools":[{"type":"function","function":{"name":"f","parameters":"s3cret"}}]
unsupported tools[0].function.parameters.type "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"array"}}}]
value tools[0].function.parameters "tools":[{"type":"function","function":{"name":"f","parameters":{"type":null,"a":1}}}]
twice tools[0].function.parameters.type "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","type":"object"}}}]
value tool_choice "tool_choice":"required"
value tool_choice "tool_choice":"s3cret"
unsupported tool_choice.type "tool_choice":{"type":"allowed_tools","allowed_tools":{}}
value tool_choice "tool_choice":{"type":"function","function":{"name":"f"}}
type parallel_tool_calls "parallel_tool_calls":1
value response_format.type "response_format":{"type":"grammar"}
unknown response_format.x "response_format":{"type":"text","x":1}
missing response_format.json_schema "response_format":{"type":"json_schema"}
unsupported response_format.json_schema.schema.type "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"array"}}}
unknown response_format.json_schema.x "response_format":{"type":"json_schema","json_schema":{"name":"n","x":1}}
"#;

#[test]
fn openai_members_of_the_request() {
    for (code, param, member) in cases(OPENAI_REQUEST) {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],{member}}}"#);
        check(to_anthropic::request, &ANTHROPIC, &body, Some(param), code);
    }
}

/// Second messages of a request of OpenAI's dialect.
const OPENAI_MESSAGE: &str = r#"
missing role {"content":"s3cret"}
value role {"role":"s3cret","content":"x"}
unsupported role {"role":"function","name":"f","content":"x"}
missing content {"role":"user"}
type content {"role":"user","content":7}
unsupported name {"role":"user","content":"x","name":"s3cret"}
unsupported name {"role":"system","content":"x","name":"s3cret"}
unknown y {"role":"user","content":"x","y":1}
twice content {"role":"user","content":"x","content":"s3cret"}
value content[0].type {"role":"system","content":[{"type":"image_url","image_url":{}}]}
value content[0].type {"role":"user","content":[{"type":"s3cret"}]}
missing content[0].text {"role":"user","content":[{"type":"text"}]}
unknown content[0].y {"role":"user","content":[{"type":"text","text":"x","y":1}]}
unsupported content[0].prompt_cache_breakpoint {"role":"user","content":[{"type":"text","text":"x","prompt_cache_breakpoint":{"mode":"explicit"}}]}
unsupported content[0].type {"role":"user","content":[{"type":"input_audio","input_audio":{"data":"","format":"wav"}}]}
type content[0].image_url {"role":"user","content":[{"type":"image_url","image_url":"https://x"}]}
unsupported content[0].image_url.url {"role":"user","content":[{"type":"image_url","image_url":{"url":"ftp://s3cret"}}]}
unsupported content[0].image_url.url {"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png,s3cret"}}]}
unsupported content[0].image_url.url {"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/svg+xml;base64,AA"}}]}
unsupported content[0].image_url.detail {"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x","detail":"high"}}]}
unknown content[0].image_url.y {"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x","y":1}}]}
unsupported content[0].file.file_id {"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}
unsupported content[0].file.file_data {"role":"user","content":[{"type":"file","file":{"file_data":"data:text/csv;base64,AA"}}]}
unsupported function_call {"role":"assistant","content":"x","function_call":{"name":"f"}}
unsupported audio {"role":"assistant","audio":{"id":"a"}}
unsupported annotations {"role":"assistant","content":"x","annotations":[{}]}
unknown reasoning_content {"role":"assistant","content":"x","reasoning_content":"s3cret"}
unsupported tool_calls[0].type {"role":"assistant","tool_calls":[{"id":"c","type":"custom","custom":{}}]}
missing tool_calls[0].id {"role":"assistant","tool_calls":[{"type":"function","function":{"name":"f","arguments":"{}"}}]}
value tool_calls[0].function.arguments {"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{s3cret"}}]}
value tool_calls[0].function.arguments {"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"[]"}}]}
type tool_calls[0].function.arguments {"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":{}}}]}
missing tool_call_id {"role":"tool","content":"x"}
value content[0].type {"role":"tool","tool_call_id":"c","content":[{"type":"image_url","image_url":{"url":"https://x"}}]}
"#;

#[test]
fn openai_members_of_messages() {
    for (code, param, message) in cases(OPENAI_MESSAGE) {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}},{message}]}}"#);
        let param = format!("messages[1].{param}");
        check(to_anthropic::request, &ANTHROPIC, &body, Some(&param), code);
    }
}

/// Members of a request of Anthropic's dialect.
const ANTHROPIC_REQUEST: &str = r#"
unsupported top_k "top_k":5
unsupported service_tier "service_tier":"standard_only"
unsupported container "container":"c"
unsupported mcp_servers "mcp_servers":[{}]
unsupported context_management "context_management":{}
unsupported inference_geo "inference_geo":"us"
unsupported diagnostics "diagnostics":{}
unsupported speed "speed":"fast"
unsupported user_profile_id "user_profile_id":"u"
unsupported thinking "thinking":{"type":"enabled","budget_tokens":1024}
unsupported thinking "thinking":{"type":"adaptive"}
unknown thinking.x "thinking":{"type":"disabled","x":1}
unsupported output_config.effort "output_config":{"effort":"low"}
unknown output_config.x "output_config":{"x":1}
value output_config.format.type "output_config":{"format":{"type":"xml"}}
missing output_config.format.schema "output_config":{"format":{"type":"json_schema"}}
value cache_control.type "cache_control":{"type":"forever"}
value cache_control.ttl "cache_control":{"type":"ephemeral","ttl":"9h"}
unsupported stop_sequences "stop_sequences":["a","b","c","d","e"]
type stop_sequences "stop_sequences":"a"
type temperature "temperature":"s3cret"
unknown metadata.x "metadata":{"user_id":"a","x":1}
type system "system":7
unsupported system[0].type "system":[{"type":"image"}]
unsupported system[0].citations "system":[{"type":"text","text":"x","citations":[{}]}]
type stream "stream":1
unknown n "n":1
unsupported tools[0].type "tools":[{"type":"web_search_20250305","name":"web_search"}]
missing tools[0].input_schema "tools":[{"name":"f"}]
unsupported tools[0].defer_loading "tools":[{"name":"f","input_schema":{},"defer_loading":true}]
unsupported tools[0].input_examples "tools":[{"name":"f","input_schema":{},"input_examples":[{}]}]
unsupported tools[0].allowed_callers "tools":[{"name":"f","input_schema":{},"allowed_callers":["code_execution_20250825"]}]
unknown tools[0].x "tools":[{"name":"f","input_schema":{},"x":1}]
value tool_choice "tool_choice":{"type":"auto"}
value tool_choice.type "tool_choice":{"type":"s3cret"}
missing tool_choice.name "tool_choice":{"type":"tool"}
twice max_tokens "max_tokens":2
"#;

#[test]
fn anthropic_members_of_the_request() {
    for (code, param, member) in cases(ANTHROPIC_REQUEST) {
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
        "unsupported",
    );
    let body = format!(
        r#"{{"max_tokens":1,"messages":[{}]}}"#,
        vec!["0"; 100_001].join(",")
    );
    check(
        to_openai::request,
        &OPENAI,
        &body,
        Some("messages"),
        "value",
    );
    let body = r#"{"model":"m","messages":[]}"#;
    check(
        to_openai::request,
        &OPENAI,
        body,
        Some("max_tokens"),
        "missing",
    );
}

/// Second messages of a request of Anthropic's dialect.
const ANTHROPIC_MESSAGE: &str = r#"
value role {"role":"tool","content":"x"}
missing content {"role":"user"}
type content {"role":"user","content":{}}
unknown y {"role":"user","content":"x","y":1}
unknown content[0].y {"role":"user","content":[{"type":"text","text":"x","y":1}]}
twice content[0].text {"role":"user","content":[{"type":"text","text":"x","text":"s3cret"}]}
value content[0].cache_control.type {"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"s3cret"}}]}
value content[0].type {"role":"user","content":[{"type":"tool_use"}]}
unsupported content[0].type {"role":"user","content":[{"type":"search_result"}]}
value content[0].type {"role":"assistant","content":[{"type":"image"}]}
unsupported content[0].type {"role":"assistant","content":[{"type":"thinking","thinking":"s3cret","signature":""}]}
unsupported content[0].type {"role":"assistant","content":[{"type":"redacted_thinking","data":"s3cret"}]}
unsupported content[0].type {"role":"assistant","content":[{"type":"server_tool_use","id":"s","name":"web_search","input":{}}]}
type content[0].input {"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":"s3cret"}]}
unsupported content[0].caller.type {"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{},"caller":{"type":"code_execution_20250825"}}]}
unsupported content[0].source.type {"role":"user","content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}
unsupported content[0].source.type {"role":"user","content":[{"type":"document","source":{"type":"url","url":"https://x"}}]}
unsupported content[0].source.media_type {"role":"user","content":[{"type":"document","source":{"type":"base64","media_type":"text/csv","data":"s3cret"}}]}
unsupported content[0].context {"role":"user","content":[{"type":"document","context":"s3cret","source":{"type":"base64"}}]}
unsupported content[0].citations.enabled {"role":"user","content":[{"type":"document","citations":{"enabled":true},"source":{"type":"base64"}}]}
unsupported content[0].content[0].type {"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"image"}]}]}
missing content[0].tool_use_id {"role":"user","content":[{"type":"tool_result"}]}
unsupported content[0].toolset_name {"role":"user","content":[{"type":"tool_result","tool_use_id":"t","toolset_name":"b"}]}
"#;

#[test]
fn anthropic_members_of_messages() {
    for (code, param, message) in cases(ANTHROPIC_MESSAGE) {
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
        "unsupported",
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
            "type",
        );
        check(
            translate,
            &OPENAI,
            r#"{"max_tokens":1}"#,
            Some("messages"),
            "missing",
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
            "unsupported",
        );
    }
}
