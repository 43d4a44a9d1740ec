//! Nothing in the repository names the machine it was made on, its registries,
//! or a secret.

use crate::{Violation, files::File};

/// Rule and needle. Put together here, so that this file does not hold one.
fn needles() -> Vec<(&'static str, String)> {
    let host = "a registry's host";
    [
        (host, ["index.crates", "io"]),
        (host, ["static.crates", "io"]),
        (host, ["registry.npmjs", "org"]),
        (host, ["registry.yarnpkg", "com"]),
        (host, ["files.pythonhosted", "org"]),
        (host, ["pypi", "org"]),
        (host, ["proxy.golang", "org"]),
        (host, ["deb.debian", "org"]),
        (host, ["archive.ubuntu", "com"]),
    ]
    .into_iter()
    .map(|(what, parts)| (what, parts.join(".")))
    .collect()
}

/// Lines that name what they must not.
#[must_use]
pub fn violations(files: &[File]) -> Vec<Violation> {
    let needles = needles();
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let mut report = |what: &str, which: &str| {
                found.push(Violation::new(
                    &file.path,
                    number.saturating_add(1),
                    format!("holds {what}: {which}"),
                ));
            };
            for (what, needle) in &needles {
                if line.contains(needle.as_str()) {
                    report(what, needle);
                }
            }
            for directory in ["root", "work"] {
                if names_directory(line, directory) {
                    report("a path of one machine", &format!("/{directory}/"));
                }
            }
            if holds_key(line, "AKIA", 16) {
                report("a secret", "an AWS access key id");
            }
            for kind in ["sk", "rk"] {
                if holds_key(line, &format!("{kind}_live_"), 8) {
                    report("a secret", "a live key of Stripe's");
                }
            }
            if line
                .split_once("-----BEGI")
                .is_some_and(|(_, rest)| rest.starts_with('N') && rest.contains("PRIVATE KEY"))
            {
                report("a secret", "a private key");
            }
        }
    }
    found
}

/// Whether an absolute path under that directory of `/` is in the line; a
/// longer path that merely goes through one of that name is not meant.
fn names_directory(line: &str, directory: &str) -> bool {
    let needle = format!("/{directory}/");
    line.match_indices(&needle).any(|(at, _)| {
        !line
            .get(..at)
            .and_then(|before| before.chars().next_back())
            .is_some_and(|c| c.is_alphanumeric() || ['.', '_', '-', '~', '}', '*'].contains(&c))
    })
}

/// That prefix and at least so many letters or digits; the prefix alone is what
/// a guard against such keys looks for.
fn holds_key(line: &str, prefix: &str, length: usize) -> bool {
    line.match_indices(prefix).any(|(at, start)| {
        line.get(at.saturating_add(start.len())..)
            .is_some_and(|rest| {
                rest.chars()
                    .take_while(char::is_ascii_alphanumeric)
                    .take(length)
                    .count()
                    == length
            })
    })
}
