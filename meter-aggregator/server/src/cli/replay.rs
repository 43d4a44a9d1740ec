//! The command `replay`: logs of any kind.

use std::process::ExitCode;

use super::{Admin, progress, table::print};
use crate::{
    config,
    reach::Reach,
    replay::{self, size},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: Admin,
    /// Logs of any kind; `-` is the standard input.
    #[arg(required = true)]
    files: Vec<String>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Admin { config, json } = arguments.admin;
    let producers = config::producers_of(&config)?;
    let reach = Reach::open(&config).await?;
    let bar = progress::bytes(size(&arguments.files));
    let replayed = replay::run(&reach, producers, &arguments.files, &bar).await?;
    bar.finish_and_clear();
    let is_whole = replayed.quarantined == 0 && replayed.torn == 0;
    print(&match json {
        true => format!("{:#}\n", serde_json::to_value(replayed)?),
        false => format!(
            "lines: {}, events: {}, accepted: {}, quarantined: {}, torn: {}\n",
            replayed.lines, replayed.events, replayed.accepted, replayed.quarantined, replayed.torn
        ),
    })?;
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
