//! `fake-anthropic`: the fake Anthropic as a process.

use std::str::FromStr;

use clap::Parser;
use weir_fakes::{
    anthropic::{Anthropic, Config, Model},
    cli::{self, ListenArgs},
};

/// A strict fake of Anthropic's messages and models API.
#[derive(Parser)]
#[command(name = "fake-anthropic", version)]
struct Args {
    #[command(flatten)]
    listen: ListenArgs,
    /// API key that is accepted; may be repeated.
    #[arg(
        long = "key",
        env = "FAKE_ANTHROPIC_KEYS",
        value_delimiter = ',',
        hide_env_values = true,
        required = true
    )]
    keys: Vec<String>,
    /// Model to serve instead of the default ones: `ID`, with `@SERVED` after it
    /// where answers name another model; may be repeated.
    #[arg(long = "model", value_parser = Model::from_str)]
    models: Vec<Model>,
    /// Largest request body in bytes; more is refused with 413.
    #[arg(long, default_value_t = Config::MAX_BODY_BYTES)]
    max_body_bytes: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    weir_process::init_logs();
    let mut config = Config::new(args.keys);
    config.max_body_bytes = args.max_body_bytes;
    if !args.models.is_empty() {
        config.models = args.models;
    }
    cli::run(args.listen, Anthropic::new(config).router()).await
}
