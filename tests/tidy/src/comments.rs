//! Every crate and every module says in its first line what it is for.

use crate::{Violation, files::File};

/// Rust files that do not start with a `//!` line that says something.
#[must_use]
pub fn violations(files: &[File]) -> Vec<Violation> {
    files
        .iter()
        .filter(|f| f.is_rust())
        .filter(|f| {
            f.text
                .lines()
                .next()
                .and_then(|first| first.strip_prefix("//!"))
                .is_none_or(|said| said.trim().is_empty())
        })
        .map(|f| Violation::new(&f.path, 1, "must start with //! and what it is for"))
        .collect()
}
