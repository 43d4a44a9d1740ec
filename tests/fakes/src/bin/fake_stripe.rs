//! `fake-stripe`: the fake Stripe as a process.

use anyhow::ensure;
use clap::Parser;
use weir_fakes::{
    cli::{self, ListenArgs},
    stripe::{Config, Stripe},
};

/// A strict, stateful fake of Stripe's usage-based billing, in memory.
#[derive(Parser)]
#[command(name = "fake-stripe", version)]
struct Args {
    #[command(flatten)]
    listen: ListenArgs,
    /// Secret key that is accepted (`sk_test_...`); may be repeated.
    #[arg(
        long = "key",
        env = "FAKE_STRIPE_KEYS",
        value_delimiter = ',',
        hide_env_values = true,
        required = true
    )]
    keys: Vec<String>,
    /// How long accepting one meter event takes, during which its customer and meter are locked.
    #[arg(long, default_value_t = Config::EVENT_MS)]
    event_ms: u64,
    /// Meter events a second that are taken; 0 takes any number.
    #[arg(long, default_value_t = Config::EVENTS_PER_SECOND)]
    events_per_second: u32,
    /// Seconds by which the fake's clock runs ahead of the machine's.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    clock_offset_s: i64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    weir_process::init_logs();
    ensure!(
        args.keys.iter().all(|key| key.starts_with("sk_test_")),
        "--key must begin with sk_test_, as test keys of Stripe do"
    );
    let mut config = Config::new(args.keys);
    config.event_ms = args.event_ms;
    config.events_per_second = Some(args.events_per_second).filter(|n| *n > 0);
    config.clock_offset_s = args.clock_offset_s;
    cli::run(args.listen, Stripe::new(config).router()).await
}
