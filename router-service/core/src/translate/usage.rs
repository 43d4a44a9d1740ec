//! Token counts of an answer, in either dialect.
//!
//! OpenAI's `prompt_tokens` includes what the cache served; Anthropic's
//! `input_tokens` excludes what the cache served and what was written to it
//! (OpenAI API reference, "The chat completion object"; Anthropic API
//! reference, "Messages", `usage`).

use serde::{Deserialize, Serialize};

/// Tokens in disjoint counts, but for `thinking`, which is part of `output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Usage {
    input: u64,
    cache_creation: u64,
    cache_read: u64,
    output: u64,
    thinking: Option<u64>,
}

/// As Anthropic reports them. In a stream each count is the whole so far, and
/// one that is absent stays as it was.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct OfAnthropic {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<Thinking>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct Thinking {
    thinking_tokens: u64,
}

/// As OpenAI reports them.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct OfOpenAi {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Debug, Clone, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

/// For a client of Anthropic's dialect.
#[derive(Debug, Serialize)]
pub(super) struct ForAnthropic {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<Thinking>,
}

/// For a client of OpenAI's dialect.
#[derive(Debug, Serialize)]
pub(super) struct ForOpenAi {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: CacheDetails,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<ReasoningDetails>,
}

#[derive(Debug, Serialize)]
struct CacheDetails {
    cached_tokens: u64,
    /// No member of OpenAI's: what Anthropic prices above plain input.
    cache_creation_tokens: u64,
}

#[derive(Debug, Serialize)]
struct ReasoningDetails {
    reasoning_tokens: u64,
}

impl Usage {
    pub fn update(&mut self, reported: &OfAnthropic) {
        let set = |count: &mut u64, reported: Option<u64>| *count = reported.unwrap_or(*count);
        set(&mut self.input, reported.input_tokens);
        set(
            &mut self.cache_creation,
            reported.cache_creation_input_tokens,
        );
        set(&mut self.cache_read, reported.cache_read_input_tokens);
        set(&mut self.output, reported.output_tokens);
        if let Some(details) = &reported.output_tokens_details {
            self.thinking = Some(details.thinking_tokens);
        }
    }

    pub fn for_openai(self) -> ForOpenAi {
        let prompt_tokens = self
            .input
            .saturating_add(self.cache_creation)
            .saturating_add(self.cache_read);
        ForOpenAi {
            prompt_tokens,
            completion_tokens: self.output,
            total_tokens: prompt_tokens.saturating_add(self.output),
            prompt_tokens_details: CacheDetails {
                cached_tokens: self.cache_read,
                cache_creation_tokens: self.cache_creation,
            },
            completion_tokens_details: self
                .thinking
                .map(|reasoning_tokens| ReasoningDetails { reasoning_tokens }),
        }
    }

    pub fn for_anthropic(self) -> ForAnthropic {
        ForAnthropic {
            input_tokens: self.input,
            cache_creation_input_tokens: self.cache_creation,
            cache_read_input_tokens: self.cache_read,
            output_tokens: self.output,
            output_tokens_details: self
                .thinking
                .map(|thinking_tokens| Thinking { thinking_tokens }),
        }
    }
}

impl From<&OfOpenAi> for Usage {
    fn from(reported: &OfOpenAi) -> Self {
        let prompt = reported.prompt_tokens.unwrap_or(0);
        let cached = reported
            .prompt_tokens_details
            .as_ref()
            .and_then(|d| d.cached_tokens)
            .unwrap_or(0)
            .min(prompt);
        Self {
            input: prompt.saturating_sub(cached),
            cache_creation: 0,
            cache_read: cached,
            output: reported.completion_tokens.unwrap_or(0),
            thinking: reported
                .completion_tokens_details
                .as_ref()
                .and_then(|d| d.reasoning_tokens),
        }
    }
}
