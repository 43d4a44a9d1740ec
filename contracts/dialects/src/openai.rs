//! OpenAI's usage objects, as `chat/completions`, `completions` and
//! `embeddings` report them (OpenAI API reference, "usage").

use serde::Deserialize;
use weir_wire::usage::{MODEL_MAX_BYTES, TOKENS_MAX};

/// Tokens in disjoint counts: none is in two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCounts {
    /// Input that no cache served.
    pub input: u64,
    /// Input that the provider's cache served.
    pub cached_input: u64,
    /// Output that the client could see.
    pub output: u64,
    /// Output that the model spent on reasoning.
    pub reasoning: u64,
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
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

/// Reads a raw `usage` value. `None` where it is null, is no usage object,
/// lacks `prompt_tokens`, or holds a count above [`TOKENS_MAX`]; an explicit
/// zero is a count.
///
/// OpenAI counts cached tokens within `prompt_tokens` and reasoning tokens
/// within `completion_tokens`; here they are taken apart.
#[must_use]
pub fn parse_usage(raw: &[u8]) -> Option<TokenCounts> {
    let usage: Usage = serde_json::from_slice::<Option<Usage>>(raw).ok()??;
    let prompt = usage.prompt_tokens?;
    let completion = usage.completion_tokens.unwrap_or(0);
    if prompt.max(completion) > TOKENS_MAX {
        return None;
    }
    let cached = usage
        .prompt_tokens_details
        .and_then(|d| d.cached_tokens)
        .unwrap_or(0)
        .min(prompt);
    let reasoning = usage
        .completion_tokens_details
        .and_then(|d| d.reasoning_tokens)
        .unwrap_or(0)
        .min(completion);
    Some(TokenCounts {
        input: prompt.saturating_sub(cached),
        cached_input: cached,
        output: completion.saturating_sub(reasoning),
        reasoning,
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
