//! One provider: how it is called, and how it has been doing.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use reqwest::{
    Client, Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use weir_dialects::routes::Endpoint;
use weir_router_core::provider::ProviderKind;
use weir_wire::error::Dialect;

/// The longest silence of a provider, before its answer and within it.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);

/// What Anthropic's API is called by where the client does not say.
const ANTHROPIC_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("anthropic-version"),
    HeaderValue::from_static("2023-06-01"),
);

/// Headers of a client's that reach a provider of its own dialect.
const PASSED: [(Dialect, &str); 3] = [
    (Dialect::Anthropic, "anthropic-version"),
    (Dialect::Anthropic, "anthropic-beta"),
    (Dialect::OpenAi, "openai-beta"),
];

/// One provider.
pub struct Provider {
    pub name: String,
    pub kind: ProviderKind,
    pub health: Health,
    base_url: Url,
    /// The credential, where it needs one.
    credential: Option<(HeaderName, HeaderValue)>,
    http: Client,
}

/// How its calls went.
#[derive(Debug, Default)]
pub struct Health {
    /// Calls since the router started.
    pub calls: AtomicU64,
    /// Of these, those that failed: no answer, 429, 5xx, or broken off.
    pub failures: AtomicU64,
    /// Failures since the last success.
    pub failures_in_a_row: AtomicU64,
    /// Calls under way.
    pub in_flight: AtomicU64,
    /// When the last failure was, milliseconds of the Unix epoch; 0 for never.
    pub last_failure_ms: AtomicI64,
    /// Whether no more calls are to go there, by an operator's word.
    pub drained: AtomicBool,
}

impl Health {
    /// A call begins; see [`Health::end`].
    pub fn begin(&self) {
        self.calls.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// Whether an operator lets nothing go there.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Relaxed)
    }

    /// It is over.
    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// It went well.
    pub fn went_well(&self) {
        self.failures_in_a_row.store(0, Relaxed);
    }

    /// It failed by a fault of the provider's.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
        self.failures_in_a_row.fetch_add(1, Relaxed);
        self.last_failure_ms.store(weir_process::now_ms(), Relaxed);
    }
}

impl Provider {
    /// A provider of that kind; `key` is its API key, where it needs one.
    pub fn new(
        name: &str,
        kind: ProviderKind,
        base_url: &str,
        key: Option<&str>,
        http: Client,
    ) -> anyhow::Result<Self> {
        let mut base_url = Url::parse(base_url)
            .with_context(|| format!("base_url: must be a URL, found {base_url:?}"))?;
        ensure!(
            matches!(base_url.scheme(), "http" | "https"),
            "base_url: must begin with http:// or https://, found {}",
            base_url.scheme()
        );
        // So that joining a path adds to the base's own path.
        if !base_url.path().ends_with('/') {
            base_url.set_path(&format!("{}/", base_url.path()));
        }
        let credential = key.map(|key| credential(kind, key)).transpose()?;
        Ok(Self {
            name: name.to_owned(),
            kind,
            health: Health::default(),
            base_url,
            credential,
            http,
        })
    }

    /// Posts a body and gives the answer once its headers are there.
    pub async fn post(
        &self,
        endpoint: Endpoint,
        passed: &HeaderMap,
        body: Bytes,
    ) -> Result<Response, Unreachable> {
        let url = self
            .base_url
            .join(endpoint.path())
            .map_err(|_| Unreachable)?;
        let mut headers = HeaderMap::with_capacity(6);
        if self.kind == ProviderKind::Anthropic {
            let (name, value) = ANTHROPIC_VERSION;
            headers.insert(name, value);
        }
        for (name, value) in passed {
            headers.insert(name, value.clone());
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = &self.credential {
            headers.insert(name, value.clone());
        }
        let call = self.http.post(url).headers(headers).body(body).send();
        call.await.map_err(|error| {
            // The URL may carry what does not belong in a log.
            tracing::warn!(provider = %self.name, error = %error.without_url(), "call failed");
            Unreachable
        })
    }

    /// Whether a GET of that path below its address is answered well in time.
    pub async fn answers(&self, path: &str, time: Duration) -> bool {
        let Ok(url) = self.base_url.join(path) else {
            return false;
        };
        let mut call = self.http.get(url).timeout(time);
        if let Some((name, value)) = &self.credential {
            call = call.header(name, value);
        }
        call.send().await.is_ok_and(|r| r.status().is_success())
    }
}

fn credential(kind: ProviderKind, key: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, text) = match kind.dialect() {
        Dialect::Anthropic => (HeaderName::from_static("x-api-key"), key.to_owned()),
        Dialect::OpenAi => (AUTHORIZATION, format!("Bearer {key}")),
    };
    let mut value = HeaderValue::from_str(&text).context("the API key holds what no header may")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// What of a client's headers may go on to a provider that speaks `dialect`, as
/// the client does.
pub fn passed(headers: &HeaderMap, dialect: Dialect) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for (_, name) in PASSED.iter().filter(|(of, _)| *of == dialect) {
        // What is said in several headers is one list (RFC 9110, section 5.3).
        let values = headers.get_all(*name).iter();
        let values: Vec<&str> = values
            .filter_map(|value| value.to_str().ok())
            .filter(|value| !value.trim().is_empty())
            .collect();
        if values.is_empty() {
            continue;
        }
        if let Ok(value) = HeaderValue::from_str(&values.join(",")) {
            passed.insert(HeaderName::from_static(name), value);
        }
    }
    passed
}

/// There is no answer: the connection failed.
#[derive(Debug, Clone, Copy)]
pub struct Unreachable;
