//! Usage objects: OpenAI's as `chat/completions`, `completions` and `embeddings`
//! report them, that of `responses`, and Anthropic's (both API references,
//! "usage"). They are told apart by the names of their members.

use serde::Deserialize;
use weir_wire::usage::{MODEL_MAX_BYTES, TOKENS_MAX};

/// Tokens in disjoint counts: none is in two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCounts {
    /// Input that no cache served and none took.
    pub input: u64,
    /// Input that the provider's cache served.
    pub cached_input: u64,
    /// Input that the provider wrote to its cache.
    pub cache_write: u64,
    /// Output that the client could see.
    pub output: u64,
    /// Output that the model spent on reasoning, where the provider counts it
    /// apart.
    pub reasoning: u64,
    /// Input of sound, where the provider counts it apart.
    pub audio_input: u64,
    /// Output of sound, where the provider counts it apart.
    pub audio_output: u64,
}

/// A model's name as an answer gives it, cut to [`MODEL_MAX_BYTES`].
#[must_use]
pub fn clip_model(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(MODEL_MAX_BYTES));
    name
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<InputDetails>,
    output_tokens_details: Option<OutputDetails>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
}

/// Reads a raw `usage` value. `None` where it is null, is no usage object,
/// lacks its count of input, or holds a count above [`TOKENS_MAX`]; an explicit
/// zero is a count.
#[must_use]
pub fn parse_usage(raw: &[u8]) -> Option<TokenCounts> {
    parse_usage_after(raw, None)
}

/// The same of a stream that told some counts `earlier`: what a later usage
/// object lacks holds still (Anthropic's `message_delta` need not repeat what
/// `message_start` said).
///
/// OpenAI counts cached tokens within the input and reasoning tokens within the
/// output; Anthropic counts what its cache served and took beside the input.
/// Here all are disjoint.
#[must_use]
pub fn parse_usage_after(raw: &[u8], earlier: Option<TokenCounts>) -> Option<TokenCounts> {
    let usage: Usage = serde_json::from_slice::<Option<Usage>>(raw).ok()??;
    let before = earlier.unwrap_or_default();
    let cached_of = |d: Option<InputDetails>| d.and_then(|d| d.cached_tokens);
    let of_input = cached_of(usage.prompt_tokens_details).or(cached_of(usage.input_tokens_details));
    let of_output = usage
        .completion_tokens_details
        .or(usage.output_tokens_details)
        .and_then(|d| d.reasoning_tokens);
    let all_output = usage.completion_tokens.or(usage.output_tokens);
    let all_input = usage.prompt_tokens.or(usage.input_tokens);
    if earlier.is_none() {
        all_input?;
    } else if all_input.is_none() && all_output.is_none() {
        return None;
    }
    let cached = of_input
        .map(|cached| cached.min(all_input.unwrap_or(cached)))
        .unwrap_or(0);
    let input = all_input.map_or(before.input, |all| all.saturating_sub(cached));
    let cached_input = match of_input {
        Some(_) => cached,
        None => usage.cache_read_input_tokens.unwrap_or(before.cached_input),
    };
    let cache_write = usage
        .cache_creation_input_tokens
        .unwrap_or(before.cache_write);
    let output = all_output.unwrap_or(before.output);
    let reasoning = of_output.unwrap_or(0).min(output);
    let counts = [input, cached_input, cache_write, output];
    if counts.iter().any(|count| *count > TOKENS_MAX) || all_input > Some(TOKENS_MAX) {
        return None;
    }
    Some(TokenCounts {
        input,
        cached_input,
        cache_write,
        output: output.saturating_sub(reasoning),
        reasoning,
        audio_input: 0,
        audio_output: 0,
    })
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: Option<[u64; 4]>) {
        let found =
            parse_usage(raw.as_bytes()).map(|t| [t.input, t.cached_input, t.output, t.reasoning]);
        assert_eq!(found, expected, "{raw}");
    }

    #[test]
    fn counts_are_disjoint() {
        check(
            r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,
                "prompt_tokens_details":{"cached_tokens":64,"audio_tokens":0},
                "completion_tokens_details":{"reasoning_tokens":20}}"#,
            Some([36, 64, 30, 20]),
        );
    }

    #[test]
    fn each_dialects_words_are_known() {
        check(
            r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":64},
                "output_tokens":50,"output_tokens_details":{"reasoning_tokens":20}}"#,
            Some([36, 64, 30, 20]),
        );
        let raw = br#"{"input_tokens":10,"cache_creation_input_tokens":7,
            "cache_read_input_tokens":5,"output_tokens":1}"#;
        let start = parse_usage(raw).unwrap();
        assert_eq!(
            start,
            TokenCounts {
                input: 10,
                cached_input: 5,
                cache_write: 7,
                output: 1,
                ..TokenCounts::default()
            }
        );
        let end = parse_usage_after(br#"{"output_tokens":9}"#, Some(start)).unwrap();
        assert_eq!(end, TokenCounts { output: 9, ..start });
        assert_eq!(parse_usage_after(b"{}", Some(start)), None);
        check(r#"{"output_tokens":9}"#, None);
    }

    #[test]
    fn zero_is_a_count_and_absence_is_not() {
        check(r#"{"prompt_tokens":0,"completion_tokens":0}"#, Some([0; 4]));
        check(r#"{"prompt_tokens":5}"#, Some([5, 0, 0, 0]));
        for raw in ["null", "{}", "", "7", r#"{"prompt_tokens":-1}"#] {
            check(raw, None);
        }
    }

    #[test]
    fn what_no_model_can_use_is_no_count() {
        check(r#"{"prompt_tokens":1000000001}"#, None);
        check(
            r#"{"prompt_tokens":1,"completion_tokens":1000000001}"#,
            None,
        );
        check(
            r#"{"prompt_tokens":1000000000}"#,
            Some([TOKENS_MAX, 0, 0, 0]),
        );
        assert_eq!(clip_model("é".repeat(200)).len(), MODEL_MAX_BYTES);
        assert_eq!(clip_model("gpt".to_owned()), "gpt");
    }

    #[test]
    fn details_that_exceed_their_whole_are_clamped() {
        check(
            r#"{"prompt_tokens":5,"completion_tokens":1,
                "prompt_tokens_details":{"cached_tokens":9},
                "completion_tokens_details":null}"#,
            Some([0, 5, 1, 0]),
        );
    }
}
