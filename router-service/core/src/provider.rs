//! Kinds of providers: what they speak, and what is called of them.

use serde::Deserialize;
use weir_dialects::routes::Endpoint;
use weir_wire::error::Dialect;

/// What a provider is, as the router's configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// Anthropic's Messages API.
    Anthropic,
    /// OpenAI's API.
    #[serde(rename = "openai")]
    OpenAi,
    /// A server that copies OpenAI's API: vLLM, llama.cpp, Ollama.
    #[serde(rename = "openai-compatible")]
    OpenAiCompatible,
}

impl ProviderKind {
    /// What it speaks.
    #[must_use]
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Anthropic => Dialect::Anthropic,
            Self::OpenAi | Self::OpenAiCompatible => Dialect::OpenAi,
        }
    }

    /// What is called of it to serve that call of a client: the same, or its own
    /// call for a conversation.
    #[must_use]
    pub fn endpoint_for(self, endpoint: Endpoint) -> Endpoint {
        match (endpoint, self.dialect()) {
            (Endpoint::ChatCompletions, Dialect::Anthropic) => Endpoint::Messages,
            (Endpoint::Messages, Dialect::OpenAi) => Endpoint::ChatCompletions,
            _ => endpoint,
        }
    }
}
