//! What comes next after a call failed: another candidate, the same one again after
//! a while, or nothing. One [`Attempts`] for each request; the clock and randomness
//! are arguments.
//!
//! 1. The first candidate that was not called yet and may be, one of a provider that
//!    was not called yet before others: at once.
//! 2. Where there is none, one that failed in a way that may pass, if the
//!    [`RetryBudget`] has room: after a back-off with full jitter, the first time at
//!    once if it only could not be reached.
//! 3. Otherwise the request is given up.
//!
//! Going over to another candidate costs nothing: a provider that is down does not
//! get more calls for it. Calling the same one again takes from the budget, so that
//! retries never multiply what a provider in trouble has to do.

mod budget;

use serde::{Deserialize, Serialize};

pub use self::budget::RetryBudget;
use crate::health::{Admission, Fault, part};

/// The most attempts that may be configured.
const ATTEMPTS_MAX: u32 = 20;

/// The longest back-off and budget window that may be: ten minutes, in milliseconds.
const TIME_MAX_MS: u32 = 600_000;

/// How often and how soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// The most calls for one request, of all candidates together: 1 to 20.
    pub max_attempts: u32,
    /// The most that the first back-off takes, in milliseconds; each next one takes
    /// up to twice as long.
    pub backoff_ms: u32,
    /// The most that any back-off takes, in milliseconds.
    pub backoff_max_ms: u32,
    /// Second calls of the same candidate, in percent of the requests of a window ...
    pub budget_percent: u8,
    /// ... and so many beside.
    pub budget_min: u32,
    /// How long the window is, in milliseconds.
    pub budget_window_ms: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 4,
            backoff_ms: 100,
            backoff_max_ms: 2_000,
            budget_percent: 20,
            budget_min: 10,
            budget_window_ms: 10_000,
        }
    }
}

impl RetryConfig {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        let numbers = [
            ("max_attempts", self.max_attempts, 1, ATTEMPTS_MAX),
            ("backoff_ms", self.backoff_ms, 0, TIME_MAX_MS),
            ("backoff_max_ms", self.backoff_max_ms, 0, TIME_MAX_MS),
            ("budget_percent", self.budget_percent.into(), 0, 100),
            ("budget_window_ms", self.budget_window_ms, 1, TIME_MAX_MS),
        ];
        for (field, found, least, most) in numbers {
            if !(least..=most).contains(&found) {
                return Err(format!("{field}: must be {least} to {most}, found {found}"));
            }
        }
        Ok(())
    }

    /// How long to wait before the call after so many that were repeated: evenly
    /// from 0 to a bound that doubles ("full jitter" of Marc Brooker, "Exponential
    /// Backoff And Jitter", AWS Architecture Blog, 2015).
    fn backoff_ms(&self, repeated: u32, random: u64) -> u64 {
        let factor = 1_u64.checked_shl(repeated).unwrap_or(u64::MAX);
        let bound = u64::from(self.backoff_ms).saturating_mul(factor);
        part(bound.min(self.backoff_max_ms.into()), random)
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Call that candidate.
    Call {
        /// By its place among the candidates.
        candidate: usize,
        /// So many milliseconds from now.
        after_ms: u64,
    },
    /// Nothing more.
    GiveUp {
        /// Why.
        why: GaveUp,
        /// When the client may ask again, in milliseconds.
        retry_after_ms: u64,
    },
}

/// Why a request is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    /// Every candidate is closed.
    Closed,
    /// So many attempts were made as may be.
    Attempts,
    /// The request's time is over, or would be before another attempt.
    Deadline,
    /// What is left may only be called again, and too much was lately.
    Budget,
    /// What failed would fail again.
    Hopeless,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tried {
    /// Whose model it is, by any number.
    provider: usize,
    calls: u32,
    /// That of the last call; none while it is under way.
    fault: Option<Fault>,
    /// Closed to this request, whatever it says of others.
    is_lost: bool,
}

/// The attempts of one request.
#[derive(Debug, Clone)]
pub struct Attempts {
    config: RetryConfig,
    deadline_ms: u64,
    candidates: Vec<Tried>,
    made: u32,
    repeated: u32,
}

impl Attempts {
    /// Of a request with so many candidates, the best first, that must be begun
    /// before `deadline_ms` on the clock of [`Attempts::next`].
    #[must_use]
    pub fn new(config: RetryConfig, candidates: usize, deadline_ms: u64) -> Self {
        Self {
            config,
            deadline_ms,
            candidates: (0..candidates)
                .map(|provider| Tried {
                    provider,
                    ..Tried::default()
                })
                .collect(),
            made: 0,
            repeated: 0,
        }
    }

    /// The same, where some candidates have the same provider: `providers` are theirs
    /// in their order, by any number. Those of a provider that was called already come
    /// after those of others.
    #[must_use]
    pub fn of_providers(mut self, providers: impl IntoIterator<Item = usize>) -> Self {
        for (tried, provider) in self.candidates.iter_mut().zip(providers) {
            tried.provider = provider;
        }
        self
    }

    /// How many calls were made.
    #[must_use]
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Says what to do now, and counts it as done. `admissions` are those of the
    /// candidates, in their order; one that is missing is closed. A call that could
    /// not begin after all is told to [`Attempts::lost`], one that failed to
    /// [`Attempts::failed`].
    pub fn next(
        &mut self,
        admissions: &[Admission],
        now_ms: u64,
        budget: &mut RetryBudget,
        random: u64,
    ) -> Next {
        let chosen = self.choose(admissions, now_ms, budget, random);
        match chosen {
            Ok((candidate, after_ms)) => {
                self.count(candidate);
                Next::Call {
                    candidate,
                    after_ms,
                }
            }
            Err(why) => Next::GiveUp {
                why,
                retry_after_ms: self.retry_after_ms(admissions, now_ms),
            },
        }
    }

    /// A second call beside one that takes long: of the first candidate that was not
    /// called yet and is well. It takes from the budget, because it is a call more
    /// for a request that did not fail.
    pub fn hedge(
        &mut self,
        admissions: &[Admission],
        now_ms: u64,
        budget: &mut RetryBudget,
    ) -> Option<usize> {
        if self.made >= self.config.max_attempts || now_ms >= self.deadline_ms {
            return None;
        }
        let candidate = self.untried(admissions, |a| a == Admission::Yes)?;
        if !budget.take(now_ms) {
            return None;
        }
        self.count(candidate);
        Some(candidate)
    }

    /// The call of that candidate failed before the client had anything of it.
    pub fn failed(&mut self, candidate: usize, fault: Fault) {
        if let Some(tried) = self.candidates.get_mut(candidate) {
            tried.fault = Some(fault);
        }
    }

    /// The call of that candidate was not made: its breaker let another one go
    /// first. It is closed to this request from now on.
    pub fn lost(&mut self, candidate: usize) {
        if let Some(tried) = self.candidates.get_mut(candidate) {
            tried.is_lost = true;
            tried.calls = tried.calls.saturating_sub(1);
            self.made = self.made.saturating_sub(1);
        }
    }

    fn count(&mut self, candidate: usize) {
        if let Some(tried) = self.candidates.get_mut(candidate) {
            tried.calls = tried.calls.saturating_add(1);
            tried.fault = None;
        }
        self.made = self.made.saturating_add(1);
    }

    /// Which candidate, and after how long.
    fn choose(
        &mut self,
        admissions: &[Admission],
        now_ms: u64,
        budget: &mut RetryBudget,
        random: u64,
    ) -> Result<(usize, u64), GaveUp> {
        if self.made >= self.config.max_attempts {
            return Err(GaveUp::Attempts);
        }
        if now_ms >= self.deadline_ms {
            return Err(GaveUp::Deadline);
        }
        if let Some(candidate) = self.untried(admissions, Admission::is_admitted) {
            return Ok((candidate, 0));
        }
        if !self.open(admissions).any(|(_, _, a)| a.is_admitted()) {
            return Err(GaveUp::Closed);
        }
        let (candidate, tried) = self.again(admissions).ok_or(GaveUp::Hopeless)?;
        let only_unreachable = tried.calls == 1 && tried.fault == Some(Fault::Unreachable);
        let after_ms = if only_unreachable {
            0
        } else {
            self.config.backoff_ms(self.repeated, random)
        };
        if now_ms.saturating_add(after_ms) >= self.deadline_ms {
            return Err(GaveUp::Deadline);
        }
        if !budget.take(now_ms) {
            return Err(GaveUp::Budget);
        }
        self.repeated = self.repeated.saturating_add(1);
        Ok((candidate, after_ms))
    }

    /// The candidates that are not lost, with what is said of each.
    fn open<'a>(
        &'a self,
        admissions: &'a [Admission],
    ) -> impl Iterator<Item = (usize, &'a Tried, Admission)> {
        let all = self.candidates.iter().zip(admissions).enumerate();
        all.filter(|(_, (tried, _))| !tried.is_lost)
            .map(|(i, (tried, admission))| (i, tried, *admission))
    }

    fn untried(&self, admissions: &[Admission], may: impl Fn(Admission) -> bool) -> Option<usize> {
        let is_known = |provider: usize| {
            let mut all = self.candidates.iter();
            all.any(|tried| tried.provider == provider && tried.calls > 0)
        };
        self.open(admissions)
            .filter(|(_, tried, admission)| tried.calls == 0 && may(*admission))
            .min_by_key(|(candidate, tried, _)| (is_known(tried.provider), *candidate))
            .map(|(candidate, ..)| candidate)
    }

    /// Of those that may do better the one that was called least.
    fn again(&self, admissions: &[Admission]) -> Option<(usize, Tried)> {
        self.open(admissions)
            .filter(|(_, tried, admission)| {
                admission.is_admitted() && tried.fault.is_some_and(Fault::is_retryable)
            })
            .min_by_key(|(candidate, tried, _)| (tried.calls, *candidate))
            .map(|(candidate, tried, _)| (candidate, *tried))
    }

    /// Until the first candidate may be called; where one may be already, as long as
    /// the longest back-off.
    fn retry_after_ms(&self, admissions: &[Admission], now_ms: u64) -> u64 {
        let waits = admissions.iter().take(self.candidates.len());
        let waits = waits.map(|admission| match admission {
            Admission::No { until_ms } => until_ms.saturating_sub(now_ms),
            _ => self.config.backoff_max_ms.into(),
        });
        waits.min().unwrap_or(self.config.backoff_max_ms.into())
    }
}

#[cfg(test)]
mod tests;
