//! Every example config that ships parses, and every wasm filter in one fails
//! the safe way.

use serde_json::Value;

use crate::{
    Violation,
    files::{File, has_extension},
};

/// The files that people copy.
pub fn examples(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|f| {
        let yaml = has_extension(&f.path, "yaml") || has_extension(&f.path, "yml");
        let json = has_extension(&f.path, "json");
        (yaml && (is_envoy(f) || f.path.contains("/examples/")))
            || ((yaml || json) && f.path.starts_with("kong/"))
    })
}

/// Whether it is a config for Envoy.
#[must_use]
pub fn is_envoy(file: &File) -> bool {
    file.path.starts_with("envoy/") && has_extension(&file.path, "yaml")
}

/// What does not parse, and wasm filters in Envoy's configs that would not
/// fail closed and come back.
#[must_use]
pub fn violations(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in examples(files) {
        match parse(file) {
            Err(violation) => found.push(violation),
            Ok(config) if is_envoy(file) => {
                for filter in wasm_filters(&config) {
                    found.extend(in_filter(file, filter));
                }
            }
            Ok(_) => {}
        }
    }
    found
}

/// Reads YAML or JSON.
///
/// # Errors
/// Where it is neither.
pub fn parse(file: &File) -> Result<Value, Violation> {
    if has_extension(&file.path, "json") {
        serde_json::from_str(&file.text)
            .map_err(|e| Violation::new(&file.path, e.line(), format!("not JSON: {e}")))
    } else {
        serde_saphyr::from_str(&file.text)
            .map_err(|e| Violation::new(&file.path, 0, format!("not YAML: {e}")))
    }
}

/// Every wasm filter's `typed_config`, wherever it stands.
#[must_use]
pub fn wasm_filters(config: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    let is_wasm = config
        .get("@type")
        .and_then(Value::as_str)
        .is_some_and(|t| t.contains(".wasm.v3.Wasm"));
    if is_wasm {
        found.push(config);
    }
    match config {
        Value::Array(items) => found.extend(items.iter().flat_map(wasm_filters)),
        Value::Object(members) => found.extend(members.values().flat_map(wasm_filters)),
        _ => {}
    }
    found
}

fn in_filter(file: &File, filter: &Value) -> Vec<Violation> {
    let text = |pointer: &str| filter.pointer(pointer).and_then(Value::as_str);
    let name = text("/config/name").unwrap_or("a wasm filter without a name");
    // YAML values have no lines; the name does.
    let line = file
        .text
        .find(&format!("name: {name}"))
        .map_or(0, |offset| crate::line_at(&file.text, offset));
    let mut found = Vec::new();
    for (field, expected) in [
        ("/config/failure_policy", "FAIL_RELOAD"),
        ("/config/vm_config/runtime", "envoy.wasm.runtime.v8"),
        (
            "/config/configuration/@type",
            "type.googleapis.com/google.protobuf.StringValue",
        ),
    ] {
        if text(field) != Some(expected) {
            let shown = filter.pointer(field).unwrap_or(&Value::Null);
            found.push(Violation::new(
                &file.path,
                line,
                format!("{name}: {field} must be {expected}, found {shown}"),
            ));
        }
    }
    let value = text("/config/configuration/value").unwrap_or_default();
    match serde_json::from_str::<Value>(value) {
        Ok(config) if config.get("host").and_then(Value::as_str) == Some("envoy") => {}
        Ok(_) => found.push(Violation::new(
            &file.path,
            line,
            format!("{name}: its configuration must have \"host\": \"envoy\""),
        )),
        Err(e) => found.push(Violation::new(
            &file.path,
            line,
            format!("{name}: its configuration is not JSON: {e}"),
        )),
    }
    found
}
