//! What is served to gateways: the newest state, the one before it for those
//! that are reading it, and what changed since some earlier ones.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use thiserror::Error;
use weir_wire::{directory::Version, ids::TenantId, proto::directory as proto};

use super::snapshot::{Difference, Snapshot};

/// From how many earlier states changes are served; a gateway that holds an
/// older one gets the whole.
pub const HISTORY_MAX: usize = 16;

/// How many changed tenants of all those states together are remembered.
pub const HISTORY_TENANTS_MAX: usize = 20_000;

/// Why a new state of the directory is not served. The old one goes on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VersionError {
    /// Its number is lower than that of what is served.
    #[error("version: must be more than {served}, which is served, found {found}: raise version")]
    Lower {
        /// What is served.
        served: u64,
        /// What was offered.
        found: u64,
    },
    /// Its number is that of what is served, but not what it says.
    #[error("version: {number} is served already with other content: raise version")]
    SameNumber {
        /// Of both.
        number: u64,
    },
}

/// The state that a caller was reading is no longer there, or has no such page:
/// it begins again, without `reading`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("reading: this state or page is no longer there, begin again without it")]
pub struct Gone;

/// What came of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is what was served already.
    Same,
    /// It is served from now on.
    Changed {
        /// How many tenants differ, those that are gone included.
        tenants: usize,
    },
}

/// What changed from one state to the next.
#[derive(Debug, Clone)]
struct Step {
    from: Version,
    changed: Arc<[Difference]>,
    /// From there to the newest state; empty where the whole is smaller. Made
    /// when the first gateway asks, the same for the others.
    pages: OnceLock<Vec<Bytes>>,
}

/// One state with what leads to it.
#[derive(Debug)]
struct Edition {
    snapshot: Snapshot,
    unchanged: [Bytes; 1],
    /// Oldest first, each beginning where the one before ends.
    steps: VecDeque<Step>,
}

impl Edition {
    fn new(snapshot: Snapshot, steps: VecDeque<Step>) -> Self {
        Self {
            unchanged: [snapshot.unchanged()],
            snapshot,
            steps,
        }
    }

    /// All pages for a holder of that.
    fn pages(&self, held: Option<Version>) -> &[Bytes] {
        let whole = self.snapshot.pages();
        match held {
            None => whole,
            Some(held) if held == self.snapshot.version() => &self.unchanged,
            Some(held) => match self.steps.iter().position(|step| step.from == held) {
                Some(at) => self.changes(at).unwrap_or(whole),
                None => whole,
            },
        }
    }

    fn changes(&self, at: usize) -> Option<&[Bytes]> {
        let step = self.steps.get(at)?;
        let pages = step.pages.get_or_init(|| {
            let mut merged: BTreeMap<&TenantId, bool> = BTreeMap::new();
            for difference in self.steps.iter().skip(at).flat_map(|s| s.changed.iter()) {
                // What the first step says was there is what the holder has.
                merged.entry(&difference.id).or_insert(difference.was_there);
            }
            self.snapshot.changes(step.from, merged).unwrap_or_default()
        });
        (!pages.is_empty()).then_some(pages)
    }
}

/// The newest state of the directory and what leads to it.
#[derive(Debug)]
pub struct Served {
    newest: Edition,
    /// For callers in the middle of its pages.
    previous: Option<Edition>,
}

impl Served {
    /// Begins with that state.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            newest: Edition::new(snapshot, VecDeque::new()),
            previous: None,
        }
    }

    /// The newest state.
    #[must_use]
    pub const fn newest(&self) -> &Snapshot {
        &self.newest.snapshot
    }

    /// Serves a newer state from now on.
    ///
    /// # Errors
    /// [`VersionError`] where its number does not say that it is newer.
    pub fn offer(&mut self, snapshot: Snapshot) -> Result<Offered, VersionError> {
        let served = self.newest().version();
        let found = snapshot.version();
        if found == served {
            return Ok(Offered::Same);
        }
        if found.number < served.number {
            return Err(VersionError::Lower {
                served: served.number,
                found: found.number,
            });
        }
        if found.number == served.number {
            return Err(VersionError::SameNumber {
                number: found.number,
            });
        }
        let changed: Arc<[Difference]> = snapshot.differences(self.newest()).into();
        let tenants = changed.len();
        let mut steps: VecDeque<Step> = self
            .newest
            .steps
            .iter()
            .map(|step| (step.from, Arc::clone(&step.changed)))
            .chain([(served, changed)])
            .map(|(from, changed)| Step {
                from,
                changed,
                pages: OnceLock::new(),
            })
            .collect();
        let remembered = |steps: &VecDeque<Step>| {
            let lengths = steps.iter().map(|step| step.changed.len());
            lengths.fold(0, usize::saturating_add)
        };
        while steps.len() > HISTORY_MAX || remembered(&steps) > HISTORY_TENANTS_MAX {
            steps.pop_front();
        }
        let newest = Edition::new(snapshot, steps);
        self.previous = Some(std::mem::replace(&mut self.newest, newest));
        Ok(Offered::Changed { tenants })
    }

    /// The page that a caller asks for.
    ///
    /// # Errors
    /// [`Gone`] where that state is neither the newest nor the one before it, or
    /// has no such page.
    pub fn answer(&self, request: &proto::SnapshotRequest) -> Result<Bytes, Gone> {
        let edition = match request.reading.map(Version::from) {
            None => &self.newest,
            Some(reading) => [Some(&self.newest), self.previous.as_ref()]
                .into_iter()
                .flatten()
                .find(|edition| edition.snapshot.version() == reading)
                .ok_or(Gone)?,
        };
        let page = usize::try_from(request.page).map_err(|_| Gone)?;
        // A page that is not the first belongs to a state that was named.
        if page > 0 && request.reading.is_none() {
            return Err(Gone);
        }
        let pages = edition.pages(request.held.map(Version::from));
        pages.get(page).cloned().ok_or(Gone)
    }
}

#[cfg(test)]
mod tests;
