//! Whether a file changed, without reading it.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    /// Catches a copy that kept the times of its original.
    changed: (i64, i64),
}

impl Stamp {
    /// Of that file, if it is there.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            inode: found.ino(),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}
