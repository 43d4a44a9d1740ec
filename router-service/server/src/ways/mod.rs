//! The ways to providers: how each model there is doing, whose turn it is where a
//! backend is shared, and who is asked next.

mod probe;
mod share;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use weir_router_core::{
    attempts::{Attempts, Next, RetryBudget, RetryConfig},
    health::{Admission, Begun, Fault, Health, HealthConfig, Outcome},
    offer::Decision,
};

pub use self::{
    probe::Probe,
    share::{Share, Turn, queue_full},
};
use crate::{metrics::Metrics, provider::Provider};

/// How providers are chosen among, checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failover {
    pub retry: RetryConfig,
    pub health: HealthConfig,
}

/// All providers, and what is known of them.
pub struct Ways {
    pub providers: BTreeMap<String, Arc<Provider>>,
    pub metrics: Metrics,
    failover: Failover,
    shares: BTreeMap<String, Arc<Share>>,
    state: Mutex<State>,
    start: Instant,
}

struct State {
    /// By provider and model; of a provider as a whole the model is empty.
    healths: HashMap<String, HashMap<String, Health>>,
    budget: RetryBudget,
}

impl Ways {
    pub fn new(
        providers: BTreeMap<String, Arc<Provider>>,
        shares: BTreeMap<String, Arc<Share>>,
        failover: Failover,
        metrics: Metrics,
    ) -> Self {
        let state = State {
            healths: HashMap::new(),
            budget: RetryBudget::new(&failover.retry),
        };
        Self {
            providers,
            metrics,
            failover,
            shares,
            state: Mutex::new(state),
            start: Instant::now(),
        }
    }

    /// The provider of that name.
    pub fn provider(&self, name: &str) -> Option<Arc<Provider>> {
        self.providers.get(name).cloned()
    }

    /// Where tenants wait for it, if they do.
    pub fn share(&self, provider: &str) -> Option<&Arc<Share>> {
        self.shares.get(provider)
    }

    /// The attempts of a request that has so long from now.
    pub fn attempts(&self, candidates: &[Decision], left: Duration) -> Attempts {
        let now_ms = self.now_ms();
        self.state().budget.request(now_ms);
        let deadline_ms = now_ms.saturating_add(millis(left));
        let providers = candidates.iter().map(|candidate| {
            let mut names = self.providers.keys();
            names.position(|name| *name == candidate.provider)
        });
        Attempts::new(self.failover.retry, candidates.len(), deadline_ms)
            .of_providers(providers.map(|provider| provider.unwrap_or(usize::MAX)))
    }

    /// What to do next for a request with these candidates.
    pub fn next(&self, attempts: &mut Attempts, candidates: &[Decision]) -> Next {
        let now_ms = self.now_ms();
        let mut state = self.state();
        let admissions = state.admissions(candidates, now_ms, self);
        let next = attempts.next(&admissions, now_ms, &mut state.budget, random());
        drop(state);
        if let Next::GiveUp { why, .. } = next {
            self.metrics.gave_up(why);
        }
        next
    }

    /// Whom to call beside an attempt that takes long, if anybody.
    pub fn hedge(&self, attempts: &mut Attempts, candidates: &[Decision]) -> Option<usize> {
        let now_ms = self.now_ms();
        let mut state = self.state();
        let admissions = state.admissions(candidates, now_ms, self);
        attempts.hedge(&admissions, now_ms, &mut state.budget)
    }

    /// A call begins; `None` where the breaker let another one go first.
    pub fn begin(self: &Arc<Self>, provider: &Arc<Provider>, model: &str) -> Option<Underway> {
        let now_ms = self.now_ms();
        let begun = self
            .state()
            .health(&provider.name, model, self.failover.health)
            .begin(now_ms)
            .ok()?;
        provider.health.begin();
        Some(Underway {
            ways: Arc::clone(self),
            provider: Arc::clone(provider),
            model: model.to_owned(),
            begun: Some(begun),
            slow: false,
        })
    }

    /// What a probe of a provider found.
    pub fn probed(&self, provider: &str, is_well: bool) {
        let now_ms = self.now_ms();
        let mut state = self.state();
        let whole = state.health(provider, "", self.failover.health);
        whole.probed(is_well, now_ms, random());
    }

    fn now_ms(&self) -> u64 {
        millis(self.start.elapsed())
    }

    // Nothing is left half changed under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn health(&mut self, provider: &str, model: &str, config: HealthConfig) -> &mut Health {
        if !self.healths.contains_key(provider) {
            self.healths.insert(provider.to_owned(), HashMap::new());
        }
        let models = self.healths.entry(provider.to_owned()).or_default();
        models
            .entry(model.to_owned())
            .or_insert_with(|| Health::new(config))
    }

    fn admissions(&self, candidates: &[Decision], now_ms: u64, ways: &Ways) -> Vec<Admission> {
        let admits = |candidate: &Decision| {
            let Some(provider) = ways.providers.get(&candidate.provider) else {
                return Admission::No { until_ms: u64::MAX };
            };
            if provider.health.is_drained() {
                return Admission::No {
                    until_ms: now_ms.saturating_add(DRAINED_MS),
                };
            }
            let Some(models) = self.healths.get(&candidate.provider) else {
                return Admission::Yes;
            };
            let of = |model: &str| {
                let health = models.get(model);
                health.map_or(Admission::Yes, |health| health.admits(now_ms))
            };
            // A provider that its probes find well again is called like any other.
            match of("") {
                Admission::No { until_ms } => Admission::No { until_ms },
                _ => of(&candidate.model),
            }
        };
        candidates.iter().map(admits).collect()
    }
}

/// When to come again to a provider that an operator lets nothing go to.
const DRAINED_MS: u64 = 5_000;

/// A call that is under way.
pub struct Underway {
    ways: Arc<Ways>,
    provider: Arc<Provider>,
    model: String,
    begun: Option<Begun>,
    /// It began late.
    slow: bool,
}

impl Underway {
    /// Its first token came after so long.
    pub fn started(&mut self, after: Duration) {
        let most = self.ways.failover.health.slow_start_ms;
        self.slow = most.is_some_and(|most| millis(after) > most.into());
    }

    /// It ended by that; well where there is no fault.
    pub fn end(mut self, fault: Option<Fault>) {
        let fault = fault.or(self.slow.then_some(Fault::SlowStart));
        match fault {
            Some(_) => self.provider.health.failed(),
            None => self.provider.health.went_well(),
        }
        self.ways
            .metrics
            .attempt(&self.provider.name, &self.model, fault);
        let outcome = fault.map_or(Outcome::Well, Outcome::Fault);
        self.tell(outcome);
    }

    /// It ended, and nothing can be told of the provider by it.
    pub fn dismiss(mut self) {
        self.tell(Outcome::Neither);
    }

    fn tell(&mut self, outcome: Outcome) {
        let Some(begun) = self.begun.take() else {
            return;
        };
        let now_ms = self.ways.now_ms();
        let config = self.ways.failover.health;
        let mut state = self.ways.state();
        let health = state.health(&self.provider.name, &self.model, config);
        let before = health.state(now_ms);
        health.outcome(begun, outcome, now_ms, random());
        let after = health.state(now_ms);
        drop(state);
        if before != after {
            let (provider, model) = (&self.provider.name, &self.model);
            tracing::warn!(%provider, %model, ?before, ?after, "a breaker changed");
            self.ways.metrics.breaker(provider, model, after);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.tell(Outcome::Neither);
        self.provider.health.end();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Any number; where the system has none, what is spread by it is not.
fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}
