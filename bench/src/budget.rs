//! What a hold and its settle cost the router, in its own file and over Redis: the
//! example `budget` of `router-service/store`, which holds and settles as fast as it is
//! answered.

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};
use weir_harness::{paths, redis::Redis};

/// Who asks at once, of how many tenants.
const TASKS: &str = "64";
const TENANTS: &str = "100";

/// Measures both stores, one after the other; gives what the example prints of each.
///
/// # Errors
/// Where it was not built (`make bench` does), Redis is missing, or a run fails.
pub fn measure() -> anyhow::Result<String> {
    let program = paths::workspace().join("target/release/examples/budget");
    ensure!(
        program.exists(),
        "cargo build --release -p weir-router-store --example budget makes {}",
        program.display()
    );
    let folder = tempfile::tempdir()?;
    let redis = Redis::start(folder.path())?;
    let file = folder.path().join("budget.db");
    let file = file.to_string_lossy().into_owned();
    let url = redis.url();
    let mut printed = String::new();
    for (name, place) in [("SQLite", &file), ("Redis", &url)] {
        printed.push_str(name);
        printed.push('\n');
        printed.push_str(&run(&program, place)?);
        printed.push('\n');
    }
    Ok(printed)
}

fn run(program: &Path, place: &str) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args([place, TASKS, TENANTS])
        .output()
        .context("the example cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}
