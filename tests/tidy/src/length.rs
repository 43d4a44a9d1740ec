//! Files that one can read in one go.

use crate::{
    Violation,
    files::{File, has_extension},
};

/// From here on a file is worth splitting.
pub const LONG: usize = 400;

/// From here on it must be.
pub const TOO_LONG: usize = 600;

/// Source files with more than `limit` lines, tests included.
#[must_use]
pub fn longer_than(limit: usize, files: &[File]) -> Vec<Violation> {
    files
        .iter()
        .filter(|f| {
            ["rs", "proto", "py", "sh", "lua", "sql"]
                .iter()
                .any(|extension| has_extension(&f.path, extension))
        })
        .filter_map(|f| {
            let lines = f.text.lines().count();
            (lines > limit).then(|| {
                Violation::new(
                    &f.path,
                    0,
                    format!("{lines} lines; at most {LONG} are meant"),
                )
            })
        })
        .collect()
}
