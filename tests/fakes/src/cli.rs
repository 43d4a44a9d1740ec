//! What the two binaries share: flags, the ready file, signals and logs on stderr.

use std::{
    fs,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use axum::Router;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

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
    // Installed before the ready file: whoever reads it may signal at once.
    let mut terminate = signal(SignalKind::terminate()).context("no SIGTERM handler")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no SIGINT handler")?;
    if let Some(path) = &args.ready_file {
        write_ready(path, address)
            .with_context(|| format!("can't write ready file {}", path.display()))?;
    }
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server::serve_until(listener, router, shutdown)
        .await
        .context("can't serve")
}

/// Sends logs to stderr, filtered by `RUST_LOG` (default `info`).
pub fn init_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// Renames a finished file into place, so that a reader never sees half an address.
fn write_ready(path: &Path, address: SocketAddr) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".tmp{}", std::process::id()));
    let temporary = PathBuf::from(name);
    fs::write(&temporary, address.to_string())?;
    fs::rename(&temporary, path)
}
