//! A prompt as it is counted while it is read.

use super::{faults::Fault, tokens};
use crate::ids;

/// Tokens that frame a message, and that prime the answer.
pub(crate) const MESSAGE_TOKENS: u64 = 3;

/// What an image, a sound or a file costs; the real one depends on its size.
const ATTACHMENT_TOKENS: u64 = 85;

/// What a prompt holds, and the hash of it on which the answer depends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompt {
    pub(crate) tokens: u64,
    pub(crate) hash: u64,
    /// Images in it.
    pub(crate) images: u64,
    /// Definitions of tools in it.
    pub(crate) tools: u64,
}

impl Prompt {
    pub(crate) fn text(&mut self, text: &str) {
        self.add(tokens::count(text));
        self.mix(text);
    }

    pub(crate) fn image(&mut self, content: &str) {
        self.images = self.images.saturating_add(1);
        self.attachment(content);
    }

    pub(crate) fn attachment(&mut self, content: &str) {
        self.add(ATTACHMENT_TOKENS);
        self.mix(content);
    }

    pub(crate) fn tool(&mut self, definition: &str) {
        self.tools = self.tools.saturating_add(1);
        self.text(definition);
    }

    pub(crate) fn add(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
    }

    pub(crate) fn mix(&mut self, text: &str) {
        self.hash = self.hash.rotate_left(9) ^ ids::hash(text.as_bytes());
    }

    /// What is charged for it under this fault.
    pub(crate) fn charge(&self, fault: &Fault) -> Charge {
        let cached = fault.cached_tokens.unwrap_or(0).min(self.tokens);
        let left = self.tokens.saturating_sub(cached);
        Charge {
            tokens: self.tokens,
            cached,
            cache_write: fault.cache_write_tokens.unwrap_or(0).min(left),
            images: self.images,
            tools: self.tools,
        }
    }
}

/// What is charged for a prompt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Charge {
    /// All tokens, those from and into the cache included.
    pub(crate) tokens: u64,
    /// Those read from the cache.
    pub(crate) cached: u64,
    /// Those written into the cache.
    pub(crate) cache_write: u64,
    pub(crate) images: u64,
    pub(crate) tools: u64,
}

impl Charge {
    /// Those that were neither read from the cache nor written into it.
    pub(crate) fn fresh(&self) -> u64 {
        self.tokens
            .saturating_sub(self.cached)
            .saturating_sub(self.cache_write)
    }
}
