//! Which exports a module can do without, and the module without them.

use std::{fs, path::Path};

use anyhow::Context as _;
use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{ExternalKind, Parser, Payload};

/// What Envoy calls for each request where it is exported, and the method of the
/// SDK's traits that stands behind each (proxy-wasm ABI 0.2.1).
const OPTIONAL: [(&str, &str); 7] = [
    ("proxy_on_request_body", "on_http_request_body"),
    ("proxy_on_request_trailers", "on_http_request_trailers"),
    ("proxy_on_response_headers", "on_http_response_headers"),
    ("proxy_on_response_body", "on_http_response_body"),
    ("proxy_on_response_trailers", "on_http_response_trailers"),
    ("proxy_on_done", "on_done"),
    ("proxy_on_log", "on_log"),
];

/// All Rust sources in a folder and below, as one text.
///
/// # Errors
/// Where one can't be read, or there is none.
pub fn sources(folder: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let source = fs::read_to_string(&path);
                text += &source.with_context(|| format!("cannot read {}", path.display()))?;
            }
        }
    }
    anyhow::ensure!(!text.is_empty(), "{} has no sources", folder.display());
    Ok(text)
}

/// The module without the callbacks that `sources` do not implement.
///
/// # Errors
/// Where `module` is no module.
pub fn trim(module: &[u8], sources: &str) -> anyhow::Result<Vec<u8>> {
    let mut trimmed = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        if let Payload::ExportSection(exports) = payload {
            let mut kept = ExportSection::new();
            for export in exports {
                let export = export?;
                if is_needed(export.name, sources) {
                    kept.export(export.name, kind(export.kind)?, export.index);
                }
            }
            trimmed.section(&kept);
        } else if let Some((id, range)) = payload.as_section() {
            let data = module.get(range).context("a section beyond the end")?;
            trimmed.section(&RawSection { id, data });
        }
    }
    Ok(trimmed.finish())
}

fn is_needed(export: &str, sources: &str) -> bool {
    OPTIONAL
        .iter()
        .find(|(name, _)| *name == export)
        .is_none_or(|(_, method)| sources.contains(&format!("fn {method}(")))
}

fn kind(kind: ExternalKind) -> anyhow::Result<ExportKind> {
    Ok(match kind {
        ExternalKind::Func => ExportKind::Func,
        ExternalKind::Table => ExportKind::Table,
        ExternalKind::Memory => ExportKind::Memory,
        ExternalKind::Global => ExportKind::Global,
        other => anyhow::bail!("an export of the kind {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // tests

    use super::*;

    fn exports(module: &[u8]) -> Vec<String> {
        Parser::new(0)
            .parse_all(module)
            .filter_map(|payload| match payload.unwrap() {
                Payload::ExportSection(section) => Some(section),
                _ => None,
            })
            .flatten()
            .map(|export| export.unwrap().name.to_owned())
            .collect()
    }

    #[test]
    fn a_callback_stays_where_a_source_implements_it() {
        let module = wat::parse_str(
            r#"(module
              (memory (export "memory") 1)
              (func (export "malloc") (param i32) (result i32) (i32.const 0))
              (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
              (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
              (func (export "proxy_on_log") (param i32)))"#,
        )
        .unwrap();
        let sources = "impl HttpContext for R { fn on_log(&mut self) {} } // on_http_response_body";
        let trimmed = trim(&module, sources).unwrap();
        assert_eq!(
            exports(&trimmed),
            [
                "memory",
                "malloc",
                "proxy_on_request_headers",
                "proxy_on_log"
            ]
        );
        wasmparser::validate(&trimmed).unwrap();
        assert_eq!(trim(&trimmed, sources).unwrap(), trimmed);
        assert!(trim(b"no module", sources).is_err());
    }

    #[test]
    fn the_sources_are_those_of_all_folders() {
        let text = sources(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(text.contains("fn is_needed(") && text.contains("fn main("));
        assert!(sources(Path::new("no/such/folder")).is_err());
    }
}
