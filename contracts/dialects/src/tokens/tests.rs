//! What usage objects of each dialect come to.

use proptest::prelude::*;
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// Input, cached, cache write, sound; output, reasoning, sound.
type Parts = ([u64; 4], [u64; 3]);

fn parts(t: TokenCounts) -> Parts {
    (
        [t.input, t.cached_input, t.cache_write, t.audio_input],
        [t.output, t.reasoning, t.audio_output],
    )
}

#[track_caller]
fn check(raw: &str, expected: Option<Parts>) {
    assert_eq!(parse_usage(raw.as_bytes()).map(parts), expected, "{raw}");
}

#[test]
fn openais_counts_are_disjoint() {
    check(
        r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,
            "prompt_tokens_details":{"cached_tokens":64,"audio_tokens":6},
            "completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":9,
            "accepted_prediction_tokens":3,"rejected_prediction_tokens":1}}"#,
        Some(([30, 64, 0, 6], [21, 20, 9])),
    );
    check(
        r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":64},
            "output_tokens":50,"output_tokens_details":{"reasoning_tokens":20},"total_tokens":150}"#,
        Some(([36, 64, 0, 0], [30, 20, 0])),
    );
    // Embeddings.
    check(
        r#"{"prompt_tokens":8,"total_tokens":8}"#,
        Some(([8, 0, 0, 0], [0; 3])),
    );
    // A transcription.
    check(
        r#"{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":4,"audio_tokens":10},
            "output_tokens":5,"total_tokens":19}"#,
        Some(([4, 0, 0, 10], [5, 0, 0])),
    );
    check(r#"{"type":"duration","seconds":12}"#, None);
}

#[test]
fn anthropics_cache_is_beside_the_input() {
    let flat = r#"{"input_tokens":10,"cache_creation_input_tokens":7,"cache_read_input_tokens":5,
        "cache_creation":{"ephemeral_5m_input_tokens":7,"ephemeral_1h_input_tokens":0},
        "output_tokens":1,"service_tier":"standard","server_tool_use":{"web_search_requests":0}}"#;
    check(flat, Some(([10, 5, 7, 0], [1, 0, 0])));
    check(
        r#"{"input_tokens":10,"output_tokens":1,
            "cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":4}}"#,
        Some(([10, 0, 7, 0], [1, 0, 0])),
    );
}

#[test]
fn a_later_object_adds_to_the_earlier() {
    let start = parse_usage(
        br#"{"input_tokens":10,"cache_creation_input_tokens":7,"cache_read_input_tokens":5,"output_tokens":1}"#,
    );
    for (raw, expected) in [
        (r#"{"output_tokens":9}"#, Some(([10, 5, 7, 0], [9, 0, 0]))),
        (
            r#"{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":null,"output_tokens":9}"#,
            Some(([12, 5, 0, 0], [9, 0, 0])),
        ),
        (r#"{"input_tokens":12}"#, Some(([12, 5, 7, 0], [1, 0, 0]))),
        ("{}", None),
        ("null", None),
        (r#"{"output_tokens":-9}"#, None),
    ] {
        let found = parse_usage_after(raw.as_bytes(), start).map(parts);
        assert_eq!(found, expected, "{raw}");
    }
    check(r#"{"output_tokens":9}"#, None);
}

#[test]
fn what_the_total_has_beyond_is_reasoning() {
    // Gemini: no details.
    check(
        r#"{"completion_tokens":20,"prompt_tokens":10,"total_tokens":130}"#,
        Some(([10, 0, 0, 0], [20, 100, 0])),
    );
    // xAI: the details have it.
    let grok = r#"{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,
        "prompt_tokens_details":{"text_tokens":32,"audio_tokens":0,"image_tokens":0,"cached_tokens":6},
        "completion_tokens_details":{"reasoning_tokens":94,"audio_tokens":0,
        "accepted_prediction_tokens":0,"rejected_prediction_tokens":0},"num_sources_used":0}"#;
    check(grok, Some(([26, 6, 0, 0], [9, 94, 0])));
    // A total that is too small, or is none, says nothing.
    for total in ["12", "0", "null", "\"130\"", "-1", "130.0"] {
        let raw =
            format!(r#"{{"prompt_tokens":10,"completion_tokens":20,"total_tokens":{total}}}"#);
        check(&raw, Some(([10, 0, 0, 0], [20, 0, 0])));
    }
}

#[test]
fn other_names_are_known() {
    // vLLM.
    check(
        r#"{"prompt_tokens":5,"total_tokens":7,"completion_tokens":2,"prompt_tokens_details":null}"#,
        Some(([5, 0, 0, 0], [2, 0, 0])),
    );
    // DeepSeek.
    check(
        r#"{"prompt_tokens":16,"completion_tokens":10,"total_tokens":26,
            "prompt_cache_hit_tokens":12,"prompt_cache_miss_tokens":4}"#,
        Some(([4, 12, 0, 0], [10, 0, 0])),
    );
    // Moonshot.
    check(
        r#"{"prompt_tokens":16,"completion_tokens":10,"total_tokens":26,"cached_tokens":12}"#,
        Some(([4, 12, 0, 0], [10, 0, 0])),
    );
    // OpenRouter.
    check(
        r#"{"prompt_tokens":16,"completion_tokens":10,"total_tokens":26,"cost":0.01,
            "prompt_tokens_details":{"cached_tokens":2,"cache_write_tokens":12,"audio_tokens":0}}"#,
        Some(([2, 2, 12, 0], [10, 0, 0])),
    );
    // Groq.
    check(
        r#"{"queue_time":0.06,"prompt_tokens":18,"prompt_time":0.0002,"completion_tokens":4,
            "completion_time":0.79,"total_tokens":22,"total_time":0.79}"#,
        Some(([18, 0, 0, 0], [4, 0, 0])),
    );
    // Proxies that tell Anthropic's counts in OpenAI's object, within or beside.
    check(
        r#"{"prompt_tokens":100,"completion_tokens":1,"total_tokens":101,"cache_read_input_tokens":60,
            "cache_creation_input_tokens":20,"prompt_tokens_details":{"cached_tokens":60}}"#,
        Some(([20, 60, 20, 0], [1, 0, 0])),
    );
    check(
        r#"{"prompt_tokens":10,"completion_tokens":1,"total_tokens":111,"cache_read_input_tokens":100}"#,
        Some(([10, 100, 0, 0], [1, 0, 0])),
    );
    // Both dialects' names at once.
    check(
        r#"{"prompt_tokens":6,"completion_tokens":3,"total_tokens":9,"input_tokens":0,
            "output_tokens":0,"input_tokens_details":null}"#,
        Some(([6, 0, 0, 0], [3, 0, 0])),
    );
}

#[test]
fn llama_cpp_and_ollama_have_objects_of_their_own() {
    let timings =
        br#"{"cache_n":236,"prompt_n":1,"prompt_ms":30.9,"predicted_n":35,"predicted_ms":661.0}"#;
    let found = parse_timings(timings).map(parts);
    assert_eq!(found, Some(([1, 236, 0, 0], [35, 0, 0])));
    let older = parse_timings(br#"{"prompt_n":43,"predicted_n":1}"#).map(parts);
    assert_eq!(older, Some(([43, 0, 0, 0], [1, 0, 0])));
    for raw in [
        "null",
        "{}",
        r#"{"prompt_n":-1,"predicted_n":1}"#,
        r#"{"prompt_n":1}"#,
        "[",
    ] {
        assert_eq!(parse_timings(raw.as_bytes()), None, "{raw}");
    }
    let found = parse_eval_counts(b"26", b"298").map(parts);
    assert_eq!(found, Some(([26, 0, 0, 0], [298, 0, 0])));
    assert_eq!(parse_eval_counts(b"26", b"2.5"), None);
    assert_eq!(parse_eval_counts(b"1000000001", b"2"), None);
}

#[test]
fn zero_is_a_count_and_absence_is_not() {
    check(
        r#"{"prompt_tokens":0,"completion_tokens":0}"#,
        Some(([0; 4], [0; 3])),
    );
    check(r#"{"prompt_tokens":5}"#, Some(([5, 0, 0, 0], [0; 3])));
    for raw in [
        "null",
        "{}",
        "",
        "7",
        "[]",
        "\"x\"",
        r#"{"prompt_tokens":null}"#,
        "{",
    ] {
        check(raw, None);
    }
}

#[test]
fn what_is_no_count_is_no_usage() {
    for odd in [
        "-1",
        "12.0",
        "1e2",
        "\"12\"",
        "true",
        "[1]",
        "{}",
        "1000000001",
        "99999999999999999999",
    ] {
        check(
            &format!(r#"{{"prompt_tokens":{odd},"completion_tokens":1}}"#),
            None,
        );
        check(
            &format!(r#"{{"prompt_tokens":1,"completion_tokens":{odd}}}"#),
            None,
        );
        check(
            &format!(r#"{{"input_tokens":1,"output_tokens":1,"cache_read_input_tokens":{odd}}}"#),
            None,
        );
    }
    // Parts beside the whole are another matter.
    for odd in ["-1", "1.5", "\"12\"", "[1]", "null"] {
        let raw = format!(
            r#"{{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{{"cached_tokens":{odd}}},"completion_tokens_details":{odd}}}"#
        );
        check(&raw, Some(([5, 0, 0, 0], [1, 0, 0])));
    }
    check(
        r#"{"prompt_tokens":1000000000}"#,
        Some(([TOKENS_MAX, 0, 0, 0], [0; 3])),
    );
    check(
        r#"{"prompt_tokens":1,"completion_tokens":1,"total_tokens":1000000002}"#,
        None,
    );
}

#[test]
fn a_models_name_is_cut() {
    assert_eq!(clip_model("é".repeat(200)).len(), MODEL_MAX_BYTES);
    assert_eq!(clip_model("gpt".to_owned()), "gpt");
}

#[test]
fn parts_that_exceed_their_whole_are_clamped() {
    check(
        r#"{"prompt_tokens":5,"completion_tokens":3,
            "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":9},
            "completion_tokens_details":{"reasoning_tokens":9,"audio_tokens":2}}"#,
        Some(([0, 4, 0, 1], [0, 1, 2])),
    );
}

#[test]
fn the_usage_chunk_is_told_from_others() {
    for (data, expected) in [
        (r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, true),
        (r#"{"id":"x", "usage" : {} ,"choices" : [ ] }"#, true),
        (r#"{"choices":[],"usage":null}"#, false),
        (r#"{"choices":[{}],"usage":{}}"#, false),
        (r#"{"choices":[]}"#, false),
        (r#"{"usage":{}}"#, false),
        (r#"{"choices":{},"usage":{}}"#, false),
        (r#"{"choices":[],"usage":{}"#, false),
        ("[DONE]", false),
    ] {
        assert_eq!(is_usage_alone(data.as_bytes()), expected, "{data}");
    }
}

fn count() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        Just(None),
        (0u64..50).prop_map(Some),
        (0u64..2_000_000).prop_map(Some)
    ]
}

fn object(members: [(&str, Option<u64>); 4]) -> serde_json::Value {
    let told = members
        .into_iter()
        .filter_map(|(name, n)| Some((name.to_owned(), n?.into())));
    serde_json::Value::Object(told.collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_add_up_to_the_whole(
        prompt in 0u64..1_000_000, completion in 0u64..1_000_000,
        cached in count(), written in count(), sound in count(), spoken in count(),
        reasoning in count(), total in count(), responses in any::<bool>(),
    ) {
        let names = if responses {
            ["input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"]
        } else {
            ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"]
        };
        let raw = json!({
            names[0]: prompt,
            names[1]: completion,
            "total_tokens": total,
            names[2]: object([("cached_tokens", cached), ("cache_write_tokens", written),
                ("audio_tokens", sound), ("text_tokens", sound)]),
            names[3]: object([("reasoning_tokens", reasoning), ("audio_tokens", spoken),
                ("accepted_prediction_tokens", reasoning), ("text_tokens", spoken)]),
        });
        let (input, output) = parts(parse_usage(raw.to_string().as_bytes()).unwrap());
        prop_assert_eq!(input.iter().sum::<u64>(), prompt);
        let whole = completion.max(total.unwrap_or(0).saturating_sub(prompt));
        prop_assert_eq!(output.iter().sum::<u64>(), whole);
    }

    #[test]
    fn anthropics_parts_add_up_to_the_whole(
        input in 0u64..1_000_000, read in count(), written in count(), output in 0u64..1_000,
    ) {
        let raw = json!({"input_tokens": input, "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written, "output_tokens": output});
        let (found, out) = parts(parse_usage(raw.to_string().as_bytes()).unwrap());
        prop_assert_eq!(found, [input, read.unwrap_or(0), written.unwrap_or(0), 0]);
        prop_assert_eq!(out, [output, 0, 0]);
    }

    #[test]
    fn any_text_does_no_harm(raw in ".{0,60}") {
        let _ = parse_usage(raw.as_bytes());
        let _ = parse_timings(raw.as_bytes());
        let _ = is_usage_alone(raw.as_bytes());
    }
}
