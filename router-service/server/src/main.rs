//! The inference router: takes a tenant's request to a model within its plan.

mod app;
mod call;
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
use tokio_util::task::TaskTracker;
use weir_process::{StopSignal, serve_until, write_whole};

/// How long requests under way and events waiting may take after a signal.
const GRACE: Duration = Duration::from_secs(8);

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
    let sending = tokio::spawn(sender.run());
    let app = Arc::new(app::App::new(settings, witnesses, tasks.clone()));

    let stop = StopSignal::install()?;
    if let Some(path) = &arguments.ready_file {
        write_whole(path, &address.to_string())
            .with_context(|| format!("ready-file: cannot write {}", path.display()))?;
    }
    tracing::info!(%address, "listening");
    let (health, routes) = grpc::routes().await?;
    let (signalled, stopping) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, serve::router(app.clone(), routes)).with_graceful_shutdown(
        async move {
            stop.wait().await;
            tracing::info!("stopping");
            health.stopping().await;
            let _ = signalled.send(());
        },
    );
    match serve_until(server, stopping, GRACE).await {
        Some(outcome) => outcome?,
        None => tracing::warn!("connections were still open after {GRACE:?}"),
    }

    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!("requests were still under way after {GRACE:?}");
    }
    drop(app);
    match tokio::time::timeout(GRACE, sending).await {
        Ok(_) => tracing::info!("stopped"),
        Err(_) => tracing::error!("the aggregator did not take the last events"),
    }
    Ok(())
}
