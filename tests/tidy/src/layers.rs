//! Dependencies run one way: filter and server, then core, then contracts.

use crate::{
    Violation,
    cargo::{Graph, Kind},
};

/// The part that a package plays, by where it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// `contracts/*`: what the parts say to each other.
    Contracts,
    /// `pricing`: the price of tokens.
    Pricing,
    /// `*/core`: decides.
    Core,
    /// `process`: what every service does as a process.
    Process,
    /// `plugins/host`: byte-safe host calls.
    Host,
    /// `plugins/*/filter`: talks to the gateway.
    Filter,
    /// `plugins/suite`: the filters in one module.
    Suite,
    /// `plugins/trim`: readies built modules for a host.
    Trim,
    /// `router-service/retrieval`: vector stores.
    Retrieval,
    /// `router-service/store`: where the router counts, and how the directory's file
    /// is changed. `meter-aggregator/store`: the stream and the ledger.
    Store,
    /// `*/server`: talks to the network. `router-service/keys`: the commands that
    /// change the directory.
    Server,
    /// `tests/*`.
    Tests,
    /// `bench`.
    Bench,
}

use Layer::{
    Bench, Contracts, Core, Filter, Host, Pricing, Process, Retrieval, Server, Store, Suite, Tests,
    Trim,
};

impl Layer {
    /// Of the package in this directory.
    #[must_use]
    pub fn of(directory: &str) -> Option<Self> {
        let parts: Vec<&str> = directory.split('/').collect();
        match parts.as_slice() {
            ["contracts", _] => Some(Contracts),
            ["pricing"] => Some(Pricing),
            ["process"] => Some(Process),
            ["plugins", "host"] => Some(Host),
            ["plugins", "suite"] => Some(Suite),
            ["plugins", "trim"] => Some(Trim),
            ["plugins", _, "core"] | ["router-service" | "meter-aggregator", "core"] => Some(Core),
            ["plugins", _, "filter"] => Some(Filter),
            ["router-service", "retrieval"] => Some(Retrieval),
            ["router-service" | "meter-aggregator", "store"] => Some(Store),
            ["router-service" | "meter-aggregator", "server"] | ["router-service", "keys"] => {
                Some(Server)
            }
            ["tests", ..] => Some(Tests),
            ["bench", ..] => Some(Bench),
            _ => None,
        }
    }

    /// What it may depend on, in its tests and its build, too.
    fn may_use(self) -> &'static [Self] {
        match self {
            Contracts | Pricing | Host => &[Contracts],
            Process | Trim => &[],
            Core => &[Contracts, Pricing],
            Filter => &[Contracts, Pricing, Core, Host],
            Suite => &[Contracts, Pricing, Core, Host, Filter],
            Retrieval => &[Contracts, Core],
            Store => &[Contracts, Core, Process],
            Server => &[Contracts, Pricing, Core, Process, Retrieval, Store],
            Tests => &[
                Contracts, Pricing, Core, Process, Host, Filter, Suite, Retrieval, Store, Server,
                Tests,
            ],
            Bench => &[
                Contracts, Pricing, Core, Process, Host, Filter, Suite, Retrieval, Store, Server,
                Tests, Bench,
            ],
        }
    }
}

/// Dependencies between packages of the workspace that run the wrong way.
///
/// Each is judged by itself: where every step is allowed, so is every way.
#[must_use]
pub fn violations(graph: &Graph) -> Vec<Violation> {
    let mut found = Vec::new();
    for (_, package, directory) in graph.members() {
        let manifest = format!("{directory}/Cargo.toml");
        let Some(layer) = Layer::of(directory) else {
            found.push(Violation::new(
                manifest,
                0,
                "no layer has this directory; say which in tests/tidy/src/layers.rs",
            ));
            continue;
        };
        for (kind, id) in &package.dependencies {
            let Some((used, other)) = graph
                .packages
                .get(id)
                .and_then(|p| Some((p, p.directory.as_deref()?)))
            else {
                continue;
            };
            let allowed = Layer::of(other).is_some_and(|l| layer.may_use().contains(&l));
            let foreign =
                layer == Filter && Layer::of(other) == Some(Core) && !siblings(directory, other);
            if !allowed || foreign {
                found.push(Violation::new(
                    &manifest,
                    0,
                    format!(
                        "{} ({layer:?}) must not depend on {}, which is in {other} ({})",
                        package.name,
                        used.name,
                        match kind {
                            Kind::Normal => "dependencies",
                            Kind::Build => "build-dependencies",
                            Kind::Dev => "dev-dependencies",
                        },
                    ),
                ));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Whether two packages stand side by side, as `core` and `filter` do.
fn siblings(a: &str, b: &str) -> bool {
    let parent = |p: &str| p.rsplit_once('/').map(|(parent, _)| parent.to_owned());
    parent(a) == parent(b)
}
