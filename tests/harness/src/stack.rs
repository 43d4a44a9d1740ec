//! All of Weir, up and joined: what `make run` shows and the pipeline's tests
//! drive.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    aggregators::{Aggregators, Plan, access_logs, free_address},
    client,
    envoy::{Directory, Gateway, GatewayOptions, Quota, Tenant},
    issuer::Issuer,
    options::{Options, Secrets},
    parts::{self, DirectoryOptions, QuotaOptions, RouterOptions, Service},
    paths,
    process::Process,
    providers::Providers,
    provision::Account,
    secrets,
    shared::{Owner, Shared},
};

/// A running Weir. Dropping it stops it: gateways first, so that what they
/// still hold finds its way.
#[derive(Debug)]
pub struct Stack {
    /// The gateways; all serve the same tenants.
    pub gateways: Vec<Gateway>,
    /// The router.
    pub router: Service,
    /// The aggregators.
    pub aggregators: Aggregators,
    /// The providers.
    pub providers: Providers,
    /// The fake Stripe, where it is not the real one.
    pub stripe: Option<Service>,
    /// Stripe's address.
    pub stripe_base: String,
    /// Each tenant's customer.
    pub customers: BTreeMap<String, String>,
    /// Keys and tokens.
    pub secrets: Secrets,
    /// The issuer of tokens, where there is one.
    pub issuer: Option<Issuer>,
    /// The tenants and their keys, as the router serves them.
    pub directory: PathBuf,
    /// Where the stream and the ledger are.
    pub data: PathBuf,
    /// What it was started with.
    pub options: Options,
    /// Where the logs and configurations are.
    pub folder: PathBuf,
}

/// What the name of a data folder begins with that belongs to a real Stripe
/// account: it outlives the run.
pub const REAL_DATA: &str = "data-stripe-";

/// The tenants of a stack: enterprise and starter.
pub const TENANTS: [&str; 2] = ["acme", "solo"];

impl Stack {
    /// Starts everything; logs and configurations go to `folder`.
    ///
    /// # Errors
    /// Where a part does not start; with its log's end.
    pub fn start(options: &Options, folder: &Path) -> anyhow::Result<Self> {
        let secrets = Secrets::new(options);
        let data = folder.join(match &options.stripe {
            None => "data".to_owned(),
            Some((base, key)) => format!("{REAL_DATA}{}", account(base, key)),
        });
        fs::create_dir_all(&data)?;

        let providers = Providers::start(&options.providers, folder)?;
        let stripe = match options.stripe {
            Some(_) => None,
            None => Some(parts::stripe(&secrets.stripe_key, folder)?),
        };
        let stripe_base = match (&options.stripe, &stripe) {
            (Some((base, _)), _) => base.clone(),
            (None, Some(fake)) => fake.url(),
            (None, None) => String::new(),
        };
        let customers = Account::new(&stripe_base, &secrets.stripe_key)
            .provision(&TENANTS)
            .context("Stripe")?;
        let access_logs = access_logs(options, &data);
        let is_told = options.webhooks && stripe.is_some();
        let services = match is_told {
            true => free_address()?,
            false => "127.0.0.1:0".to_owned(),
        };
        let aggregators = Aggregators::start(Plan {
            count: options.aggregators,
            shared: shared(options, folder)?,
            data: data.clone(),
            stripe_base: stripe_base.clone(),
            customers: customers.clone(),
            secrets: secrets.clone(),
            access_logs: access_logs.clone(),
            dunning: is_told.then(|| services.clone()),
            members: options.aggregator.clone(),
            folder: folder.to_owned(),
        })?;
        let directory = write_directory(&secrets, folder)?;
        let router = parts::router(
            &router_options(
                options,
                &secrets,
                &providers,
                &aggregators.for_router().url(),
                &directory,
                ["127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", &services],
            ),
            folder,
        )?;
        if let (Some(fake), Some(hook)) = (&stripe, aggregators.hook()) {
            register(fake, hook, &secrets)?;
        }
        let issuer = options.tokens.then(Issuer::new);
        let mut gateway = gateway_options(options, &secrets, &router, aggregators.first());
        let mut logs = access_logs.into_iter();
        if let Some(issuer) = &issuer {
            let host = json!({"type": "subdomain", "base_domains": [BASE_DOMAIN]});
            let sources = json!([{"type": "api_key"}, issuer.source(), host]);
            gateway.identification.insert("sources".to_owned(), sources);
            gateway.variables = issuer.variables();
        }
        let gateways = (1..=gateway.gateways)
            .map(|n| {
                gateway.access_log = logs.next();
                let is_logged = gateway.access_log.is_some();
                gateway
                    .usage_events
                    .insert("access_log".to_owned(), json!(is_logged));
                Gateway::start(&format!("envoy-{n}"), &gateway, folder)
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            gateways,
            router,
            aggregators,
            providers,
            stripe,
            stripe_base,
            customers,
            secrets,
            issuer,
            directory,
            data,
            options: options.clone(),
            folder: folder.to_owned(),
        })
    }

    /// The first gateway's address for tenants.
    ///
    /// # Panics
    /// Where there is none, which no stack is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.gateways.first().expect("a stack has a gateway").url
    }

    /// Stripe, as the stack's aggregator has it.
    #[must_use]
    pub fn account(&self) -> Account {
        Account::new(&self.stripe_base, &self.secrets.stripe_key)
    }

    /// The first aggregator.
    #[must_use]
    pub fn aggregator(&self) -> &Service {
        self.aggregators.first()
    }

    /// The first aggregator's process.
    ///
    /// # Panics
    /// Where there is none, which no stack is.
    pub fn aggregator_process(&mut self) -> &mut Process {
        let mut processes = self.aggregators.processes_mut();
        processes.next().expect("a stack has an aggregator")
    }

    /// Starts the first aggregator again, at the same address and on the same ledger.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart_aggregator(&mut self) -> anyhow::Result<()> {
        self.aggregators.restart(0)
    }

    /// Stops the gateways by SIGTERM; the rest goes on.
    ///
    /// # Panics
    /// Where one has to be killed.
    pub fn stop_gateways(&mut self) {
        for gateway in &mut self.gateways {
            assert!(gateway.process.stop(), "a gateway had to be killed");
        }
    }

    /// Starts the router again, at the same addresses.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart_router(&mut self) -> anyhow::Result<()> {
        let address = self.router.address.clone();
        let quota = self.router.quota.clone().context("no quota service")?;
        let directory = self.router.directory.clone().context("no directory")?;
        let services = self.router.services.clone().context("no services")?;
        let aggregator = self.aggregators.for_router().url();
        let options = router_options(
            &self.options,
            &self.secrets,
            &self.providers,
            &aggregator,
            &self.directory,
            [&address, &quota, &directory, &services],
        );
        self.router = parts::router(&options, &self.folder)?;
        Ok(())
    }

    /// Runs `meter-aggregator` with those arguments against the running one.
    ///
    /// # Errors
    /// Where it can't be run.
    pub fn meter_aggregator(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let config = &self.aggregator().config;
        let config = config.as_ref().context("no configuration")?;
        Ok(Command::new(paths::binary("meter-aggregator")?)
            .args(arguments)
            .arg("--config")
            .arg(config)
            .env("WEIR_ADMIN_TOKEN", &self.secrets.admin_token)
            .output()?)
    }

    /// Every process, in the order in which they are stopped.
    fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        let last = [self.stripe.as_mut()].into_iter().flatten();
        let last = last.chain(self.providers.fakes_mut());
        self.gateways
            .iter_mut()
            .map(|g| &mut g.process)
            .chain([&mut self.router.process])
            .chain(self.aggregators.processes_mut())
            .chain(last.map(|s| &mut s.process))
    }

    /// The name of a process that has ended, if one has; but for aggregators, which are
    /// started again.
    pub fn ended(&mut self) -> Option<String> {
        let aggregators = self.aggregators.names();
        self.processes_mut()
            .filter(|p| !aggregators.contains(&p.name))
            .find_map(|p| (!p.is_running()).then(|| format!("{}:\n{}", p.name, p.log_end())))
    }

    /// Stops everything in order; gives the names of those that had to be
    /// killed.
    pub fn stop(&mut self) -> Vec<String> {
        self.processes_mut()
            .filter_map(|p| (p.is_running() && !p.stop()).then(|| p.name.clone()))
            .collect()
    }
}

/// A Stripe account's name in those of folders.
fn account(base: &str, key: &str) -> String {
    let hash = secrets::sha256_hex(&format!("{base} {key}"));
    hash.get(..12).unwrap_or_default().to_owned()
}

/// What the aggregators share, where there is a database.
fn shared(options: &Options, folder: &Path) -> anyhow::Result<Option<Shared>> {
    let Some(database) = &options.database else {
        return Ok(None);
    };
    let account = options
        .stripe
        .as_ref()
        .map(|(base, key)| account(base, key));
    let owner = match &account {
        Some(account) => Owner::Account(account),
        None => Owner::Folder(folder),
    };
    Shared::prepare(database, options.redis.as_deref(), owner).map(Some)
}

/// Has the fake Stripe tell the aggregator of what happens there.
fn register(stripe: &Service, hook: &str, secrets: &Secrets) -> anyhow::Result<()> {
    let endpoint = json!({
        "url": format!("http://{hook}/stripe/webhook"), "secret": secrets.webhook_secret,
    });
    client::client()
        .post(format!("{}/__fake/webhooks", stripe.url()))
        .json(&endpoint)
        .send()?
        .error_for_status()?;
    Ok(())
}

/// The router of a stack, at its first start and at each further one. It listens
/// for tenants, for quota, for the directory and for services.
fn router_options<'a>(
    options: &'a Options,
    secrets: &'a Secrets,
    providers: &'a Providers,
    aggregator: &'a str,
    directory: &'a Path,
    [listen, quota, directory_listen, services_listen]: [&'a str; 4],
) -> RouterOptions<'a> {
    RouterOptions {
        providers,
        aggregator,
        context_keys: &secrets.context_keys,
        router_token: &secrets.router_token,
        service_token: &secrets.service_token,
        services_listen,
        directory: Some(DirectoryOptions {
            file: directory,
            token: &secrets.directory_token,
            listen: directory_listen,
        }),
        quota: Some(QuotaOptions {
            token: &secrets.quota_token,
            redis: options.redis.as_deref(),
            listen: quota,
        }),
        limits: &options.limits,
        members: &options.router,
        listen,
    }
}

/// The gateways of a stack.
fn gateway_options(
    options: &Options,
    secrets: &Secrets,
    router: &Service,
    aggregator: &Service,
) -> GatewayOptions {
    GatewayOptions {
        directory: router.directory.clone().map(|address| Directory {
            address,
            token: secrets.directory_token.clone(),
            poll_ms: POLL_MS,
        }),
        quota: router.quota.clone().map(|address| Quota {
            address,
            token: secrets.quota_token.clone(),
        }),
        rate_limiting: rate_limiting(options),
        gateways: options.gateways.max(1),
        concurrency: match options.concurrency {
            0 => 2,
            n => n,
        },
        context_keys: secrets.context_keys.clone(),
        ingest_token: secrets.gateway_token.clone(),
        ..GatewayOptions::new(&router.address, &aggregator.address)
    }
}

/// What is different from the example's rate limiting.
fn rate_limiting(options: &Options) -> serde_json::Map<String, Value> {
    let mut quota = json!({"cluster": "weir_quota"});
    for (member, value) in &options.quota {
        quota[member] = value.clone();
    }
    let settings = [("quota", quota), ("shadow", json!(options.shadow))];
    settings
        .into_iter()
        .map(|(member, value)| (member.to_owned(), value))
        .collect()
}

/// The domain of the tenants' own hosts: `acme.weir.localhost`.
pub const BASE_DOMAIN: &str = "weir.localhost";

/// How soon a change of the directory takes effect.
const POLL_MS: u64 = 1000;

/// The directory of a new stack, for the router and for weir-keys.
fn write_directory(secrets: &Secrets, folder: &Path) -> anyhow::Result<PathBuf> {
    let tenants = [
        tenant(TENANTS[0], "enterprise", &secrets.enterprise_key),
        tenant(TENANTS[1], "starter", &secrets.starter_key),
    ];
    let listed: Vec<Value> = tenants
        .iter()
        .map(|tenant| {
            let mut listed = tenant.listed();
            listed["keys"][0]["id"] = json!("k1");
            listed
        })
        .collect();
    let path = folder.join("directory.yaml");
    // JSON is YAML too.
    let content = json!({"version": 1, "tenants": listed});
    fs::write(&path, format!("{content:#}"))?;
    Ok(path)
}

fn tenant(id: &str, plan: &str, key: &str) -> Tenant {
    Tenant {
        id: id.to_owned(),
        plan: plan.to_owned(),
        key: key.to_owned(),
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop();
    }
}
