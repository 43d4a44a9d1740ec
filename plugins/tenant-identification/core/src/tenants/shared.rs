//! How one worker keeps its directory up to date: it reads what is published on
//! the board, and polls the router for all workers when that is due.

use weir_wire::directory::{Page, Version};

use super::{
    ApplyError, Board, Store,
    board::{Head, Names, Slot},
    poll::{Answer, Outcome, Poll, Request},
};

/// The most pages that one call reads, so that no request waits long: a page of
/// 400 tenants takes about a millisecond.
const PAGES_A_TICK: u32 = 4;

/// When to ask again, at the latest, where there is no directory yet.
const RETRY_MS: u64 = 1_000;

/// What the workers of a gateway agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Part of every key on the board: differs where the router does.
    pub namespace: String,
    /// Values on the board never change their size (Kong).
    pub fixed: bool,
    /// Within this a change at the router counts on every worker, in
    /// milliseconds; 250 to 3,600,000. The router is asked twice in it.
    pub poll_ms: u64,
    /// How long one request may take, in milliseconds.
    pub timeout_ms: u64,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until the next tick.
    Idle,
    /// Ask the router, and hand the answer to [`Follower::answered`].
    Ask(Request),
    /// There is more to read, or no directory yet: tick again after
    /// [`Follower::SOON_MS`].
    Behind,
}

/// How far the pages of a published directory were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Position {
    epoch: u64,
    next: u32,
}

/// One worker's part. All times are of the monotonic clock, in milliseconds.
///
/// The board's head names the pages that make up the directory: a whole one and
/// the changes since. Whoever finds that a poll is due takes a lease by
/// compare-and-swap, and writes what the router answers behind the log, or as a
/// new whole in the other of two areas; the head counts it once all of it is
/// there. Every worker, the leader too, takes its directory from those pages.
/// A leader that is gone is replaced when its lease ends, after twice the
/// timeout and a second.
#[derive(Debug)]
pub struct Follower {
    settings: Settings,
    names: Names,
    store: Store,
    at: Position,
    ready: bool,
    polled_at_ms: Option<u64>,
    poll: Option<(u64, Poll)>,
    tickets: u64,
    outcome: Option<Outcome>,
}

impl Follower {
    /// When to tick again after [`Step::Behind`], in milliseconds.
    pub const SOON_MS: u64 = 10;

    /// A worker that has read nothing yet. Its first tick reads what others have
    /// published, without a request.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            names: Names::new(&settings.namespace),
            settings,
            store: Store::default(),
            at: Position::default(),
            ready: false,
            polled_at_ms: None,
            poll: None,
            tickets: 0,
            outcome: None,
        }
    }

    /// How often to tick, in milliseconds: an eighth of the poll interval, so
    /// that half of it, a tick that polls and a tick that reads leave a quarter
    /// for the request. At most a second, for a leader that is gone.
    #[must_use]
    pub fn tick_ms(&self) -> u64 {
        (self.settings.poll_ms / 8).clamp(25, 1_000)
    }

    /// Reads what is new, and polls if that is due. `random` tells this lease
    /// from one of the same number after the board was lost.
    pub fn tick(&mut self, board: &impl Board, monotonic_ms: u64, random: u64) -> Step {
        let head = self.head(board);
        let lost = |(_, poll): &(u64, Poll)| !poll.owns(&head) || head.deadline_ms <= monotonic_ms;
        if self.poll.as_ref().is_some_and(lost) {
            self.poll = None;
            self.outcome = Some(Outcome::LeaseLost);
        }
        if self.read_on(board, head) {
            return Step::Behind;
        }
        match self.lead(board, &head, monotonic_ms, random) {
            Some(poll) => self.ask(poll),
            None => self.rest(),
        }
    }

    /// Takes the answer to a request. One whose lease is over is dropped.
    pub fn answered(
        &mut self,
        board: &impl Board,
        monotonic_ms: u64,
        ticket: u64,
        answer: Answer<'_>,
    ) -> Step {
        let Some((_, mut poll)) = self.poll.take_if(|(own, _)| *own == ticket) else {
            return self.rest();
        };
        let deadline_ms = self.deadline_ms(monotonic_ms);
        let renewed = self.change_own(board, &poll, |head| head.deadline_ms = deadline_ms);
        let outcome = match renewed {
            None => Outcome::LeaseLost,
            Some(head) => {
                let place = (&self.names, self.settings.fixed);
                match poll.answered(board, place, &head, answer) {
                    None => return self.ask(poll),
                    Some(outcome) => {
                        let settled = self.change_own(board, &poll, |head| outcome.settle(head));
                        settled.map_or(Outcome::LeaseLost, |_| outcome)
                    }
                }
            }
        };
        self.outcome = Some(outcome);
        let head = self.head(board);
        match self.read_on(board, head) {
            true => Step::Behind,
            false => self.rest(),
        }
    }

    /// The directory of this worker.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the directory was read to its end once. Before that a key that
    /// was revoked may be found: the whole was read, not yet the changes.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// The version of this worker's directory.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.store.version()
    }

    /// How old this worker's directory may be: the time since the start of the
    /// last successful poll that it has read to the end; `None` before one.
    #[must_use]
    pub fn age_ms(&self, monotonic_ms: u64) -> Option<u64> {
        let polled_at_ms = self.polled_at_ms?;
        Some(monotonic_ms.saturating_sub(polled_at_ms))
    }

    /// Whether this worker polls for all just now.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.poll.is_some()
    }

    /// How this worker's last poll ended, once.
    pub fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    fn head(&self, board: &impl Board) -> Head {
        Head::decode(board.read(self.names.head()).as_deref())
    }

    fn deadline_ms(&self, now_ms: u64) -> u64 {
        let lease_ms = self.settings.timeout_ms.saturating_mul(2);
        now_ms.saturating_add(lease_ms).saturating_add(1_000)
    }

    fn ask(&mut self, poll: Poll) -> Step {
        self.tickets = self.tickets.saturating_add(1);
        let request = poll.request(self.tickets);
        self.poll = Some((self.tickets, poll));
        Step::Ask(request)
    }

    fn rest(&self) -> Step {
        match self.ready {
            true => Step::Idle,
            false => Step::Behind,
        }
    }

    /// Whether a poll is due that nobody makes.
    fn is_due(&self, head: &Head, now_ms: u64) -> bool {
        let every_ms = match head.published {
            Some(_) if !head.whole_wanted => self.settings.poll_ms / 2,
            _ => (self.settings.poll_ms / 2).min(RETRY_MS),
        };
        let waited = |asked_ms: u64| now_ms.saturating_sub(asked_ms) >= every_ms;
        now_ms >= head.deadline_ms && head.asked_at_ms.is_none_or(waited)
    }

    /// Takes the lease if a poll is due. Its number is never below the clock, so
    /// that numbers still grow after the head was lost.
    fn lead(&self, board: &impl Board, head: &Head, now_ms: u64, random: u64) -> Option<Poll> {
        if !self.is_due(head, now_ms) {
            return None;
        }
        let taken = board.change(self.names.head(), |found| {
            let head = Head::decode(found);
            if !self.is_due(&head, now_ms) {
                return (None, None);
            }
            let head = Head {
                holder: random,
                lease: head.lease.saturating_add(1).max(now_ms),
                deadline_ms: self.deadline_ms(now_ms),
                asked_at_ms: Some(now_ms),
                ..head
            };
            (Some(head), Some(head.encode()))
        });
        Some(Poll::begin(&taken??))
    }

    /// Changes the head while the lease is this poll's; the head as it is then.
    fn change_own(
        &self,
        board: &impl Board,
        poll: &Poll,
        change: impl Fn(&mut Head),
    ) -> Option<Head> {
        let changed = board.change(self.names.head(), |found| {
            let mut head = Head::decode(found);
            if !poll.owns(&head) {
                return (None, None);
            }
            change(&mut head);
            (Some(head), Some(head.encode()))
        });
        changed?
    }

    /// Reads some of the pages that are new here; whether there are more.
    fn read_on(&mut self, board: &impl Board, head: Head) -> bool {
        let Some(published) = head.published else {
            return false;
        };
        if self.at.epoch != published.epoch {
            self.at = Position {
                epoch: published.epoch,
                next: 0,
            };
        }
        for _ in 0..PAGES_A_TICK {
            if self.at.next >= published.count {
                break;
            }
            let key = self.names.slot(published.area, self.at.next);
            if !self.read(board.read(&key).as_deref()) {
                return self.missed(board);
            }
            self.at.next = self.at.next.saturating_add(1);
        }
        if self.at.next < published.count {
            return true;
        }
        self.ready = true;
        self.polled_at_ms = head.polled_at_ms;
        false
    }

    /// Reads the page that is due; false where it isn't there or doesn't follow.
    fn read(&mut self, slot: Option<&[u8]>) -> bool {
        let expected = (self.at.epoch, self.at.next);
        let slot = slot.and_then(Slot::decode);
        let slot = slot.filter(|slot| (slot.epoch, slot.index) == expected);
        let page = slot.and_then(|slot| Page::decode(slot.page).ok());
        // Older than what is held: nothing to learn, and what follows may be.
        page.is_some_and(|page| matches!(self.store.apply(&page), Ok(()) | Err(ApplyError::Older)))
    }

    /// A page could not be read. If another whole has been published meanwhile,
    /// that one is next; else the page is lost, and everything is asked for.
    fn missed(&self, board: &impl Board) -> bool {
        let flipped = |head: &Head| head.published.is_none_or(|p| p.epoch != self.at.epoch);
        let head = self.head(board);
        if flipped(&head) {
            return true;
        }
        if !head.whole_wanted {
            board.change(self.names.head(), |found| {
                let mut head = Head::decode(found);
                if flipped(&head) {
                    return ((), None);
                }
                head.whole_wanted = true;
                ((), Some(head.encode()))
            });
        }
        false
    }
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
