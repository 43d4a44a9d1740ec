//! A filter asks of its host only what `ARCHITECTURE.md` lists.

use std::{collections::BTreeSet, path::Path};

use wasmparser::{Parser, Payload};

use crate::{Violation, envoy::ADVICE, files::File};

/// Before the list in the document.
pub const BEGIN: &str = "<!-- wasm-imports:begin -->";

/// After it.
pub const END: &str = "<!-- wasm-imports:end -->";

/// The document that holds the list.
pub const DOCUMENT: &str = "ARCHITECTURE.md";

/// The `module.name`s that the document lists, one on each line of a list.
///
/// # Errors
/// Where the markers or the lines between them are not there.
pub fn allowed(document: Option<&File>) -> Result<BTreeSet<String>, Violation> {
    let Some(document) = document else {
        return Err(Violation::new(
            DOCUMENT,
            0,
            "is missing; it holds the list of what a filter may import",
        ));
    };
    let list = document
        .text
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END))
        .map(|(list, _)| list);
    let names: BTreeSet<String> = list
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let item = line.trim().strip_prefix(['-', '*'])?;
            item.split('`').nth(1).map(str::to_owned)
        })
        .collect();
    if names.is_empty() {
        return Err(Violation::new(
            &document.path,
            0,
            format!("lists nothing between {BEGIN} and {END}"),
        ));
    }
    Ok(names)
}

/// What the module `bytes` imports, as `module.name`.
///
/// # Errors
/// Where it is no WebAssembly module.
pub fn imports(path: &str, bytes: &[u8]) -> Result<BTreeSet<String>, Violation> {
    let wrong = |e: wasmparser::BinaryReaderError| Violation::new(path, 0, e.to_string());
    let mut found = BTreeSet::new();
    for payload in Parser::new(0).parse_all(bytes) {
        if let Payload::ImportSection(section) = payload.map_err(wrong)? {
            for import in section.into_imports() {
                let import = import.map_err(wrong)?;
                found.insert(format!("{}.{}", import.module, import.name));
            }
        }
    }
    Ok(found)
}

/// What the module imports and must not.
#[must_use]
pub fn violations(path: &str, bytes: &[u8], allowed: &BTreeSet<String>) -> Vec<Violation> {
    match imports(path, bytes) {
        Err(violation) => vec![violation],
        Ok(found) => found
            .difference(allowed)
            .map(|name| {
                Violation::new(
                    path,
                    0,
                    format!("imports {name}, which {DOCUMENT} does not allow"),
                )
            })
            .collect(),
    }
}

/// The modules that `make wasm` built, one for each of `filters`.
///
/// # Errors
/// Where one is missing.
pub fn built(root: &Path, filters: &[String]) -> Result<Vec<(String, Vec<u8>)>, Violation> {
    let mut found = Vec::new();
    for filter in filters {
        let path = format!("target/wasm/{filter}.wasm");
        let bytes = std::fs::read(root.join(&path))
            .map_err(|_| Violation::new(&path, 0, format!("is missing: {ADVICE}")))?;
        found.push((path, bytes));
    }
    Ok(found)
}
