//! The aggregators of a stack: one, or several of which each works on its part of a
//! database and a stream, or several on one folder of which one works and the others wait.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    options::{Options, Secrets},
    parts::{self, AggregatorOptions, Service},
    process::Process,
    shared::Shared,
};

/// Where the aggregator's configuration reads what webhooks are signed with.
const WEBHOOK_SECRET: &str = "STRIPE_WEBHOOK_SECRET";

/// Where it reads what it shows the router.
const SERVICE_TOKEN: &str = "WEIR_SERVICE_TOKEN";

/// What all of them are started with.
#[derive(Debug)]
pub struct Plan {
    /// How many; 1 where 0.
    pub count: usize,
    /// What they share beside their folder; without its stream they share the folder.
    pub shared: Option<Shared>,
    /// The first one's folder.
    pub data: PathBuf,
    /// Stripe's address.
    pub stripe_base: String,
    /// Each tenant's customer.
    pub customers: BTreeMap<String, String>,
    /// Keys and tokens.
    pub secrets: Secrets,
    /// The gateways' logs.
    pub access_logs: Vec<PathBuf>,
    /// `host:port` of the router's services, where Stripe's webhooks are taken and who
    /// does not pay is suspended.
    pub dunning: Option<String>,
    /// Members of the configuration in place of the example's.
    pub members: Value,
    /// Where their logs and configurations go.
    pub folder: PathBuf,
}

/// The aggregators. Each has a name of its own: `aggregator`, `aggregator-2` and so on.
#[derive(Debug)]
pub struct Aggregators {
    /// The first one follows the gateways' logs and is told by Stripe.
    pub replicas: Vec<Service>,
    plan: Plan,
    /// Where each takes Stripe's webhooks.
    hooks: Vec<String>,
    /// When each was started last.
    begun: Vec<Instant>,
}

/// How long after a start the next is, where it ended at once: it may miss a database.
const REST: Duration = Duration::from_secs(1);

/// One that ended and was started again.
#[derive(Debug)]
pub struct Revived {
    /// Its name.
    pub name: String,
    /// Its process id now.
    pub pid: u32,
    /// The last lines of its log.
    pub log_end: String,
}

impl Aggregators {
    /// Starts them.
    ///
    /// # Errors
    /// Where one does not start; with its log's end.
    pub fn start(plan: Plan) -> anyhow::Result<Self> {
        let count = plan.count.max(1);
        let hooks = match (&plan.dunning, plan.shares_folder()) {
            (None, _) => Vec::new(),
            (Some(_), true) => vec![free_address()?; count],
            (Some(_), false) => (0..count)
                .map(|_| free_address())
                .collect::<anyhow::Result<_>>()?,
        };
        let mut started = Self {
            replicas: Vec::new(),
            plan,
            hooks,
            begun: vec![Instant::now(); count],
        };
        for n in 0..count {
            let listen = match started.replicas.first() {
                // Whoever has the folder listens.
                Some(first) if started.plan.shares_folder() => first.address.clone(),
                _ => "127.0.0.1:0".to_owned(),
            };
            let waits = n > 0 && started.plan.shares_folder();
            let service = started.launch(n, &listen, waits)?;
            started.replicas.push(service);
        }
        Ok(started)
    }

    /// Where the router sends to: the second where there is one.
    #[must_use]
    pub fn for_router(&self) -> &Service {
        self.replicas.get(1).unwrap_or(self.first())
    }

    /// The first one.
    ///
    /// # Panics
    /// Where there is none, which can't be.
    #[must_use]
    pub fn first(&self) -> &Service {
        self.replicas.first().expect("a stack has an aggregator")
    }

    /// `host:port` where the first takes webhooks.
    #[must_use]
    pub fn hook(&self) -> Option<&str> {
        self.hooks.first().map(String::as_str)
    }

    /// Starts one again, at the same address and on the same ledger.
    ///
    /// # Errors
    /// Where it does not start, or there is no such one.
    pub fn restart(&mut self, n: usize) -> anyhow::Result<()> {
        self.again(n, self.plan.shares_folder())
    }

    fn again(&mut self, n: usize, waits: bool) -> anyhow::Result<()> {
        let before = self.replicas.get(n).context("no such aggregator")?;
        let again = self.launch(n, &before.address.clone(), waits)?;
        self.replicas[n] = again;
        self.begun[n] = Instant::now();
        Ok(())
    }

    /// Starts those that have ended again, as a supervisor does, which does not wait until
    /// they listen. An aggregator that was killed loses nothing, and is meant to be.
    ///
    /// # Errors
    /// Where one can't be started.
    pub fn revive(&mut self) -> anyhow::Result<Vec<Revived>> {
        let mut revived = Vec::new();
        for n in 0..self.replicas.len() {
            let process = &mut self.replicas[n].process;
            if process.is_running() || self.begun[n].elapsed() < REST {
                continue;
            }
            let log_end = process.log_end();
            self.again(n, true)?;
            let process = &self.replicas[n].process;
            revived.push(Revived {
                name: process.name.clone(),
                pid: process.id(),
                log_end,
            });
        }
        Ok(revived)
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names = self
            .replicas
            .iter()
            .map(|replica| replica.process.name.clone());
        names.collect()
    }

    /// Their processes.
    pub fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.replicas.iter_mut().map(|replica| &mut replica.process)
    }

    fn launch(&self, n: usize, listen: &str, waits: bool) -> anyhow::Result<Service> {
        let (plan, name) = (&self.plan, name(n));
        let data = plan.data_of(n);
        fs::create_dir_all(&data)?;
        let mut members = plan.members.clone();
        if let (Some(services), Some(hook)) = (&plan.dunning, self.hooks.get(n)) {
            members["webhook"] = json!({"listen": hook, "secrets_env": [WEBHOOK_SECRET]});
            members["dunning"] = json!({
                "router": {"url": format!("http://{services}"), "token_env": SERVICE_TOKEN},
            });
        }
        let secrets = &plan.secrets;
        let mut variables = vec![
            (parts::STORAGE_TOKEN, secrets.storage_token.as_str()),
            (WEBHOOK_SECRET, &secrets.webhook_secret),
            (SERVICE_TOKEN, &secrets.service_token),
        ];
        if let Some(shared) = &plan.shared {
            for (member, value) in shared.members().as_object().into_iter().flatten() {
                members[member] = value.clone();
            }
            variables.extend(shared.variables());
        }
        // A log is one process's to follow.
        let follows = n == 0 || plan.shares_folder();
        let options = AggregatorOptions {
            name: &name,
            data: &data,
            stripe_base: &plan.stripe_base,
            stripe_key: &secrets.stripe_key,
            customers: &plan.customers,
            context_keys: &secrets.context_keys,
            gateway_token: &secrets.gateway_token,
            router_token: &secrets.router_token,
            admin_token: &secrets.admin_token,
            access_logs: if follows { &plan.access_logs } else { &[] },
            members: &members,
            variables: &variables,
            listen,
        };
        match waits {
            true => parts::waiting_aggregator(&options, &plan.folder),
            false => parts::aggregator(&options, &plan.folder),
        }
    }
}

impl Plan {
    /// Whether one of several works, and the others wait for its folder.
    fn shares_folder(&self) -> bool {
        let has_stream = self.shared.as_ref().is_some_and(|s| s.stream.is_some());
        self.count > 1 && !has_stream
    }

    fn data_of(&self, n: usize) -> PathBuf {
        match n == 0 || self.shares_folder() {
            true => self.data.clone(),
            false => {
                let first = self.data.file_name().unwrap_or_default().to_string_lossy();
                let own = format!("{first}-{}", n.saturating_add(1));
                self.data.with_file_name(own)
            }
        }
    }
}

fn name(n: usize) -> String {
    match n {
        0 => "aggregator".to_owned(),
        n => format!("aggregator-{}", n.saturating_add(1)),
    }
}

/// An address for what has to be known before whoever listens there is started.
///
/// # Errors
/// Where there is none.
pub fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

/// Where each gateway's log of events is, beside the ledger, which outlives what it
/// was not told.
#[must_use]
pub fn access_logs(options: &Options, data: &Path) -> Vec<PathBuf> {
    match options.access_log {
        true => (1..=options.gateways.max(1))
            .map(|n| data.join(format!("usage-{n}.log")))
            .collect(),
        false => Vec::new(),
    }
}
