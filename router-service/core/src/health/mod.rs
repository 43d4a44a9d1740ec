//! Whether a model of a provider is called just now: what its calls have come to, a
//! circuit breaker, and the provider's own word for how long it wants to be left
//! alone. One [`Health`] for each model of each provider; the clock and randomness
//! are arguments.
//!
//! | from | by | to |
//! |---|---|---|
//! | closed | so many faults in a row, or so large a part of the calls of a window; a failed active probe | open |
//! | open | its time is over | half open: one call at a time goes as a probe |
//! | half open | a probe that went well | closed |
//! | half open | a probe that failed | open, twice as long |
//! | any | an active probe that went well | closed |
//!
//! A `Retry-After` pauses the calls beside that, whatever the breaker says.
//!
//! A call counts only for the state in which it began: answers to calls from before
//! the breaker opened neither close it nor open it again.

pub mod config;
pub mod retry_after;
mod window;

use serde::Serialize;

pub use self::{config::HealthConfig, window::Window};

/// What went wrong with a call that is not the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 429: we call too often.
    RateLimited {
        /// How long the provider wants to be left alone, where it says so.
        retry_after_ms: Option<u64>,
    },
    /// 503 and 529: it has too much to do.
    Overloaded {
        /// The same.
        retry_after_ms: Option<u64>,
    },
    /// Another 5xx, or what is no answer.
    Server,
    /// No connection, or one that broke before an answer began.
    Unreachable,
    /// No answer in the time there was.
    TimedOut,
    /// The first token came later than [`HealthConfig::slow_start_ms`].
    SlowStart,
    /// A stream that ended before its end, or with an error in it.
    BrokenStream,
}

impl Fault {
    /// How long the provider wants to be left alone, in milliseconds.
    #[must_use]
    pub fn retry_after_ms(self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after_ms } | Self::Overloaded { retry_after_ms } => {
                retry_after_ms
            }
            _ => None,
        }
    }

    /// Whether the same model may do better when it is asked again. One that is slow
    /// will be slow again, and the time is gone.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        !matches!(self, Self::TimedOut | Self::SlowStart)
    }

    /// Whether it speaks against the provider. One that says when it can be called
    /// again is well; it is left alone for so long.
    fn counts(self) -> bool {
        let retry_after_ms = match self {
            Self::RateLimited { retry_after_ms } => retry_after_ms,
            _ => None,
        };
        retry_after_ms.is_none()
    }

    /// In a word, for metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate-limited",
            Self::Overloaded { .. } => "overloaded",
            Self::Server => "server",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed-out",
            Self::SlowStart => "slow-start",
            Self::BrokenStream => "broken-stream",
        }
    }
}

/// What a call came to, for the health of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The provider did its part.
    Well,
    /// It did not.
    Fault(Fault),
    /// Nothing can be told: a refusal for which the client is to blame, or a client
    /// that left before there was an answer.
    Neither,
}

/// Whether a model is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Yes,
    /// This one call is, and says whether others are.
    Probe,
    /// It is not.
    No {
        /// Until then, on the clock of the question.
        until_ms: u64,
    },
}

impl Admission {
    /// Whether a call may go.
    #[must_use]
    pub fn is_admitted(self) -> bool {
        !matches!(self, Self::No { .. })
    }
}

/// A call that has begun; its outcome is told with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Begun {
    /// In which state.
    epoch: u64,
    /// Whether it is the probe of a breaker that is half open.
    pub is_probe: bool,
}

/// What a model's state is called in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Calls go.
    Closed,
    /// The provider wants to be left alone.
    Paused,
    /// The breaker lets no call through.
    Open,
    /// One at a time.
    HalfOpen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaker {
    Closed,
    Open {
        until_ms: u64,
        /// How long this time, before jitter.
        open_ms: u64,
        /// A probe is under way; it is given up for lost then.
        probe_until_ms: Option<u64>,
    },
}

/// When to ask again while a probe is under way, in milliseconds: it may be over at
/// any moment.
const PROBING_MS: u64 = 1_000;

/// The health of one model of one provider.
#[derive(Debug, Clone)]
pub struct Health {
    config: HealthConfig,
    breaker: Breaker,
    /// Grows with each state of the breaker.
    epoch: u64,
    /// Faults since a call last went well.
    in_a_row: u32,
    /// Calls, and faults among them.
    window: Window,
    paused_until_ms: u64,
}

impl Health {
    /// Of a model that was never called.
    #[must_use]
    pub fn new(config: HealthConfig) -> Self {
        Self {
            window: Window::new(config.window_ms.into()),
            config,
            breaker: Breaker::Closed,
            epoch: 0,
            in_a_row: 0,
            paused_until_ms: 0,
        }
    }

    /// Whether a call may go now. Changes nothing; [`Health::begin`] takes what it
    /// says.
    #[must_use]
    pub fn admits(&self, now_ms: u64) -> Admission {
        let (opens_ms, is_closed) = match self.breaker {
            Breaker::Closed => (0, true),
            Breaker::Open {
                probe_until_ms: Some(lost_ms),
                ..
            } => (lost_ms.min(now_ms.saturating_add(PROBING_MS)), false),
            Breaker::Open { until_ms, .. } => (until_ms, false),
        };
        let until_ms = opens_ms.max(self.paused_until_ms);
        if now_ms < until_ms {
            Admission::No { until_ms }
        } else if is_closed {
            Admission::Yes
        } else {
            Admission::Probe
        }
    }

    /// Begins a call, if one may go: of a breaker that is half open the only one
    /// until its outcome is told, or it is given up for lost.
    ///
    /// # Errors
    /// Until when no call may go.
    pub fn begin(&mut self, now_ms: u64) -> Result<Begun, u64> {
        let is_probe = match self.admits(now_ms) {
            Admission::No { until_ms } => return Err(until_ms),
            Admission::Yes => false,
            Admission::Probe => true,
        };
        if let Breaker::Open { probe_until_ms, .. } = &mut self.breaker {
            let lost_ms = self.config.probe_ms.into();
            *probe_until_ms = Some(now_ms.saturating_add(lost_ms));
            // A probe before this one that was given up for lost counts no more.
            self.epoch = self.epoch.wrapping_add(1);
        }
        Ok(Begun {
            epoch: self.epoch,
            is_probe,
        })
    }

    /// Takes what a call came to, once for each [`Begun`]. `random` is any number;
    /// it spreads when breakers that opened together close.
    pub fn outcome(&mut self, begun: Begun, outcome: Outcome, now_ms: u64, random: u64) {
        if let Outcome::Fault(fault) = outcome {
            self.pause(fault, now_ms);
        }
        if begun.epoch != self.epoch {
            return;
        }
        match (outcome, begun.is_probe) {
            (Outcome::Neither, false) => {}
            (Outcome::Neither, true) => self.free_probe(),
            (Outcome::Well, true) => self.close(),
            (Outcome::Well, false) => {
                self.in_a_row = 0;
                self.window.add(now_ms, 1, 0);
            }
            (Outcome::Fault(fault), is_probe) if !fault.counts() => {
                if is_probe {
                    // It answered, and the pause holds others back.
                    self.close();
                }
            }
            (Outcome::Fault(_), true) => self.open(now_ms, random),
            (Outcome::Fault(_), false) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.window.add(now_ms, 1, 1);
                if self.is_failing(now_ms) {
                    self.open(now_ms, random);
                }
            }
        }
    }

    /// Takes what an active probe found: one that failed opens the breaker at once,
    /// one that went well closes it.
    pub fn probed(&mut self, well: bool, now_ms: u64, random: u64) {
        match (well, self.breaker) {
            (true, Breaker::Closed) => {}
            (true, Breaker::Open { .. }) => self.close(),
            (false, Breaker::Open { until_ms, .. }) if now_ms < until_ms => {}
            (false, _) => self.open(now_ms, random),
        }
    }

    /// For metrics.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> State {
        match self.breaker {
            Breaker::Open { until_ms, .. } if now_ms < until_ms => State::Open,
            _ if now_ms < self.paused_until_ms => State::Paused,
            Breaker::Open { .. } => State::HalfOpen,
            Breaker::Closed => State::Closed,
        }
    }

    fn pause(&mut self, fault: Fault, now_ms: u64) {
        if let Some(pause_ms) = fault.retry_after_ms() {
            let pause_ms = pause_ms.min(self.config.pause_max_ms.into());
            let until_ms = now_ms.saturating_add(pause_ms);
            self.paused_until_ms = self.paused_until_ms.max(until_ms);
        }
    }

    fn is_failing(&mut self, now_ms: u64) -> bool {
        if self.in_a_row >= self.config.faults_in_a_row {
            return true;
        }
        let (calls, faults) = self.window.sums(now_ms);
        let percent = u64::from(self.config.fault_percent);
        calls >= self.config.calls_min.into()
            && faults.saturating_mul(100) >= calls.saturating_mul(percent)
    }

    fn free_probe(&mut self) {
        if let Breaker::Open { probe_until_ms, .. } = &mut self.breaker {
            *probe_until_ms = None;
        }
    }

    fn close(&mut self) {
        self.breaker = Breaker::Closed;
        self.begin_state();
    }

    fn open(&mut self, now_ms: u64, random: u64) {
        let most_ms = u64::from(self.config.open_max_ms);
        let open_ms = match self.breaker {
            Breaker::Closed => self.config.open_ms.into(),
            Breaker::Open { open_ms, .. } => open_ms.saturating_mul(2),
        };
        let open_ms = open_ms.min(most_ms);
        let spread_ms = jittered(open_ms, random).min(most_ms);
        self.breaker = Breaker::Open {
            until_ms: now_ms.saturating_add(spread_ms),
            open_ms,
            probe_until_ms: None,
        };
        self.begin_state();
    }

    fn begin_state(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.in_a_row = 0;
        self.window.clear();
    }
}

/// A tenth more or less.
fn jittered(ms: u64, random: u64) -> u64 {
    let tenth = ms.checked_div(10).unwrap_or_default();
    let least = ms.saturating_sub(tenth);
    least.saturating_add(part(tenth.saturating_mul(2), random))
}

/// 0 to `most`, evenly by a random number.
pub(crate) fn part(most: u64, random: u64) -> u64 {
    let product = u128::from(most.saturating_add(1)).saturating_mul(random.into());
    let part = product.checked_shr(u64::BITS).unwrap_or_default();
    u64::try_from(part).unwrap_or(most).min(most)
}

#[cfg(test)]
mod tests;
