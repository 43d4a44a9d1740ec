//! The audit log of the directory: who changed what, one JSON object in a line.
//!
//! Each change is written twice. A line with the state `intended` is on disk before
//! the file is replaced, so no change that took effect can be missing; the same line
//! with `done` follows. A writer that is killed in between leaves the last change
//! open, and the next one, which is alone with file and log, says what became of it:
//! `done` where the file is the one that was intended, `void` where it is still of
//! the version before, and `unknown` where it is neither, because somebody wrote it
//! by hand meanwhile. A line that was torn ends where the next begins, and is not
//! JSON: readers pass over it, for nothing follows an intent that is not whole.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use weir_wire::{
    ids::{KeyName, PlanName, TenantId},
    timestamp::Timestamp,
};

use crate::{allowance::Allowance, quota::Limits};

/// The longest name of an actor, in bytes.
const ACTOR_MAX_BYTES: usize = 256;

/// How much of a log's end holds the last change: its lines, a torn one, and the
/// rest of the line before. A tenant's limits take less than 8 KiB of a line.
pub const TAIL_BYTES: u64 = 64 << 10;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A tenant was added.
    #[serde(rename = "tenant.create")]
    TenantCreate,
    /// Its keys are refused from now on.
    #[serde(rename = "tenant.suspend")]
    TenantSuspend,
    /// They are taken again.
    #[serde(rename = "tenant.resume")]
    TenantResume,
    /// It was put on another plan.
    #[serde(rename = "tenant.plan")]
    TenantPlan,
    /// It has other limits.
    #[serde(rename = "tenant.limits")]
    TenantLimits,
    /// It is allowed other amounts.
    #[serde(rename = "tenant.allowance")]
    TenantAllowance,
    /// A key was made.
    #[serde(rename = "key.make")]
    KeyMake,
    /// A key was made in the place of another, which ends.
    #[serde(rename = "key.rotate")]
    KeyRotate,
    /// A key is refused for good.
    #[serde(rename = "key.revoke")]
    KeyRevoke,
}

/// One thing that changed. Holds no key and no hash of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What was done.
    pub action: Action,
    /// To whom.
    pub tenant: TenantId,
    /// The plan that it has now, where that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanName>,
    /// Its own limits, where they changed; absent where they are its plan's now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// All that it is allowed of its own, where that changed; a bound that is absent
    /// is its plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<Allowance>,
    /// The key's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyName>,
    /// The key's first characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The name of the key that it takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<KeyName>,
}

impl Fact {
    /// Of a tenant as a whole.
    #[must_use]
    pub fn new(action: Action, tenant: &TenantId) -> Self {
        Self {
            action,
            tenant: tenant.clone(),
            plan: None,
            limits: None,
            allowance: None,
            key: None,
            prefix: None,
            replaces: None,
        }
    }
}

/// Why somebody cannot be named in the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("actor: must be 1 to {ACTOR_MAX_BYTES} bytes, found {found}")]
pub struct ActorError {
    /// How many there are.
    pub found: usize,
}

/// Who makes a change, such as `cli:ann` or `service:console`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Actor(String);

impl Actor {
    /// The user of a command line, by name or number.
    ///
    /// # Errors
    /// [`ActorError`], where the name is empty or too long.
    pub fn cli(user: &str) -> Result<Self, ActorError> {
        Self::new("cli", user)
    }

    /// The one whom a service's credential names.
    ///
    /// # Errors
    /// [`ActorError`], where the name is empty or too long.
    pub fn service(name: &str) -> Result<Self, ActorError> {
        Self::new("service", name)
    }

    fn new(kind: &str, name: &str) -> Result<Self, ActorError> {
        let found = name.len();
        (1..=ACTOR_MAX_BYTES)
            .contains(&found)
            .then(|| Self(format!("{kind}:{name}")))
            .ok_or(ActorError { found })
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is about to be made.
    Intended,
    /// It took effect.
    Done,
    /// It did not.
    Void,
    /// Nobody can tell any more.
    Unknown,
}

/// The file as it is: what tells whether a change took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileIs {
    /// Its number; 0 where there is none.
    pub version: u64,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When the line was written.
    pub time: Timestamp,
    /// Names the change, at random; lines of one change have the same.
    pub change: String,
    /// What became of it by then.
    pub state: State,
    /// Who made it.
    pub actor: Actor,
    /// What changed.
    #[serde(flatten)]
    pub fact: Fact,
    /// The file's version before the change.
    pub version_before: u64,
    /// The version that has it.
    pub version_after: u64,
    /// SHA-256 of the whole file that has it, in hexadecimal digits.
    pub file_sha256: String,
}

impl Entry {
    /// The same, as it turned out.
    #[must_use]
    pub fn turned(&self, state: State, time: Timestamp) -> Self {
        Self {
            state,
            time,
            ..self.clone()
        }
    }

    /// What became of it where the file is that one now.
    #[must_use]
    pub fn outcome(&self, file: &FileIs) -> State {
        if file.sha256 == self.file_sha256 {
            State::Done
        } else if file.version == self.version_before {
            State::Void
        } else {
            State::Unknown
        }
    }
}

/// The lines of the change that is still open at the end of a log.
#[must_use]
pub fn open(tail: &[u8]) -> Vec<Entry> {
    let mut open: Vec<Entry> = Vec::new();
    for line in tail.split(|byte| *byte == b'\n') {
        let Ok(entry) = serde_json::from_slice::<Entry>(line) else {
            continue;
        };
        match entry.state {
            State::Intended => {
                if open.first().is_some_and(|o| o.change != entry.change) {
                    open.clear();
                }
                open.push(entry);
            }
            _ => open.retain(|o| o.change != entry.change || o.fact != entry.fact),
        }
    }
    open
}

/// Lines to append to a log that ends so: a torn line is ended first.
///
/// # Errors
/// Where an entry cannot be written as JSON, which is not known to be.
pub fn lines(tail: &[u8], entries: &[Entry]) -> Result<Vec<u8>, serde_json::Error> {
    let mut lines = Vec::new();
    if tail.last().is_some_and(|byte| *byte != b'\n') {
        lines.push(b'\n');
    }
    for entry in entries {
        serde_json::to_writer(&mut lines, entry)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests;
