//! The router's configuration: one YAML, its catalogue beside it, and secrets
//! from the environment.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use weir_process::secret;
use weir_router_core::{
    catalogue::Catalogue,
    plan::{Offer, Plan},
};
use weir_wire::{
    ids::PlanName,
    keys::{self, Keyring},
};

use crate::{directory, provider::Provider, quota};

/// The variable that holds the credential for the aggregator.
const TOKEN_ENVIRONMENT: &str = "WEIR_INGEST_TOKEN";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: SocketAddr,
    catalogue: PathBuf,
    plans: BTreeMap<PlanName, Plan>,
    providers: BTreeMap<String, ProviderFile>,
    aggregator: String,
    directory: Option<directory::Section>,
    quota: Option<quota::Section>,
    #[serde(default = "default_max_body_bytes")]
    max_body_bytes: usize,
    #[serde(default = "default_drain_s")]
    drain_s: u64,
    #[serde(default = "default_stop_grace_s")]
    stop_grace_s: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderFile {
    base_url: String,
    api_key_env: String,
}

fn default_max_body_bytes() -> usize {
    16 << 20
}

fn default_drain_s() -> u64 {
    30
}

fn default_stop_grace_s() -> u64 {
    10
}

/// What the router runs on, checked.
pub struct Settings {
    pub listen: SocketAddr,
    pub offer: Offer,
    pub providers: BTreeMap<String, Provider>,
    pub keys: Keyring,
    pub aggregator: String,
    pub ingest_token: String,
    pub max_body_bytes: usize,
    pub directory: Option<directory::Options>,
    pub quota: Option<quota::Options>,
    pub drain: Duration,
    pub stop_grace: Duration,
    pub http: reqwest::Client,
}

/// Reads and checks everything; the message names the file and the field.
pub fn load(path: &Path) -> anyhow::Result<Settings> {
    let file: File = read(path)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let catalogue_path = base.join(&file.catalogue);
    let catalogue: Catalogue = read(&catalogue_path)?;
    let names: Vec<&str> = file.providers.keys().map(String::as_str).collect();
    if let Err(message) = catalogue.validate(&names) {
        bail!("{}: {message}", catalogue_path.display());
    }
    if file.plans.is_empty() {
        bail!("{}: plans: must name at least one plan", path.display());
    }
    if !(1..=1 << 30).contains(&file.max_body_bytes) {
        bail!(
            "{}: max_body_bytes: must be 1 to 1073741824, found {}",
            path.display(),
            file.max_body_bytes
        );
    }
    for (name, plan) in &file.plans {
        if let Err(message) = plan.validate() {
            bail!("{}: plans.{name}.{message}", path.display());
        }
    }
    let keys = Keyring::parse(&secret(keys::ENVIRONMENT)?)?;
    let http = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()?;
    let providers = file
        .providers
        .into_iter()
        .map(|(name, provider)| {
            let key = secret(&provider.api_key_env)
                .with_context(|| format!("providers.{name}.api_key_env"))?;
            let provider = Provider::new(&name, &provider.base_url, &key, http.clone())
                .with_context(|| format!("providers.{name}"))?;
            Ok((name, provider))
        })
        .collect::<anyhow::Result<_>>()?;
    let plans = file.plans.keys().cloned().collect();
    let directory = file
        .directory
        .map(|section| directory::Options::new(section, base, plans))
        .transpose()
        .with_context(|| path.display().to_string())?;
    let quota = file
        .quota
        .map(|section| quota::Options::new(section, &file.plans))
        .transpose()
        .with_context(|| path.display().to_string())?;
    Ok(Settings {
        listen: file.listen,
        offer: Offer::new(file.plans, catalogue),
        providers,
        keys,
        aggregator: file.aggregator,
        ingest_token: secret(TOKEN_ENVIRONMENT)?,
        max_body_bytes: file.max_body_bytes,
        directory,
        quota,
        drain: Duration::from_secs(file.drain_s),
        stop_grace: Duration::from_secs(file.stop_grace_s),
        http,
    })
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_parses_and_a_misspelt_field_is_named() {
        let text = include_str!("../../examples/router.yaml");
        let file: File = serde_saphyr::from_str(text).unwrap();
        assert_eq!(file.plans.len(), 2);
        let catalogue: Catalogue =
            serde_saphyr::from_str(include_str!("../../examples/catalogue.yaml")).unwrap();
        catalogue.validate(&["openai"]).unwrap();

        assert!(file.directory.is_some() && file.quota.is_some());
        for (plan, requests) in [("enterprise", 1000), ("starter", 100)] {
            let plan = &file.plans[&PlanName::new(plan).unwrap()];
            plan.validate().unwrap();
            let [limit] = plan.limits.all() else {
                panic!("{plan:?}");
            };
            assert_eq!((limit.requests.get(), limit.window_s.get()), (requests, 60));
        }

        for (right, misspelt) in [
            ("drain_s:", "drian_s:"),
            ("poll_ms:", "pool_ms:"),
            ("ratelimit_domain:", "ratelimit_doman:"),
            ("limits:", "limit:"),
            ("window_s:", "window:"),
        ] {
            let wrong = text.replace(right, misspelt);
            assert_ne!(wrong, text);
            let error = serde_saphyr::from_str::<File>(&wrong).err().unwrap();
            assert!(
                error.to_string().contains(misspelt.trim_end_matches(':')),
                "{error}"
            );
        }
    }
}
