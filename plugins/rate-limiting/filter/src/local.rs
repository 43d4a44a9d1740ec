//! Counting for itself: each gateway admits its share.

use weir_plugin_host::{
    clock,
    shared::{self, Change},
};
use weir_rate_limiting_core::{Limit, Verdict, admit, record};

use crate::state::{State, Subject};

/// What a gateway that counts for itself finds.
pub struct Counted {
    /// When a request may pass, of the monotonic clock; `None` where this one may.
    pub retry_at_ms: Option<u64>,
    /// What the client is told.
    pub limits: Vec<record::Told>,
}

/// Counts a request by the plan's limit in the configuration; `None` where it has
/// none.
pub fn by_plan(state: &State, subject: &Subject) -> Option<Counted> {
    let share = state.config.share(&subject.plan)?;
    Some(count(state, subject, &[(share, false)]))
}

/// Counts a request by the limits that the service told of; by the plan's where
/// it told none. `None` where there are none at all.
pub fn by_limits(state: &State, subject: &Subject, limits: &[record::Told]) -> Option<Counted> {
    if limits.is_empty() {
        return by_plan(state, subject);
    }
    let share = |limit: &record::Told| {
        let share = state.config.share_of(limit.requests, limit.window_s)?;
        Some((share, limit.of_class))
    };
    let shares: Vec<(Limit, bool)> = limits.iter().map(share).collect::<Option<_>>()?;
    Some(count(state, subject, &shares))
}

fn count(state: &State, subject: &Subject, shares: &[(Limit, bool)]) -> Counted {
    let now_ms = clock::monotonic_ms();
    let mut counted = Counted {
        retry_at_ms: None,
        limits: Vec::with_capacity(shares.len()),
    };
    for (limit, of_class) in shares {
        let class = if *of_class { &subject.class } else { "" };
        // The window is in the key: a record is never read with another one.
        let key = format!("weir/rate/1/{}/{class}/{}", subject.tenant, limit.window_s);
        let verdict = match shared::change(state.config.host, &key, |record| {
            admit(record, *limit, now_ms)
        }) {
            Change::Done(verdict) => verdict,
            // What can't be counted is not admitted.
            Change::Contended => Verdict::Refuse { retry_after_s: 1 },
        };
        let window_ms = u64::from(limit.window_s.get()).saturating_mul(1_000);
        let after = |ms: u64| now_ms.saturating_add(ms);
        let (remaining, reset_at_ms) = match verdict {
            Verdict::Admit { remaining } => (remaining, after(window_ms)),
            Verdict::Refuse { retry_after_s } => {
                let at_ms = after(u64::from(retry_after_s).saturating_mul(1_000));
                counted.retry_at_ms = counted.retry_at_ms.max(Some(at_ms));
                (0, after(window_ms))
            }
        };
        counted.limits.push(record::Told {
            requests: limit.requests.get(),
            window_s: limit.window_s.get(),
            of_class: *of_class,
            remaining,
            reset_at_ms,
        });
    }
    counted
}
