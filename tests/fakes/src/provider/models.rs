//! The models that the fake knows, and `GET /v1/models`.

use std::str::FromStr;

use serde_json::{Value, json};

use super::error::ApiError;

/// What a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Serves `/v1/chat/completions` and `/v1/responses`; where the server is
    /// not OpenAI's own, `/v1/completions`, too.
    Chat {
        /// Prompt and answer together, in tokens.
        context_tokens: u64,
        /// The largest `max_tokens`.
        max_output_tokens: u64,
    },
    /// Serves `/v1/completions`.
    Completion {
        /// Prompt and answer together, in tokens.
        context_tokens: u64,
    },
    /// Serves `/v1/embeddings`.
    Embedding {
        /// Length of a vector, and the largest `dimensions`.
        dimensions: usize,
        /// The longest input, in tokens.
        max_input_tokens: u64,
    },
}

/// One model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name that requests use.
    pub id: String,
    /// The name in answers: for OpenAI's aliases a dated one, which may also be asked for.
    pub served: String,
    /// What it can do.
    pub kind: ModelKind,
}

impl Model {
    /// `gpt-4o`, `gpt-4o-mini`, `gpt-3.5-turbo-instruct`, and `text-embedding-3-small`
    /// and `-large`.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::chat("gpt-4o", "gpt-4o-2024-08-06"),
            Self::chat("gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
            Self::completion("gpt-3.5-turbo-instruct", "gpt-3.5-turbo-instruct"),
            Self::embedding("text-embedding-3-small", "text-embedding-3-small"),
            Self::embedding("text-embedding-3-large", "text-embedding-3-large"),
        ]
    }

    /// `mistralai/Mistral-7B-Instruct-v0.3`, for a server that is not OpenAI's own.
    #[must_use]
    pub fn compatible_defaults() -> Vec<Self> {
        let id = "mistralai/Mistral-7B-Instruct-v0.3";
        let kind = ModelKind::Chat {
            context_tokens: 32_768,
            max_output_tokens: 32_768,
        };
        vec![Self {
            kind,
            ..Self::chat(id, id)
        }]
    }

    /// A chat model with the limits of gpt-4o.
    #[must_use]
    pub fn chat(id: &str, served: &str) -> Self {
        let kind = ModelKind::Chat {
            context_tokens: 128_000,
            max_output_tokens: 16_384,
        };
        Self {
            id: id.to_owned(),
            served: served.to_owned(),
            kind,
        }
    }

    /// A model that completes text, with the limits of gpt-3.5-turbo-instruct.
    #[must_use]
    pub fn completion(id: &str, served: &str) -> Self {
        let kind = ModelKind::Completion {
            context_tokens: 4_096,
        };
        Self {
            id: id.to_owned(),
            served: served.to_owned(),
            kind,
        }
    }

    /// An embedding model with the limits of text-embedding-3-small.
    #[must_use]
    pub fn embedding(id: &str, served: &str) -> Self {
        let kind = ModelKind::Embedding {
            dimensions: 1536,
            max_input_tokens: 8_192,
        };
        Self {
            id: id.to_owned(),
            served: served.to_owned(),
            kind,
        }
    }
}

impl FromStr for Model {
    type Err = String;

    /// Reads `ID=chat`, `ID=completion`, `ID=embedding`, or one with `@SERVED` after it.
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!(
                "{text:?} is not ID=chat, ID=completion or ID=embedding, with an optional @SERVED"
            )
        };
        let (id, rest) = text.split_once('=').ok_or_else(wanted)?;
        let (kind, served) = rest.split_once('@').unwrap_or((rest, id));
        match kind {
            _ if id.is_empty() || served.is_empty() => Err(wanted()),
            "chat" => Ok(Self::chat(id, served)),
            "completion" => Ok(Self::completion(id, served)),
            "embedding" => Ok(Self::embedding(id, served)),
            _ => Err(wanted()),
        }
    }
}

/// The model of that name, alias or dated.
pub(super) fn find<'a>(models: &'a [Model], name: &str) -> Result<&'a Model, ApiError> {
    models
        .iter()
        .find(|model| model.id == name || model.served == name)
        .ok_or_else(|| ApiError::unknown_model(name))
}

/// The list, or the one model of that name.
pub(super) fn answer(models: &[Model], id: Option<&str>) -> Result<Value, ApiError> {
    let describe = |id: &str| json!({"id": id, "object": "model", "created": 1_715_367_049, "owned_by": "system"});
    if let Some(id) = id {
        return find(models, id).map(|_| describe(id));
    }
    let mut data: Vec<Value> = Vec::new();
    for model in models {
        data.push(describe(&model.id));
        if model.served != model.id {
            data.push(describe(&model.served));
        }
    }
    Ok(json!({"object": "list", "data": data}))
}
