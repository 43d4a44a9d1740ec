//! One tenant's requests for a backend.

use std::collections::VecDeque;

use super::Ticket;

/// Virtual time for one unit of cost at weight 1; more than any weight, so that
/// nothing is lost in the division.
const SCALE: u128 = 1 << 32;

/// A request that does not run yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub ticket: Ticket,
    /// What it may come to.
    pub cost: u64,
    /// The virtual time at which it came.
    pub came_at: u128,
    /// In milliseconds, of the clock.
    pub since_ms: u64,
}

/// One tenant.
#[derive(Debug, Clone, Default)]
pub(super) struct Flow {
    /// At least 1.
    pub weight: u32,
    /// The finish tag of the request that began to run last, put right by what those
    /// that are over came to.
    pub finish: u128,
    waiting: VecDeque<Waiting>,
    running: usize,
}

/// A number of requests, times a weight: `a` waiting at weight `v` are more than `b`
/// at weight `w` where `length(a, w) > length(b, v)`.
pub(super) fn length(requests: usize, weight: u32) -> u128 {
    let requests = u128::try_from(requests).unwrap_or(u128::MAX);
    requests.saturating_mul(weight.into())
}

impl Flow {
    pub fn push(&mut self, came: Waiting) {
        self.waiting.push_back(came);
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The request that came last of those that wait.
    pub fn newest(&self) -> Option<Ticket> {
        self.waiting.back().map(|waiting| waiting.ticket)
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }

    /// The start tag of the request that is next, and which it is.
    pub fn head(&self) -> Option<(u128, Ticket)> {
        let head = self.waiting.front()?;
        Some((head.came_at.max(self.finish), head.ticket))
    }

    /// Takes it out to run, and gives its start tag.
    pub fn run(&mut self) -> Option<(u128, Waiting)> {
        let (start, _) = self.head()?;
        let head = self.waiting.pop_front()?;
        self.finish = start.saturating_add(charged(head.cost, self.weight));
        self.running = self.running.saturating_add(1);
        Some((start, head))
    }

    /// One that ran at that weight is over.
    pub fn over(&mut self, estimate: u64, actual: u64, weight: u32) {
        self.running = self.running.saturating_sub(1);
        let (estimate, actual) = (charged(estimate, weight), charged(actual, weight));
        self.finish = self.finish.saturating_add(actual).saturating_sub(estimate);
    }

    pub fn remove(&mut self, ticket: Ticket) {
        self.waiting.retain(|waiting| waiting.ticket != ticket);
    }
}

/// A cost in virtual time.
fn charged(cost: u64, weight: u32) -> u128 {
    let scaled = SCALE.saturating_mul(cost.into());
    scaled.checked_div(weight.max(1).into()).unwrap_or(scaled)
}
