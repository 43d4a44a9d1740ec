//! weir-trim: takes the callbacks that a filter does not implement out of its
//! module.
//!
//! The SDK exports every callback of proxy-wasm, and Envoy calls each that a
//! module exports: into WebAssembly and back, to hear that there is nothing to
//! do. What is not exported it does not call. Kong calls all of them without a
//! look, so its modules stay as they were built.

mod exports;

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Parser;

/// Takes the callbacks that a filter does not implement out of its module.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Sources that say what the filter implements: its own, and those of what it
    /// shares with others
    #[arg(long, value_name = "FOLDER", required = true)]
    sources: Vec<PathBuf>,
    /// The module as it was built
    #[arg(long, value_name = "FILE")]
    module: PathBuf,
    /// Where to write it; left alone where it holds the same already
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let sources = arguments
        .sources
        .iter()
        .map(|folder| exports::sources(folder))
        .collect::<anyhow::Result<String>>()?;
    let module = fs::read(&arguments.module)
        .with_context(|| format!("cannot read {}", arguments.module.display()))?;
    let trimmed = exports::trim(&module, &sources)
        .with_context(|| format!("{}", arguments.module.display()))?;
    if fs::read(&arguments.output).is_ok_and(|found| found == trimmed) {
        return Ok(());
    }
    // Whole or not at all: an Envoy may read the file at any time.
    let partial = arguments.output.with_extension("wasm.partial");
    fs::write(&partial, trimmed)
        .and_then(|()| fs::rename(&partial, &arguments.output))
        .with_context(|| format!("cannot write {}", arguments.output.display()))
}
