//! What the operator gets wrong is said by name, and nothing is served on it.

use std::{fs, process::Command};

use serde_json::{Value, json};
use weir_gateway_tests::Fixture;
use weir_harness::{envoy, paths};

/// Validates a changed configuration with Envoy; gives what it printed.
fn validate(change: impl FnOnce(&mut [Value]), environment: &[(&str, &str)]) -> (bool, String) {
    let f = Fixture::start();
    let mut config = envoy::configuration(&f.options).unwrap();
    let filters = config
        .pointer_mut(
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters",
        )
        .unwrap();
    change(filters.as_array_mut().unwrap());
    let path = f.folder.path().join("changed.json");
    fs::write(&path, config.to_string()).unwrap();
    let output = Command::new(paths::envoy().unwrap())
        .args(["--mode", "validate", "--config-path"])
        .arg(&path)
        .env("WEIR_CONTEXT_KEYS", &f.options.context_keys)
        .env("WEIR_INGEST_TOKEN", &f.options.ingest_token)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Puts `value` at `field` of the filter's own configuration.
fn set(filters: &mut [Value], filter: usize, field: &str, value: Value) {
    let text = &mut filters[filter]["typed_config"]["config"]["configuration"]["value"];
    let mut settings: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    settings[field] = value;
    *text = json!(settings.to_string());
}

#[test]
fn the_shipped_configuration_is_valid() {
    let (valid, log) = validate(|_| {}, &[]);
    assert!(valid, "{log}");
}

#[test]
fn a_wrong_field_is_named_and_refused() {
    for (filter, field, value) in [
        (0, "tenant", json!([])),
        (1, "gateways", json!(0)),
        (2, "max_body_bytes", json!(0)),
        (3, "flush_ms", json!(1)),
    ] {
        let (valid, log) = validate(|filters| set(filters, filter, field, value), &[]);
        assert!(!valid, "{field} was taken");
        assert!(log.contains(field), "{field} is not named:\n{log}");
    }
}

#[test]
fn a_secret_that_is_none_is_refused_and_not_shown() {
    let (valid, log) = validate(
        |_| {},
        &[("WEIR_CONTEXT_KEYS", "k1:c2VjcmV0LXRoYXQtaXMtc2hvcnQ")],
    );
    assert!(!valid);
    assert!(log.contains("WEIR_CONTEXT_KEYS"), "{log}");
    assert!(!log.contains("c2VjcmV0"), "a secret is in the log");
}

#[test]
fn plugin_configs_on_the_admin_port_hold_no_secret() {
    let f = Fixture::start();
    let dump = f
        .http
        .get(format!("{}/config_dump", f.gateway.admin))
        .send()
        .unwrap();
    let dump = dump.text().unwrap();
    assert!(dump.contains("weir.tenant_identification"));
    let (_, secret) = f.options.context_keys.split_once(':').unwrap();
    for secret in [secret, f.options.ingest_token.as_str(), f.key(0)] {
        assert!(!dump.contains(secret), "a secret is on the admin port");
    }
}
