//! The router's configuration: one YAML, its catalogue beside it, and secrets
//! from the environment.

use std::{
    collections::BTreeMap,
    fs::DirBuilder,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use weir_process::{Tls, TlsFiles, secret};
use weir_router_core::{
    attempts::RetryConfig, fair::FairConfig, health::HealthConfig, plan::Plan,
    provider::ProviderKind,
};
use weir_wire::{
    ids::PlanName,
    keys::{self, Keyring},
};

use crate::{
    call::WayOut,
    directory,
    metrics::{self, Metrics},
    money,
    offers::{CatalogueFile, Offers},
    provider::Provider,
    quota, services,
    ways::{Failover, Probe, Share, Ways},
};

/// The variable that holds the credential for the aggregator.
const TOKEN_ENVIRONMENT: &str = "WEIR_INGEST_TOKEN";

/// The least that a spool may hold: some hundred events.
const SPOOL_MIN_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: SocketAddr,
    catalogue: PathBuf,
    plans: BTreeMap<PlanName, Plan>,
    providers: BTreeMap<String, ProviderFile>,
    aggregator: String,
    #[serde(default = "default_data_dir")]
    data_dir: PathBuf,
    #[serde(default = "default_spool_max_bytes")]
    spool_max_bytes: u64,
    directory: Option<directory::Section>,
    quota: Option<quota::Section>,
    services: Option<services::Section>,
    metrics: Option<metrics::Section>,
    tls: Option<TlsFiles>,
    #[serde(default = "default_max_body_bytes")]
    max_body_bytes: usize,
    #[serde(default = "default_drain_s")]
    drain_s: u64,
    #[serde(default = "default_drain_tokens")]
    drain_tokens: usize,
    #[serde(default)]
    budgets: money::Section,
    #[serde(default)]
    failover: FailoverFile,
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
    share: Option<FairConfig>,
    probe: Option<Probe>,
}

/// The section `failover`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FailoverFile {
    retry: RetryConfig,
    health: HealthConfig,
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

fn default_data_dir() -> PathBuf {
    PathBuf::from("data")
}

fn default_spool_max_bytes() -> u64 {
    256 << 20
}

fn default_drain_s() -> u64 {
    30
}

fn default_drain_tokens() -> usize {
    16_384
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
    pub ways: Arc<Ways>,
    /// Who is asked whether it is there while nobody calls it.
    pub probes: Vec<(Probe, Arc<Provider>)>,
    /// Taken by whoever opens the store.
    pub money: Option<money::Options>,
    /// Whether bare headers are believed, see `development`.
    pub trusts_headers: bool,
    pub keys: Keyring,
    pub aggregator: String,
    /// What this router keeps, beside no other's.
    pub data_dir: PathBuf,
    pub spool_max_bytes: u64,
    pub ingest_token: String,
    pub max_body_bytes: usize,
    pub directory: Option<directory::Options>,
    pub quota: Option<quota::Options>,
    pub services: Option<services::Options>,
    /// Where the metrics are shown.
    pub metrics: Option<metrics::Section>,
    /// Of tenants' paths.
    pub tls: Option<Tls>,
    pub way_out: WayOut,
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
    if !(SPOOL_MIN_BYTES..=1 << 40).contains(&file.spool_max_bytes) {
        bail!(
            "{}: spool_max_bytes: must be {SPOOL_MIN_BYTES} to {}, found {}",
            path.display(),
            1_u64 << 40,
            file.spool_max_bytes
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
    let metrics = Metrics::new()?;
    let Configured {
        providers,
        shares,
        probes,
    } = providers(file.providers, &http, &metrics)?;
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
    let data_dir = base.join(&file.data_dir);
    // Signed contexts of tenants are among what is kept.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&data_dir)
        .with_context(|| format!("{}: data_dir: cannot create it", path.display()))?;
    let failover = Failover {
        retry: file.failover.retry,
        health: file.failover.health,
    };
    let checked = [
        ("retry", failover.retry.validate()),
        ("health", failover.health.validate()),
    ];
    for (section, checked) in checked {
        if let Err(message) = checked {
            bail!("{}: failover.{section}.{message}", path.display());
        }
    }
    let money =
        money::Options::new(file.budgets, &data_dir).with_context(|| path.display().to_string())?;
    let tls = file.tls.map(|files| Tls::open(files.beside(base)));
    Ok(Settings {
        services: services
            .transpose()
            .with_context(|| path.display().to_string())?,
        tls: tls
            .transpose()
            .with_context(|| path.display().to_string())?,
        listen: file.listen,
        metrics: file.metrics,
        offers: Arc::new(offers),
        catalogue: Some(catalogue_file),
        ways: Arc::new(Ways::new(providers, shares, failover, metrics)),
        probes,
        money: Some(money),
        trusts_headers: file.development.trust_tenant_headers,
        keys,
        aggregator: file.aggregator,
        spool_max_bytes: file.spool_max_bytes,
        data_dir,
        ingest_token: secret(TOKEN_ENVIRONMENT)?,
        max_body_bytes: file.max_body_bytes,
        directory,
        quota,
        way_out: WayOut {
            drain: Duration::from_secs(file.drain_s),
            tokens: file.drain_tokens,
        },
        stop_grace: Duration::from_secs(file.stop_grace_s),
        http,
    })
}

/// The providers, and how each is called.
struct Configured {
    providers: BTreeMap<String, Arc<Provider>>,
    shares: BTreeMap<String, Arc<Share>>,
    probes: Vec<(Probe, Arc<Provider>)>,
}

fn providers(
    files: BTreeMap<String, ProviderFile>,
    http: &reqwest::Client,
    metrics: &Metrics,
) -> anyhow::Result<Configured> {
    let mut configured = Configured {
        providers: BTreeMap::new(),
        shares: BTreeMap::new(),
        probes: Vec::new(),
    };
    for (name, file) in files {
        let at = || format!("providers.{name}");
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
        );
        let provider = Arc::new(provider.with_context(at)?);
        if let Some(section) = file.share {
            let checked = section.validate();
            checked.map_err(|message| anyhow!("providers.{name}.share.{message}"))?;
            let share = Share::new(&name, section, metrics.clone());
            configured.shares.insert(name.clone(), share);
        }
        if let Some(probe) = Probe::of(file.kind, file.probe).with_context(at)? {
            configured.probes.push((probe, Arc::clone(&provider)));
        }
        configured.providers.insert(name, provider);
    }
    Ok(configured)
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
        for (plan, requests, dollars) in [("enterprise", 1000, 500), ("starter", 100, 20)] {
            let plan = &file.plans[&PlanName::new(plan).unwrap()];
            plan.validate().unwrap();
            let budget = plan.budget.unwrap();
            assert_eq!(budget.monthly_usd.micros(), dollars * 1_000_000);
            let [limit] = plan.limits.all() else {
                panic!("{plan:?}");
            };
            assert_eq!((limit.requests.get(), limit.window_s.get()), (requests, 60));
            assert!(plan.tokens_per_minute.is_some());
        }

        for (right, misspelt) in [
            ("drain_s:", "drian_s:"),
            ("data_dir:", "data_dri:"),
            ("spool_max_bytes:", "spool_max_byte:"),
            ("poll_ms:", "pool_ms:"),
            ("ratelimit_domain:", "ratelimit_doman:"),
            ("limits:", "limit:"),
            ("window_s:", "window:"),
            ("max_tokens: 4096", "max_token: 4096"),
            ("budget:", "budgets:"),
            ("monthly_usd:", "monthly_eur:"),
            ("at_ceiling:", "at_ceilling:"),
            ("tokens_per_minute:", "token_per_minute:"),
            ("weight:", "wieght:"),
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
