//! How a log is doing, for the operator.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use super::follower::Block;

/// What `status` says of a log; counts are since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogStatus {
    /// Which.
    pub path: String,
    /// Nothing is there yet.
    pub is_waiting: bool,
    /// Bytes that were read and are accounted for.
    pub bytes: u64,
    /// Bytes that are not read yet.
    pub behind_bytes: u64,
    /// Events that were read.
    pub events: u64,
    /// Parts that were set aside because they are no events.
    pub torn: u64,
    /// Why it can't be read just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// That something of it was lost, until the next start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<String>,
}

/// The state of one log, shared by who reads and who asks.
#[derive(Debug, Default)]
pub struct LogState {
    /// Which log.
    pub path: PathBuf,
    status: Mutex<LogStatus>,
}

impl LogState {
    /// Of that log.
    pub fn new(path: PathBuf) -> Self {
        let status = LogStatus {
            path: path.display().to_string(),
            ..LogStatus::default()
        };
        Self {
            path,
            status: Mutex::new(status),
        }
    }

    /// As it is now.
    pub fn status(&self) -> LogStatus {
        self.lock().clone()
    }

    /// Takes note of a block.
    pub(super) fn read(&self, block: &Block) {
        let mut status = self.lock();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        status.events = status.events.saturating_add(count(block.events.len()));
        status.torn = status.torn.saturating_add(count(block.aside.len()));
        status.bytes = status.bytes.saturating_add(block.bytes);
    }

    /// Says how much is left, and whether there is a file at all; said once in the log.
    pub(super) fn behind(&self, bytes: u64, is_waiting: bool) {
        let mut status = self.lock();
        status.behind_bytes = bytes;
        if is_waiting && !status.is_waiting {
            tracing::info!(path = %status.path, "the access log is not there yet");
        }
        status.is_waiting = is_waiting;
    }

    /// It can't be read; said once in the log.
    pub(super) fn failed(&self, error: &str) {
        let mut status = self.lock();
        if status.error.as_deref() != Some(error) {
            tracing::error!(path = %status.path, error, "an access log can't be read; it is tried again");
            status.error = Some(error.to_owned());
        }
    }

    /// It can be read.
    pub(super) fn is_well(&self) {
        self.lock().error = None;
    }

    /// A file was cut under the reader.
    pub(super) fn truncated(&self, what: &str) {
        tracing::error!(
            "{what}: what was not read of it is lost; rotate by rename, not by copytruncate"
        );
        self.lock().truncated = Some(what.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, LogStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
