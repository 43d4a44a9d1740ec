//! Where things are in a checkout.

use std::path::PathBuf;

use anyhow::bail;

/// The root of the checkout.
#[must_use]
pub fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .canonicalize()
        .unwrap_or_else(|_| PathBuf::from("."))
}

/// Where cargo builds.
#[must_use]
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => workspace().join("target"),
    }
}

/// A binary of the workspace, built in the same profile as this program.
///
/// # Errors
/// Says which command builds it, where it is missing.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let mut folder = std::env::current_exe()?;
    folder.pop();
    // Test binaries are one level deeper.
    if folder.ends_with("deps") {
        folder.pop();
    }
    existing(folder.join(name), "make build")
}

/// A filter, by its file name without `.wasm`.
///
/// # Errors
/// Says which command builds it, where it is missing.
pub fn filter(name: &str) -> anyhow::Result<PathBuf> {
    existing(
        target().join("wasm").join(format!("{name}.wasm")),
        "make wasm",
    )
}

/// The virtual environment's Envoy.
///
/// # Errors
/// Says which command installs it, where it is missing.
pub fn envoy() -> anyhow::Result<PathBuf> {
    existing(workspace().join(".venv/bin/envoy"), "make setup")
}

/// The virtual environment's Python, which has the SDKs.
///
/// # Errors
/// Says which command installs it, where it is missing.
pub fn python() -> anyhow::Result<PathBuf> {
    existing(workspace().join(".venv/bin/python"), "make setup")
}

fn existing(path: PathBuf, command: &str) -> anyhow::Result<PathBuf> {
    if !path.exists() {
        bail!("{} is missing: run {command}", path.display());
    }
    Ok(path)
}
