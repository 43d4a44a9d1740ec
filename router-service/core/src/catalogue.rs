//! The models that the router can serve.

use serde::Deserialize;
use weir_dialects::routes::RequestClass;

/// How much a model can and costs; plans are granted tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The best and dearest.
    Premium,
    /// Quick and cheap.
    Fast,
}

/// What a model answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// `chat/completions`.
    Chat,
    /// `embeddings`.
    Embedding,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// As clients ask for it and as the provider knows it.
    pub name: String,
    /// The name of a provider in the router's config.
    pub provider: String,
    /// Which plans have it.
    pub tier: Tier,
    /// What it answers.
    pub capability: Capability,
}

impl Model {
    /// Whether it answers requests of that class.
    #[must_use]
    pub fn serves(&self, class: RequestClass) -> bool {
        match class {
            RequestClass::Chat => self.capability == Capability::Chat,
            RequestClass::Embedding => self.capability == Capability::Embedding,
            RequestClass::Models => true,
        }
    }
}

/// All models, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The models.
    pub models: Vec<Model>,
}

impl Catalogue {
    /// Checks the whole against the names of the providers there are.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self, providers: &[&str]) -> Result<(), String> {
        if self.models.is_empty() {
            return Err("models: must list at least one model".to_owned());
        }
        for (i, model) in self.models.iter().enumerate() {
            if model.name.is_empty() || model.name.len() > 256 {
                return Err(format!(
                    "models[{i}].name: must have 1 to 256 bytes, found {:?}",
                    model.name
                ));
            }
            if self
                .models
                .iter()
                .take(i)
                .any(|other| other.name == model.name)
            {
                return Err(format!("models[{i}].name: {} comes twice", model.name));
            }
            if !providers.contains(&model.provider.as_str()) {
                return Err(format!(
                    "models[{i}].provider: must be one of {}, found {}",
                    providers.join(", "),
                    model.provider
                ));
            }
        }
        Ok(())
    }

    /// The model of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|m| m.name == name)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check_refused(models: &str, names: &str) {
        let error = serde_json::from_str::<Catalogue>(&format!(r#"{{"models":[{models}]}}"#))
            .map_err(|e| e.to_string())
            .and_then(|c| c.validate(&["openai"]))
            .unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let model = r#"{"name":"m","provider":"openai","tier":"fast","capability":"chat"}"#;
        check_refused("", "models");
        check_refused(&format!("{model},{model}"), "models[1].name");
        check_refused(&model.replace("openai", "azure"), "models[0].provider");
        check_refused(&model.replace("fast", "slow"), "slow");
        check_refused(&model.replace("tier", "teir"), "teir");
        check_refused(&model.replace("\"m\"", "\"\""), "models[0].name");
    }
}
