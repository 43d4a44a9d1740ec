//! A core decides and sees no world: no host, no network, no clock, no
//! environment, no threads.

use crate::{
    Violation,
    cargo::Graph,
    files::File,
    layers::Layer,
    rust::{self, Path},
};

/// What no core reaches, be it by itself or over others, and what that is;
/// whatever is named like one of them with something after a dash or an
/// underscore counts, too.
#[rustfmt::skip] // one kind to a line
const FORBIDDEN: [(&str, &[&str]); 6] = [
    ("a host", &["proxy-wasm", "wasi", "wasip2", "wasip3"]),
    ("a runtime", &["tokio", "mio", "async-std", "async-io", "smol", "polling", "rayon"]),
    ("the network", &[
        "hyper", "reqwest", "axum", "tonic", "tower", "h2", "ureq", "curl", "isahc", "socket2",
        "tungstenite", "rustls", "native-tls", "openssl",
    ]),
    ("a store", &[
        "rusqlite", "libsqlite3-sys", "sqlx", "postgres", "redis", "rdkafka", "tempfile",
    ]),
    ("randomness", &["getrandom", "rand", "fastrand"]),
    ("the process", &["clap", "dotenvy", "nix", "signal-hook", "hostname"]),
];

/// Where the walk over the dependencies ends, and why what lies behind does no
/// harm. What a core could still do with them, the source rule refuses.
#[rustfmt::skip] // one package to a line
const TRUSTED: [(&str, &str); 5] = [
    ("jwt-simple", "draws random numbers to make keys and to sign, reads a clock for claims of its own"),
    ("superboring", "draws random numbers to make RSA keys and to sign"),
    ("p256", "draws random numbers to make keys"),
    ("ed25519-compact", "draws random numbers to make keys"),
    ("crypto-common", "draws random numbers to make keys, where another package turns that on"),
];

/// Whether a package of this directory must be pure.
#[must_use]
pub fn is_pure(directory: &str) -> bool {
    matches!(
        Layer::of(directory),
        Some(Layer::Core | Layer::Contracts | Layer::Pricing)
    )
}

/// What pure packages depend on and must not.
#[must_use]
pub fn dependency_violations(graph: &Graph) -> Vec<Violation> {
    let mut found = Vec::new();
    for (id, _, directory) in graph.members().filter(|(_, _, d)| is_pure(d)) {
        let is_trusted = |name: &str| TRUSTED.iter().any(|(trusted, _)| *trusted == name);
        for way in graph.reach_without(id, is_trusted).values() {
            if let Some(what) = way.last().and_then(|name| forbidden(name)) {
                found.push(Violation::new(
                    format!("{directory}/Cargo.toml"),
                    0,
                    format!("a core must not reach {what}: {}", way.join(" → ")),
                ));
            }
        }
    }
    found
}

fn forbidden(name: &str) -> Option<&'static str> {
    let is_like = |forbidden: &&str| {
        name.strip_prefix(*forbidden)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    };
    FORBIDDEN
        .iter()
        .find(|(_, names)| names.iter().any(is_like))
        .map(|(what, _)| *what)
}

/// What the source of pure packages names and must not. `build.rs` runs on the
/// builder's machine and is none of the core.
#[must_use]
pub fn source_violations(files: &[File]) -> Vec<Violation> {
    let pure: Vec<File> = files
        .iter()
        .filter(|f| {
            f.path
                .split_once("/src/")
                .is_some_and(|(directory, _)| is_pure(directory))
        })
        .cloned()
        .collect();
    let sources = match rust::shipped(&pure) {
        Ok(sources) => sources,
        Err(violation) => return vec![violation],
    };
    let mut found = Vec::new();
    for source in sources {
        for path in source.paths() {
            if let Some(why) = why_impure(&path) {
                found.push(Violation::new(
                    &source.path,
                    path.line,
                    format!("{}: {why}", path.segments.join("::")),
                ));
            }
        }
    }
    found
}

fn why_impure(path: &Path) -> Option<&'static str> {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["std", "env" | "net" | "fs" | "thread" | "process", ..] => {
            Some("a core sees no world; take it as an argument")
        }
        ["std", "time", "Duration", ..] => None,
        ["std", "time", ..] => Some("a core has no clock; take now_ms as an argument"),
        [
            "jwt_simple",
            "*" | "claims" | "prelude" | "reexports" | "token",
            ..,
        ]
        | ["superboring", "*" | "reexports", ..] => {
            Some("a core has no clock and no randomness; check a signature with the key alone")
        }
        [.., _, last] if last.starts_with("generate") || *last == "random" => {
            Some("a core draws no random numbers; it only verifies")
        }
        [.., _, "now"] => Some("a core has no clock; take now_ms as an argument"),
        _ if segments
            .iter()
            .any(|s| ["SystemTime", "Instant"].contains(s)) =>
        {
            Some("a core has no clock; take now_ms as an argument")
        }
        _ => None,
    }
}
