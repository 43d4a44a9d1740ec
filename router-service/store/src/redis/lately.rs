//! Whom this process granted something lately: a tenant of these that has no marker
//! any more has lost it, whoever asks.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use weir_wire::quota::EPOCH_TOLD_MS;

/// Longer than that nothing granted can matter.
const KEPT: Duration = Duration::from_millis(EPOCH_TOLD_MS);

/// Two generations of tenants: those of this time and of the one before.
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    tenants: [HashMap<String, Instant>; 2],
    begun: Option<Instant>,
}

impl Lately {
    pub(super) fn note(&self, tenant: &str) {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = *all.begun.get_or_insert(now);
        if now.duration_since(begun) >= KEPT {
            all.tenants.swap(0, 1);
            all.tenants[0].clear();
            all.begun = Some(now);
        }
        match all.tenants[0].get_mut(tenant) {
            Some(at) => *at = now,
            None => {
                all.tenants[0].insert(tenant.to_owned(), now);
            }
        }
    }

    pub(super) fn lately(&self, tenant: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut noted = all.tenants.iter().filter_map(|some| some.get(tenant));
        noted.any(|at| at.elapsed() < KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_is_known_as_long_as_it_matters() {
        let lately = Lately::default();
        lately.note("acme");
        tokio::time::advance(KEPT - Duration::from_millis(1)).await;
        lately.note("solo");
        assert!(lately.lately("acme") && lately.lately("solo") && !lately.lately("x"));
        tokio::time::advance(Duration::from_millis(1)).await;
        lately.note("other");
        assert!(!lately.lately("acme") && lately.lately("solo"));
        tokio::time::advance(KEPT * 2).await;
        assert!(!lately.lately("solo"));
    }
}
