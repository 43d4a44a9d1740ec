//! The models that the fake knows, and `GET /v1/models`.

use std::str::FromStr;

use serde_json::{Value, json};

use super::error::ApiError;

/// One model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name that requests use.
    pub id: String,
    /// The dated name in answers and in the list, which may also be asked for.
    pub served: String,
    /// Prompt and answer together, in tokens.
    pub context_tokens: u64,
    /// The largest `max_tokens`.
    pub max_output_tokens: u64,
    /// Whether it takes a `tool_choice` that forces the use of a tool, and
    /// sampling parameters other than their defaults.
    pub can_be_forced: bool,
}

impl Model {
    /// `claude-opus-5-5` and `claude-sonnet-5-5`, and of 4.5 all three.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::newer("claude-opus-5-5"),
            Self::newer("claude-sonnet-5-5"),
            Self::new("claude-opus-4-5", "claude-opus-4-5-20251101"),
            Self::new("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
            Self::new("claude-haiku-4-5", "claude-haiku-4-5-20251001"),
        ]
    }

    /// A model with the limits of Claude 4.5.
    #[must_use]
    pub fn new(id: &str, served: &str) -> Self {
        Self {
            id: id.to_owned(),
            served: served.to_owned(),
            context_tokens: 200_000,
            max_output_tokens: 64_000,
            can_be_forced: true,
        }
    }

    /// A model with the limits of Claude 5.5, which refuses to be told that it must
    /// use a tool, and how to sample.
    #[must_use]
    pub fn newer(id: &str) -> Self {
        Self {
            context_tokens: 1_000_000,
            max_output_tokens: 128_000,
            can_be_forced: false,
            ..Self::new(id, id)
        }
    }

    fn describe(&self) -> Value {
        json!({
            "type": "model",
            "id": self.served,
            "display_name": self.id,
            "created_at": "2025-09-29T00:00:00Z",
        })
    }
}

impl FromStr for Model {
    type Err = String;

    /// Reads `ID` or `ID@SERVED`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (id, served) = text.split_once('@').unwrap_or((text, text));
        if id.is_empty() || served.is_empty() {
            return Err(format!("{text:?} is not ID or ID@SERVED"));
        }
        Ok(Self::new(id, served))
    }
}

/// The model of that name, alias or dated.
pub(super) fn find<'a>(models: &'a [Model], name: &str) -> Result<&'a Model, ApiError> {
    models
        .iter()
        .find(|model| model.id == name || model.served == name)
        .ok_or_else(|| ApiError::unknown_model(name))
}

/// The page that the query asks for, or the one model of that name.
pub(super) fn answer(
    models: &[Model],
    id: Option<&str>,
    query: Option<&str>,
) -> Result<Value, ApiError> {
    if let Some(id) = id {
        return find(models, id).map(Model::describe);
    }
    let mut limit = 20;
    let mut after = None;
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "limit" => {
                let parsed = value.parse().ok().filter(|n| (1..=1_000).contains(n));
                let range = || ApiError::at("limit", "Input should be from 1 to 1000");
                limit = parsed.ok_or_else(range)?;
            }
            "after_id" => after = Some(value.into_owned()),
            other => return Err(ApiError::at(other, "Extra inputs are not permitted")),
        }
    }
    let start = after.map_or(0, |after| {
        let position = models.iter().position(|model| model.served == after);
        position.map_or(models.len(), |position| position.saturating_add(1))
    });
    let page: Vec<&Model> = models.iter().skip(start).take(limit).collect();
    let id_of = |model: Option<&&Model>| model.map(|model| model.served.clone());
    Ok(json!({
        "data": page.iter().map(|model| model.describe()).collect::<Vec<_>>(),
        "has_more": start.saturating_add(page.len()) < models.len(),
        "first_id": id_of(page.first()),
        "last_id": id_of(page.last()),
    }))
}
