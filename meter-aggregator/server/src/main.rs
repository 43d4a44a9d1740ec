//! Turns usage events into Stripe meter events that add up.

mod admin;
mod api;
mod books;
mod cli;
mod config;
mod fleet;
mod grpc;
mod http;
mod ingest;
mod intake;
mod metrics;
mod operations;
mod pool;
mod proto;
mod reach;
mod reconciler;
mod replay;
mod rounds;
mod sender;
mod service;
mod sorting;
mod stripe;
mod tail;
mod webhook;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    weir_process::init_logs();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::warn!("a TLS provider was installed already");
    }
    match cli::run(cli::Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            cli::exit_code(&error)
        }
    }
}
