//! Tests of reading and rewriting.

use std::time::Duration;

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use weir_pricing::Prices;

use crate::{catalogue::Tier, offer::Decision, provider::ProviderKind};

const CHAT: Endpoint = Endpoint::ChatCompletions;

fn decision(endpoint: Endpoint, kind: ProviderKind, max_tokens: Option<u64>) -> Decision {
    Decision {
        model: "m".into(),
        upstream: "m".into(),
        tier: Tier::Fast,
        provider: "p".into(),
        kind,
        endpoint,
        instead: None,
        max_tokens,
        bounded: max_tokens.is_some(),
        prices: Prices {
            input: 1,
            cached_input: None,
            cache_write: None,
            output: 1,
        },
        context_tokens: 1_000,
        max_output_tokens: 1_000,
        timeout: Duration::from_secs(1),
        stream_total: Duration::from_secs(1),
    }
}

fn rewrite(endpoint: Endpoint, body: &str, decision: &Decision) -> String {
    let body = Body::read(endpoint, body.as_bytes()).unwrap();
    String::from_utf8(body.for_provider(decision).unwrap().into_owned()).unwrap()
}

#[track_caller]
fn check_body(body: &str, expected: &str) {
    let decision = decision(CHAT, ProviderKind::OpenAi, None);
    assert_eq!(rewrite(CHAT, body, &decision), expected);
}

#[test]
fn a_stream_is_asked_for_its_usage() {
    check_body(
        r#"{"model":"m","seed": 12345678901234567890,"stream":true}"#,
        r#"{"model":"m","seed":12345678901234567890,"stream":true,"stream_options":{"include_usage":true}}"#,
    );
    check_body(
        r#"{"stream_options":{"include_usage":false,"include_obfuscation":false},"model":"m","stream":true}"#,
        r#"{"stream_options":{"include_obfuscation":false,"include_usage":true},"model":"m","stream":true}"#,
    );
}

#[test]
fn any_other_body_stays_as_it_is() {
    for body in [
        r#"{ "model" : "m" , "stream" : false }"#,
        r#"{"model":"m","stream":null}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"model":"m", "max_tokens" : 5}"#,
    ] {
        check_body(body, body);
    }
}

#[test]
fn the_model_has_its_providers_name() {
    let mut renamed = decision(CHAT, ProviderKind::OpenAi, None);
    renamed.upstream = "org/m \"v2\"".into();
    assert_eq!(
        rewrite(CHAT, r#"{"a":1,"model":"m","b":[ ]}"#, &renamed),
        r#"{"a":1,"model":"org/m \"v2\"","b":[ ]}"#
    );
}

#[test]
fn tokens_are_bounded_in_the_member_that_the_client_used() {
    use ProviderKind::{Anthropic, OpenAi, OpenAiCompatible};
    for (endpoint, kind, body, expected) in [
        (
            CHAT,
            OpenAi,
            r#"{"model":"m","max_tokens":9}"#,
            r#"{"model":"m","max_tokens":7}"#,
        ),
        (
            CHAT,
            OpenAi,
            r#"{"max_completion_tokens":9,"model":"m"}"#,
            r#"{"max_completion_tokens":7,"model":"m"}"#,
        ),
        (
            CHAT,
            OpenAi,
            r#"{"model":"m"}"#,
            r#"{"model":"m","max_completion_tokens":7}"#,
        ),
        (
            CHAT,
            OpenAi,
            r#"{"model":"m","max_tokens":null}"#,
            r#"{"model":"m","max_tokens":null,"max_completion_tokens":7}"#,
        ),
        (
            CHAT,
            OpenAiCompatible,
            r#"{"model":"m"}"#,
            r#"{"model":"m","max_tokens":7}"#,
        ),
        (
            Endpoint::Messages,
            Anthropic,
            r#"{"model":"m","max_tokens":9}"#,
            r#"{"model":"m","max_tokens":7}"#,
        ),
        (
            Endpoint::Responses,
            OpenAi,
            r#"{"model":"m","store":false}"#,
            r#"{"model":"m","store":false,"max_output_tokens":7}"#,
        ),
    ] {
        assert_eq!(
            rewrite(endpoint, body, &decision(endpoint, kind, Some(7))),
            expected
        );
    }
}

#[test]
fn a_response_is_not_kept() {
    let decision = decision(Endpoint::Responses, ProviderKind::OpenAi, None);
    let body = r#"{"model":"m","input":"a"}"#;
    let expected = r#"{"model":"m","input":"a","store":false}"#;
    assert_eq!(rewrite(Endpoint::Responses, body, &decision), expected);
}

#[track_caller]
fn check_refused(endpoint: Endpoint, body: &str, param: Option<&str>, says: &str) {
    let refusal = Body::read(endpoint, body.as_bytes()).unwrap_err();
    assert_eq!(refusal.status, 400);
    assert_eq!(refusal.error.param.as_deref(), param, "{body}");
    assert!(refusal.error.message.contains(says), "{body}: {refusal:?}");
}

#[test]
fn what_is_wrong_is_named() {
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{}x",
        "\u{feff}{}",
        "{\"model\":\"m\"]",
    ] {
        check_refused(CHAT, body, None, "could not parse");
    }
    for (body, param, says) in [
        ("{}", "model", "model"),
        (r#"{"model":null}"#, "model", "model"),
        (r#"{"model":7}"#, "model", "a string"),
        (r#"{"model":"m","stream":"yes"}"#, "stream", "a boolean"),
        (
            r#"{"model":"m","stream":true,"stream_options":1}"#,
            "stream_options",
            "an object",
        ),
        (
            r#"{"model":"m","max_tokens":1.5}"#,
            "max_tokens",
            "a whole number",
        ),
        (
            r#"{"model":"m","max_tokens":-1}"#,
            "max_tokens",
            "a whole number",
        ),
        (
            r#"{"model":"m","max_tokens":0}"#,
            "max_tokens",
            "at least 1",
        ),
        (
            r#"{"model":"m","max_tokens":1,"max_completion_tokens":1}"#,
            "max_tokens",
            "both",
        ),
    ] {
        check_refused(CHAT, body, Some(param), says);
    }
    check_refused(
        CHAT,
        r#"{"model":"a","mod\u0065l":"b"}"#,
        None,
        "`model` comes twice",
    );
    let deep = format!(r#"{{"a":{}"#, "[".repeat(10_000));
    check_refused(CHAT, &deep, None, "parse");
    check_refused(
        Endpoint::Messages,
        r#"{"model":"m"}"#,
        Some("max_tokens"),
        "max_tokens",
    );
}

#[test]
fn nothing_reaches_into_the_account_that_tenants_share() {
    let of = |member: &str| format!(r#"{{"model":"m","input":"a",{member}}}"#);
    for (member, param) in [
        (r#""previous_response_id":"resp_1""#, "previous_response_id"),
        (r#""conversation":"conv_1""#, "conversation"),
        (r#""prompt":{"id":"pmpt_1"}"#, "prompt"),
        (r#""store":true"#, "store"),
        (r#""background":true"#, "background"),
        (
            r#""tools":[{"type":"function","name":"f"},{"type":"file_search"}]"#,
            "tools",
        ),
    ] {
        check_refused(
            Endpoint::Responses,
            &of(member),
            Some(param),
            "not supported",
        );
    }
    for (member, param) in [
        (r#""mcp_servers":[{"type":"url"}]"#, "mcp_servers"),
        (r#""container":"c""#, "container"),
        (
            r#""tools":[{"name":"f"},{"type":"web_search_20250305"}]"#,
            "tools",
        ),
    ] {
        let body = format!(r#"{{"model":"m","max_tokens":1,{member}}}"#);
        check_refused(Endpoint::Messages, &body, Some(param), "not supported");
    }
    let own =
        r#"{"model":"m","max_tokens":1,"tools":[{"type":"bash_20250124"},{"type":"custom"}]}"#;
    Body::read(Endpoint::Messages, own.as_bytes()).unwrap();
    for member in [
        r#""previous_response_id":null"#,
        r#""tools":[{"type":"function"}]"#,
    ] {
        Body::read(Endpoint::Responses, of(member).as_bytes()).unwrap();
    }
}

#[track_caller]
fn check_uses(endpoint: Endpoint, member: &str, expected: [bool; 4]) {
    let text = format!(r#"{{"model":"m","max_tokens":1,{member}}}"#);
    let uses = Body::read(endpoint, text.as_bytes()).unwrap().asked.uses;
    let found = [uses.tools, uses.images, uses.json, uses.rag];
    assert_eq!(found, expected, "{member}");
}

#[test]
fn what_a_request_uses_is_seen() {
    let messages = Endpoint::Messages;
    let none = [false; 4];
    check_uses(
        CHAT,
        r#""tools":[{"type":"function"}]"#,
        [true, false, false, false],
    );
    check_uses(CHAT, r#""tools":[ ],"functions":null"#, none);
    check_uses(
        CHAT,
        r#""messages":[{"role":"user","content":"an image_url"}]"#,
        none,
    );
    check_uses(
        CHAT,
        r#""messages":[{"content":[{"type":"text","text":"image"}]}]"#,
        none,
    );
    let image = [false, true, false, false];
    check_uses(
        CHAT,
        r#""messages":[{"content":[{"type":"image_url","image_url":{"url":"u"}}]}]"#,
        image,
    );
    check_uses(
        CHAT,
        r#""messages":[{"content":[{"type":"im\u0061ge_url"}]}]"#,
        image,
    );
    check_uses(
        messages,
        r#""messages":[{"content":[{"type":"tool_result","content":[{"type":"image"}]}]}]"#,
        image,
    );
    check_uses(
        Endpoint::Responses,
        r#""input":[{"content":[{"type":"input_image"}]}]"#,
        image,
    );
    let json = [false, false, true, false];
    check_uses(CHAT, r#""response_format":{"type":"json_schema"}"#, json);
    check_uses(CHAT, r#""response_format":{"type":"text"}"#, none);
    check_uses(
        messages,
        r#""output_config":{"format":{"type":"json_schema"}}"#,
        json,
    );
    check_uses(
        Endpoint::Responses,
        r#""text":{"format":{"type":"json_schema"}}"#,
        json,
    );
    check_uses(CHAT, r#""retrieval":{}"#, [false, false, false, true]);
}

#[test]
fn what_asks_for_documents_is_of_another_class() {
    let class = |endpoint, body: &str| Body::read(endpoint, body.as_bytes()).unwrap().asked.class();
    let with = r#"{"model":"m","input":"x","messages":[],"retrieval":{}}"#;
    let without = r#"{"model":"m","input":"x","messages":[]}"#;
    for (endpoint, body, expected) in [
        (CHAT, with, "rag"),
        (CHAT, without, "chat"),
        (Endpoint::Responses, with, "rag"),
        (Endpoint::Embeddings, with, "embedding"),
    ] {
        assert_eq!(class(endpoint, body).as_str(), expected, "{body}");
    }
}

#[test]
fn azures_deployment_takes_the_models_place() {
    let named = |body: &str| with_model(body.as_bytes(), "gpt \"4").map(String::from_utf8);
    let expected = |text: &str| Some(Ok(text.to_owned()));
    assert_eq!(
        named(r#"{ "model":"m", "n": 1}"#),
        expected(r#"{"model":"gpt \"4","n":1}"#)
    );
    assert_eq!(named("{}"), expected(r#"{"model":"gpt \"4"}"#));
    assert_eq!(named("[]"), None);
}

#[test]
fn what_is_kept_or_priced_apart_is_refused_everywhere() {
    let messages = r#""messages":[{"content":[{"type":"file","file":{"file_id":"f"}}]}]"#;
    for (endpoint, member, param) in [
        (CHAT, messages, "messages"),
        (
            CHAT,
            r#""messages":[{"content":[{"type":"text","type":"image_url"}]}]"#,
            "messages",
        ),
        (CHAT, r#""store":true"#, "store"),
        (CHAT, r#""service_tier":"priority""#, "service_tier"),
        (CHAT, r#""web_search_options":{}"#, "web_search_options"),
        (CHAT, r#""audio":{"voice":"v"}"#, "audio"),
        (CHAT, r#""n_predict":9"#, "n_predict"),
        (Endpoint::Messages, r#""speed":"fast""#, "speed"),
        (
            Endpoint::Messages,
            r#""inference_geo":"us""#,
            "inference_geo",
        ),
        (
            Endpoint::Responses,
            r#""input":[{"type":"item_reference","id":"m"}]"#,
            "input",
        ),
        (
            Endpoint::Responses,
            r#""tools":[{"type":"function","type":"web_search"}]"#,
            "tools",
        ),
        (
            Endpoint::Responses,
            r#""tools":[null,{"type":"web_search"}]"#,
            "tools",
        ),
    ] {
        let text = format!(r#"{{"model":"m","max_tokens":1,{member}}}"#);
        let refusal = Body::read(endpoint, text.as_bytes()).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert_eq!(
            refusal.error.param.as_deref(),
            Some(param),
            "{member}: {refusal:?}"
        );
    }
    for member in [
        r#""service_tier":"auto""#,
        r#""store":false"#,
        r#""audio":null"#,
    ] {
        let text = format!(r#"{{"model":"m",{member}}}"#);
        Body::read(CHAT, text.as_bytes()).unwrap();
    }
}

#[test]
fn answers_are_counted() {
    for (endpoint, members, choices) in [
        (CHAT, r#""n":3"#, 3),
        (CHAT, r#""n":null"#, 1),
        (
            Endpoint::Completions,
            r#""prompt":["a","b"],"n":2,"best_of":5"#,
            10,
        ),
        (Endpoint::Completions, r#""prompt":[1,2,3]"#, 1),
        (Endpoint::Completions, r#""prompt":[[1,2],[3],[4]]"#, 3),
        (Endpoint::Completions, r#""prompt":"a""#, 1),
    ] {
        let text = format!(r#"{{"model":"m",{members}}}"#);
        let asked = Body::read(endpoint, text.as_bytes()).unwrap().asked;
        assert_eq!(asked.choices, choices, "{members}");
    }
}

#[test]
fn embeddings_do_not_stream() {
    let text = r#"{"model":"m","input":"abc","stream":true}"#;
    let body = Body::read(Endpoint::Embeddings, text.as_bytes()).unwrap();
    assert_eq!((body.asked.stream, body.asked.input_bytes), (false, 5));
    let decision = decision(Endpoint::Embeddings, ProviderKind::OpenAi, None);
    assert_eq!(body.for_provider(&decision).unwrap(), text.as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rewritten_body_says_the_same(name in "[a-z\"\\\\é]{1,6}", value in ".{0,20}") {
        let looked_at = ["model", "stream", "n", "store", "audio"];
        prop_assume!(!looked_at.contains(&name.as_str()));
        let mut asked = serde_json::json!({"model": "m", "stream": true});
        asked[&name] = serde_json::json!({"v": value});
        let decision = decision(CHAT, ProviderKind::OpenAi, Some(3));
        let sent = rewrite(CHAT, &asked.to_string(), &decision);
        asked["stream_options"] = serde_json::json!({"include_usage": true});
        asked["max_completion_tokens"] = serde_json::json!(3);
        let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
        prop_assert_eq!(sent, asked);
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for endpoint in Endpoint::ALL {
            let _ = Body::read(endpoint, &bytes);
        }
    }
}
