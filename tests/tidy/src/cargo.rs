//! The workspace and its dependency graph, as cargo resolves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde::Deserialize;

use crate::Violation;

/// What a dependency is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The code itself.
    Normal,
    /// Its `build.rs`.
    Build,
    /// Its tests.
    Dev,
}

/// One package of the graph.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Relative to the root, for members of the workspace; else `None`.
    pub directory: Option<String>,
    /// Ids of what it depends on. Members list what they declare of the
    /// workspace, too, so that a feature that is off hides nothing.
    pub dependencies: BTreeSet<(Kind, String)>,
}

/// The packages by id.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Members and registry packages alike.
    pub packages: BTreeMap<String, Package>,
}

impl Graph {
    /// The members and their directories.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Package, &str)> {
        self.packages
            .iter()
            .filter_map(|(id, p)| Some((id.as_str(), p, p.directory.as_deref()?)))
    }

    /// All that `id` reaches over normal dependencies, each with the names on
    /// the way to it.
    #[must_use]
    pub fn reach(&self, id: &str) -> BTreeMap<String, Vec<String>> {
        self.reach_without(id, |_| false)
    }

    /// The same, without what is reached only through a package of which
    /// `is_end` says so by its name.
    #[must_use]
    pub fn reach_without(
        &self,
        id: &str,
        is_end: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, Vec<String>> {
        let mut found = BTreeMap::new();
        let mut todo = vec![(id.to_owned(), Vec::new())];
        while let Some((id, mut way)) = todo.pop() {
            let Some(package) = self.packages.get(&id) else {
                continue;
            };
            way.push(package.name.clone());
            if found.contains_key(&id) {
                continue;
            }
            for (kind, next) in &package.dependencies {
                if *kind == Kind::Normal && !is_end(&package.name) {
                    todo.push((next.clone(), way.clone()));
                }
            }
            found.insert(id, way);
        }
        found
    }
}

/// Asks cargo. Prefers what is downloaded; where some package for another
/// platform is not, asks again with the network.
///
/// # Errors
/// Where cargo fails or answers what this does not read.
pub fn metadata(root: &Path) -> Result<Graph, Violation> {
    let json = run(root, &["--offline"]).or_else(|_| run(root, &[]))?;
    parse(&json, root)
}

fn run(root: &Path, extra: &[&str]) -> Result<Vec<u8>, Violation> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root)
        .args(["metadata", "--format-version", "1"])
        .args(extra)
        .output()
        .map_err(|e| Violation::new("Cargo.toml", 0, format!("cargo metadata: {e}")))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Violation::new(
            "Cargo.toml",
            0,
            format!("cargo metadata: {why}"),
        ))
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct MetadataPackage {
    id: String,
    name: String,
    manifest_path: String,
    source: Option<String>,
    dependencies: Vec<Declared>,
}

#[derive(Deserialize)]
struct Declared {
    kind: Option<String>,
    path: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dep>,
}

#[derive(Deserialize)]
struct Dep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Deserialize)]
struct DepKind {
    kind: Option<String>,
}

fn kind(name: Option<&str>) -> Kind {
    match name {
        Some("dev") => Kind::Dev,
        Some("build") => Kind::Build,
        _ => Kind::Normal,
    }
}

/// Reads `cargo metadata --format-version 1`.
///
/// # Errors
/// Where it is not of that form.
pub fn parse(json: &[u8], root: &Path) -> Result<Graph, Violation> {
    let metadata: Metadata = serde_json::from_slice(json)
        .map_err(|e| Violation::new("Cargo.toml", 0, format!("cargo metadata: {e}")))?;
    let directory = |manifest: &str| {
        let parent = Path::new(manifest).parent()?.strip_prefix(root).ok()?;
        Some(parent.to_string_lossy().into_owned())
    };
    let by_directory: BTreeMap<String, String> = metadata
        .packages
        .iter()
        .filter(|p| p.source.is_none())
        .filter_map(|p| Some((directory(&p.manifest_path)?, p.id.clone())))
        .collect();
    let mut graph = Graph::default();
    for package in metadata.packages {
        let declared = package.dependencies.iter().filter_map(|d| {
            let path = Path::new(d.path.as_deref()?).strip_prefix(root).ok()?;
            let id = by_directory.get(path.to_str()?)?;
            Some((kind(d.kind.as_deref()), id.clone()))
        });
        let found = Package {
            name: package.name,
            directory: match package.source {
                None => directory(&package.manifest_path),
                Some(_) => None,
            },
            dependencies: declared.collect(),
        };
        graph.packages.insert(package.id, found);
    }
    for node in metadata.resolve.nodes {
        let Some(package) = graph.packages.get_mut(&node.id) else {
            continue;
        };
        for dep in node.deps {
            let kinds = dep.dep_kinds.iter().map(|k| kind(k.kind.as_deref()));
            package
                .dependencies
                .extend(kinds.map(|k| (k, dep.pkg.clone())));
        }
    }
    Ok(graph)
}
