//! Whose request runs next on a backend that tenants share: start-time fair queueing
//! (Goyal, Vin, Cheng, "Start-time Fair Queuing: A Scheduling Algorithm for
//! Integrated Services Packet Switching Networks", SIGCOMM 1996), with several
//! requests running at once as in SFQ(D) (Jin, Chase, Kaur, "Interposed Proportional
//! Sharing for a Storage Service Utility", SIGMETRICS 2004).
//!
//! Each request has a start tag, the later of the virtual time at which it came and
//! the finish tag of its tenant's request before it; its finish tag is later by its
//! cost over its tenant's weight. The smallest start tag runs first, and virtual time
//! is the start tag of what began to run last. So a tenant that has waiting requests
//! gets its share of the cost that is served, one that had none gains nothing by
//! that, and within a tenant requests run in the order in which they came.
//!
//! A cost is an estimate until the request is over; what it was wrong by is charged
//! to the tenant's next requests.
//!
//! The queue is bounded in all and for each tenant. Where it is full in all, the
//! tenant with the longest queue for its weight gives up its newest request for one
//! of a tenant with a shorter queue, and in any case for the first one of a tenant
//! with none, as long as it has another one itself. So no tenant can fill the queue
//! to the exclusion of others.

mod config;
mod flow;

use std::collections::{BTreeMap, HashMap};

use weir_wire::ids::TenantId;

use self::flow::{Flow, Waiting};

pub use self::config::FairConfig;

/// The shortest wait that a refusal names, in milliseconds.
const RETRY_MIN_MS: u64 = 1_000;

/// The longest.
const RETRY_MAX_MS: u64 = 60_000;

/// Names a request that runs or waits. A later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What became of a request that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// It runs.
    Run(Ticket),
    /// It waits, until [`FairQueue::leave`] or [`FairQueue::abandon`] says that it
    /// runs, or another one takes its place.
    Wait {
        /// Its ticket.
        ticket: Ticket,
        /// A waiting request that gave way: it is out, and to be refused as
        /// [`Entered::Full`] says.
        displaced: Option<Displaced>,
    },
    /// There is no room: it is refused.
    Full {
        /// When there may be, in milliseconds.
        retry_after_ms: u64,
    },
}

/// A request that gave way to another tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Displaced {
    /// Which.
    pub ticket: Ticket,
    /// When there may be room for it, in milliseconds.
    pub retry_after_ms: u64,
}

/// A request that waited and runs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Which.
    pub ticket: Ticket,
    /// How long it waited, in milliseconds.
    pub waited_ms: u64,
}

#[derive(Debug, Clone)]
struct Running {
    tenant: TenantId,
    /// What it was charged, and by which weight.
    cost: u64,
    weight: u32,
    since_ms: u64,
}

/// The requests of all tenants for one backend.
#[derive(Debug, Clone)]
pub struct FairQueue {
    config: FairConfig,
    /// Tenants with a request that runs or waits, or that have had more than their
    /// share.
    flows: HashMap<TenantId, Flow>,
    running: HashMap<Ticket, Running>,
    /// Whose each waiting request is.
    waiting: BTreeMap<Ticket, TenantId>,
    virtual_time: u128,
    last: Ticket,
    /// How long a request runs, in milliseconds, as an average that forgets; none
    /// before the first is over.
    runs_ms: Option<u64>,
}

impl FairQueue {
    /// An empty one.
    #[must_use]
    pub fn new(config: FairConfig) -> Self {
        Self {
            config,
            flows: HashMap::new(),
            running: HashMap::new(),
            waiting: BTreeMap::new(),
            virtual_time: 0,
            last: Ticket(0),
            runs_ms: None,
        }
    }

    /// How many requests run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A request of a tenant's comes. `weight` is the tenant's share against others',
    /// 0 as 1; `cost` is what it may come to, such as tokens, 0 as 1.
    pub fn enter(&mut self, tenant: &TenantId, weight: u32, cost: u64, now_ms: u64) -> Entered {
        let weight = weight.max(1);
        let ticket = Ticket(self.last.0.saturating_add(1));
        let came = Waiting {
            ticket,
            cost: cost.max(1),
            came_at: self.virtual_time,
            since_ms: now_ms,
        };
        if self.running.len() < self.config.capacity() {
            // Nothing waits: what could run would run.
            self.last = ticket;
            self.flow(tenant, weight).push(came);
            self.run_next(now_ms);
            return Entered::Run(ticket);
        }
        let mine = self.flows.get(tenant).map_or(0, Flow::waiting);
        let is_full = self.waiting.len() >= self.config.queue();
        let displaced = match is_full {
            _ if mine >= self.config.queue_per_tenant() => None,
            false => Some(None),
            true => self.displace(mine, weight).map(Some),
        };
        let Some(displaced) = displaced else {
            return Entered::Full {
                retry_after_ms: self.retry_after_ms(),
            };
        };
        self.last = ticket;
        self.flow(tenant, weight).push(came);
        self.waiting.insert(ticket, tenant.clone());
        Entered::Wait {
            ticket,
            displaced: displaced.map(|ticket| Displaced {
                ticket,
                retry_after_ms: self.retry_after_ms(),
            }),
        }
    }

    /// A request that ran is over, and came to that cost; gives those that run now.
    /// Of a ticket that does not run nothing changes.
    pub fn leave(&mut self, ticket: Ticket, actual_cost: u64, now_ms: u64) -> Vec<Started> {
        let Some(over) = self.running.remove(&ticket) else {
            return Vec::new();
        };
        let ran_ms = now_ms.saturating_sub(over.since_ms);
        self.runs_ms = Some(match self.runs_ms {
            None => ran_ms,
            // A new one counts an eighth.
            Some(average) => average.saturating_mul(7).saturating_add(ran_ms).div_ceil(8),
        });
        if let Some(flow) = self.flows.get_mut(&over.tenant) {
            flow.over(over.cost, actual_cost, over.weight);
        }
        self.tidy(&over.tenant);
        self.run_all(now_ms)
    }

    /// A request whose client left: it waits no more, or is over if it ran, at no
    /// cost. Gives those that run now.
    pub fn abandon(&mut self, ticket: Ticket, now_ms: u64) -> Vec<Started> {
        if self.running.contains_key(&ticket) {
            return self.leave(ticket, 0, now_ms);
        }
        self.drop_waiting(ticket);
        Vec::new()
    }

    fn flow(&mut self, tenant: &TenantId, weight: u32) -> &mut Flow {
        let flow = self.flows.entry(tenant.clone()).or_default();
        flow.weight = weight;
        flow
    }

    /// Takes the newest request out of the longest queue, if that is longer by more
    /// than the one request, each for its weight, or a tenant has none yet.
    fn displace(&mut self, mine: usize, weight: u32) -> Option<Ticket> {
        let longest = self
            .flows
            .values()
            .filter(|flow| flow.waiting() > 1)
            // Of equals the one with the newest request.
            .max_by(|a, b| {
                flow::length(a.waiting(), b.weight)
                    .cmp(&flow::length(b.waiting(), a.weight))
                    .then_with(|| a.newest().cmp(&b.newest()))
            })?;
        let theirs = longest.waiting().saturating_sub(1);
        let after = flow::length(mine.saturating_add(1), longest.weight);
        let is_fairer = flow::length(theirs, weight) >= after;
        if mine > 0 && !is_fairer {
            return None;
        }
        let ticket = longest.newest()?;
        self.drop_waiting(ticket);
        Some(ticket)
    }

    fn drop_waiting(&mut self, ticket: Ticket) {
        let Some(tenant) = self.waiting.remove(&ticket) else {
            return;
        };
        if let Some(flow) = self.flows.get_mut(&tenant) {
            flow.remove(ticket);
        }
        self.tidy(&tenant);
    }

    /// Forgets a tenant that has nothing here and owes nothing; and all of them once
    /// nothing runs, for then there is nobody to whom anything is owed.
    fn tidy(&mut self, tenant: &TenantId) {
        if self.running.is_empty() && self.waiting.is_empty() {
            self.flows.clear();
            self.virtual_time = 0;
            return;
        }
        let now = self.virtual_time;
        let is_done = |flow: &Flow| flow.is_idle() && flow.finish <= now;
        if self.flows.get(tenant).is_some_and(is_done) {
            self.flows.remove(tenant);
        }
        // Those that owed something while they were here.
        if self.flows.len() > self.busy_max() {
            self.flows.retain(|_, flow| !is_done(flow));
        }
    }

    /// Twice as many tenants as can have something here.
    fn busy_max(&self) -> usize {
        let busy = self.running.len().saturating_add(self.waiting.len());
        busy.saturating_mul(2).max(64)
    }

    fn run_all(&mut self, now_ms: u64) -> Vec<Started> {
        let mut started = Vec::new();
        while self.running.len() < self.config.capacity() {
            let Some(next) = self.run_next(now_ms) else {
                break;
            };
            started.push(next);
        }
        started
    }

    /// Runs what has the smallest start tag; of equals what came first.
    fn run_next(&mut self, now_ms: u64) -> Option<Started> {
        let heads = self.flows.iter();
        let heads = heads.filter_map(|(tenant, flow)| flow.head().map(|head| (head, tenant)));
        let (_, tenant) = heads.min_by_key(|(head, _)| *head)?;
        let tenant = tenant.clone();
        let flow = self.flows.get_mut(&tenant)?;
        let (weight, (start, next)) = (flow.weight, flow.run()?);
        self.virtual_time = self.virtual_time.max(start);
        self.waiting.remove(&next.ticket);
        let running = Running {
            tenant,
            cost: next.cost,
            weight,
            since_ms: now_ms,
        };
        self.running.insert(next.ticket, running);
        Some(Started {
            ticket: next.ticket,
            waited_ms: now_ms.saturating_sub(next.since_ms),
        })
    }

    /// As long as those that wait take, by what the last ones took.
    fn retry_after_ms(&self) -> u64 {
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        let capacity = u64::try_from(self.config.capacity()).unwrap_or(u64::MAX);
        let runs_ms = self.runs_ms.unwrap_or(RETRY_MIN_MS);
        let all_ms = runs_ms.saturating_mul(waiting.saturating_add(1));
        let wait_ms = all_ms.checked_div(capacity).unwrap_or(RETRY_MAX_MS);
        wait_ms.clamp(RETRY_MIN_MS, RETRY_MAX_MS)
    }
}

#[cfg(test)]
mod tests;
