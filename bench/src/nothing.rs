//! A filter that does nothing, to compare others with: what the first module costs
//! whichever it is.

use std::{fs, path::Path};

use serde_json::{Value, json};

/// As every wasm filter of Envoy begins.
const NOTHING: &str = r#"(module
  (memory (export "memory") 2)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 65536))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))"#;

/// The filter's configuration; its module is written to `folder`.
///
/// # Errors
/// Where it can't be.
pub fn filter(folder: &Path) -> anyhow::Result<Value> {
    let module = folder.join("nothing.wasm");
    fs::write(&module, wat::parse_str(NOTHING)?)?;
    Ok(json!({
        "name": "nothing",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "nothing",
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                },
            },
        },
    }))
}
