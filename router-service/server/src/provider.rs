//! Calls to a provider that speaks OpenAI's wire format.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{
    Client, Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use weir_dialects::routes::RequestClass;

/// The longest silence of a provider, before its answer and within it.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);

/// One provider.
pub struct Provider {
    pub name: String,
    base_url: Url,
    authorization: HeaderValue,
    http: Client,
}

impl Provider {
    pub fn new(name: &str, base_url: &str, key: &str, http: Client) -> anyhow::Result<Self> {
        let mut base_url = Url::parse(base_url)
            .with_context(|| format!("base_url: must be a URL, found {base_url:?}"))?;
        // So that joining a path adds to the base's own path.
        if !base_url.path().ends_with('/') {
            base_url.set_path(&format!("{}/", base_url.path()));
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {key}"))
            .context("the API key holds what no header may")?;
        authorization.set_sensitive(true);
        Ok(Self {
            name: name.to_owned(),
            base_url,
            authorization,
            http,
        })
    }

    /// Posts a body and gives the answer once its headers are there.
    pub async fn post(&self, class: RequestClass, body: Vec<u8>) -> Result<Response, CallError> {
        let path = match class {
            RequestClass::Chat => "chat/completions",
            RequestClass::Embedding => "embeddings",
            RequestClass::Models => "models",
        };
        let url = self
            .base_url
            .join(path)
            .map_err(|_| CallError::Unreachable)?;
        let call = self
            .http
            .post(url)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .send();
        match tokio::time::timeout(SILENCE_MAX, call).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                // The URL may carry what does not belong in a log.
                tracing::warn!(provider = %self.name, error = %error.without_url(), "call failed");
                Err(CallError::Unreachable)
            }
            Err(_) => Err(CallError::Silent),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy)]
pub enum CallError {
    /// The connection failed.
    Unreachable,
    /// Nothing came in time.
    Silent,
}
