//! Asking a provider whether it is there while nobody calls it.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use weir_router_core::provider::ProviderKind;

use super::Ways;
use crate::provider::Provider;

/// A member `probe` of a provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// What is got of it, below its `base_url`.
    path: String,
    /// How often; never where 0.
    every_ms: u64,
    /// How long an answer may take.
    timeout_ms: u64,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            path: "models".to_owned(),
            every_ms: 5_000,
            timeout_ms: 2_000,
        }
    }
}

impl Probe {
    /// Of a provider of that kind, checked; none for whom nobody asks.
    pub fn of(kind: ProviderKind, configured: Option<Self>) -> anyhow::Result<Option<Self>> {
        let probe = match (configured, kind) {
            (Some(probe), _) => probe,
            (None, ProviderKind::OpenAiCompatible) => Self::default(),
            (None, _) => return Ok(None),
        };
        for (field, ms, least) in [
            ("every_ms", probe.every_ms, 0),
            ("timeout_ms", probe.timeout_ms, 1),
        ] {
            ensure!(
                (least..=3_600_000).contains(&ms),
                "probe.{field}: must be {least} to 3600000, found {ms}"
            );
        }
        ensure!(
            !probe.path.starts_with('/') && !probe.path.contains("://"),
            "probe.path: must be below base_url, such as models, found {:?}",
            probe.path
        );
        Ok((probe.every_ms > 0).then_some(probe))
    }

    /// Asks until `stopped`.
    pub async fn run(self, ways: Arc<Ways>, provider: Arc<Provider>, stopped: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_millis(self.every_ms));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let time = Duration::from_millis(self.timeout_ms);
        let mut was_well = true;
        while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
            let is_well = provider.answers(&self.path, time).await;
            if is_well != was_well {
                tracing::warn!(provider = %provider.name, is_well, "a probe found a change");
            }
            was_well = is_well;
            ways.probed(&provider.name, is_well);
        }
    }
}
