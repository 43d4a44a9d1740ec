//! The inference router: takes a tenant's request to a model within its plan.

mod app;
mod call;
mod config;
mod grpc;
mod provider;
mod serve;
mod witness;

use std::{
    io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// How long requests under way and events waiting may take after a signal.
const GRACE: Duration = Duration::from_secs(20);

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
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
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

    if let Some(path) = &arguments.ready_file {
        announce(path, address)?;
    }
    tracing::info!(%address, "listening");
    let (health, routes) = grpc::routes().await?;
    axum::serve(listener, serve::router(app.clone(), routes))
        .with_graceful_shutdown(async move {
            stop_signal().await;
            tracing::info!("stopping");
            health.stopping().await;
        })
        .await?;

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

/// Writes the address in one step, so that a reader never sees half of it.
fn announce(path: &std::path::Path, address: SocketAddr) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, address.to_string())
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("ready-file: cannot write {}", path.display()))
}

async fn stop_signal() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
