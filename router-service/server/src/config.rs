//! The router's configuration: one YAML, its catalogue beside it, and secrets
//! from the environment.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use weir_process::{Tls, TlsFiles, secret};
use weir_router_core::{plan::Plan, provider::ProviderKind};
use weir_wire::{
    ids::PlanName,
    keys::{self, Keyring},
};

use crate::{
    directory,
    offers::{CatalogueFile, Offers},
    provider::Provider,
    quota, services,
};

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
    services: Option<services::Section>,
    tls: Option<TlsFiles>,
    #[serde(default = "default_max_body_bytes")]
    max_body_bytes: usize,
    #[serde(default = "default_drain_s")]
    drain_s: u64,
    #[serde(default = "default_stop_grace_s")]
    stop_grace_s: u64,
    #[serde(default)]
    development: Development,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderFile {
    kind: ProviderKind,
    base_url: String,
    api_key_env: Option<String>,
}

/// What no router that tenants reach may have on.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Development {
    /// Believes the bare headers of a request that has no signed context.
    #[serde(default)]
    trust_tenant_headers: bool,
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
    pub offers: Arc<Offers>,
    /// Taken by whoever watches it.
    pub catalogue: Option<CatalogueFile>,
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// Whether bare headers are believed, see `development`.
    pub trusts_headers: bool,
    pub keys: Keyring,
    pub aggregator: String,
    pub ingest_token: String,
    pub max_body_bytes: usize,
    pub directory: Option<directory::Options>,
    pub quota: Option<quota::Options>,
    pub services: Option<services::Options>,
    /// Of tenants' paths.
    pub tls: Option<Tls>,
    pub drain: Duration,
    pub stop_grace: Duration,
    pub http: reqwest::Client,
}

/// Reads and checks everything; the message names the file and the field.
pub fn load(path: &Path) -> anyhow::Result<Settings> {
    let file: File = read(path)?;
    let base = path.parent().unwrap_or(Path::new("."));
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
    let providers = providers(file.providers, &http)?;
    let kinds = providers.iter().map(|(n, p)| (n.clone(), p.kind)).collect();
    let catalogue_path = base.join(&file.catalogue);
    let (catalogue_file, catalogue) = CatalogueFile::open(catalogue_path.clone())?;
    let names: Vec<&str> = providers.keys().map(String::as_str).collect();
    if let Err(message) = catalogue.validate(&names) {
        bail!("{}: {message}", catalogue_path.display());
    }
    let offers = Offers::new(file.plans.clone(), catalogue, kinds)
        .map_err(|message| anyhow!("{}: {message}", path.display()))?;
    if file.development.trust_tenant_headers {
        tracing::warn!(
            "development.trust_tenant_headers is on: whoever reaches this router is whoever they say"
        );
    }
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
    let services = file.services.map(|section| {
        services::check(&section)?;
        services::Options::new(section, base)
    });
    let tls = file.tls.map(|files| Tls::open(files.beside(base)));
    Ok(Settings {
        services: services
            .transpose()
            .with_context(|| path.display().to_string())?,
        tls: tls
            .transpose()
            .with_context(|| path.display().to_string())?,
        listen: file.listen,
        offers: Arc::new(offers),
        catalogue: Some(catalogue_file),
        providers,
        trusts_headers: file.development.trust_tenant_headers,
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

fn providers(
    files: BTreeMap<String, ProviderFile>,
    http: &reqwest::Client,
) -> anyhow::Result<BTreeMap<String, Arc<Provider>>> {
    let make = |(name, file): (String, ProviderFile)| {
        let key = match (&file.api_key_env, file.kind) {
            (Some(variable), _) => {
                Some(secret(variable).with_context(|| format!("providers.{name}.api_key_env"))?)
            }
            (None, ProviderKind::OpenAiCompatible) => None,
            (None, _) => bail!("providers.{name}.api_key_env: is missing"),
        };
        let provider = Provider::new(
            &name,
            file.kind,
            &file.base_url,
            key.as_deref(),
            http.clone(),
        )
        .with_context(|| format!("providers.{name}"))?;
        Ok((name, Arc::new(provider)))
    };
    files.into_iter().map(make).collect()
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use weir_router_core::catalogue::Catalogue;

    use super::*;

    #[test]
    fn the_example_parses_and_a_misspelt_field_is_named() {
        let text = include_str!("../../examples/router.yaml");
        let file: File = serde_saphyr::from_str(text).unwrap();
        assert_eq!(file.plans.len(), 2);
        let catalogue: Catalogue =
            serde_saphyr::from_str(include_str!("../../examples/catalogue.yaml")).unwrap();
        let names: Vec<&str> = file.providers.keys().map(String::as_str).collect();
        catalogue.validate(&names).unwrap();
        let kinds = file.providers.iter().map(|(n, p)| (n.clone(), p.kind));
        Offers::new(file.plans.clone(), catalogue, kinds.collect()).unwrap();
        assert!(!file.development.trust_tenant_headers);

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
            ("max_tokens: 4096", "max_token: 4096"),
            ("kind: anthropic", "knid: anthropic"),
        ] {
            let wrong = text.replace(right, misspelt);
            assert_ne!(wrong, text);
            let error = serde_saphyr::from_str::<File>(&wrong).err().unwrap();
            assert!(
                error
                    .to_string()
                    .contains(misspelt.split(':').next().unwrap()),
                "{error}"
            );
        }
    }
}
