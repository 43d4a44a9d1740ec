//! Turns usage events into Stripe meter events that add up.

mod admin;
mod cli;
mod config;
mod http;
mod ledger;
mod sender;
mod service;
mod stream;
mod stripe;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
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
            ExitCode::FAILURE
        }
    }
}
