//! Every Envoy config is one that Envoy takes, with our filters loaded and
//! configured: `--mode validate` runs their `on_configure`.

use std::{io::Write as _, path::Path, process::Command};

use crate::{Violation, files::File};

/// What to do where a tool or a module is missing.
pub const ADVICE: &str = "run make setup wasm";

/// Where the shipped configs expect the filters.
const SHIPPED: &str = "/etc/weir/";

/// Where they write their logs, which Envoy opens to validate a config.
const LOGS: &str = "/var/log/weir/";

/// Keys and a token that are no secret, of the form that the filters ask for.
const ENVIRONMENT: [(&str, &str); 4] = [
    (
        "WEIR_CONTEXT_KEYS",
        "k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ),
    ("WEIR_DIRECTORY_TOKEN", "x"),
    ("WEIR_QUOTA_TOKEN", "x"),
    ("WEIR_INGEST_TOKEN", "x"),
];

/// What Envoy says against one config, with the filters that `make wasm` built.
#[must_use]
pub fn violations(root: &Path, config: &File) -> Vec<Violation> {
    let envoy = root.join(".venv/bin/envoy");
    let wasm = root.join("target/wasm");
    if !envoy.exists() {
        return vec![Violation::new(
            ".venv/bin/envoy",
            0,
            format!("is missing: {ADVICE}"),
        )];
    }
    let missing: Vec<Violation> = modules(&config.text)
        .into_iter()
        .filter(|name| !wasm.join(name).is_file())
        .map(|name| {
            Violation::new(
                format!("target/wasm/{name}"),
                0,
                format!("is missing: {ADVICE}"),
            )
        })
        .collect();
    if !missing.is_empty() {
        return missing;
    }
    let here = format!("{}/", wasm.display());
    match validate(&envoy, &config.text.replace(SHIPPED, &here)) {
        Ok(None) => Vec::new(),
        Ok(Some(said)) => vec![Violation::new(&config.path, 0, said)],
        Err(e) => vec![Violation::new(&config.path, 0, e.to_string())],
    }
}

/// The modules that a config loads.
fn modules(config: &str) -> Vec<String> {
    config
        .split(SHIPPED)
        .skip(1)
        .filter_map(|rest| {
            let name = rest.split_once(".wasm")?.0;
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            plain.then(|| format!("{name}.wasm"))
        })
        .collect()
}

/// What Envoy says, if it refuses.
fn validate(envoy: &Path, config: &str) -> std::io::Result<Option<String>> {
    let logs = tempfile::tempdir()?;
    let config = config.replace(LOGS, &format!("{}/", logs.path().display()));
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    file.write_all(config.as_bytes())?;
    let output = Command::new(envoy)
        .args([
            "--mode",
            "validate",
            "--log-level",
            "error",
            "--config-path",
        ])
        .arg(file.path())
        .envs(ENVIRONMENT)
        .output()?;
    if output.status.success() {
        return Ok(None);
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Some(said))
}
