//! The real Envoy on the shipped configuration, its addresses changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::{client, paths, process::Process, secrets};

/// The filters, in their order.
pub const FILTERS: [&str; 4] = [
    "tenant_identification",
    "rate_limiting",
    "request_classification",
    "usage_events",
];

/// One tenant of the directory.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its name.
    pub id: String,
    /// Its plan.
    pub plan: String,
    /// Its API key.
    pub key: String,
}

impl Tenant {
    /// As it stands in a directory, with the hash of its key.
    #[must_use]
    pub fn listed(&self) -> Value {
        json!({"id": self.id, "plan": self.plan, "keys": [{
            "prefix": self.key.get(..12).unwrap_or_default(),
            "sha256": secrets::sha256_hex(&self.key)}]})
    }
}

/// A directory to poll.
#[derive(Debug, Clone)]
pub struct Directory {
    /// `host:port`.
    pub address: String,
    /// `WEIR_DIRECTORY_TOKEN`.
    pub token: String,
    /// How soon a change takes effect, in milliseconds.
    pub poll_ms: u64,
}

/// A quota service.
#[derive(Debug, Clone)]
pub struct Quota {
    /// `host:port`.
    pub address: String,
    /// `WEIR_QUOTA_TOKEN`.
    pub token: String,
}

/// What a gateway is to be.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// The tenants it knows, where it polls no directory.
    pub tenants: Vec<Tenant>,
    /// The directory it polls.
    pub directory: Option<Directory>,
    /// Members of tenant-identification's configuration in the place of the
    /// example's, such as `sources`.
    pub identification: Map<String, Value>,
    /// Clusters beside the example's: name and `host:port`.
    pub clusters: Vec<(String, String)>,
    /// Variables that tenant-identification sees beside the example's.
    pub variables: Vec<(String, String)>,
    /// The quota service it leases requests of; without one it counts for itself.
    pub quota: Option<Quota>,
    /// Members of rate-limiting's configuration in the place of the example's.
    pub rate_limiting: Map<String, Value>,
    /// Members of usage-events' configuration in the place of the example's.
    pub usage_events: Map<String, Value>,
    /// Where usage events are written as an access log, as `envoy/usage-log.yaml`
    /// does; `usage_events` has to say so, too.
    pub access_log: Option<PathBuf>,
    /// Members of request-classification's configuration in the place of the
    /// example's, such as `rules`.
    pub classification: Map<String, Value>,
    /// How many gateways share each limit, where they count for themselves.
    pub gateways: usize,
    /// Requests a minute for plans, where gateways count for themselves, beside
    /// and in the place of 1,000 for enterprise and 100 for starter.
    pub limits: Vec<(String, u32)>,
    /// Worker threads.
    pub concurrency: usize,
    /// `host:port` of the router.
    pub router: String,
    /// `host:port` of the aggregator.
    pub aggregator: String,
    /// `WEIR_CONTEXT_KEYS`.
    pub context_keys: String,
    /// `WEIR_INGEST_TOKEN`.
    pub ingest_token: String,
    /// Which of [`FILTERS`] to have; a bare proxy has none.
    pub filters: Vec<String>,
}

impl GatewayOptions {
    /// One gateway of two workers with all filters, no tenants and no directory,
    /// the example's limits, and keys of its own.
    #[must_use]
    pub fn new(router: &str, aggregator: &str) -> Self {
        Self {
            tenants: Vec::new(),
            directory: None,
            identification: Map::new(),
            clusters: Vec::new(),
            variables: Vec::new(),
            quota: None,
            rate_limiting: Map::new(),
            usage_events: Map::new(),
            access_log: None,
            classification: Map::new(),
            gateways: 1,
            limits: Vec::new(),
            concurrency: 2,
            router: router.to_owned(),
            aggregator: aggregator.to_owned(),
            context_keys: format!("k1:{}", secrets::random()),
            ingest_token: secrets::random(),
            filters: FILTERS.map(str::to_owned).to_vec(),
        }
    }
}

/// A running Envoy.
#[derive(Debug)]
pub struct Gateway {
    /// Its process.
    pub process: Process,
    /// `http://host:port` for tenants.
    pub url: String,
    /// `http://host:port` of its admin port.
    pub admin: String,
    /// The configuration it runs on.
    pub config: PathBuf,
}

/// The shipped configuration.
///
/// # Errors
/// Where it can't be read as YAML.
pub fn shipped() -> anyhow::Result<Value> {
    read("weir.yaml")
}

fn read(name: &str) -> anyhow::Result<Value> {
    let path = paths::workspace().join("envoy").join(name);
    let text = fs::read_to_string(&path)?;
    serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
}

/// The shipped configuration with what `options` asks for in its place.
///
/// # Errors
/// Where the shipped configuration is not of the form that is expected.
pub fn configuration(options: &GatewayOptions) -> anyhow::Result<Value> {
    let mut config = shipped()?;
    let address =
        |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    config["admin"]["address"] = address(0);
    let listener = &mut config["static_resources"]["listeners"][0];
    listener["address"] = address(0);
    let filters = http_filters(&mut config)?;
    filters.retain(|filter| {
        let name = filter["name"].as_str().unwrap_or_default();
        name == "envoy.filters.http.router"
            || options.filters.iter().any(|f| name == format!("weir.{f}"))
    });
    for filter in filters {
        let Some(plugin) = filter.pointer_mut("/typed_config/config") else {
            continue;
        };
        let Some(name) = plugin["name"]
            .as_str()
            .and_then(|n| n.strip_prefix("weir."))
        else {
            continue;
        };
        let name = name.to_owned();
        plugin["vm_config"]["code"]["local"]["filename"] = json!(paths::filter(&name)?);
        let text = plugin["configuration"]["value"]
            .as_str()
            .context("a filter has no configuration")?;
        let mut settings: Value = serde_json::from_str(text)?;
        change_settings(&name, &mut settings, options);
        plugin["configuration"]["value"] = json!(settings.to_string());
        if name == "tenant_identification" {
            let names = plugin
                .pointer_mut("/vm_config/environment_variables/host_env_keys")
                .and_then(Value::as_array_mut)
                .context("tenant_identification sees no environment")?;
            names.extend(options.variables.iter().map(|(name, _)| json!(name)));
        }
    }
    change_clusters(&mut config["static_resources"]["clusters"], options)?;
    if let Some(path) = &options.access_log {
        let example = read("usage-log.yaml")?;
        let mut logs = example
            .pointer(&format!("{MANAGER}/access_log"))
            .context("envoy/usage-log.yaml has no access_log")?
            .clone();
        logs[0]["typed_config"]["path"] = json!(path);
        let manager = config.pointer_mut(MANAGER).context("no manager")?;
        manager["access_log"] = logs;
    }
    Ok(config)
}

/// Where the HTTP connection manager stands in a configuration of this form.
pub const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// The filters of a configuration of this form, in their order.
///
/// # Errors
/// Where it has none.
pub fn http_filters(config: &mut Value) -> anyhow::Result<&mut Vec<Value>> {
    config
        .pointer_mut(&format!("{MANAGER}/http_filters"))
        .and_then(Value::as_array_mut)
        .context("the configuration has no http_filters")
}

fn change_clusters(clusters: &mut Value, options: &GatewayOptions) -> anyhow::Result<()> {
    let mut addresses = vec![
        ("weir_router", options.router.as_str()),
        ("weir_aggregator", options.aggregator.as_str()),
    ];
    let clusters = clusters
        .as_array_mut()
        .context("envoy/weir.yaml has no clusters")?;
    let optional = [
        (
            "weir_directory",
            options.directory.as_ref().map(|d| &d.address),
        ),
        ("weir_quota", options.quota.as_ref().map(|q| &q.address)),
    ];
    for (name, address) in optional {
        match address {
            Some(address) => addresses.push((name, address)),
            None => clusters.retain(|cluster| cluster["name"] != name),
        }
    }
    for (name, address) in &options.clusters {
        // A plain one, HTTP/1.1.
        let mut plain = clusters.iter().filter(|c| c["name"] == "weir_aggregator");
        let mut cluster = plain.next().context("no weir_aggregator")?.clone();
        cluster["name"] = json!(name);
        clusters.push(cluster);
        addresses.push((name, address));
    }
    for (name, address) in addresses {
        let (host, port) = address.rsplit_once(':').context("no port")?;
        let cluster = clusters
            .iter_mut()
            .find(|cluster| cluster["name"] == name)
            .with_context(|| format!("envoy/weir.yaml has no cluster {name}"))?;
        cluster["load_assignment"]["cluster_name"] = json!(name);
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
            json!({"socket_address": {"address": host, "port_value": port.parse::<u16>()?}});
    }
    Ok(())
}

fn change_settings(filter: &str, settings: &mut Value, options: &GatewayOptions) {
    match filter {
        "tenant_identification" => {
            match &options.directory {
                Some(directory) => settings["directory"]["poll_ms"] = json!(directory.poll_ms),
                None => {
                    if let Some(settings) = settings.as_object_mut() {
                        settings.remove("directory");
                    }
                    settings["tenants"] = options.tenants.iter().map(Tenant::listed).collect();
                }
            }
            for (member, value) in &options.identification {
                settings[member] = value.clone();
            }
        }
        "rate_limiting" => {
            if options.quota.is_none() {
                *settings = json!({"host": "envoy", "gateways": options.gateways});
                let usual = [
                    ("enterprise".to_owned(), 1_000),
                    ("starter".to_owned(), 100),
                ];
                for (plan, requests) in usual.iter().chain(&options.limits) {
                    settings["plans"][plan] = json!({"requests": requests, "window_s": 60});
                }
            }
            for (member, value) in &options.rate_limiting {
                settings[member] = value.clone();
            }
        }
        "request_classification" => {
            for (member, value) in &options.classification {
                settings[member] = value.clone();
            }
        }
        "usage_events" => {
            for (member, value) in &options.usage_events {
                settings[member] = value.clone();
            }
        }
        _ => {}
    }
}

impl Gateway {
    /// Starts an Envoy and waits until it listens.
    ///
    /// # Errors
    /// Where it does not start; with its log's end.
    pub fn start(name: &str, options: &GatewayOptions, folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(format!("{name}.json"));
        fs::write(&path, format!("{:#}", configuration(options)?))?;
        Self::start_with(name, options, folder, &path)
    }

    /// The same on a configuration that was written already.
    ///
    /// # Errors
    /// Where it does not start; with its log's end.
    pub fn start_with(
        name: &str,
        options: &GatewayOptions,
        folder: &Path,
        config: &Path,
    ) -> anyhow::Result<Self> {
        let admin_path = folder.join(format!("{name}.admin"));
        let _ = fs::remove_file(&admin_path);
        let mut process = Process::start(
            name,
            Command::new(paths::envoy()?)
                .arg("--config-path")
                .arg(config)
                .arg("--admin-address-path")
                .arg(&admin_path)
                .args([
                    "--disable-hot-restart",
                    "--log-level",
                    "warning",
                    "--component-log-level",
                    "wasm:info",
                    "--concurrency",
                ])
                .arg(options.concurrency.to_string())
                .env("WEIR_CONTEXT_KEYS", &options.context_keys)
                .env("WEIR_INGEST_TOKEN", &options.ingest_token)
                .env(
                    "WEIR_DIRECTORY_TOKEN",
                    options.directory.as_ref().map_or("", |d| &d.token),
                )
                .env(
                    "WEIR_QUOTA_TOKEN",
                    options.quota.as_ref().map_or("", |q| &q.token),
                )
                .envs(options.variables.iter().map(|(name, value)| (name, value))),
            folder,
        )?;
        let admin = format!("http://{}", process.wait_for_file(&admin_path)?.trim());
        let http = client::client();
        let url = process.wait_for(|| {
            let listeners = http
                .get(format!("{admin}/listeners?format=json"))
                .send()
                .ok()?
                .json::<Value>()
                .ok()?;
            let ready = http.get(format!("{admin}/ready")).send().ok()?;
            let port =
                &listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"];
            (ready.status() == 200).then_some(format!("http://127.0.0.1:{}", port.as_u64()?))
        })?;
        let mut gateway = Self {
            process,
            url,
            admin,
            config: config.to_owned(),
        };
        if options.directory.is_some() {
            gateway.wait_for_directory(options.concurrency)?;
        }
        Ok(gateway)
    }

    /// Until each worker, and the main thread, knows the tenants.
    fn wait_for_directory(&mut self, workers: usize) -> anyhow::Result<()> {
        let admin = self.admin.clone();
        self.process.wait_for(|| {
            let loaded = statistic(&admin, "weir_directory_loaded")?;
            (loaded > workers as u64).then_some(())
        })
    }

    /// The value of a counter or a gauge of Envoy's statistics; 0 where there is
    /// none.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        statistic(&self.admin, name).unwrap_or(0)
    }
}

fn statistic(admin: &str, name: &str) -> Option<u64> {
    let text = client::client()
        .get(format!("{admin}/stats?filter={name}"))
        .send()
        .and_then(reqwest::blocking::Response::text)
        .ok()?;
    text.lines()
        .find_map(|line| line.rsplit_once(": ").filter(|(n, _)| n.ends_with(name)))
        .and_then(|(_, value)| value.parse().ok())
}
