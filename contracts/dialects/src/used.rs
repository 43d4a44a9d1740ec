//! What one attempt at a request used: as its answer reports or, where it does
//! not, estimated from what passed.

use weir_wire::{
    proto::usage::{ModelUsage, UsageSource},
    usage::TOKENS_MAX,
};

use crate::tokens::TokenCounts;

/// Bytes of text to a token. OpenAI states about four characters of English;
/// bytes err towards more for other scripts.
const BYTES_PER_TOKEN: u64 = 4;

/// What was seen of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// What the answer reports.
    pub reported: Option<TokenCounts>,
    /// What a stream reported as it began, and had not completed where it was
    /// cut: its input.
    pub begun: Option<TokenCounts>,
    /// The answer came whole, and is no error.
    pub completed: bool,
    /// Bytes of text in the answer.
    pub output_bytes: u64,
}

/// Completes `base`, which says who served; where an estimate is made, `input` is
/// asked for tokens of the input, and `output` for those that came.
///
/// An answer that failed before any content used nothing that could be billed;
/// one that failed after some used what came through.
#[must_use]
pub fn used(
    base: ModelUsage,
    seen: Seen,
    input: impl FnOnce() -> u64,
    output: impl FnOnce() -> u64,
) -> ModelUsage {
    if let Some(tokens) = seen.reported {
        return ModelUsage {
            input_tokens: tokens.input,
            cached_input_tokens: tokens.cached_input,
            cache_write_input_tokens: tokens.cache_write,
            output_tokens: tokens.output,
            reasoning_tokens: tokens.reasoning,
            audio_input_tokens: tokens.audio_input,
            audio_output_tokens: tokens.audio_output,
            source: UsageSource::Reported.into(),
            ..base
        };
    }
    if seen.completed || seen.output_bytes > 0 {
        let input = seen.begun.unwrap_or_else(|| TokenCounts {
            input: input().min(TOKENS_MAX),
            ..TokenCounts::default()
        });
        return ModelUsage {
            input_tokens: input.input,
            cached_input_tokens: input.cached_input,
            cache_write_input_tokens: input.cache_write,
            audio_input_tokens: input.audio_input,
            output_tokens: output().min(TOKENS_MAX),
            source: UsageSource::Estimated.into(),
            ..base
        };
    }
    ModelUsage {
        source: UsageSource::None.into(),
        ..base
    }
}

/// Tokens of a text of so many bytes, for whoever does not see the text.
#[must_use]
pub fn estimate(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN).min(TOKENS_MAX)
}
