//! `fake-provider`: the fake OpenAI as a process.

use std::str::FromStr;

use clap::Parser;
use weir_fakes::{
    cli::{self, ListenArgs},
    provider::{Config, Model, Provider},
};

/// A strict fake of OpenAI's chat, completions, responses, embeddings and models API.
#[derive(Parser)]
#[command(name = "fake-provider", version)]
struct Args {
    #[command(flatten)]
    listen: ListenArgs,
    /// API key that is accepted; may be repeated. Not needed with --compatible.
    #[arg(
        long = "key",
        env = "FAKE_PROVIDER_KEYS",
        value_delimiter = ',',
        hide_env_values = true,
        required_unless_present = "compatible"
    )]
    keys: Vec<String>,
    /// Model to serve instead of the default ones: `ID=chat`, `ID=completion` or
    /// `ID=embedding`, with `@SERVED` after it where answers name another model;
    /// may be repeated.
    #[arg(long = "model", value_parser = Model::from_str)]
    models: Vec<Model>,
    /// Largest request body in bytes; more is refused with 413.
    #[arg(long, default_value_t = Config::MAX_BODY_BYTES)]
    max_body_bytes: usize,
    /// Stand for vLLM and its like instead of OpenAI: unknown arguments are passed
    /// over, chat models serve /v1/completions, and there is no /v1/responses.
    #[arg(long)]
    compatible: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    weir_process::init_logs();
    let mut config = if args.compatible {
        // A variable that is set, but empty, is no key.
        let given = args.keys.into_iter().filter(|key| !key.is_empty());
        Config::compatible(given.collect())
    } else {
        Config::new(args.keys)
    };
    config.max_body_bytes = args.max_body_bytes;
    if !args.models.is_empty() {
        config.models = args.models;
    }
    cli::run(args.listen, Provider::new(config).router()).await
}
