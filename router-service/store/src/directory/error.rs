//! Why the directory's file is not read or not changed.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;
use weir_router_core::directory::{change::ChangeError, file::FileError};

/// Why nothing came of it. No message holds a key or a hash of one.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// The change is not allowed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The file is not valid, or would not be.
    #[error("{}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field, what was found and what is allowed.
        source: FileError,
    },
    /// No version is left.
    #[error("{}: version: can grow no more", .0.display())]
    Full(PathBuf),
    /// The disk refuses: the file, its lock or its audit log.
    #[error("{}: cannot be {what}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Such as `read`.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// No key can be made.
    #[error("the machine has no randomness")]
    Random,
}

impl DirectoryError {
    pub(super) fn io(path: &Path, what: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io { path, what, source }
    }

    pub(super) fn invalid(path: &Path, source: FileError) -> Self {
        let path = path.to_owned();
        Self::Invalid { path, source }
    }
}
