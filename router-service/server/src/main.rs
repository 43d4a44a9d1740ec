//! The inference router: takes a tenant's request to a model within its plan.

mod app;
mod call;
mod client;
mod config;
mod exchange;
mod grpc;
mod provider;
mod serve;
mod witness;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_process::{StopSignal, write_whole};

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

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let settings = config::load(&arguments.config)?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("listen: cannot bind {}", settings.listen))?;
    let address = listener.local_addr()?;

    let tasks = TaskTracker::new();
    let (witnesses, sender) = witness::queue(
        &settings.aggregator,
        &settings.ingest_token,
        settings.http.clone(),
    );
    let closing = CancellationToken::new();
    let sending = tokio::spawn(sender.run(closing.clone()));
    let grace = settings.stop_grace;
    let leaving = CancellationToken::new();
    let app = Arc::new(app::App::new(
        settings,
        witnesses,
        tasks.clone(),
        leaving.clone(),
    ));

    let stop = StopSignal::install()?;
    if let Some(path) = &arguments.ready_file {
        write_whole(path, &address.to_string())
            .with_context(|| format!("ready-file: cannot write {}", path.display()))?;
    }
    tracing::info!(%address, "listening");
    let (health, routes) = grpc::routes().await?;
    let stop = async move {
        stop.wait().await;
        tracing::info!("stopping");
        health.stopping().await;
    };
    // Requests go on for a while; then each ends with what it has seen.
    let left = weir_process::serve(listener, serve::router(app, routes), stop, grace).await;
    if left.is_some() {
        tracing::warn!("connections were still open after {grace:?}");
    }
    tasks.close();
    leaving.cancel();
    if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!("clients were still reading");
    }
    closing.cancel();
    match tokio::time::timeout(FLUSH, sending).await {
        Ok(_) => tracing::info!("stopped"),
        Err(_) => tracing::error!("the aggregator did not take the last events"),
    }
    // Until here, for the farewells.
    drop(left);
    Ok(())
}
