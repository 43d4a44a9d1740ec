//! Who may depend on whom.

use std::sync::OnceLock;

use weir_tidy::{
    cargo::{self, Graph, Kind, Package},
    layers, purity,
};

use crate::{check, check_found};

fn graph() -> &'static Graph {
    static GRAPH: OnceLock<Graph> = OnceLock::new();
    GRAPH.get_or_init(|| cargo::metadata(&weir_tidy::root()).unwrap_or_else(|v| panic!("{v}")))
}

/// A graph of members, named by their directories, and of registry packages,
/// whose names have no slash.
fn sample(edges: &[(&str, Kind, &str)]) -> Graph {
    let mut graph = Graph::default();
    for (from, kind, to) in edges {
        for name in [from, to] {
            let package = Package {
                name: (*name).to_owned(),
                directory: name.contains('/').then(|| (*name).to_owned()),
                dependencies: [].into(),
            };
            graph.packages.entry((*name).to_owned()).or_insert(package);
        }
        let dependencies = &mut graph.packages.get_mut(*from).unwrap().dependencies;
        dependencies.insert((*kind, (*to).to_owned()));
    }
    graph
}

#[test]
fn the_graph_is_seen() {
    let members: Vec<&str> = graph().members().map(|(_, _, d)| d).collect();
    for directory in [
        "contracts/wire",
        "plugins/usage-events/filter",
        "tests/tidy",
    ] {
        assert!(members.contains(&directory), "{directory} in {members:?}");
    }
    let (id, ..) = graph()
        .members()
        .find(|(_, _, d)| *d == "plugins/usage-events/filter")
        .unwrap();
    let reached: Vec<String> = graph().reach(id).into_values().flatten().collect();
    for name in ["proxy-wasm", "weir-usage-events-core", "weir-wire"] {
        assert!(reached.iter().any(|r| r == name), "{name} in {reached:?}");
    }
    // A dev-dependency of weir-wire's is no part of what the filter ships.
    assert!(!reached.iter().any(|r| r == "proptest"), "{reached:?}");
}

#[test]
fn cores_reach_no_world() {
    check(
        "cores and contracts depend on no host, runtime, network, store, clock or randomness",
        &purity::dependency_violations(graph()),
    );
}

#[test]
fn a_core_that_reaches_the_world_is_found() {
    for forbidden in [
        "tokio",
        "tokio-util",
        "proxy-wasm",
        "getrandom",
        "rand_core",
        "axum-core",
    ] {
        let graph = sample(&[
            ("plugins/a/core", Kind::Normal, "contracts/wire"),
            ("contracts/wire", Kind::Normal, "innocent"),
            ("innocent", Kind::Normal, forbidden),
        ]);
        let way = format!("plugins/a/core → contracts/wire → innocent → {forbidden}");
        check_found(
            &purity::dependency_violations(&graph),
            &[(0, &way), (0, "contracts/wire/Cargo.toml")],
        );
    }
    let harmless = sample(&[
        ("plugins/a/core", Kind::Dev, "tokio"),
        ("plugins/a/core", Kind::Build, "tempfile"),
        ("plugins/a/core", Kind::Normal, "random-names"),
        ("plugins/a/filter", Kind::Normal, "proxy-wasm"),
    ]);
    check_found(&purity::dependency_violations(&harmless), &[]);
}

#[test]
fn what_only_verifies_may_know_how_to_sign() {
    for trusted in [
        "jwt-simple",
        "superboring",
        "p256",
        "ed25519-compact",
        "crypto-common",
    ] {
        let through = [
            ("plugins/a/core", Kind::Normal, trusted),
            (trusted, Kind::Normal, "elliptic-curve"),
            ("elliptic-curve", Kind::Normal, "getrandom"),
        ];
        check_found(&purity::dependency_violations(&sample(&through)), &[]);
        // Another way to the same package is found as ever.
        let beside = [
            through.as_slice(),
            &[("plugins/a/core", Kind::Normal, "elliptic-curve")],
        ];
        check_found(
            &purity::dependency_violations(&sample(&beside.concat())),
            &[(0, "plugins/a/core → elliptic-curve → getrandom")],
        );
    }
    for similar in ["p256-tokio", "jwt-simpler", "superboring-sys"] {
        let graph = sample(&[
            ("plugins/a/core", Kind::Normal, similar),
            (similar, Kind::Normal, "rand"),
        ]);
        check_found(&purity::dependency_violations(&graph), &[(0, similar)]);
    }
}

#[test]
fn dependencies_run_one_way() {
    check(
        "filter and server → core → contracts; a filter has no core but its own; \
         only tests and bench use tests",
        &layers::violations(graph()),
    );
}

#[test]
fn a_dependency_the_wrong_way_is_found() {
    for (from, to) in [
        ("plugins/a/filter", "plugins/b/filter"),
        ("plugins/a/filter", "plugins/b/core"),
        ("plugins/a/filter", "router-service/core"),
        ("plugins/host", "plugins/a/core"),
        ("plugins/a/core", "plugins/b/core"),
        ("plugins/a/core", "plugins/host"),
        ("plugins/a/core", "router-service/server"),
        ("contracts/wire", "router-service/core"),
        ("router-service/server", "plugins/a/filter"),
        ("router-service/server", "tests/fakes"),
        ("tests/harness", "bench/x"),
    ] {
        for kind in [Kind::Normal, Kind::Dev, Kind::Build] {
            let found = layers::violations(&sample(&[(from, kind, to)]));
            check_found(&found, &[(0, &format!("must not depend on {to}"))]);
        }
    }
    let found = layers::violations(&sample(&[("new/thing", Kind::Normal, "serde")]));
    check_found(&found, &[(0, "no layer")]);
}

#[test]
fn a_dependency_the_right_way_is_not() {
    let graph = sample(&[
        ("plugins/a/filter", Kind::Normal, "plugins/a/core"),
        ("plugins/a/filter", Kind::Normal, "plugins/host"),
        ("plugins/a/core", Kind::Normal, "contracts/wire"),
        ("contracts/wire", Kind::Normal, "contracts/dialects"),
        (
            "meter-aggregator/server",
            Kind::Normal,
            "meter-aggregator/core",
        ),
        ("router-service/keys", Kind::Normal, "router-service/core"),
        ("tests/pipeline", Kind::Dev, "tests/fakes"),
        ("bench/x", Kind::Normal, "tests/harness"),
    ]);
    check_found(&layers::violations(&graph), &[]);
}
