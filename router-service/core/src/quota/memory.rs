//! The store of the embedded default: one router's memory.

use std::collections::HashMap;

use weir_wire::quota::{FENCED_WINDOW_MAX_S, LIFE_MAX_MS};

use super::{
    lease::{Answer, Ask, Closing, Granted, LeaseId, LimitState},
    limits::Limit,
    window::{self, Window},
};

/// How long a lease is remembered beyond its life, in milliseconds: so late may
/// its closing or a repeated acquire come.
const REMEMBERED_MS: u64 = 30_000;

/// How often what is over is swept out, in milliseconds.
const SWEEP_MS: u64 = 10_000;

/// The most tenants; of more, nothing is granted to new ones.
const TENANTS_MAX: usize = 1_000_000;

#[derive(Debug, Clone)]
struct Lease {
    granted: u32,
    t_ms: u64,
    life_ms: u64,
    /// The class and window of each counter that it is in.
    counters: Vec<(String, u64)>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Tenant {
    windows: HashMap<(String, u64), Window>,
    leases: HashMap<LeaseId, Lease>,
    /// Nothing is granted for a window from here on.
    fenced_at_ms: Option<u64>,
    /// Time never goes back for a tenant.
    seen_ms: u64,
}

/// Counts in memory. What it counted is lost with it: a gateway that was granted
/// something by another store says so, and the tenant is fenced then.
#[derive(Debug)]
pub struct Memory {
    epoch: String,
    tenants: HashMap<String, Tenant>,
    swept_ms: u64,
    /// When the store before this one was lost, if that is known.
    lost_at_ms: Option<u64>,
}

impl Memory {
    /// Empty. `epoch` is random, and tells this store from others.
    #[must_use]
    pub fn new(epoch: String) -> Self {
        Self {
            epoch,
            tenants: HashMap::new(),
            swept_ms: 0,
            lost_at_ms: None,
        }
    }

    /// Notes that what another store had counted is lost: every tenant is fenced from
    /// the first time on that this is said.
    pub fn lost(&mut self, now_ms: u64) {
        self.lost_at_ms.get_or_insert(now_ms);
    }

    /// The epoch of its answers.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Grants a lease, or says when. `now_ms` is of a clock that never leaps.
    pub fn acquire(&mut self, ask: &Ask, now_ms: u64) -> Answer {
        self.sweep(now_ms);
        let is_full = self.tenants.len() >= TENANTS_MAX && !self.tenants.contains_key(&ask.tenant);
        if is_full {
            let granted = Granted::Denied { free_in_ms: 1_000 };
            return self.answer(granted, vec![none_left(); ask.limits.len()]);
        }
        let epoch = self.epoch.clone();
        let lost_at_ms = self.lost_at_ms;
        let tenant = self.tenants.entry(ask.tenant.clone()).or_default();
        tenant.fenced_at_ms = tenant.fenced_at_ms.or(lost_at_ms);
        let now_ms = now_ms.max(tenant.seen_ms);
        tenant.seen_ms = now_ms;
        for closing in &ask.closing {
            tenant.close(closing, now_ms);
        }
        if !ask.epoch.is_empty() && ask.epoch != epoch && tenant.fenced_at_ms.is_none() {
            tenant.fenced_at_ms = Some(now_ms);
        }
        let granted = tenant.acquire(ask, now_ms);
        let limits = tenant.states(&ask.limits, now_ms);
        self.answer(granted, limits)
    }

    /// Takes leases of a tenant back.
    pub fn close(&mut self, tenant: &str, closing: &Closing, now_ms: u64) {
        // A tenant that is not known has no lease.
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            let now_ms = now_ms.max(tenant.seen_ms);
            tenant.close(closing, now_ms);
        }
    }

    fn answer(&self, granted: Granted, limits: Vec<LimitState>) -> Answer {
        Answer {
            granted,
            epoch: self.epoch.clone(),
            limits,
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.swept_ms) < SWEEP_MS {
            return;
        }
        self.swept_ms = now_ms;
        self.tenants.retain(|_, tenant| {
            tenant
                .leases
                .retain(|_, lease| lease.remembered_until_ms() > now_ms);
            tenant.windows.retain(|(_, window_ms), window| {
                window.count(*window_ms, now_ms);
                !window.is_empty()
            });
            !tenant.leases.is_empty() || !tenant.windows.is_empty() || tenant.fenced_at_ms.is_some()
        });
    }
}

fn none_left() -> LimitState {
    LimitState {
        remaining: 0,
        reset_ms: 1_000,
    }
}

/// Until when a fence that began then holds for those limits, `None` where it
/// does not: beyond [`FENCED_WINDOW_MAX_S`] what was lost stays uncounted.
#[must_use]
pub fn fenced_until_ms(limits: &[Limit], fenced_at_ms: u64) -> Option<u64> {
    let fenced = |limit: &&Limit| limit.window_s.get() <= FENCED_WINDOW_MAX_S;
    let longest = limits.iter().filter(fenced).map(Limit::window_ms).max()?;
    let held_ms = longest.saturating_add(u64::from(LIFE_MAX_MS));
    Some(fenced_at_ms.saturating_add(held_ms))
}

impl Lease {
    fn remembered_until_ms(&self) -> u64 {
        let end_ms = self.t_ms.saturating_add(self.life_ms);
        end_ms.saturating_add(REMEMBERED_MS)
    }
}

impl Tenant {
    fn acquire(&mut self, ask: &Ask, now_ms: u64) -> Granted {
        if let Some(known) = self.leases.get(&ask.id) {
            return match known.is_closed {
                // It was given up before it was asked for.
                true => Granted::Denied { free_in_ms: 1 },
                false => Granted::Lease {
                    requests: known.granted,
                    life_ms: known.life_ms,
                },
            };
        }
        if let Some(until_ms) = self
            .fenced_at_ms
            .and_then(|at_ms| fenced_until_ms(&ask.limits, at_ms))
            .filter(|until_ms| *until_ms > now_ms)
        {
            return Granted::Fenced {
                until_in_ms: until_ms.saturating_sub(now_ms),
            };
        }
        let free = ask.limits.iter().map(|limit| {
            let count = self.window(limit).count(limit.window_ms(), now_ms);
            u64::from(limit.requests.get()).saturating_sub(count)
        });
        let free = free.collect::<Vec<u64>>().into_iter().min().unwrap_or(0);
        if free == 0 {
            let free_at_ms = ask.limits.iter().map(|limit| {
                let requests = u64::from(limit.requests.get());
                let window_ms = limit.window_ms();
                self.window(limit).free_at_ms(requests, window_ms, now_ms)
            });
            let free_at_ms = free_at_ms.max().unwrap_or(now_ms);
            return Granted::Denied {
                free_in_ms: free_at_ms.saturating_sub(now_ms).max(1),
            };
        }
        let requests = ask.share(free);
        let life_ms = ask.bounded_life_ms();
        let used_by_ms = now_ms.saturating_add(life_ms);
        for limit in &ask.limits {
            let slot = window::slot(used_by_ms, limit.window_ms());
            self.window(limit).add(slot, requests);
        }
        let granted = u32::try_from(requests).unwrap_or(u32::MAX);
        let counters = ask.limits.iter().map(counter).collect();
        self.leases.insert(
            ask.id,
            Lease {
                granted,
                t_ms: now_ms,
                life_ms,
                counters,
                is_closed: false,
            },
        );
        Granted::Lease {
            requests: granted,
            life_ms,
        }
    }

    fn close(&mut self, closing: &Closing, now_ms: u64) {
        let Some(lease) = self.leases.get_mut(&closing.id) else {
            // It may still be on its way: it must not be granted then.
            let lease = Lease {
                granted: 0,
                t_ms: now_ms,
                life_ms: 0,
                counters: Vec::new(),
                is_closed: true,
            };
            self.leases.insert(closing.id, lease);
            return;
        };
        if std::mem::replace(&mut lease.is_closed, true) {
            return;
        }
        let granted = u64::from(lease.granted);
        let spent = u64::from(closing.spent).min(granted);
        let closed_at_ms = window::closed_at_ms(lease.t_ms, lease.life_ms, closing.age_ms);
        let used_by_ms = lease.t_ms.saturating_add(lease.life_ms);
        for key in &lease.counters {
            let Some(window) = self.windows.get_mut(key) else {
                continue;
            };
            window.count(key.1, now_ms);
            let later = window::slot(used_by_ms, key.1);
            // What is over was taken off with its slot.
            if !window::is_over(later, key.1, now_ms) {
                window.subtract(later, granted);
                window.add(window::slot(closed_at_ms, key.1), spent);
            }
        }
    }

    fn window(&mut self, limit: &Limit) -> &mut Window {
        self.windows.entry(counter(limit)).or_default()
    }

    fn states(&mut self, limits: &[Limit], now_ms: u64) -> Vec<LimitState> {
        let state = |limit: &Limit| {
            let window = self.window(limit);
            let count = window.count(limit.window_ms(), now_ms);
            let reset_at_ms = window.reset_at_ms(limit.window_ms(), now_ms);
            LimitState {
                remaining: u64::from(limit.requests.get()).saturating_sub(count),
                reset_ms: reset_at_ms.saturating_sub(now_ms),
            }
        };
        limits.iter().map(state).collect()
    }
}

/// The key of a limit's counter within its tenant: never its plan, nor its number
/// of requests, so that a change of either forgets nothing.
fn counter(limit: &Limit) -> (String, u64) {
    (limit.class.clone(), limit.window_ms())
}

#[cfg(test)]
mod tests;
