//! `copy-ledger`: from SQLite to Postgres.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use weir_meter_store::ledger::{Ledger, Place, PostgresSettings, copy};

use super::{progress, table};
use crate::{
    api::Parts,
    config::{self, For},
    service,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The aggregator's configuration, whose ledger is in its data folder.
    #[arg(long)]
    config: PathBuf,
    /// The variable that holds the URL of the Postgres database.
    #[arg(long, value_name = "VARIABLE")]
    to_env: String,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Copies under the folder's lock, so that nothing changes meanwhile; what the stream still
/// holds is booked first.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let file = config::read(&arguments.config)?;
    if file.is_shared() {
        bail!("ledger.postgres: is configured already; copy with a configuration without it");
    }
    let Some(_lock) = service::lock(&file.data_dir)? else {
        bail!(
            "data_dir: an aggregator runs on {}; stop it first",
            file.data_dir.display()
        );
    };
    let url = weir_process::secret(&arguments.to_env).context("--to-env")?;
    let settings = config::load(&arguments.config, For::Command)?;
    let parts = Parts::open(settings, For::Command).await?.parts;
    parts.books.book_all().await?;
    let bar = progress::count(None);
    let told = bar.clone();
    let copied = parts
        .books
        .with(move |from| {
            Ok((|| {
                let place = Place::Postgres(PostgresSettings { url });
                let mut to = Ledger::open_at(&place)?;
                copy::copy(from, &mut to, |done, all| {
                    told.set_length(all);
                    told.set_position(done);
                })
            })())
        })
        .await?;
    bar.finish_and_clear();
    let copied = copied?;
    table::show(&serde_json::to_value(&copied)?, arguments.json, |_| {
        format!("{copied}\n")
    })?;
    Ok(ExitCode::SUCCESS)
}
