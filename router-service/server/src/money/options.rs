//! The section `budgets` of the router's configuration.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::ensure;
use serde::Deserialize;
use weir_router_store::RedisSettings;

use crate::{alerts::Webhook, shared_redis::RedisSection};

/// As it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Section {
    redis: Option<RedisSection>,
    hold_life_s: Option<u64>,
    progress_ms: Option<u64>,
    alert_webhook: Option<String>,
    alert_secret_env: Option<String>,
}

/// What is held by, checked.
pub struct Options {
    /// Where it is shared between routers; this one's file where absent.
    pub redis: Option<RedisSettings>,
    /// The folder of this router's files.
    pub data: PathBuf,
    /// How long a hold lasts that is not renewed.
    pub hold_life: Duration,
    /// How often progress is noted.
    pub progress: Duration,
    /// Who is told of alerts beside the log. Taken by whoever tells.
    pub webhook: Option<Webhook>,
}

impl Options {
    /// Checks the section; files go to `data`.
    pub fn new(section: Section, data: &Path) -> anyhow::Result<Self> {
        let hold_life_s = section.hold_life_s.unwrap_or(30);
        ensure!(
            (3..=600).contains(&hold_life_s),
            "budgets.hold_life_s: must be 3 to 600, found {hold_life_s}"
        );
        let progress_ms = section.progress_ms.unwrap_or(2_000);
        ensure!(
            (500..=60_000).contains(&progress_ms),
            "budgets.progress_ms: must be 500 to 60000, found {progress_ms}"
        );
        let redis = section.redis.map(|redis| redis.settings("budgets.redis"));
        let secret_env = section.alert_secret_env.as_deref();
        let webhook = section
            .alert_webhook
            .map(|url| Webhook::new(&url, secret_env));
        Ok(Self {
            webhook: webhook.transpose()?,
            redis: redis.transpose()?,
            data: data.to_owned(),
            hold_life: Duration::from_secs(hold_life_s),
            progress: Duration::from_millis(progress_ms),
        })
    }
}
