//! Answers of every dialect, whole and cut anywhere.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const STREAM: &str = include_str!("../../../fixtures/openai-chat-stream.txt");
const JSON: &str = include_str!("../../../fixtures/openai-chat.json");

const SSE: &str = "text/event-stream";
const WHOLE: &str = "application/json";

/// What is to be seen of one answer.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    model: Option<&'static str>,
    /// Input, cached, cache write, sound; output, reasoning, sound.
    usage: Option<([u64; 4], [u64; 3])>,
    done: bool,
    error: bool,
    text_bytes: u64,
}

fn look(content_type: &str, chunks: &[&[u8]]) -> (Option<String>, Expected) {
    let mut watch = Watch::new(content_type.as_bytes());
    for chunk in chunks {
        watch.feed(chunk);
    }
    let usage = watch.usage().map(|t| {
        (
            [t.input, t.cached_input, t.cache_write, t.audio_input],
            [t.output, t.reasoning, t.audio_output],
        )
    });
    let found = Expected {
        model: None,
        usage,
        done: watch.is_done(),
        error: watch.has_error(),
        text_bytes: watch.text_bytes(),
    };
    (watch.model().map(ToOwned::to_owned), found)
}

/// Cuts the text once, anywhere in its last 3 KiB, and with both line ends.
#[track_caller]
fn check(name: &str, content_type: &str, text: &str, expected: Expected) {
    let model = expected.model.map(ToOwned::to_owned);
    let expected = (
        model,
        Expected {
            model: None,
            ..expected
        },
    );
    for text in [text.to_owned(), text.replace('\n', "\r\n")] {
        let bytes = text.as_bytes();
        for cut in bytes.len().saturating_sub(3 << 10)..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            let found = look(content_type, &[a, b]);
            assert_eq!(found, expected, "{name} cut at {cut}");
        }
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(look(content_type, &each), expected, "{name}");
    }
}

/// One answer that came to its end: its file, its model, its counts, its text.
macro_rules! fixtures {
    ($($name:literal, $type:expr, $model:literal, $usage:expr, $text:expr;)*) => {
        [$((
            $name,
            include_str!(concat!("../../../fixtures/answers/", $name)),
            $type,
            Expected {
                model: Some($model),
                usage: $usage,
                done: true,
                error: false,
                text_bytes: length($text),
            },
        )),*]
    };
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap()
}

/// What the long response says: longer than all that a watch keeps.
fn long_text() -> String {
    let line = |n| {
        format!(
            "The gate of lock {n} opens at dawn and lets the boats of the upper reach through. "
        )
    };
    let text: String = (0..110).map(line).collect();
    assert!(text.len() > VALUE_MAX_BYTES);
    text
}

#[test]
fn every_dialects_answers_are_read_cut_anywhere() {
    let long = format!("Locks.{}", long_text());
    #[rustfmt::skip] // one answer to a line
    let all = fixtures![
        "openai-chat-audio.json", WHOLE, "gpt-audio-2025-08-28", Some(([19, 0, 0, 112], [23, 0, 61])), "The weir holds.";
        "openai-chat-stream-plain.txt", SSE, "gpt-4.1-mini-2025-04-14", None, r#"{"river":"Isar"}"#;
        "openai-chat-stream-reasoning.txt", SSE, "gpt-5-2025-08-07", Some(([192, 1920, 0, 0], [14, 192, 0])), "Zwölf Tore.";
        "openai-completions-stream.txt", SSE, "gpt-3.5-turbo-instruct:20230824-v2", Some(([6, 0, 0, 0], [4, 0, 0])), "nnA low dam";
        "openai-responses.json", WHOLE, "gpt-5-mini-2025-08-07", Some(([72, 256, 0, 0], [23, 64, 0])), "Water finds its level.";
        "openai-responses-stream.txt", SSE, "gpt-5-mini-2025-08-07", Some(([41, 0, 0, 0], [2856, 128, 0])), &long;
        "openai-embeddings.json", WHOLE, "text-embedding-3-small", Some(([11, 0, 0, 0], [0, 0, 0])), "";
        "anthropic-message.json", WHOLE, "claude-sonnet-4-5-20250929", Some(([21, 4096, 1536, 0], [73, 0, 0])), "Spillway first.Open the spillway.";
        "anthropic-message-stream.txt", SSE, "claude-sonnet-4-5-20250929", Some(([14, 2048, 300, 0], [118, 0, 0])), r#"Check the gauge.Schon nötig:{"at": 7}"#;
        "anthropic-message-stream-older.txt", SSE, "claude-3-5-sonnet-20240620", Some(([25, 0, 0, 0], [15, 0, 0])), "Hello";
        "gemini-chat-stream.txt", SSE, "gemini-2.5-flash", Some(([9, 0, 0, 0], [5, 629, 0])), "Ein Wehr staut.";
        "vllm-chat-stream.txt", SSE, "mistralai/Mistral-7B-Instruct-v0.3", Some(([17, 0, 0, 0], [3, 0, 0])), "Low water";
        "ollama-chat-stream.txt", SSE, "llama3.2", Some(([31, 0, 0, 0], [3, 0, 0])), "Still deep";
        "ollama-native.ndjson", "application/x-ndjson", "qwen3:8b", Some(([26, 0, 0, 0], [282, 0, 0])), "Hm.Flows on";
        "llama-cpp-chat-stream.txt", SSE, "Qwen3-4B-Q4_K_M.gguf", Some(([12, 236, 0, 0], [35, 0, 0])), "Depth?Three metres";
        "llama-cpp-chat.json", WHOLE, "Qwen3-4B-Q4_K_M.gguf", Some(([48, 0, 0, 0], [3, 0, 0])), "Three metres";
        "azure-chat-stream.txt", SSE, "gpt-4o-2024-11-20", Some(([78, 1152, 0, 0], [5, 0, 0])), "Der Pegel fällt";
        "xai-chat.json", WHOLE, "grok-3-mini", Some(([26, 6, 0, 0], [9, 94, 0])), "Forty-one.Sum the gates.";
        "deepseek-chat-stream.txt", SSE, "deepseek-reasoner", Some(([6, 64, 0, 0], [7, 33, 0])), "Rain?Rain";
        "groq-chat-stream.txt", SSE, "llama-3.3-70b-versatile", Some(([38, 0, 0, 0], [4, 0, 0])), "Quicksilver";
        "mistral-chat-stream.txt", SSE, "mistral-small-latest", Some(([9, 0, 0, 0], [4, 0, 0])), "Le barrage";
        "openrouter-chat-stream.txt", SSE, "qwen/qwen3-32b", Some(([4, 16, 1024, 0], [6, 11, 0])), "SoEddy";
    ];
    for (name, text, content_type, expected) in all {
        check(name, content_type, text, expected);
    }
}

#[test]
fn the_first_fixtures_are_read_cut_anywhere() {
    let expected = |model, usage, text| Expected {
        model: Some(model),
        usage: Some(usage),
        done: true,
        error: false,
        text_bytes: length(text),
    };
    let usage = ([19, 0, 0, 0], [10, 0, 0]);
    let stream = expected("gpt-4o-mini-2024-07-18", usage, "Héllo \"usage\":");
    check("stream", "Text/Event-Stream; charset=utf-8", STREAM, stream);
    let usage = ([3, 16, 0, 0], [6, 4, 0]);
    let json = expected("gpt-4o-2024-08-06", usage, "Paris, \"model\":\"x\"");
    check("json", "", JSON, json);
}

#[test]
fn answers_without_a_model_are_read_cut_anywhere() {
    let expected = |usage, done, error, text| Expected {
        model: None,
        usage,
        done,
        error,
        text_bytes: length(text),
    };
    let text = include_str!("../../../fixtures/answers/openai-transcription-stream.txt");
    let usage = Some(([4, 0, 0, 42], [6, 0, 0]));
    check(
        "transcription",
        SSE,
        text,
        expected(usage, true, false, "The river rises."),
    );
    let text = include_str!("../../../fixtures/answers/gemini-error.json");
    check("gemini", WHOLE, text, expected(None, true, true, ""));
    let text = include_str!("../../../fixtures/answers/anthropic-error-stream.txt");
    let model = Some("claude-sonnet-4-5-20250929");
    let error = expected(None, false, true, "");
    check("anthropic", SSE, text, Expected { model, ..error });
}

#[test]
fn a_cut_stream_is_not_done_and_keeps_what_began() {
    let cut = &STREAM[..STREAM.len() / 2];
    let (_, found) = look(SSE, &[cut.as_bytes()]);
    assert_eq!((found.usage, found.done), (None, false));

    let stream = include_str!("../../../fixtures/answers/anthropic-message-stream.txt");
    let mut watch = Watch::new(SSE.as_bytes());
    watch.feed(&stream.as_bytes()[..stream.find("event: message_delta").unwrap()]);
    assert_eq!((watch.usage(), watch.is_done()), (None, false));
    let begun = watch.begun().unwrap();
    assert_eq!(
        (begun.input, begun.cached_input, begun.cache_write),
        (14, 2048, 300)
    );

    let cut = &JSON[..JSON.find("choices").unwrap()];
    let (model, found) = look(WHOLE, &[cut.as_bytes()]);
    assert_eq!(model.as_deref(), Some("gpt-4o-2024-08-06"));
    assert!(!found.done);

    // The last event needs its blank line.
    let end = STREAM.trim_end();
    assert!(!look(SSE, &[end.as_bytes()]).1.done);
}

#[track_caller]
fn check_end(content_type: &str, text: &str, done: bool, error: bool) {
    let (_, found) = look(content_type, &[text.as_bytes()]);
    assert_eq!((found.done, found.error), (done, error), "{text}");
}

#[test]
fn each_dialect_has_its_end_and_its_errors() {
    for (data, done, error) in [
        ("[DONE]", true, false),
        (" [DONE] ", true, false),
        ("[DONE", false, false),
        ("[DONE]x", false, false),
        (r#"["DONE"]"#, false, false),
        (r#"{"type":"message_stop"}"#, true, false),
        (
            r#"{"type":"response.completed","response":{}}"#,
            true,
            false,
        ),
        (
            r#"{"type":"response.incomplete","response":{}}"#,
            true,
            false,
        ),
        (
            r#"{"type":"response.cancelled","response":{}}"#,
            false,
            false,
        ),
        (
            r#"{"type":"response.failed","response":{"usage":null}}"#,
            false,
            true,
        ),
        (r#"{"type":"error","code":"x","message":"m"}"#, false, true),
        (
            r#"{"type":"image_generation.completed","b64_json":""}"#,
            true,
            false,
        ),
        (r#"{"choices":[],"error":null}"#, false, false),
        (r#"{"error":{"message":"overloaded"}}"#, false, true),
        (r#"[{"error":{"code":503}}]"#, false, true),
        (r#"{"done":true}"#, false, false),
    ] {
        check_end(SSE, &format!("data:{data}\n\n"), done, error);
    }
    check_end(WHOLE, "{", false, false);
    check_end(WHOLE, r#"{"model":"m"} "#, true, false);
    check_end(WHOLE, r#"{"error":{"message":"m"}}"#, true, true);
    check_end(WHOLE, r#"{"model":"m",}"#, true, false);
    check_end("text/vtt", "WEBVTT\n\n", true, false);
    check_end("text/plain", "1\n00:00 hello", true, false);
    check_end(
        "application/x-ndjson",
        "{\"done\":false}\n{\"done\":true}",
        true,
        false,
    );
    check_end(
        "application/x-ndjson",
        "{\"error\":\"no model\"}\n",
        false,
        true,
    );
}

#[test]
fn what_is_no_json_does_not_stop_a_stream() {
    let usage = r#"data: {"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    for event in [
        ": keep-alive",
        "data:",
        "data: ping",
        "data: {\"model\":\"x\"",
        "data: {\"error\":{}} }",
        "data: \u{1}",
        "event: x\nid: 7\nretry: 10",
    ] {
        let stream = format!("{event}\n\n{usage}\n\ndata: [DONE]\n\n");
        let (model, found) = look(SSE, &[stream.as_bytes()]);
        assert_eq!(
            (model, found.error, found.done),
            (None, false, true),
            "{event}"
        );
        assert_eq!(found.usage.map(|u| u.0[0]), Some(3), "{event}");
    }
}

#[test]
fn an_event_of_several_lines_is_one_text() {
    let stream =
        "data: {\"model\":\ndata: \"m\",\ndata:  \"usage\":{\"prompt_tokens\":3}\ndata: }\n\n";
    let (model, found) = look(SSE, &[stream.as_bytes()]);
    assert_eq!(model.as_deref(), Some("m"));
    assert!(found.usage.is_some());
}

#[test]
fn of_several_usages_the_last_counts_and_none_is_lost() {
    let last = |events: &[&str]| {
        let stream: String = events.iter().map(|e| format!("data: {e}\n\n")).collect();
        look(SSE, &[stream.as_bytes()])
            .1
            .usage
            .map(|u| (u.0[0], u.1[0]))
    };
    let one = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let two = r#"{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    assert_eq!(last(&[one, two]), Some((1, 2)));
    assert_eq!(last(&[two, r#"{"usage":null}"#]), Some((1, 2)));
    assert_eq!(
        last(&[two, r#"{"usage":{"prompt_tokens":"x"}}"#]),
        Some((1, 2))
    );
    let timings = r#"{"timings":{"prompt_n":5,"predicted_n":6}}"#;
    assert_eq!(last(&[timings, one]), Some((1, 1)));
    assert_eq!(last(&[one, timings]), Some((1, 1)));
    // Anthropic's deltas add to one another.
    let start =
        r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#;
    let more = r#"{"type":"message_delta","usage":{"input_tokens":9,"output_tokens":4}}"#;
    let end = r#"{"type":"message_delta","usage":{"output_tokens":7}}"#;
    assert_eq!(last(&[start, more, end]), Some((9, 7)));
}

#[test]
fn a_long_answer_of_numbers_is_read_to_its_end() {
    let floats: Vec<String> = (0..20_000).map(|n| format!("-0.{n:08}")).collect();
    let text = format!(
        r#"{{"data":[{{"embedding":[{}]}}],"model":"e","usage":{{"prompt_tokens":4,"total_tokens":4}}}}"#,
        floats.join(",")
    );
    assert!(text.len() > 200_000);
    let chunks: Vec<&[u8]> = text.as_bytes().chunks(1_400).collect();
    let (model, found) = look(WHOLE, &chunks);
    assert_eq!((model.as_deref(), found.done), (Some("e"), true));
    assert_eq!(
        (found.usage, found.text_bytes),
        (Some(([4, 0, 0, 0], [0; 3])), 0)
    );
}

#[test]
fn the_places_are_pointers() {
    assert!(Places::new(&POINTERS).is_ok());
}

const PARTS: [&[u8]; 12] = [
    b"data: {\"usage\":{\"prompt_tokens\":",
    b"1}}\n\n",
    b"\"type\":\"message_start\",",
    b"{\"message\":{\"usage\":{",
    b"\xff",
    b"\r",
    b"\n",
    b"}",
    b"data:",
    b"[DONE]",
    b"\\u00",
    b"1e999",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_make_no_difference(
        which in 0usize..3,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (content_type, text) = [
            (SSE, include_str!("../../../fixtures/answers/azure-chat-stream.txt")),
            (SSE, include_str!("../../../fixtures/answers/anthropic-message-stream.txt")),
            (WHOLE, JSON),
        ][which];
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len())).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut from = 0;
        let chunks: Vec<&[u8]> = cuts.iter()
            .map(|c| { let s = &bytes[from..*c]; from = *c; s }).collect();
        prop_assert_eq!(look(content_type, &chunks), look(content_type, &[bytes]));
    }

    #[test]
    fn any_bytes_do_no_harm(
        parts in prop::collection::vec(prop::sample::select(&PARTS), 0..20),
        which in 0usize..3,
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = parts.concat();
        let content_type = [SSE, WHOLE, "application/x-ndjson"][which];
        let (a, b) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(look(content_type, &[a, b]), look(content_type, &[&bytes]));
    }
}

/// A chat whose answer has `member`, cut anywhere: done, its usage read.
#[track_caller]
fn check_odd(before: &str, member: &str, error: bool) {
    let text = format!(
        r#"{before}{{"model":"m",{member},"choices":[{{"message":{{"content":"four"}}}}],"usage":{{"prompt_tokens":3,"completion_tokens":1}}}}"#
    );
    for cut in 0..=text.len() {
        let (a, b) = text.as_bytes().split_at(cut);
        let (model, found) = look(WHOLE, &[a, b]);
        let expected = Expected {
            model: None,
            usage: Some(([3, 0, 0, 0], [1, 0, 0])),
            done: true,
            error,
            text_bytes: 4,
        };
        assert_eq!((model.as_deref(), found), (Some("m"), expected), "{text}");
    }
}

#[test]
fn what_is_not_strict_is_read_all_the_same() {
    for member in [
        r#""logprob":NaN"#,
        r#""a":[-Infinity,Infinity,-1]"#,
        "\"a\":\"tab\there\"",
        r#""error":null"#,
        r#""error":false"#,
        r#""error":"""#,
    ] {
        check_odd("", member, false);
        check_odd("\u{feff}", member, false);
    }
    check_odd("", r#""error":{"message":"m"}"#, true);
    check_odd("", r#""error":"m""#, true);
}

#[test]
fn what_is_no_json_misses_no_end() {
    let deep = format!("{{\"a\":{}", "[".repeat(200));
    for text in [deep.as_str(), r#"{"a":x"#, "<html>"] {
        let (_, found) = look(WHOLE, &[text.as_bytes()]);
        assert!(found.done && found.usage.is_none(), "{text}");
    }
    let (_, cut) = look(WHOLE, &[br#"{"a":"#]);
    assert!(!cut.done);
}

#[test]
fn the_end_of_a_stream_ends_its_last_event() {
    let usage = r#"data: {"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let check = |text: &str, done: bool, usage: bool| {
        let mut watch = Watch::new(SSE.as_bytes());
        watch.feed(text.as_bytes());
        watch.finish();
        assert_eq!(
            (watch.is_done(), watch.usage().is_some()),
            (done, usage),
            "{text}"
        );
    };
    check("data: {}\n\ndata: [DONE]\n", true, false);
    check("data: [DONE]", true, false);
    check(&format!("data: [DONE]\n\n{usage}\n"), true, true);
    check(usage, false, true);
    check(&usage[..usage.len() - 1], false, false);
    check("\u{feff}data: {\"type\":\"message_stop\"}\n", true, false);
}
