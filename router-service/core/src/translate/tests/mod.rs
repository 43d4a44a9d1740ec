//! What must hold of any conversation and any answer.

mod answers;
mod talk;

use proptest::prelude::*;
use serde_json::Value;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use self::talk::{Talk, normal_anthropic, normal_openai};
use super::{Target, errors, to_anthropic, to_openai};

fn target(model: &str) -> Target<'_> {
    Target {
        model,
        max_tokens: Some(7),
        compatible: false,
    }
}

#[track_caller]
fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn anthropic_of(openai: &Value) -> Value {
    json(&to_anthropic::request(openai.to_string().as_bytes(), &target("m")).unwrap())
}

fn openai_of(anthropic: &Value) -> Value {
    json(&to_openai::request(anthropic.to_string().as_bytes(), &target("m")).unwrap())
}

/// Everything there is, with the same bytes.
fn all(bytes: &[u8]) {
    for compatible in [false, true] {
        let target = Target {
            compatible,
            ..target("m")
        };
        let _ = to_anthropic::request(bytes, &target);
        let _ = to_openai::request(bytes, &target);
    }
    let _ = to_anthropic::answer(bytes);
    let _ = to_openai::answer(bytes, i64::MIN);
    if let Some(error) = to_anthropic::error(bytes) {
        errors::event_for_anthropic(&error);
    }
    let _ = to_openai::error(bytes);
    let mut out = Vec::new();
    let mut stream = to_openai::Stream::new(to_openai::Options {
        include_usage: true,
        created_s: 0,
    });
    stream.take(bytes, &mut out);
    stream.take(br#"{"type":"message_stop"}"#, &mut out);
    let mut stream = to_anthropic::Stream::new();
    stream.take(bytes, &mut out);
    stream.take(b"[DONE]", &mut out);
}

/// Texts that hold each member there is, for mutations.
fn samples(talk: &Talk) -> [String; 8] {
    [
        talk.openai().to_string(),
        talk.anthropic().to_string(),
        r#"{"id":"a","model":"m","choices":[{"index":0,"delta":{"content":"x","refusal":"y","tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#.to_owned(),
        r#"{"id":"a","model":"m","choices":[{"index":0,"message":{"content":"x","refusal":"y","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#.to_owned(),
        r#"{"type":"message","id":"a","model":"m","content":[{"type":"text","text":"x"},{"type":"tool_use","id":"t","name":"f","input":{"a":1}}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":18446744073709551615}}"#.to_owned(),
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"f","input":{"a":1}}}"#.to_owned(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x","partial_json":"y","stop_reason":"z"},"usage":{"output_tokens":1}}"#.to_owned(),
        r#"{"type":"error","error":{"type":"api_error","message":"m","code":7}}"#.to_owned(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_conversation_means_the_same_to_anthropic(talk in talk::talks()) {
        let sent = anthropic_of(&talk.openai());
        prop_assert_eq!(normal_anthropic(&sent), normal_anthropic(&talk.anthropic()));
        prop_assert_eq!(normal_openai(&openai_of(&sent)), normal_openai(&talk.openai()));
    }

    #[test]
    fn a_conversation_means_the_same_to_openai(talk in talk::talks()) {
        let sent = openai_of(&talk.anthropic());
        prop_assert_eq!(normal_openai(&sent), normal_openai(&talk.openai()));
        prop_assert_eq!(normal_anthropic(&anthropic_of(&sent)), normal_anthropic(&talk.anthropic()));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        all(&bytes);
    }

    #[test]
    fn no_mutation_panics(
        talk in talk::talks(),
        which in 0usize..8,
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}:,\"\\\\0-9a-z ]|null|\\{\\}|\\[\\]|\"\""), 1..4),
    ) {
        let mut bytes = samples(&talk)[which].clone().into_bytes();
        for (at, with) in changes {
            let at = at.index(bytes.len());
            bytes.splice(at..=at, with.bytes());
        }
        all(&bytes);
    }

    /// What is sent twice, is not known or is of another type is never sent on.
    #[test]
    fn a_member_that_is_not_known_is_refused(talk in talk::talks(), name in "x_[a-z]{1,8}") {
        for (mut body, translate) in [
            (talk.openai(), to_anthropic::request as fn(&[u8], &Target<'_>) -> _),
            (talk.anthropic(), to_openai::request),
        ] {
            body["messages"][0][&name] = Value::Null;
            let Err(refusal) = translate(body.to_string().as_bytes(), &target("m")) else {
                return Err(TestCaseError::fail("was let through"));
            };
            prop_assert_eq!(refusal.error.code.as_deref(), Some("unknown_parameter"));
            prop_assert_eq!(refusal.error.param, Some(format!("messages[0].{name}")));
        }
    }
}
