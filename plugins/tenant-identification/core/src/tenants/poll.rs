//! One poll of the router, by the worker that holds the lease: what to ask, what
//! to make of an answer, where its pages go.

use prost::Message as _;
use thiserror::Error;
use weir_wire::{
    directory::{PAGE_MAX_BYTES, Page, PageError, Version},
    proto::directory::SnapshotRequest,
};

use super::board::{Head, Names, Published, Slot};
use crate::board::Board;

/// Changes are kept as pages behind the whole directory; of more than these the
/// whole is read again, so that a worker that joins has a bound on what it reads.
pub const LOG_PAGES_MAX: u32 = 64;

/// How often one poll may begin again before it is given up.
const RESTARTS_MAX: u32 = 3;

/// What to ask the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The version that changes may start from.
    pub held: Option<Version>,
    /// The version whose pages are being read; `None` for the first.
    pub reading: Option<Version>,
    /// Which page, from 0.
    pub page: u32,
    /// All that as an encoded `SnapshotRequest`.
    pub body: Vec<u8>,
    /// To be given back with the answer.
    pub ticket: u64,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A body with status 200.
    Page(&'a [u8]),
    /// The router does not serve that version's pages any more.
    Gone,
    /// Anything else, a timeout too.
    Failed,
}

/// How a poll ended, for the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Outcome {
    /// The router has nothing newer.
    #[error("the directory is unchanged")]
    Unchanged,
    /// A whole directory is published to all workers.
    #[error("directory {} came whole in {pages} pages", version.number)]
    Whole {
        /// Its version.
        version: Version,
        /// Its pages.
        pages: u32,
    },
    /// Changes are published to all workers.
    #[error("directory {} came as changes in {pages} pages", version.number)]
    Changes {
        /// Where they lead.
        version: Version,
        /// Their pages.
        pages: u32,
    },
    /// The router has an older directory than the gateway: refused.
    #[error("the router offers directory {offered}, older than {held} that is held")]
    Older {
        /// The router's number.
        offered: u64,
        /// The gateway's.
        held: u64,
    },
    /// A page does not decode.
    #[error("a page is not understood: {0}")]
    Unreadable(#[from] PageError),
    /// A page has more bytes than [`PAGE_MAX_BYTES`].
    #[error("a page of {bytes} bytes is beyond the bound")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// A page is not the one that was asked for.
    #[error("the router sent another page than it was asked for")]
    Unasked,
    /// The directory changed again and again while its pages were read.
    #[error("the directory changed while it was read")]
    Gone,
    /// The request failed.
    #[error("the request failed")]
    Failed,
    /// Another worker has taken over, as this one took too long.
    #[error("another worker polls in the place of this one")]
    LeaseLost,
    /// The shared data refused a write; it may be full.
    #[error("a page could not be shared with the other workers")]
    NotShared,
}

impl Outcome {
    /// Whether the gateway has the router's newest directory.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(
            self,
            Self::Unchanged | Self::Whole { .. } | Self::Changes { .. }
        )
    }

    /// What it makes of the head. The poll's start counts as its time: what came
    /// is at least that new.
    pub(super) fn settle(&self, head: &mut Head) {
        head.deadline_ms = 0;
        if self.is_success() {
            head.polled_at_ms = head.asked_at_ms;
        }
        match (self, &mut head.published) {
            (Self::Whole { version, pages }, published) => {
                let area = published.map_or(0, |p| p.area ^ 1);
                *published = Some(Published {
                    epoch: head.lease,
                    area,
                    base: *pages,
                    count: *pages,
                    version: *version,
                });
                head.whole_wanted = false;
            }
            (Self::Changes { version, pages }, Some(published)) => {
                published.count = published.count.saturating_add(*pages);
                published.version = *version;
            }
            _ => {}
        }
    }
}

/// The answer that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    version: Version,
    base: Option<Version>,
    pages: u32,
}

/// A poll under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Poll {
    holder: u64,
    lease: u64,
    held: Option<Version>,
    reading: Option<Reading>,
    next: u32,
    restarts: u32,
}

impl Poll {
    /// Under the lease that `head` gives.
    pub(super) fn begin(head: &Head) -> Self {
        let held = head.published.map(|p| p.version);
        Self {
            holder: head.holder,
            lease: head.lease,
            held: held.filter(|_| !head.whole_wanted),
            reading: None,
            next: 0,
            restarts: 0,
        }
    }

    /// Whether the lease is still this poll's.
    pub(super) fn owns(&self, head: &Head) -> bool {
        (head.lease, head.holder) == (self.lease, self.holder) && head.deadline_ms > 0
    }

    pub(super) fn request(&self, ticket: u64) -> Request {
        let reading = self.reading.map(|reading| reading.version);
        let body = SnapshotRequest {
            held: self.held.map(Into::into),
            reading: reading.map(Into::into),
            page: self.next,
        };
        Request {
            held: self.held,
            reading,
            page: self.next,
            body: body.encode_to_vec(),
            ticket,
        }
    }

    /// Takes an answer; the outcome if the poll is over, none if there is more
    /// to ask.
    pub(super) fn answered(
        &mut self,
        board: &impl Board,
        (names, fixed): (&Names, bool),
        head: &Head,
        answer: Answer<'_>,
    ) -> Option<Outcome> {
        let bytes = match answer {
            Answer::Page(bytes) => bytes,
            Answer::Gone => return self.restart(self.held),
            Answer::Failed => return Some(Outcome::Failed),
        };
        if bytes.len() > PAGE_MAX_BYTES {
            return Some(Outcome::TooLarge { bytes: bytes.len() });
        }
        let page = match Page::decode(bytes) {
            Ok(page) => page,
            Err(error) => return Some(error.into()),
        };
        let reading = Reading {
            version: page.version,
            base: page.base,
            pages: page.pages,
        };
        if page.page != self.next || self.reading.is_some_and(|r| r != reading) {
            return Some(Outcome::Unasked);
        }
        if self.reading.is_none() {
            if let Some(over) = self.first(head, reading) {
                return Some(over);
            }
            if reading.base.is_some() && log_is_full(head, reading.pages) {
                return self.restart(None);
            }
        }
        if !self.share(board, (names, fixed), head, &page, bytes) {
            return Some(Outcome::NotShared);
        }
        self.reading = Some(reading);
        self.next = self.next.saturating_add(1);
        (self.next == reading.pages).then_some(match reading.base {
            None => Outcome::Whole {
                version: reading.version,
                pages: reading.pages,
            },
            Some(_) => Outcome::Changes {
                version: reading.version,
                pages: reading.pages,
            },
        })
    }

    /// Whether the first page of an answer ends the poll.
    fn first(&self, head: &Head, reading: Reading) -> Option<Outcome> {
        let published = head.published.map(|p| p.version);
        if let Some(held) = published.filter(|held| reading.version.number < held.number) {
            return Some(Outcome::Older {
                offered: reading.version.number,
                held: held.number,
            });
        }
        let is_held = self.held == Some(reading.version);
        match reading.base {
            // A router that sends everything although nothing changed.
            None => is_held.then_some(Outcome::Unchanged),
            Some(base) if self.held != Some(base) => Some(Outcome::Unasked),
            Some(_) => is_held.then_some(Outcome::Unchanged),
        }
    }

    fn restart(&mut self, held: Option<Version>) -> Option<Outcome> {
        self.restarts = self.restarts.saturating_add(1);
        (self.held, self.reading, self.next) = (held, None, 0);
        (self.restarts > RESTARTS_MAX).then_some(Outcome::Gone)
    }

    /// Writes a page where nobody reads yet: behind the log, or in the other
    /// area. A worker that was overtaken finds a newer lease there and stops.
    fn share(
        &self,
        board: &impl Board,
        (names, fixed): (&Names, bool),
        head: &Head,
        page: &Page,
        bytes: &[u8],
    ) -> bool {
        let (epoch, area, index) = match (page.base, head.published) {
            (None, published) => (self.lease, published.map_or(0, |p| p.area ^ 1), page.page),
            (Some(_), Some(p)) => (p.epoch, p.area, p.count.saturating_add(page.page)),
            (Some(_), None) => return false,
        };
        let slot = Slot {
            epoch,
            lease: self.lease,
            index,
            page: bytes,
        };
        let written = board.change(&names.slot(area, index), |found| {
            let newer = |slot: Slot<'_>| slot.lease > self.lease;
            match found.and_then(Slot::decode).is_some_and(newer) {
                true => (false, None),
                false => (true, Some(slot.encode(fixed))),
            }
        });
        written == Some(true)
    }
}

fn log_is_full(head: &Head, pages: u32) -> bool {
    let log = head.published.map_or(0, |p| p.count.saturating_sub(p.base));
    log.saturating_add(pages) > LOG_PAGES_MAX
}
