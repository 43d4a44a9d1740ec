//! A backend that tenants share: whose turn it is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};
use weir_router_core::{
    fair::{Entered, FairConfig, FairQueue, Started, Ticket},
    refusal::Refusal,
};
use weir_wire::ids::TenantId;

use crate::metrics::Metrics;

/// The queue before one provider.
pub struct Share {
    provider: String,
    line: Mutex<Line>,
    start: Instant,
    metrics: Metrics,
}

struct Line {
    fair: FairQueue,
    /// Who is to be told that it runs, or that it waits no more.
    waiting: HashMap<Ticket, oneshot::Sender<Result<(), Full>>>,
}

impl Line {
    fn start(&mut self, started: Vec<Started>) {
        for one in started {
            if let Some(grant) = self.waiting.remove(&one.ticket) {
                // One that waits no more gives its place on as it is dropped.
                let _ = grant.send(Ok(()));
            }
        }
    }
}

type Granted = oneshot::Receiver<Result<(), Full>>;

/// There is no place in the queue.
#[derive(Debug, Clone, Copy)]
pub struct Full {
    pub retry_ms: u64,
}

impl Share {
    pub fn new(provider: &str, config: FairConfig, metrics: Metrics) -> Arc<Self> {
        let line = Line {
            fair: FairQueue::new(config),
            waiting: HashMap::new(),
        };
        Arc::new(Self {
            provider: provider.to_owned(),
            line: Mutex::new(line),
            start: Instant::now(),
            metrics,
        })
    }

    /// Waits for a turn; `cost` is what it may take, in tokens. Who waits no more
    /// drops this.
    pub async fn enter(
        self: &Arc<Self>,
        tenant: &TenantId,
        weight: u32,
        cost: u64,
    ) -> Result<Turn, Full> {
        let came = Instant::now();
        let (turn, granted) = self.line_up(tenant, weight, cost)?;
        if let Some(granted) = granted {
            // It is never dropped unanswered while it waits.
            match granted.await {
                Ok(Ok(())) => {}
                Ok(Err(full)) => return Err(self.refused(full)),
                Err(_) => return Err(self.refused(Full { retry_ms: 1_000 })),
            }
        }
        self.metrics.queued(&self.provider, came.elapsed());
        Ok(turn)
    }

    fn line_up(
        self: &Arc<Self>,
        tenant: &TenantId,
        weight: u32,
        cost: u64,
    ) -> Result<(Turn, Option<Granted>), Full> {
        let mut line = self.line();
        match line.fair.enter(tenant, weight, cost, self.now_ms()) {
            Entered::Run(ticket) => Ok((self.turn(ticket, cost), None)),
            Entered::Wait { ticket, displaced } => {
                if let Some(displaced) = displaced
                    && let Some(other) = line.waiting.remove(&displaced.ticket)
                {
                    let retry_ms = displaced.retry_after_ms;
                    let _ = other.send(Err(Full { retry_ms }));
                }
                let (grant, granted) = oneshot::channel();
                line.waiting.insert(ticket, grant);
                let length = line.waiting.len();
                self.metrics.queue_length(&self.provider, length);
                Ok((self.turn(ticket, cost), Some(granted)))
            }
            Entered::Full { retry_after_ms } => Err(self.refused(Full {
                retry_ms: retry_after_ms,
            })),
        }
    }

    fn refused(&self, full: Full) -> Full {
        self.metrics.queue_refused(&self.provider);
        full
    }

    fn turn(self: &Arc<Self>, ticket: Ticket, cost: u64) -> Turn {
        Turn {
            share: Arc::clone(self),
            ticket,
            cost,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    // A panic under the lock cannot leave a line half changed.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place: at the backend, or in the queue. Dropped, others move up.
pub struct Turn {
    share: Arc<Share>,
    ticket: Ticket,
    cost: u64,
}

impl Turn {
    /// So many tokens it took in truth.
    pub fn took(&mut self, tokens: u64) {
        self.cost = tokens;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now_ms = self.share.now_ms();
        let mut line = self.share.line();
        let started = match line.waiting.remove(&self.ticket) {
            Some(_) => line.fair.abandon(self.ticket, now_ms),
            None => line.fair.leave(self.ticket, self.cost, now_ms),
        };
        line.start(started);
        let length = line.waiting.len();
        self.share
            .metrics
            .queue_length(&self.share.provider, length);
    }
}

/// What a client is told where there is no place.
pub fn queue_full(retry_ms: u64) -> Refusal {
    Refusal::server(
        503,
        "queue_full",
        "Too many requests wait for this model just now; try again later.",
    )
    .retry_after(retry_ms)
}
