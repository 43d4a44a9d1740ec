//! What the binaries share: their flags.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use weir_process::{StopSignal, write_whole};

use crate::server;

/// Where to listen, and how to tell that it listens.
#[derive(Clone, Debug, clap::Args)]
pub struct ListenArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// File into which the bound address is written once the fake listens.
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
}

/// Listens, writes the ready file and serves `router` until SIGTERM or SIGINT.
///
/// # Errors
/// Fails where the address can't be bound, the ready file can't be written or
/// the signal handlers can't be installed.
pub async fn run(args: ListenArgs, router: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("can't listen on {}", args.listen))?;
    let address = listener.local_addr().context("no local address")?;
    // Before the ready file: whoever reads it may signal at once.
    let stop = StopSignal::install().context("no signal handlers")?;
    if let Some(path) = &args.ready_file {
        write_whole(path, &address.to_string())
            .with_context(|| format!("can't write ready file {}", path.display()))?;
    }
    tracing::info!(%address, "listening");
    server::serve_until(listener, router, stop.wait()).await;
    Ok(())
}
