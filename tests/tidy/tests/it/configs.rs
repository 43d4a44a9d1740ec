//! The configs that people copy.

use weir_tidy::{configs, envoy, files::File};

use crate::{check, check_found, repository};

#[test]
fn examples_parse() {
    let paths: Vec<&str> = configs::examples(repository())
        .map(|f| f.path.as_str())
        .collect();
    for path in [
        "envoy/weir.yaml",
        "kong/rate_limiting.meta.json",
        "meter-aggregator/examples/aggregator.yaml",
        "router-service/examples/directory.yaml",
        "router-service/examples/router.yaml",
    ] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    check(
        "every example is YAML or JSON; every wasm filter has FAIL_RELOAD, v8 and a JSON config",
        &configs::violations(repository()),
    );
}

#[test]
fn the_filters_of_the_examples_are_seen() {
    let weir = repository()
        .iter()
        .find(|f| f.path == "envoy/weir.yaml")
        .unwrap();
    let config = configs::parse(weir).unwrap();
    assert_eq!(configs::wasm_filters(&config).len(), 4);
}

const FILTER: &str = r#"
http_filters:
  - name: a
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
      config:
        name: weir.a
        failure_policy: FAIL_RELOAD
        vm_config: { runtime: envoy.wasm.runtime.v8 }
        configuration:
          "@type": type.googleapis.com/google.protobuf.StringValue
          value: '{"host":"envoy"}'
"#;

#[test]
fn a_filter_that_fails_open_is_found() {
    for (good, bad, message) in [
        ("", "", None),
        (
            "FAIL_RELOAD",
            "FAIL_OPEN",
            Some("FAIL_RELOAD, found \"FAIL_OPEN\""),
        ),
        (
            "        failure_policy: FAIL_RELOAD\n",
            "",
            Some("FAIL_RELOAD, found null"),
        ),
        ("runtime.v8", "runtime.wamr", Some("runtime.v8")),
        ("StringValue", "Struct", Some("StringValue")),
        (r#"{"host":"envoy"}"#, r#"{"host":"envoy"#, Some("not JSON")),
        (
            r#"{"host":"envoy"}"#,
            r#"{"host":"kong"}"#,
            Some("\"host\""),
        ),
    ] {
        let file = File::sample("envoy/a.yaml", &FILTER.replace(good, bad));
        let expected: Vec<(usize, &str)> = message.map(|m| (7, m)).into_iter().collect();
        check_found(&configs::violations(&[file]), &expected);
    }
}

#[test]
fn an_example_that_does_not_parse_is_found() {
    let files = [
        File::sample("envoy/a.yaml", "a: [1"),
        File::sample("router-service/examples/a.yaml", "a: 1\n b: 2"),
        File::sample("meter-aggregator/examples/a.yaml", "a: 'x"),
        File::sample("kong/a.meta.json", "{\n\"a\": }"),
        File::sample("elsewhere/a.yaml", "a: [1"),
    ];
    let found = configs::violations(&files);
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn envoy_takes_the_configs() {
    let mut found = Vec::new();
    for config in repository().iter().filter(|f| configs::is_envoy(f)) {
        found.extend(envoy::violations(&weir_tidy::root(), config));
    }
    check("every envoy/*.yaml passes envoy --mode validate", &found);
}

#[test]
fn a_config_that_envoy_refuses_is_found() {
    let weir = repository()
        .iter()
        .find(|f| f.path == "envoy/weir.yaml")
        .unwrap();
    for (good, bad, said) in [
        ("stat_prefix: tenants", "stat_prefx: tenants", "stat_prefx"),
        // Envoy runs the filters' own checks, too.
        ("\"timeout_ms\": 250", "\"timeot_ms\": 250", "timeot_ms"),
        (
            "cluster: weir_router\n",
            "cluster: weir_rooter\n",
            "weir_rooter",
        ),
    ] {
        assert!(weir.text.contains(good), "{good}");
        let file = File::sample("envoy/weir.yaml", &weir.text.replace(good, bad));
        let found = envoy::violations(&weir_tidy::root(), &file);
        check_found(&found, &[(0, said)]);
    }
}

#[test]
fn what_is_not_built_is_asked_for() {
    let nowhere = tempfile::tempdir().unwrap();
    let file = File::sample("envoy/a.yaml", "/etc/weir/a.wasm");
    check_found(
        &envoy::violations(nowhere.path(), &file),
        &[(0, "run make setup wasm")],
    );
    std::fs::create_dir_all(nowhere.path().join(".venv/bin")).unwrap();
    std::fs::write(nowhere.path().join(".venv/bin/envoy"), "").unwrap();
    check_found(
        &envoy::violations(nowhere.path(), &file),
        &[(0, "target/wasm/a.wasm: is missing: run make setup wasm")],
    );
}
