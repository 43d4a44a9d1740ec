//! One process to a spool: a lock that ends with its process, however that ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use super::SpoolError;

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "dropping it gives the lock up")] File);

impl Lock {
    /// Of the file beside `path`: SQLite locks that one itself.
    pub(super) fn take(path: &Path) -> Result<Self, SpoolError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let open = |e| SpoolError::Open(path.to_owned(), e);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&beside)
            .map_err(open)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(SpoolError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(open(error)),
        }
    }
}
