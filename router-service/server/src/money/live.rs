//! Requests under way: how far each has come, renewed in the store while it goes
//! on, so that a router that is killed leaves what it knew.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_router_core::{allowance::Counts, budget::Progress, meter::Attempt};
use weir_router_store::BudgetStore as _;
use weir_wire::{
    ids::{RequestId, TenantId},
    proto::usage::{ModelUsage, UsageEvent},
};

use super::{counted, store::Store};

/// How often it is looked who is to be renewed.
const LOOK: Duration = Duration::from_millis(500);

/// How many are renewed at once.
const AT_ONCE: usize = 64;

/// One request under way.
pub struct Live {
    pub tenant: TenantId,
    pub id: RequestId,
    counts: Counts,
    /// Bytes that came of the attempt under way.
    output_bytes: AtomicU64,
    is_over: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// What it would be witnessed as, without its usage.
    event: UsageEvent,
    /// Attempts that are over.
    made: Vec<ModelUsage>,
    /// The one under way; two where it is hedged.
    attempts: Vec<Attempt>,
    renewed_at: Instant,
    renewed_bytes: u64,
}

impl Live {
    /// A request of that event, which says nothing of its use yet.
    pub fn new(tenant: TenantId, id: RequestId, counts: Counts, event: UsageEvent) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            id,
            counts,
            output_bytes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            state: Mutex::new(State {
                event,
                made: Vec::new(),
                attempts: Vec::new(),
                renewed_at: Instant::now(),
                renewed_bytes: 0,
            }),
        })
    }

    /// This is what it will be, for whoever sweeps it before it begins.
    pub fn replace(&self, attempt: Attempt) {
        self.lock().attempts = vec![attempt];
    }

    /// An attempt begins.
    pub fn begin(&self, attempt: Attempt) {
        let mut state = self.lock();
        state
            .attempts
            .retain(|other| other.number != attempt.number);
        state.attempts.push(attempt);
        self.output_bytes.store(0, Relaxed);
    }

    /// So many bytes came of the attempt whose answer the client gets.
    pub fn came(&self, output_bytes: usize) {
        let bytes = u64::try_from(output_bytes).unwrap_or(u64::MAX);
        self.output_bytes.store(bytes, Relaxed);
    }

    /// The attempt of that number is over.
    pub fn made(&self, number: u32, usage: ModelUsage) {
        let mut state = self.lock();
        state.attempts.retain(|attempt| attempt.number != number);
        state.made.push(usage);
    }

    /// What was used by the attempts that are over.
    pub fn usage(&self) -> Vec<ModelUsage> {
        let mut made = self.lock().made.clone();
        made.sort_by_key(|usage| usage.attempt);
        made
    }

    /// It is settled, or about to be: nothing is renewed any more.
    pub fn over(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// How far it has come: what is taken of it if this router is killed now.
    pub fn progress(&self) -> Progress {
        let state = self.lock();
        let bytes = self.output_bytes.load(Relaxed);
        let mut usage = state.made.clone();
        usage.extend(state.attempts.iter().map(|attempt| attempt.so_far(bytes)));
        usage.sort_by_key(|usage| usage.attempt);
        let (micros, tokens) = counted(&usage, self.counts);
        let event = UsageEvent {
            usage,
            ..state.event.clone()
        };
        Progress {
            micros,
            tokens,
            note: event.encode_to_vec(),
        }
    }

    /// Whether it is to be renewed, which it is taken for then.
    fn is_due(&self, options: &Renewal) -> bool {
        if self.is_over.load(Relaxed) {
            return false;
        }
        let bytes = self.output_bytes.load(Relaxed);
        let mut state = self.lock();
        let age = state.renewed_at.elapsed();
        let is_due = age.saturating_mul(3) >= options.life
            || (age >= options.progress && bytes != state.renewed_bytes);
        if is_due {
            state.renewed_at = Instant::now();
            state.renewed_bytes = bytes;
        }
        is_due
    }

    // Nothing is left half changed under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How holds are kept.
#[derive(Debug, Clone, Copy)]
pub struct Renewal {
    /// How long a hold lasts that is not renewed.
    pub life: Duration,
    /// How often its progress is noted while it makes some.
    pub progress: Duration,
}

/// All requests under way.
#[derive(Default)]
pub struct AllLive(Mutex<HashMap<RequestId, Arc<Live>>>);

impl AllLive {
    /// From now on it is renewed.
    pub fn add(&self, live: &Arc<Live>) {
        self.lock().insert(live.id, Arc::clone(live));
    }

    /// It is over.
    pub fn remove(&self, live: &Live) {
        live.over();
        self.lock().remove(&live.id);
    }

    /// Renews them until `stopped`.
    pub async fn keep(&self, store: &Store, options: Renewal, stopped: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
            let all: Vec<Arc<Live>> = self.lock().values().cloned().collect();
            let due: Vec<Arc<Live>> = all.into_iter().filter(|l| l.is_due(&options)).collect();
            for some in due.chunks(AT_ONCE) {
                let renewed = some.iter().map(|live| renew(store, live, options.life));
                futures_util::future::join_all(renewed).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Arc<Live>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn renew(store: &Store, live: &Live, life: Duration) {
    let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    // Where the store is away the hold lasts a while; what is settled then counts.
    let renewed = store
        .renew(&live.tenant, live.id, life_ms, live.progress())
        .await;
    if let Ok(false) = renewed
        && !live.is_over.load(Relaxed)
    {
        tracing::debug!(request_id = %live.id, "a hold was gone before it was renewed");
    }
}
