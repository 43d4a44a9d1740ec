//! Kong's metadata against the filters' configs.

use weir_tidy::{files::File, manifests};

use crate::{check, check_found, repository};

#[test]
fn manifests_are_what_the_configs_are() {
    let filters = manifests::filters(repository());
    assert!(filters.len() >= 4, "{filters:?}");
    check(
        "kong/<filter>.meta.json has the fields of the filter's Config",
        &manifests::violations(repository()),
    );
}

const CORE: &str = r#"//! A core.
/// What the operator writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway.
    pub host: HostKind,
    /// How long.
    #[serde(default = "default_wait_ms")]
    pub wait_ms: u64,
    pub plans: BTreeMap<PlanName, Limit>,
}
#[serde(deny_unknown_fields)]
pub struct Limit { pub requests: NonZeroU32 }
"#;

const MANIFEST: &str = r#"{"config_schema": {
  "type": "object",
  "properties": {
    "host": {"enum": ["kong"]},
    "wait_ms": {"type": "integer"},
    "plans": {"type": "object", "patternProperties": {"^.$": {
      "type": "object",
      "properties": {"requests": {"type": "integer"}},
      "required": ["requests"],
      "additionalProperties": false
    }}}
  },
  "required": ["host", "plans"],
  "additionalProperties": false
}}"#;

fn sample(core: &str, manifest: &str) -> Vec<File> {
    vec![
        File::sample("plugins/a-b/filter/Cargo.toml", ""),
        File::sample("plugins/a-b/core/src/config.rs", core),
        File::sample("kong/a_b.meta.json", manifest),
    ]
}

#[test]
fn a_manifest_that_differs_is_found() {
    check_found(&manifests::violations(&sample(CORE, MANIFEST)), &[]);
    for (good, bad, message) in [
        ("\"wait_ms\"", "\"wait\"", "config_schema.properties"),
        ("\"kong\"", "\"envoy\", \"kong\"", "config_schema.host"),
        (
            "[\"host\", \"plans\"]",
            "[\"host\"]",
            "config_schema.required",
        ),
        (
            "{\"requests\"",
            "{\"request\"",
            "config_schema.plans.properties",
        ),
        ("[\"requests\"]", "[]", "config_schema.plans.required"),
        (
            ": false\n    }}}",
            ": true\n    }}}",
            "config_schema.plans.additionalProperties",
        ),
        (
            ": false\n}}",
            ": true\n}}",
            "config_schema.additionalProperties",
        ),
        ("{\"config_schema\"", "\"config_schema\"", "not JSON"),
    ] {
        let manifest = MANIFEST.replacen(good, bad, 1);
        assert_ne!(manifest, MANIFEST, "{good}");
        let found = manifests::violations(&sample(CORE, &manifest));
        assert!(
            found.len() == 1 && found[0].to_string().contains(message),
            "{message} in {found:#?}"
        );
    }
    let core = CORE.replace("wait_ms: u64", "wait_s: u64");
    check_found(
        &manifests::violations(&sample(&core, MANIFEST)),
        &[(0, "wait_s")],
    );
}

#[test]
fn a_manifest_too_few_or_too_many_is_found() {
    let mut files = sample(CORE, MANIFEST);
    files[2].path = "kong/a_c.meta.json".to_owned();
    check_found(
        &manifests::violations(&files),
        &[
            (0, "a_c.meta.json: no filter"),
            (0, "a_b.meta.json: is missing"),
        ],
    );
}
