//! `endpoints.json`: where everything of a run is, for people and programs.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use weir_harness::{
    Stack,
    issuer::Algorithm,
    parts::Service,
    pids::{self, RunProcess},
    stack::BASE_DOMAIN,
};

const FILE: &str = "endpoints.json";

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
pub struct Endpoints {
    gateway: String,
    gateways: Vec<String>,
    envoy_admin: Vec<String>,
    router: String,
    aggregator: String,
    /// All of them; the first is that one.
    aggregators: Vec<String>,
    stripe: String,
    /// By name; with `/v1`, as a client's base URL.
    providers: BTreeMap<String, String>,
    /// By plan.
    keys: BTreeMap<String, String>,
    /// By plan and algorithm; good for a day.
    tokens: BTreeMap<String, BTreeMap<String, String>>,
    /// Under which a tenant has a host of its own.
    base_domain: String,
    /// The tenants and their keys, for weir-keys.
    directory: PathBuf,
    /// By plan.
    tenants: BTreeMap<String, String>,
    /// By tenant.
    customers: BTreeMap<String, String>,
    stripe_key: String,
    /// By name; the self-hosted one needs none.
    provider_keys: BTreeMap<String, String>,
    /// `host:port` of the router's gRPC for services.
    services: String,
    /// Where the router shows its metrics.
    metrics: String,
    /// What services show it.
    service_token: String,
    /// What gateways sign tenant contexts with.
    context_keys: String,
    /// What a service that tells the aggregator of storage shows it.
    storage_token: String,
    /// The operator's, for the aggregator.
    pub admin_token: String,
    ledger: PathBuf,
    stream: PathBuf,
    logs: PathBuf,
    /// The configuration that the aggregator runs on.
    aggregator_config: PathBuf,
    /// By the name of its process, that of each.
    aggregator_configs: BTreeMap<String, PathBuf>,
    router_config: PathBuf,
    envoy_configs: Vec<PathBuf>,
    processes: Vec<RunProcess>,
}

impl Endpoints {
    /// Those of a stack.
    pub fn of(stack: &Stack) -> Self {
        let [enterprise, starter] = weir_harness::stack::TENANTS;
        let by_plan = |starter: &str, enterprise: &str| {
            BTreeMap::from([
                ("starter".to_owned(), starter.to_owned()),
                ("enterprise".to_owned(), enterprise.to_owned()),
            ])
        };
        Self {
            gateway: stack.url().to_owned(),
            gateways: stack.gateways.iter().map(|g| g.url.clone()).collect(),
            envoy_admin: stack.gateways.iter().map(|g| g.admin.clone()).collect(),
            router: stack.router.url(),
            aggregator: stack.aggregator().url(),
            aggregators: stack
                .aggregators
                .replicas
                .iter()
                .map(Service::url)
                .collect(),
            stripe: stack.stripe_base.clone(),
            providers: stack
                .providers
                .iter()
                .map(|(name, provider)| (name.to_owned(), provider.base.clone()))
                .collect(),
            keys: by_plan(&stack.secrets.starter_key, &stack.secrets.enterprise_key),
            tokens: [("starter", starter), ("enterprise", enterprise)]
                .into_iter()
                .filter_map(|(plan, tenant)| {
                    let issuer = stack.issuer.as_ref()?;
                    let token = |a: Algorithm| (a.name().to_owned(), issuer.token(a, tenant));
                    Some((plan.to_owned(), Algorithm::ALL.map(token).into()))
                })
                .collect(),
            base_domain: BASE_DOMAIN.to_owned(),
            directory: stack.directory.clone(),
            tenants: by_plan(starter, enterprise),
            customers: stack.customers.clone(),
            stripe_key: stack.secrets.stripe_key.clone(),
            provider_keys: stack
                .providers
                .iter()
                .filter_map(|(name, provider)| Some((name.to_owned(), provider.key.clone()?)))
                .collect(),
            services: stack.router.services.clone().unwrap_or_default(),
            metrics: format!(
                "http://{}/metrics",
                stack.router.metrics.clone().unwrap_or_default()
            ),
            service_token: stack.secrets.service_token.clone(),
            context_keys: stack.secrets.context_keys.clone(),
            storage_token: stack.secrets.storage_token.clone(),
            admin_token: stack.secrets.admin_token.clone(),
            ledger: stack.data.join("ledger.db"),
            stream: stack.data.join("stream.db"),
            logs: stack.folder.clone(),
            aggregator_config: stack.aggregator().config.clone().unwrap_or_default(),
            aggregator_configs: stack
                .aggregators
                .replicas
                .iter()
                .filter_map(|replica| Some((replica.process.name.clone(), replica.config.clone()?)))
                .collect(),
            router_config: stack.router.config.clone().unwrap_or_default(),
            envoy_configs: stack.gateways.iter().map(|g| g.config.clone()).collect(),
            processes: pids::running(&stack.folder),
        }
    }

    /// Reads the file of a run.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The configuration of an aggregator that runs now; of the first where none does.
    pub fn living_aggregator(&self, folder: &Path) -> &Path {
        let running = pids::running(folder);
        let configs = running
            .iter()
            .filter_map(|p| self.aggregator_configs.get(&p.name));
        configs
            .chain([&self.aggregator_config])
            .next()
            .unwrap_or(&self.aggregator_config)
    }

    /// Writes it in one step; it holds keys, so nobody else may read it.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let partial = folder.join("endpoints.partial");
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        writeln!(file, "{}", serde_json::to_string_pretty(self)?)?;
        fs::rename(partial, folder.join(FILE))?;
        Ok(())
    }

    /// Removes it: nothing runs any more.
    pub fn remove(folder: &Path) -> anyhow::Result<()> {
        match fs::remove_file(folder.join(FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Says what to do with it.
    pub fn explain(&self) {
        let gateway = &self.gateway;
        println!("\nWeir is up.\n");
        println!("  endpoint         {gateway}/v1");
        if self.gateways.len() > 1 {
            println!("  gateways         {}", self.gateways.join(" "));
        }
        for (plan, key) in &self.keys {
            println!("  {plan:<16} {key}");
        }
        let aggregators = self
            .processes
            .iter()
            .filter(|p| self.aggregator_configs.contains_key(&p.name));
        for process in aggregators {
            println!("  {:<16} process {}", process.name, process.pid);
        }
        println!("  everything else  {}", self.logs.join(FILE).display());
        println!("\nTry:\n");
        for (plan, model) in [("starter", "gpt-4o-mini"), ("enterprise", "gpt-4o")] {
            println!(
                "  curl {gateway}/v1/chat/completions -H 'Authorization: Bearer {}' \\\n    -H 'Content-Type: application/json' \\\n    -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n",
                self.keys.get(plan).map(String::as_str).unwrap_or_default()
            );
        }
        println!(
            "  curl {gateway}/v1/messages -H 'x-api-key: {}' -H 'anthropic-version: 2023-06-01' \\\n    -H 'Content-Type: application/json' \\\n    -d '{{\"model\":\"claude-opus-5-5\",\"max_tokens\":100,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n",
            self.keys
                .get("enterprise")
                .map(String::as_str)
                .unwrap_or_default()
        );
        println!(
            "A token does as well as a key: HS256, EdDSA, RS256 and ES256 of both tenants\nare in that file. {}.{BASE_DOMAIN} as the host must agree with the credential.\n",
            self.tenants
                .get("starter")
                .map(String::as_str)
                .unwrap_or_default()
        );
        println!("Then `make events` in another terminal shows what the ledger holds of each");
        println!("request, and `make close-hour` sends Stripe what was used.");
        println!("Ctrl-C stops everything.");
    }
}
