//! The directory's file on disk: one writer at a time, never half a file, and an
//! audit log of what was changed by whom.

mod error;
mod log;
mod place;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

pub use error::DirectoryError;

use sha2::{Digest as _, Sha256};
use weir_router_core::directory::{
    audit::{Actor, Entry, FileIs, State},
    change::{Change, Done},
    file::File,
    secret::Secret,
};
use weir_wire::{ids::PlanName, timestamp::Timestamp};

use self::{log::Log, place::beside};

/// The head of a new file.
const HEAD: &str = "\
# The tenants and their API keys, which the router serves to gateways. Written by
# weir-keys, which keeps this comment and no other. By hand: raise `version` with
# each change, and put a whole file in place of the old one (mv).
";

/// A directory's file, whether it exists or not.
#[derive(Debug, Clone)]
pub struct DirectoryFile {
    path: PathBuf,
    audit: PathBuf,
    /// The router's; not checked where there are none.
    plans: BTreeSet<PlanName>,
}

/// What a change came to.
pub struct Changed {
    /// What was done.
    pub done: Done,
    /// The file that has it.
    pub file: File,
}

/// A key that nobody has yet.
///
/// # Errors
/// [`DirectoryError::Random`], where the machine has no randomness.
pub fn new_secret() -> Result<Secret, DirectoryError> {
    Ok(Secret::of(random()?))
}

fn random<const N: usize>() -> Result<[u8; N], DirectoryError> {
    let mut random = [0_u8; N];
    getrandom::fill(&mut random).map_err(|_| DirectoryError::Random)?;
    Ok(random)
}

impl DirectoryFile {
    /// Names the file; a link is followed, so that what it leads to is replaced.
    /// The audit log is `<file>.audit.jsonl` where nothing else is said. A plan must
    /// be one of `plans`, where there are some.
    #[must_use]
    pub fn new(path: &Path, audit: Option<&Path>, plans: BTreeSet<PlanName>) -> Self {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let audit = audit.map_or_else(|| beside(&path, "audit.jsonl"), Path::to_owned);
        Self { path, audit, plans }
    }

    /// The plans that a tenant may be on; any where there are none.
    #[must_use]
    pub const fn plans(&self) -> &BTreeSet<PlanName> {
        &self.plans
    }

    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`DirectoryError`], where it can't be read or is not valid.
    pub fn read(&self) -> Result<File, DirectoryError> {
        let text = fs::read_to_string(&self.path).map_err(|e| self.failed("read", e))?;
        self.understand(&text)
    }

    fn failed(&self, what: &'static str, source: std::io::Error) -> DirectoryError {
        DirectoryError::io(&self.path, what, source)
    }

    fn understand(&self, text: &str) -> Result<File, DirectoryError> {
        let understood = File::parse(text).and_then(|file| {
            file.validate(&self.plans)?;
            Ok(file)
        });
        understood.map_err(|source| DirectoryError::invalid(&self.path, source))
    }

    /// Makes a change, alone with the file; where all is so already, the file is
    /// left as it is. What took effect is in the audit log, whenever this process
    /// is killed: see [`weir_router_core::directory::audit`].
    ///
    /// # Errors
    /// [`DirectoryError`]. Nothing was changed, unless the error is of the disk and
    /// came after the file was replaced; the audit log says which.
    pub fn change(
        &self,
        change: Change,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Changed, DirectoryError> {
        // Until the end: the file itself can be no lock, because it is replaced.
        let _lock = self.lock()?;
        let (head, mut file, before) = match fs::read_to_string(&self.path) {
            Ok(text) => {
                let file = self.understand(&text)?;
                let before = is(file.version, &text);
                (head(&text), file, before)
            }
            Err(error) if error.kind() == ErrorKind::NotFound && change.may_begin() => {
                let empty = File {
                    version: 0,
                    plans: BTreeMap::new(),
                    tenants: Vec::new(),
                };
                (HEAD.to_owned(), empty, is(0, ""))
            }
            Err(error) => return Err(self.failed("read", error)),
        };
        let mut done = change.apply(&mut file, now)?;
        if done.is_change() {
            file.version = file
                .version
                .checked_add(1)
                .ok_or_else(|| DirectoryError::Full(self.path.clone()))?;
            let yaml = file.validate(&self.plans).and_then(|()| file.to_yaml());
            let yaml = yaml.map_err(|e| DirectoryError::invalid(&self.path, e))?;
            let text = format!("{head}{yaml}");
            let entries = entries(&done, actor, now, before.version, is(file.version, &text))?;
            let mut log = Log::open(&self.audit, &self.path)?;
            log.intend(&before, &entries, now)?;
            self.replace(&text, &mut log, &entries, now, &mut done)?;
            done.notes
                .push(format!("{}: version {}", self.path.display(), file.version));
        }
        Ok(Changed { done, file })
    }

    fn lock(&self) -> Result<fs::File, DirectoryError> {
        let path = beside(&self.path, "lock");
        let lock = place::open_beside(&path, &self.path, |options| {
            options.write(true);
        });
        let lock = lock.map_err(|e| DirectoryError::io(&path, "opened", e))?;
        lock.lock()
            .map_err(|e| DirectoryError::io(&path, "locked", e))?;
        Ok(lock)
    }

    /// Replaces the file, and logs what came of that.
    fn replace(
        &self,
        text: &str,
        log: &mut Log,
        entries: &[Entry],
        now: Timestamp,
        done: &mut Done,
    ) -> Result<(), DirectoryError> {
        let written = place::replace(&self.path, text);
        let state = match &written {
            Ok(()) => State::Done,
            Err(_) => self.state_after(entries),
        };
        let told = log.turned(entries, state, now);
        written.map_err(|e| self.failed("written", e))?;
        if told.is_err() {
            let log = self.audit.display();
            done.notes.push(format!(
                "note: {log}: cannot be written any more; the next change logs that this one is done"
            ));
        }
        Ok(())
    }

    /// Where the file could not be written to its end, it may have been replaced all
    /// the same.
    fn state_after(&self, entries: &[Entry]) -> State {
        let Some(entry) = entries.first() else {
            return State::Unknown;
        };
        match fs::read_to_string(&self.path) {
            Ok(text) if entry.file_sha256 == sha256(&text) => State::Done,
            Ok(_) => State::Void,
            Err(e) if e.kind() == ErrorKind::NotFound => State::Void,
            Err(_) => State::Unknown,
        }
    }
}

fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is(version: u64, text: &str) -> FileIs {
    FileIs {
        version,
        sha256: sha256(text),
    }
}

/// The lines of a change that is about to be made.
fn entries(
    done: &Done,
    actor: &Actor,
    now: Timestamp,
    version_before: u64,
    after: FileIs,
) -> Result<Vec<Entry>, DirectoryError> {
    let change = hex(&random::<8>()?);
    let entry = |fact: &_| Entry {
        time: now,
        change: change.clone(),
        state: State::Intended,
        actor: actor.clone(),
        fact: Clone::clone(fact),
        version_before,
        version_after: after.version,
        file_sha256: after.sha256.clone(),
    };
    Ok(done.facts.iter().map(entry).collect())
}

/// The comment that a file begins with.
fn head(text: &str) -> String {
    text.split_inclusive('\n')
        .take_while(|line| line.trim().is_empty() || line.starts_with('#'))
        .collect()
}

#[cfg(test)]
mod tests;
