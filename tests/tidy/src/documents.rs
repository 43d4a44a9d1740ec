//! Every path that a document names exists.

use std::collections::BTreeSet;

use pulldown_cmark::{Event, Parser, Tag};

use crate::{Violation, files::File, line_at};

/// The documents that the repository can't be without.
const NEEDED: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];

/// Built on demand, and so not in git.
const MADE: [&str; 2] = ["target", ".venv"];

/// Needed documents that are missing, and paths in documents that lead nowhere.
#[must_use]
pub fn violations(files: &[File]) -> Vec<Violation> {
    let tree = Tree::new(files);
    let mut found: Vec<Violation> = NEEDED
        .iter()
        .filter(|name| !tree.paths.contains(**name))
        .map(|name| Violation::new(*name, 0, "is missing"))
        .collect();
    let documents = files
        .iter()
        .filter(|f| NEEDED.contains(&f.path.as_str()) || f.path.ends_with("/README.md"));
    for document in documents {
        found.extend(in_document(document, &tree));
    }
    found
}

/// What exists: every file and every directory that holds one.
struct Tree {
    paths: BTreeSet<String>,
    top: BTreeSet<String>,
}

impl Tree {
    fn new(files: &[File]) -> Self {
        let mut paths = BTreeSet::new();
        let mut top = BTreeSet::new();
        for file in files {
            let mut path = file.path.as_str();
            paths.insert(path.to_owned());
            while let Some((parent, _)) = path.rsplit_once('/') {
                paths.insert(parent.to_owned());
                path = parent;
            }
            if path != file.path {
                top.insert(path.to_owned());
            }
        }
        Self { paths, top }
    }

    fn has(&self, pattern: &str) -> bool {
        let pattern = pattern.trim_end_matches('/');
        if pattern.contains('*') {
            let wanted: Vec<&str> = pattern.split('/').collect();
            self.paths.iter().any(|path| {
                let parts: Vec<&str> = path.split('/').collect();
                matches(&wanted, &parts)
            })
        } else {
            self.paths.contains(pattern)
        }
    }
}

fn in_document(document: &File, tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (event, range) in Parser::new(&document.text).into_offset_iter() {
        let line = line_at(&document.text, range.start);
        let home = directory(&document.path);
        let (named, beside) = match event {
            // A document beside the code may name it from where it stands.
            Event::Code(code) => (repository_paths(&code, tree), true),
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                (relative_link(&dest_url, home), false)
            }
            _ => continue,
        };
        for path in named {
            let from_here = join(home, &path).filter(|_| beside);
            if !tree.has(&path) && !from_here.is_some_and(|p| tree.has(&p)) {
                found.push(Violation::new(
                    &document.path,
                    line,
                    format!("{path} does not exist"),
                ));
            }
        }
    }
    found
}

/// The paths that a code span stands for, if it looks like one of this
/// repository; `{a,b}` stands for several.
fn repository_paths(code: &str, tree: &Tree) -> Vec<String> {
    let code = code.strip_prefix("./").unwrap_or(code);
    // `file.rs:12` and `file.rs::item` name the file.
    let code = code.split(':').next().unwrap_or(code);
    let Some((first, _)) = code.split_once('/') else {
        return Vec::new();
    };
    let skipped = code.contains(['<', ' ', '\n', '$', '(', '…']) || MADE.contains(&first);
    if skipped || !tree.top.contains(first) {
        return Vec::new();
    }
    expand(code)
}

/// `a{b,c}d` is `abd` and `acd`.
fn expand(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return vec![pattern.to_owned()];
    };
    let Some((choices, after)) = rest.split_once('}') else {
        return vec![pattern.to_owned()];
    };
    choices
        .split(',')
        .flat_map(|choice| expand(&format!("{before}{choice}{after}")))
        .collect()
}

/// The target of a link inside the repository, from its root.
fn relative_link(target: &str, directory: &str) -> Vec<String> {
    let path = target.split(['#', '?']).next().unwrap_or_default();
    let elsewhere = path.is_empty() || path.contains(':') || path.starts_with("//");
    if elsewhere {
        return Vec::new();
    }
    // A way out of the repository is reported as it was written.
    let path = join(directory, path).unwrap_or_else(|| path.to_owned());
    let made = MADE.iter().any(|m| path.split('/').next() == Some(m));
    if made { Vec::new() } else { vec![path] }
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Resolves `.` and `..`; `None` where they lead out of the repository.
fn join(directory: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = directory.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

/// `**` stands for any directories, `*` for anything in one name.
fn matches(wanted: &[&str], parts: &[&str]) -> bool {
    match (wanted, parts) {
        ([], []) => true,
        (["**", rest @ ..], _) => {
            matches(rest, parts) || matches!(parts, [_, after @ ..] if matches(wanted, after))
        }
        ([want, rest @ ..], [part, after @ ..]) => matches_name(want, part) && matches(rest, after),
        _ => false,
    }
}

fn matches_name(want: &str, name: &str) -> bool {
    match want.split_once('*') {
        None => want == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| at)
                .chain([tail.len()])
                .any(|at| tail.get(at..).is_some_and(|t| matches_name(rest, t)))
        }),
    }
}
