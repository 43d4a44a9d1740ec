//! Whether billing falls behind: events that nobody books, hours that Stripe does not have,
//! a sender that can't send.
//!
//! What waits for the operator is not behind: it is shown elsewhere, and no restart of
//! anything would help it.

mod arrivals;
mod problems;

use std::fmt;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{hour::Hour, policy::Policy};

pub use arrivals::{Arrivals, Oldest};
pub use problems::{Problems, Round};

/// How late is too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long an event may wait in the stream, milliseconds.
    pub event_ms: i64,
    /// How long after it was to be planned Stripe may not have an hour, milliseconds.
    pub hour_ms: i64,
    /// For how long such an hour must have been seen, milliseconds: what comes to light
    /// days later makes its hour late at once, and is told Stripe within minutes.
    pub seen_ms: i64,
    /// How long the sender may have a problem, milliseconds.
    pub sender_ms: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            event_ms: 300_000,
            hour_ms: 7_200_000,
            seen_ms: 900_000,
            sender_ms: 900_000,
        }
    }
}

/// Of hours that Stripe does not wholly have the oldest that it was to have at `now_ms`.
#[must_use]
pub fn oldest_late(
    unbilled: impl IntoIterator<Item = Hour>,
    policy: &Policy,
    now_ms: i64,
) -> Option<Hour> {
    let now_s = now_ms.div_euclid(1_000);
    let hours = unbilled.into_iter();
    hours.filter(|h| h.is_over(now_s, policy.grace_s)).min()
}

/// How long ago an hour was to be planned, milliseconds.
#[must_use]
pub fn hour_lag_ms(hour: Hour, policy: &Policy, now_ms: i64) -> i64 {
    let end_s = hour.start_s().saturating_add(3_600);
    let planned_s = end_s.saturating_add(policy.grace_s);
    now_ms.saturating_sub(planned_s.saturating_mul(1_000))
}

/// What is seen at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen<'a> {
    /// When the oldest event was taken that waits in the stream, milliseconds of the Unix
    /// epoch.
    pub oldest_event_ms: Option<i64>,
    /// When it was last known how much waits in the stream, milliseconds of the Unix epoch;
    /// `None` of a stream that is always known.
    pub stream_known_ms: Option<i64>,
    /// [`oldest_late`].
    pub oldest_late: Option<Hour>,
    /// Why nothing can be sent, as the sender says it.
    pub problem: Option<&'a str>,
}

/// A reason to say that billing falls behind; in words, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behind {
    /// Events are not booked.
    Events {
        /// How long the oldest waits, milliseconds.
        for_ms: i64,
    },
    /// It is not known how much waits in the stream: nothing of it is booked, and perhaps
    /// nothing can be taken.
    Stream {
        /// For how long, milliseconds.
        for_ms: i64,
    },
    /// Stripe does not have an hour.
    Hour {
        /// The oldest.
        hour: Hour,
        /// How long ago it was to be planned, milliseconds.
        for_ms: i64,
    },
    /// Nothing can be sent.
    Sender {
        /// For how long, milliseconds.
        for_ms: i64,
        /// What the sender says.
        problem: String,
    },
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events { for_ms } => {
                write!(f, "an event waits in the stream for {}", Span(*for_ms))
            }
            Self::Stream { for_ms } => {
                write!(f, "the stream can't be looked at for {}", Span(*for_ms))
            }
            Self::Hour { hour, for_ms } => {
                let start = OffsetDateTime::from_unix_timestamp(hour.start_s()).ok();
                let start = start.and_then(|start| start.format(&Rfc3339).ok());
                write!(
                    f,
                    "Stripe does not have all of the hour from {}, which was to be planned {} ago",
                    start.unwrap_or_else(|| hour.to_string()),
                    Span(*for_ms)
                )
            }
            Self::Sender { for_ms, problem } => {
                write!(f, "nothing can be sent for {}: {problem}", Span(*for_ms))
            }
        }
    }
}

/// A span of milliseconds, in words.
struct Span(i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.div_euclid(60_000);
        match minutes {
            ..2 => write!(f, "{} s", self.0.div_euclid(1_000)),
            2..120 => write!(f, "{minutes} min"),
            120..2_880 => write!(f, "{} h", minutes.div_euclid(60)),
            _ => write!(f, "{} days", minutes.div_euclid(1_440)),
        }
    }
}

/// Looks now and then, and remembers since when what it saw was so.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    late_since_ms: Option<i64>,
    problem_since_ms: Option<i64>,
}

impl Watch {
    /// Takes what is seen at `now_ms`, and says why billing falls behind: it doesn't where
    /// there is no reason.
    pub fn see(
        &mut self,
        seen: &Seen<'_>,
        bounds: &Bounds,
        policy: &Policy,
        now_ms: i64,
    ) -> Vec<Behind> {
        let mut behind = Vec::new();
        let since = |at_ms: i64| now_ms.saturating_sub(at_ms);
        let waits_ms = seen.oldest_event_ms.map(since);
        if let Some(for_ms) = waits_ms.filter(|for_ms| *for_ms > bounds.event_ms) {
            behind.push(Behind::Events { for_ms });
        }
        let unknown_ms = seen.stream_known_ms.map(since);
        if let Some(for_ms) = unknown_ms.filter(|for_ms| *for_ms > bounds.event_ms) {
            behind.push(Behind::Stream { for_ms });
        }
        let lag = seen
            .oldest_late
            .map(|hour| (hour, hour_lag_ms(hour, policy, now_ms)));
        let late = lag.filter(|(_, for_ms)| *for_ms > bounds.hour_ms);
        self.late_since_ms = late.and(self.late_since_ms.or(Some(now_ms)));
        let seen_ms = self.late_since_ms.map_or(0, since);
        if let Some((hour, for_ms)) = late.filter(|_| seen_ms >= bounds.seen_ms) {
            behind.push(Behind::Hour { hour, for_ms });
        }
        self.problem_since_ms = seen.problem.and(self.problem_since_ms.or(Some(now_ms)));
        let for_ms = self.problem_since_ms.map_or(0, since);
        if let Some(problem) = seen.problem.filter(|_| for_ms > bounds.sender_ms) {
            behind.push(Behind::Sender {
                for_ms,
                problem: problem.to_owned(),
            });
        }
        behind
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const MINUTE_MS: i64 = 60_000;
    const HOUR_MS: i64 = 60 * MINUTE_MS;

    /// 2026-01-01T00:00:00Z.
    const HOUR: Hour = Hour(490_896);

    /// When that hour is to be planned.
    const PLANNED_MS: i64 = (HOUR.0 + 1) * HOUR_MS + 5 * MINUTE_MS;

    #[test]
    fn an_hour_is_late_once_it_is_to_be_planned() {
        let later = Hour(HOUR.0 + 1);
        let of = |hours: &[Hour], now_ms| oldest_late(hours.to_vec(), &Policy::default(), now_ms);
        assert_eq!(of(&[], PLANNED_MS), None);
        assert_eq!(of(&[HOUR], PLANNED_MS - 1), None);
        assert_eq!(of(&[HOUR], PLANNED_MS), Some(HOUR));
        assert_eq!(of(&[later, HOUR], PLANNED_MS), Some(HOUR));
        assert_eq!(of(&[later], PLANNED_MS), None);
        assert_eq!(of(&[later, HOUR], PLANNED_MS + HOUR_MS), Some(HOUR));
        assert_eq!(hour_lag_ms(HOUR, &Policy::default(), PLANNED_MS + 7), 7);
    }

    /// What each look finds, a minute apart.
    #[track_caller]
    fn check(looks: &[(Seen<'_>, i64)], expected: &[&str]) {
        let mut watch = Watch::default();
        let mut found = Vec::new();
        for (seen, at_ms) in looks {
            found = watch.see(seen, &Bounds::default(), &Policy::default(), *at_ms);
        }
        let found: Vec<String> = found.iter().map(Behind::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn events_that_wait_are_behind() {
        let seen = |oldest_event_ms| Seen {
            oldest_event_ms,
            ..Seen::default()
        };
        check(&[(seen(None), PLANNED_MS)], &[]);
        check(&[(seen(Some(PLANNED_MS)), PLANNED_MS + 5 * MINUTE_MS)], &[]);
        check(
            &[(seen(Some(PLANNED_MS)), PLANNED_MS + 7 * MINUTE_MS)],
            &["an event waits in the stream for 7 min"],
        );
    }

    #[test]
    fn a_stream_that_is_away_is_behind() {
        let seen = Seen {
            stream_known_ms: Some(PLANNED_MS),
            ..Seen::default()
        };
        check(&[(seen, PLANNED_MS + 5 * MINUTE_MS)], &[]);
        let behind = "the stream can't be looked at for 6 min";
        check(&[(seen, PLANNED_MS + 6 * MINUTE_MS)], &[behind]);
        check(
            &[(seen, PLANNED_MS + 6 * MINUTE_MS), (Seen::default(), 0)],
            &[],
        );
    }

    #[test]
    fn an_hour_is_behind_where_it_stays_so() {
        let late = Seen {
            oldest_late: Some(HOUR),
            ..Seen::default()
        };
        let at = |minutes: i64| PLANNED_MS + 3 * HOUR_MS + minutes * MINUTE_MS;
        let behind = "Stripe does not have all of the hour from 2026-01-01T00:00:00Z, which \
                      was to be planned 3 h ago";
        check(&[(late, PLANNED_MS), (late, PLANNED_MS + HOUR_MS)], &[]);
        check(&[(late, at(0))], &[]);
        check(&[(late, at(0)), (late, at(14))], &[]);
        check(&[(late, at(0)), (late, at(15))], &[behind]);
        // What came to light late was billed meanwhile.
        check(
            &[(late, at(0)), (Seen::default(), at(10)), (late, at(15))],
            &[],
        );
        check(
            &[(late, at(0)), (late, at(3 * 1_440))],
            &[&behind.replace("3 h", "3 days")],
        );
    }

    #[test]
    fn a_sender_is_behind_where_its_problem_lasts() {
        let of = |problem| Seen {
            problem,
            ..Seen::default()
        };
        let broken = of(Some("Stripe refuses the key"));
        let at = |minutes: i64| PLANNED_MS + minutes * MINUTE_MS;
        check(&[(broken, at(0)), (broken, at(15))], &[]);
        check(
            &[(of(Some("away")), at(0)), (broken, at(16))],
            &["nothing can be sent for 16 min: Stripe refuses the key"],
        );
        check(&[(broken, at(0)), (of(None), at(9)), (broken, at(16))], &[]);
    }
}
