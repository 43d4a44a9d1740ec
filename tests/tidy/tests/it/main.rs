//! Each rule twice: over the repository, and over a sample that breaks it.
// Clippy knows tests by their attribute; here the helpers are tests, too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod configs;
mod dependencies;
mod documents;
mod imports;
mod manifests;
mod source;

use std::sync::OnceLock;

use weir_tidy::{
    Violation,
    files::{self, File},
};

/// The repository's files, read once.
fn repository() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| files::list(&weir_tidy::root()).unwrap_or_else(|v| panic!("{v}")))
}

/// The repository keeps the rule.
#[track_caller]
fn check(rule: &str, violations: &[Violation]) {
    let list: Vec<String> = violations.iter().map(|v| format!("  {v}")).collect();
    assert!(
        violations.is_empty(),
        "\nThe rule: {rule}.\n{} breaches:\n{}\n",
        list.len(),
        list.join("\n")
    );
}

/// A sample breaks the rule exactly so often, each time at the line and with
/// the words given.
#[track_caller]
fn check_found(violations: &[Violation], expected: &[(usize, &str)]) {
    let shown: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert_eq!(violations.len(), expected.len(), "{shown:#?}");
    for (line, words) in expected {
        assert!(
            violations
                .iter()
                .any(|v| v.line == *line && v.to_string().contains(words)),
            "none at line {line} with {words:?} in {shown:#?}"
        );
    }
}
