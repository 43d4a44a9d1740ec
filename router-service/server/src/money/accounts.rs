//! Where tenants stood when they were last asked after: enough to choose a model
//! and to tell whether a hold can be refused at all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use weir_router_core::budget::{Bounds, Month, Standing};
use weir_wire::ids::TenantId;

/// The most tenants that are remembered; of more, those unheard of for a while are
/// forgotten.
const TENANTS_MAX: usize = 50_000;

/// How old what is known may be for a call to be made beside its hold.
const FRESH: Duration = Duration::from_millis(500);

/// A hold is far from a bound where so many of it would still fit, and what this
/// router has sent unanswered takes no more than one in so many of what is free.
const FAR: u64 = 64;

#[derive(Debug)]
struct Account {
    month: Month,
    standing: Standing,
    at: Instant,
    /// What is asked for and was not answered yet: money, tokens, requests.
    asked: [u64; 3],
}

/// Where tenants stood.
#[derive(Debug, Default)]
pub struct Accounts(Mutex<HashMap<TenantId, Account>>);

/// What a hold takes of each bound.
#[derive(Debug, Clone, Copy)]
pub struct Takes {
    pub micros: u64,
    pub tokens: u64,
}

impl Takes {
    fn parts(self) -> [u64; 3] {
        [self.micros, self.tokens, 1]
    }
}

impl Accounts {
    /// Spent in that month, as far as is known.
    pub fn spend(&self, tenant: &TenantId, month: Month) -> u64 {
        let accounts = self.lock();
        let known = accounts.get(tenant).filter(|a| a.month == month);
        known.map_or(0, |account| account.standing.spend)
    }

    /// Notes an answer of the store's.
    pub fn note(&self, tenant: &TenantId, month: Month, standing: Standing) {
        let mut accounts = self.lock();
        if accounts.len() >= TENANTS_MAX && !accounts.contains_key(tenant) {
            accounts.retain(|_, account| {
                account.at.elapsed() < FRESH || account.asked.iter().any(|asked| *asked > 0)
            });
        }
        let account = accounts.entry(tenant.clone()).or_insert(Account {
            month,
            standing,
            at: Instant::now(),
            asked: [0; 3],
        });
        // What is said of a month that is over does not hide the one that began.
        if month >= account.month {
            account.month = month;
            account.standing = standing;
            account.at = Instant::now();
        }
    }

    /// Whether a hold is so far from each bound that its call may be made beside
    /// it. It counts as asked for then, until [`Accounts::answered`].
    pub fn is_far(&self, tenant: &TenantId, month: Month, bounds: &Bounds, takes: Takes) -> bool {
        if *bounds == Bounds::default() {
            return true;
        }
        let mut accounts = self.lock();
        let Some(account) = accounts.get_mut(tenant) else {
            return false;
        };
        if account.month != month || account.at.elapsed() > FRESH {
            return false;
        }
        let standing = account.standing;
        let ceiling = bounds.ceiling.filter(|ceiling| !ceiling.overage);
        let limits = [
            ceiling.map(|c| (c.micros, standing.spend.saturating_add(standing.held))),
            bounds
                .tokens_per_minute
                .map(|limit| (limit, standing.tokens)),
            bounds
                .in_flight
                .map(|n| (n.into(), standing.in_flight.into())),
        ];
        let asked = account.asked.iter().zip(takes.parts());
        let far = limits.iter().zip(asked).all(|(limit, (asked, takes))| {
            let Some((limit, used)) = *limit else {
                return true;
            };
            let free = limit.saturating_sub(used);
            let sent = asked.saturating_add(takes);
            free >= limit.div_ceil(2) && sent.saturating_mul(FAR) <= free
        });
        if far {
            for (asked, takes) in account.asked.iter_mut().zip(takes.parts()) {
                *asked = asked.saturating_add(takes);
            }
        }
        far
    }

    /// What was counted as asked for is answered, or never will be.
    pub fn answered(&self, tenant: &TenantId, takes: Takes) {
        if let Some(account) = self.lock().get_mut(tenant) {
            for (asked, takes) in account.asked.iter_mut().zip(takes.parts()) {
                *asked = asked.saturating_sub(takes);
            }
        }
    }

    // Nothing is left half changed under the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use weir_router_core::budget::Ceiling;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_goes_beside_its_hold_only_far_from_each_bound() {
        let accounts = Accounts::default();
        let tenant = TenantId::new("acme").unwrap();
        let month = Month(24_322);
        let bounds = Bounds {
            ceiling: Some(Ceiling {
                micros: 1_000,
                overage: false,
            }),
            tokens_per_minute: Some(16_000),
            in_flight: Some(128),
        };
        let takes = |micros, tokens| Takes { micros, tokens };
        let far = |takes| accounts.is_far(&tenant, month, &bounds, takes);
        assert!(!far(takes(1, 1)), "nothing is known");
        let standing = |spend, tokens, in_flight| Standing {
            spend,
            tokens,
            in_flight,
            ..Standing::default()
        };
        let know = |standing| accounts.note(&tenant, month, standing);
        know(standing(200, 0, 0));
        assert!(far(takes(12, 1)));
        assert!(!far(takes(12, 1)), "the first one is not answered");
        accounts.answered(&tenant, takes(12, 1));
        assert!(!far(takes(13, 1)));
        assert!(!far(takes(1, 251)));
        know(standing(501, 0, 0));
        assert!(!far(takes(1, 1)), "half of it is spent");
        know(standing(0, 8_001, 0));
        assert!(!far(takes(1, 1)));
        know(standing(0, 0, 65));
        assert!(!far(takes(1, 1)));
        know(standing(0, 0, 0));
        tokio::time::advance(Duration::from_millis(1_100)).await;
        assert!(!far(takes(1, 1)), "that was long ago");
        let none = Bounds::default();
        assert!(accounts.is_far(&tenant, month, &none, takes(1 << 40, 0)));
    }

    #[test]
    fn another_month_begins_at_nothing() {
        let accounts = Accounts::default();
        let tenant = TenantId::new("acme").unwrap();
        let spent = |spend| Standing {
            spend,
            ..Standing::default()
        };
        accounts.note(&tenant, Month(5), spent(7));
        assert_eq!(accounts.spend(&tenant, Month(5)), 7);
        assert_eq!(accounts.spend(&tenant, Month(6)), 0);
        accounts.note(&tenant, Month(6), spent(1));
        accounts.note(&tenant, Month(5), spent(9));
        assert_eq!(accounts.spend(&tenant, Month(6)), 1);
    }
}
