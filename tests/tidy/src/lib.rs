//! The rules of the house, as tests.
//!
//! Each module holds one rule as a function from what is to be judged to a list
//! of [`Violation`]s. `tests/it` runs each twice: over the repository, where the
//! list must be empty, and over a sample that breaks the rule, where it must not.

use std::{fmt, path::PathBuf};

pub mod cargo;
pub mod files;
pub mod rust;

pub mod layers;
pub mod purity;

pub mod comments;
pub mod documents;
pub mod header_names;
pub mod length;
pub mod secrets;

pub mod configs;
pub mod envoy;
pub mod imports;
pub mod manifests;

/// One breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The file, relative to the repository's root.
    pub file: String,
    /// From 1; 0 where the whole file is meant.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Violation {
    /// One at a line of a file.
    #[must_use]
    pub fn new(file: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// The repository's root: two levels above this crate.
#[must_use]
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(&here).to_owned()
}

/// The line, from 1, on which the byte at `offset` stands.
#[must_use]
pub fn line_at(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|b| *b == b'\n')
        .count()
        .saturating_add(1)
}
