//! The services, each started on its shipped example configuration.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    paths,
    process::Process,
    providers::{Providers, key_variable},
    secrets,
};

/// A service that listens.
#[derive(Debug)]
pub struct Service {
    /// Its process.
    pub process: Process,
    /// `host:port`.
    pub address: String,
    /// `host:port` of the router's directory, where it serves one.
    pub directory: Option<String>,
    /// `host:port` of the router's quota service, where it has one.
    pub quota: Option<String>,
    /// `host:port` of the router's services.
    pub services: Option<String>,
    /// Where a router shows its metrics.
    pub metrics: Option<String>,
    /// The configuration it runs on, where it has one.
    pub config: Option<PathBuf>,
}

impl Service {
    /// `http://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Starts a binary of the workspace with `--ready-file` and waits for it.
fn start(
    name: &str,
    binary: &str,
    folder: &Path,
    config: Option<PathBuf>,
    prepare: impl FnOnce(&mut Command),
) -> anyhow::Result<Service> {
    let mut service = launch(name, binary, folder, config, prepare)?;
    service.address = service.process.wait_for_file(&ready_file(name, folder))?;
    Ok(service)
}

/// Where a service writes its address once it listens.
fn ready_file(name: &str, folder: &Path) -> PathBuf {
    folder.join(format!("{name}.address"))
}

/// Starts it and does not wait; nobody knows its address yet.
fn launch(
    name: &str,
    binary: &str,
    folder: &Path,
    config: Option<PathBuf>,
    prepare: impl FnOnce(&mut Command),
) -> anyhow::Result<Service> {
    let ready = ready_file(name, folder);
    let _ = fs::remove_file(&ready);
    let mut command = Command::new(paths::binary(binary)?);
    prepare(&mut command);
    if let Some(config) = &config {
        command.arg("--config").arg(config);
    }
    command.arg("--ready-file").arg(&ready);
    Ok(Service {
        process: Process::start(name, &mut command, folder)?,
        address: String::new(),
        directory: None,
        quota: None,
        services: None,
        metrics: None,
        config,
    })
}

/// The fake of that provider, with `key` for its API key; the self-hosted one needs
/// none.
///
/// # Errors
/// Where it does not start.
pub fn provider(name: &str, key: Option<&str>, folder: &Path) -> anyhow::Result<Service> {
    let (binary, variable) = match name {
        "anthropic" => ("fake-anthropic", "FAKE_ANTHROPIC_KEYS"),
        _ => ("fake-provider", "FAKE_PROVIDER_KEYS"),
    };
    let process = format!("provider-{name}");
    start(&process, binary, folder, None, |command| {
        match key {
            Some(key) => command.env(variable, key),
            None => command.arg("--compatible"),
        };
    })
}

/// The Stripe fake, with `key` for its API key.
///
/// # Errors
/// Where it does not start.
pub fn stripe(key: &str, folder: &Path) -> anyhow::Result<Service> {
    start("stripe", "fake-stripe", folder, None, |command| {
        command.env("FAKE_STRIPE_KEYS", key);
    })
}

/// What the aggregator needs to know.
#[derive(Debug)]
pub struct AggregatorOptions<'a> {
    /// Its name among the processes of its folder, such as `aggregator`.
    pub name: &'a str,
    /// Where its stream and ledger are.
    pub data: &'a Path,
    /// Stripe's address.
    pub stripe_base: &'a str,
    /// Stripe's key.
    pub stripe_key: &'a str,
    /// Each tenant's customer.
    pub customers: &'a BTreeMap<String, String>,
    /// `WEIR_CONTEXT_KEYS`.
    pub context_keys: &'a str,
    /// The gateways' token.
    pub gateway_token: &'a str,
    /// The router's token.
    pub router_token: &'a str,
    /// The operator's token.
    pub admin_token: &'a str,
    /// The gateways' logs of events that it follows.
    pub access_logs: &'a [PathBuf],
    /// Members of the configuration in place of the example's, at any depth; null
    /// takes one away.
    pub members: &'a Value,
    /// Further variables, which those members name.
    pub variables: &'a [(&'a str, &'a str)],
    /// `host:port` to listen on; port 0 takes a free one.
    pub listen: &'a str,
}

/// Where the example has the token of the service that tells of storage.
pub const STORAGE_TOKEN: &str = "WEIR_STORAGE_TOKEN";

/// The aggregator. Nobody knows its token for storage, unless the variables have one.
///
/// # Errors
/// Where it does not start.
pub fn aggregator(options: &AggregatorOptions<'_>, folder: &Path) -> anyhow::Result<Service> {
    let mut service = waiting_aggregator(options, folder)?;
    let ready = ready_file(options.name, folder);
    service.address = service.process.wait_for_file(&ready)?;
    Ok(service)
}

/// One that may have to wait for its folder: it listens, where it was told to, once it has
/// it.
///
/// # Errors
/// Where it can't be started.
pub fn waiting_aggregator(
    options: &AggregatorOptions<'_>,
    folder: &Path,
) -> anyhow::Result<Service> {
    let mut config = example("meter-aggregator/examples/aggregator.yaml")?;
    config["listen"] = json!(options.listen);
    config["data_dir"] = json!(options.data);
    config["stripe"]["api_base"] = json!(options.stripe_base);
    config["tenants"] = options
        .customers
        .iter()
        .map(|(tenant, customer)| (tenant.clone(), json!({"stripe_customer": customer})))
        .collect();
    config["access_logs"] = options
        .access_logs
        .iter()
        .map(|path| json!({"path": path, "producer": "gateway"}))
        .collect();
    if options.members.is_object() {
        merge(&mut config, options.members);
    }
    let path = write(&config, folder, &format!("{}.json", options.name))?;
    let prepare = |command: &mut Command| {
        command
            .arg("run")
            .env("WEIR_CONTEXT_KEYS", options.context_keys)
            .env("WEIR_ADMIN_TOKEN", options.admin_token)
            .env("WEIR_GATEWAY_TOKEN", options.gateway_token)
            .env("WEIR_ROUTER_TOKEN", options.router_token)
            .env("STRIPE_API_KEY", options.stripe_key)
            .env(STORAGE_TOKEN, secrets::random())
            .envs(options.variables.iter().copied());
    };
    let mut service = launch(
        options.name,
        "meter-aggregator",
        folder,
        Some(path),
        prepare,
    )?;
    service.address = options.listen.to_owned();
    Ok(service)
}

/// What the router needs to know.
#[derive(Debug)]
pub struct RouterOptions<'a> {
    /// The providers of the example.
    pub providers: &'a Providers,
    /// The aggregator's URL.
    pub aggregator: &'a str,
    /// `WEIR_CONTEXT_KEYS`.
    pub context_keys: &'a str,
    /// The router's token.
    pub router_token: &'a str,
    /// `WEIR_SERVICE_TOKEN`, at least 32 bytes.
    pub service_token: &'a str,
    /// `host:port` for services; port 0 takes a free one.
    pub services_listen: &'a str,
    /// The directory to serve; none where absent.
    pub directory: Option<DirectoryOptions<'a>>,
    /// The quota service; none where absent.
    pub quota: Option<QuotaOptions<'a>>,
    /// Requests a minute for plans, in place of the example's.
    pub limits: &'a [(String, u32)],
    /// Members of the configuration in place of the example's, at any depth; null
    /// takes one away.
    pub members: &'a Value,
    /// `host:port` to listen on; port 0 takes a free one.
    pub listen: &'a str,
}

/// The quota service of a router.
#[derive(Debug, Clone, Copy)]
pub struct QuotaOptions<'a> {
    /// `WEIR_QUOTA_TOKEN`, at least 32 bytes.
    pub token: &'a str,
    /// The Redis that it counts in; its own memory where absent.
    pub redis: Option<&'a str>,
    /// `host:port` to listen on; port 0 takes a free one.
    pub listen: &'a str,
}

/// The directory that a router serves.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryOptions<'a> {
    /// The file.
    pub file: &'a Path,
    /// `WEIR_DIRECTORY_TOKEN`, at least 32 bytes.
    pub token: &'a str,
    /// `host:port` to listen on; port 0 takes a free one.
    pub listen: &'a str,
}

/// Where a router's configuration reads the address of its Redis.
const REDIS_VARIABLE: &str = "REDIS_URL";

/// The router.
///
/// # Errors
/// Where it does not start.
pub fn router(options: &RouterOptions<'_>, folder: &Path) -> anyhow::Result<Service> {
    let mut config = example("router-service/examples/router.yaml")?;
    config["listen"] = json!(options.listen);
    config["catalogue"] = json!(paths::workspace().join("router-service/examples/catalogue.yaml"));
    for (name, provider) in options.providers.iter() {
        config["providers"][name]["base_url"] = json!(provider.base);
        if provider.key.is_some() {
            config["providers"][name]["api_key_env"] = json!(key_variable(name));
        }
    }
    config["services"]["listen"] = json!(options.services_listen);
    config["metrics"]["listen"] = json!("127.0.0.1:0");
    config["aggregator"] = json!(options.aggregator);
    // The same at each start in that folder: what waits there goes on.
    config["data_dir"] = json!(std::path::absolute(folder.join("router-data"))?);
    // Whoever stops a run by hand waits for it.
    config["stop_grace_s"] = json!(3);
    config["directory"] = match options.directory {
        None => Value::Null,
        Some(directory) => json!({
            "file": std::path::absolute(directory.file)?,
            "listen": directory.listen,
            // Whoever changes the file waits for it.
            "poll_ms": 100,
        }),
    };
    config["quota"] = match options.quota {
        None => Value::Null,
        Some(QuotaOptions {
            redis: None,
            listen,
            ..
        }) => json!({"listen": listen}),
        Some(quota) => json!({
            "listen": quota.listen,
            "redis": {"url_env": REDIS_VARIABLE},
        }),
    };
    for (plan, requests) in options.limits {
        let limits = json!([{"requests": requests, "window_s": 60}]);
        config["plans"][plan]["limits"] = limits;
    }
    if let Some(QuotaOptions { redis: Some(_), .. }) = options.quota {
        config["budgets"]["redis"] = json!({"url_env": REDIS_VARIABLE});
    }
    if options.members.is_object() {
        merge(&mut config, options.members);
    }
    let path = write(&config, folder, "router.json")?;
    let ready = folder.join("router.directory.address");
    let quota_ready = folder.join("router.quota.address");
    let services_ready = folder.join("router.services.address");
    let metrics_ready = folder.join("router.metrics.address");
    for ready in [&ready, &quota_ready, &services_ready, &metrics_ready] {
        let _ = fs::remove_file(ready);
    }
    let mut router = start("router", "router-service", folder, Some(path), |command| {
        command
            .env("WEIR_CONTEXT_KEYS", options.context_keys)
            .env("WEIR_INGEST_TOKEN", options.router_token)
            .env("WEIR_SERVICE_TOKEN", options.service_token)
            .arg("--services-ready-file")
            .arg(&services_ready)
            .arg("--metrics-ready-file")
            .arg(&metrics_ready);
        for (name, provider) in options.providers.iter() {
            if let Some(key) = &provider.key {
                command.env(key_variable(name), key);
            }
        }
        if let Some(directory) = options.directory {
            command
                .env("WEIR_DIRECTORY_TOKEN", directory.token)
                .arg("--directory-ready-file")
                .arg(&ready);
        }
        if let Some(quota) = options.quota {
            command
                .env("WEIR_QUOTA_TOKEN", quota.token)
                .env(REDIS_VARIABLE, quota.redis.unwrap_or_default())
                .arg("--quota-ready-file")
                .arg(&quota_ready);
        }
    })?;
    router.metrics = Some(router.process.wait_for_file(&metrics_ready)?);
    router.services = Some(router.process.wait_for_file(&services_ready)?);
    if options.quota.is_some() {
        router.quota = Some(router.process.wait_for_file(&quota_ready)?);
    }
    if options.directory.is_some() {
        router.directory = Some(router.process.wait_for_file(&ready)?);
    }
    Ok(router)
}

/// Puts members into an object, at any depth; null takes one away.
fn merge(into: &mut Value, members: &Value) {
    let Value::Object(members) = members else {
        *into = members.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in members {
        match value {
            Value::Null => drop(into.as_object_mut().map(|o| o.remove(name))),
            value => merge(&mut into[name], value),
        }
    }
}

fn example(path: &str) -> anyhow::Result<Value> {
    let text = fs::read_to_string(paths::workspace().join(path)).context(path.to_owned())?;
    serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{path}: {e}"))
}

/// JSON is YAML too.
fn write(config: &Value, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, format!("{config:#}"))?;
    Ok(path)
}
