//! The inference router: takes a tenant's request to a model within its plan.

mod admin;
mod alerts;
mod app;
mod call;
mod callout;
mod client;
mod config;
mod directory;
mod exchange;
mod metrics;
mod models;
mod money;
mod offers;
mod postman;
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
mod proto;
mod provider;
mod quota;
mod serve;
mod services;
mod shared_redis;
mod watched;
mod ways;
mod witness;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_process::{StopSignal, grpc, write_whole};
use weir_router_core::{count::Tokenizer, quota::service::Tenants};
use weir_wire::proto::FILE_DESCRIPTOR_SET;

/// How long requests that were ended may take to tell their clients.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long events that wait may take after that.
const FLUSH: Duration = Duration::from_secs(8);

/// Takes tenants' requests to a model within their plan.
#[derive(Parser)]
struct Arguments {
    /// The configuration, YAML.
    #[arg(long)]
    config: PathBuf,
    /// Where to write the address that is listened on, once it is.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// The same for the address of the directory, where there is one.
    #[arg(long)]
    directory_ready_file: Option<PathBuf>,
    /// The same for the address of the quota service, where there is one.
    #[arg(long)]
    quota_ready_file: Option<PathBuf>,
    /// The same for the address of the services, where there are some.
    #[arg(long)]
    services_ready_file: Option<PathBuf>,
    /// The same for the address of the metrics, where they are shown.
    #[arg(long)]
    metrics_ready_file: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    weir_process::init_logs();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes an address to where it was asked for.
fn tell(argument: &str, path: Option<&Path>, address: SocketAddr) -> anyhow::Result<()> {
    path.map_or(Ok(()), |path| {
        write_whole(path, &address.to_string())
            .with_context(|| format!("{argument}: cannot write {}", path.display()))
    })
}

/// What is served beside tenants' paths, each on a listener of its own.
struct Beside {
    directory: Option<directory::Directory>,
    quota: Option<quota::Quota>,
}

impl Beside {
    async fn open(settings: &mut config::Settings) -> anyhow::Result<Self> {
        let directory = match settings.directory.take() {
            Some(options) => {
                Some(directory::Directory::open(options, Arc::clone(&settings.offers)).await?)
            }
            None => None,
        };
        let tenants = directory.as_ref().map(directory::Directory::tenants);
        let quota = match settings.quota.take() {
            Some(options) => Some(quota::Quota::open(options, tenants).await?),
            None => None,
        };
        Ok(Self { directory, quota })
    }

    /// The directory's tenants, or none.
    fn tenants(&self) -> watch::Receiver<Arc<Tenants>> {
        match &self.directory {
            Some(directory) => directory.tenants(),
            None => watch::channel(Arc::default()).1,
        }
    }

    /// Serves them until `stopping`, and tells where they listen.
    fn serve(
        self,
        arguments: &Arguments,
        stopping: &CancellationToken,
    ) -> anyhow::Result<JoinSet<()>> {
        let mut serving = JoinSet::new();
        if let Some(directory) = self.directory {
            let (path, address) = (&arguments.directory_ready_file, directory.address);
            tracing::info!(%address, "the directory is listening");
            tell("directory-ready-file", path.as_deref(), address)?;
            serving.spawn(directory.serve(stopping.clone()));
        }
        if let Some(quota) = self.quota {
            let (path, address) = (&arguments.quota_ready_file, quota.address);
            tracing::info!(%address, "the quota service is listening");
            tell("quota-ready-file", path.as_deref(), address)?;
            serving.spawn(quota.serve(stopping.clone()));
        }
        Ok(serving)
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let mut settings = config::load(&arguments.config)?;
    let mut beside = Beside::open(&mut settings).await?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("listen: cannot bind {}", settings.listen))?;
    let address = listener.local_addr()?;

    let tasks = TaskTracker::new();
    let (witnesses, sender) = witness::open(
        &settings.data_dir.join("spool.db"),
        settings.spool_max_bytes,
        &settings.aggregator,
        &settings.ingest_token,
        settings.http.clone(),
    )
    .context("spool")?;
    let metrics = settings.ways.metrics.clone();
    metrics.watch_spool(witnesses.spool().clone());
    let closing = CancellationToken::new();
    let grace = settings.stop_grace;
    let (services, tls) = (settings.services.take(), settings.tls.take());
    let (offers, catalogue) = (Arc::clone(&settings.offers), settings.catalogue.take());
    let leaving = CancellationToken::new();
    let mut money = settings
        .money
        .take()
        .context("the settings are used twice")?;
    let webhook = money.webhook.take();
    let money = Arc::new(money::Money::open(money, metrics.clone()).await?);
    let probes = std::mem::take(&mut settings.probes);
    let shown = match settings.metrics.take() {
        Some(section) => Some(metrics::Server::open(section, metrics.clone()).await?),
        None => None,
    };
    let postman = postman::Postman {
        witnesses: witnesses.clone(),
        alerts: alerts::Alerts::new(webhook, settings.http.clone()),
        metrics,
    };
    let tenants = beside.tenants();
    let app = Arc::new(app::App::new(
        settings,
        Arc::clone(&money),
        tenants,
        witnesses,
        tasks.clone(),
        leaving.clone(),
    ));
    // What a first estimate would wait for, on a thread on which nothing waits.
    std::thread::spawn(|| Tokenizer::O200k.warm());
    app.settle_again().await.context("spool")?;
    let sending = tokio::spawn(sender.run(closing.clone()));

    let services = match services {
        None => None,
        Some(options) => {
            let parts = services::Parts {
                app: Arc::clone(&app),
                providers: app.settings.ways.providers.clone(),
                directory: beside.directory.as_mut().and_then(|directory| {
                    let writer = directory.writer.take()?;
                    Some((directory.shared(), writer))
                }),
            };
            Some(services::Services::open(options, parts).await?)
        }
    };

    let stop = StopSignal::install()?;
    let stopping = CancellationToken::new();
    let mut beside = beside.serve(&arguments, &stopping)?;
    if let Some(services) = services {
        let (path, address) = (&arguments.services_ready_file, services.address);
        tracing::info!(%address, "the services are listening");
        tell("services-ready-file", path.as_deref(), address)?;
        beside.spawn(services.serve(stopping.clone()));
    }
    if let Some(shown) = shown {
        let (path, address) = (&arguments.metrics_ready_file, shown.address);
        tracing::info!(%address, "the metrics are listening");
        tell("metrics-ready-file", path.as_deref(), address)?;
        beside.spawn(shown.serve(stopping.clone()));
    }
    let (outbox, stopped) = (Arc::clone(&money), stopping.clone());
    beside.spawn(async move { postman.run(outbox.store(), stopped).await });
    for (probe, provider) in probes {
        let ways = Arc::clone(&app.settings.ways);
        beside.spawn(probe.run(ways, provider, stopping.clone()));
    }
    // Requests that go on after the signal are renewed until they end.
    let keeping = tokio::spawn(Arc::clone(&money).keep(closing.clone()));
    if let Some(file) = catalogue {
        beside.spawn(offers.watch_catalogue(file, stopping.clone()));
    }
    tell("ready-file", arguments.ready_file.as_deref(), address)?;
    tracing::info!(%address, "listening");
    let (health, routes) = grpc::routes(&[], FILE_DESCRIPTOR_SET).await?;
    let stop = async move {
        stop.wait().await;
        tracing::info!("stopping");
        stopping.cancel();
        health.stopping().await;
    };
    // Requests go on for a while; then each ends with what it has seen.
    let left = weir_process::serve_tls(
        listener,
        tls,
        serve::router(app, routes.into_axum_router()),
        stop,
        grace,
    )
    .await;
    if left.is_some() {
        tracing::warn!("connections were still open after {grace:?}");
    }
    tasks.close();
    leaving.cancel();
    if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!("clients were still reading");
    }
    beside.join_all().await;
    closing.cancel();
    let _ = keeping.await;
    match tokio::time::timeout(FLUSH, sending).await {
        Ok(_) => tracing::info!("stopped"),
        Err(_) => {
            tracing::error!("the aggregator did not take the last events; they wait in the spool")
        }
    }
    // Until here, for the farewells.
    drop(left);
    Ok(())
}
