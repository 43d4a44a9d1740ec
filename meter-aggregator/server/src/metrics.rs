//! What the aggregator counts of itself, for Prometheus, and whether billing keeps up.
//!
//! Labels are words of ours: they are bounded, and no tenant is one. What is in the ledger
//! and the stream is looked up when it is asked for, at most once in some seconds; with
//! replicas each tells the same of it, so take their maximum.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    register_int_counter_vec_with_registry, register_int_counter_with_registry,
    register_int_gauge_vec_with_registry, register_int_gauge_with_registry,
};
use tokio::{sync::Mutex, time::Instant};
use weir_meter_core::{
    hour::Hour,
    intent::State,
    lag::{self, Behind, Problems, Seen, Watch},
    ledger::{DiscrepancyKind, plan::Billable as _},
};
use weir_process::now_ms;

use crate::api::Parts;

/// What each name begins with.
const NAMESPACE: &str = "weir_aggregator";

/// How long the ledger and the stream may take to be looked at.
const LOOK_MAX: Duration = Duration::from_secs(4);

/// What was looked up counts for so long.
const FRESH: Duration = Duration::from_secs(2);

/// What became of a call to Stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// Stripe took it.
    Accepted,
    /// Stripe refused it.
    Refused,
    /// No answer came, or one that is no answer to it.
    Unanswered,
}

/// Counts; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Counted>);

struct Counted {
    registry: Registry,
    taken: IntCounterVec,
    booked: IntCounter,
    booking_failed: IntCounter,
    calls: IntCounterVec,
    lost: IntCounter,
    shards: IntGauge,
    unbooked: IntGauge,
    oldest_unbooked_s: IntGauge,
    oldest_unbilled_s: IntGauge,
    waiting: IntGauge,
    intents: IntGaugeVec,
    adjustments: IntGauge,
    discrepancies: IntGaugeVec,
    quarantined: IntGauge,
    missing: IntGauge,
    behind: IntGauge,
    looked_s: IntGauge,
    problems: std::sync::Mutex<Problems>,
    looked: Mutex<Looked>,
}

/// What was seen when it was looked last.
#[derive(Default)]
struct Looked {
    at: Option<Instant>,
    watch: Watch,
    behind: Vec<Behind>,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Where two have one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace(NAMESPACE);
        let counter = |name: &str, help: &str| {
            register_int_counter_with_registry!(opts(name, help), registry)
        };
        let counters = |name: &str, help: &str, label: &str| {
            register_int_counter_vec_with_registry!(opts(name, help), &[label], registry)
        };
        let gauge =
            |name: &str, help: &str| register_int_gauge_with_registry!(opts(name, help), registry);
        let gauges = |name: &str, help: &str, label: &str| {
            register_int_gauge_vec_with_registry!(opts(name, help), &[label], registry)
        };
        Ok(Self(Arc::new(Counted {
            taken: counters(
                "events_taken_total",
                "Events that were made durable here: accepted, or set aside in quarantine.",
                "result",
            )?,
            booked: counter("events_booked_total", "Events that were booked here.")?,
            booking_failed: counter(
                "bookings_failed_total",
                "Booking transactions that failed and were tried again.",
            )?,
            calls: counters(
                "stripe_meter_events_total",
                "Meter events sent to Stripe from here, by what came of it.",
                "result",
            )?,
            lost: counter(
                "stream_entries_lost_total",
                "Entries that somebody else trimmed off the stream before they were booked.",
            )?,
            shards: gauge(
                "shards_held",
                "Shards of the tenants that this replica holds.",
            )?,
            unbooked: gauge(
                "unbooked_entries",
                "What waits in the stream to be booked: events, in Redis entries of several.",
            )?,
            oldest_unbooked_s: gauge(
                "oldest_unbooked_seconds",
                "How long the oldest of it waits, in seconds; 0 where nothing does.",
            )?,
            oldest_unbilled_s: gauge(
                "oldest_unbilled_hour_seconds",
                "How long the oldest hour is over that Stripe does not wholly have, of tenants \
                 with a customer, in seconds; 0 where there is none.",
            )?,
            waiting: gauge(
                "requests_waiting",
                "Requests that wait for their second witness.",
            )?,
            intents: gauges("intents", "Intents by state.", "state")?,
            adjustments: gauge(
                "adjustments_proposed",
                "Adjustments that wait for an operator's word.",
            )?,
            discrepancies: gauges("discrepancies_open", "Open discrepancies by kind.", "kind")?,
            quarantined: gauge("quarantined_events", "Events in quarantine.")?,
            missing: gauge(
                "missing_events",
                "Events that their producers numbered and nobody brought.",
            )?,
            behind: gauge(
                "billing_behind",
                "1 where billing fell behind or can't be looked at, else 0.",
            )?,
            looked_s: gauge(
                "last_look_timestamp_seconds",
                "When the ledger and the stream were last looked at, seconds of the Unix epoch.",
            )?,
            problems: std::sync::Mutex::default(),
            looked: Mutex::default(),
            registry,
        })))
    }

    /// Events were made durable.
    pub fn taken(&self, accepted: u32, quarantined: u32) {
        let of = |result: &str| self.0.taken.with_label_values(&[result]);
        of("accepted").inc_by(accepted.into());
        of("quarantined").inc_by(quarantined.into());
    }

    /// Events were booked.
    pub fn booked(&self, events: usize) {
        self.0.booked.inc_by(u64::try_from(events).unwrap_or(0));
    }

    /// A booking transaction failed.
    pub fn booking_failed(&self) {
        self.0.booking_failed.inc();
    }

    /// Entries are gone that were not booked.
    pub fn lost(&self, entries: usize) {
        self.0.lost.inc_by(u64::try_from(entries).unwrap_or(0));
    }

    /// A meter event was sent.
    pub fn called(&self, result: Called) {
        let result = match result {
            Called::Accepted => "accepted",
            Called::Refused => "refused",
            Called::Unanswered => "unanswered",
        };
        self.0.calls.with_label_values(&[result]).inc();
    }

    /// All of them, as Prometheus reads them (its text format, 0.0.4). What can't be
    /// looked up is as it was.
    ///
    /// # Errors
    /// Where they can't be written.
    pub async fn text(&self, parts: &Parts) -> prometheus::Result<String> {
        if let Err(error) = self.behind(parts).await {
            tracing::warn!(error = format!("{error:#}"), "not all can be counted");
        }
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }

    /// Why billing is behind; nothing where it keeps up.
    ///
    /// # Errors
    /// Where the ledger or the stream can't be looked at.
    pub async fn behind(&self, parts: &Parts) -> anyhow::Result<Vec<Behind>> {
        let looked = match tokio::time::timeout(LOOK_MAX, self.look(parts)).await {
            Ok(looked) => looked,
            Err(_) => Err(anyhow::anyhow!(
                "the ledger or the stream did not answer in {LOOK_MAX:?}"
            )),
        };
        if looked.is_err() {
            self.0.behind.set(1);
        }
        looked
    }

    async fn look(&self, parts: &Parts) -> anyhow::Result<Vec<Behind>> {
        let mut looked = self.0.looked.lock().await;
        if looked.at.is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(looked.behind.clone());
        }
        let now_ms = now_ms();
        let (books, intake) = (&parts.books, parts.books.intake());
        let settled_ms = intake.settled_ms(now_ms);
        let seen = books
            .look(move |ledger| {
                Ok((
                    ledger.intent_counts()?,
                    ledger.discrepancy_counts()?,
                    ledger.unbilled(Hour::of_ms(now_ms))?,
                    (
                        ledger.waiting()?,
                        ledger.proposed()?,
                        ledger.missing(settled_ms)?,
                    ),
                ))
            })
            .await?;
        let (intents, discrepancies, unbilled, (waiting, proposed, missing)) = seen;
        let counted = &self.0;
        for state in State::ALL {
            let found = intents.iter().find(|count| count.state == state.as_str());
            let gauge = counted.intents.with_label_values(&[state.as_str()]);
            gauge.set(found.map_or(0, |count| count.count));
        }
        for kind in DiscrepancyKind::ALL {
            let found = discrepancies.iter().find(|c| c.state == kind.as_str());
            let gauge = counted.discrepancies.with_label_values(&[kind.as_str()]);
            gauge.set(found.map_or(0, |count| count.count));
        }
        let policy = &books.billing().policy;
        let configured = parts.sender.configured();
        let hours = unbilled
            .into_iter()
            .filter(|(tenant, meter, _)| configured.is_billable(tenant, meter))
            .map(|(_, _, hour)| hour);
        let problem = self.problems().first().map(str::to_owned);
        let seen = Seen {
            oldest_event_ms: intake.oldest_ms(),
            stream_known_ms: intake.known_ms(),
            oldest_late: lag::oldest_late(hours, policy, now_ms),
            problem: problem.as_deref(),
        };
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let since_s = |ms: i64| now_ms.saturating_sub(ms).max(0) / 1_000;
        counted.waiting.set(waiting);
        counted.adjustments.set(proposed);
        counted.missing.set(signed(missing));
        counted.unbooked.set(signed(intake.unbooked()));
        counted
            .oldest_unbooked_s
            .set(seen.oldest_event_ms.map_or(0, since_s));
        let ended_ms = |hour: Hour| hour.start_s().saturating_add(3_600).saturating_mul(1_000);
        let unbilled_s = seen.oldest_late.map(|hour| since_s(ended_ms(hour)));
        counted.oldest_unbilled_s.set(unbilled_s.unwrap_or(0));
        counted.shards.set(books.held().borrow().share().into());
        counted.quarantined.set(intake.quarantined().await?);
        let behind = looked.watch.see(&seen, &parts.bounds, policy, now_ms);
        counted.behind.set(i64::from(!behind.is_empty()));
        let known_ms = seen.stream_known_ms.unwrap_or(now_ms).min(now_ms);
        counted.looked_s.set(known_ms / 1_000);
        looked.at = Some(Instant::now());
        looked.behind.clone_from(&behind);
        Ok(behind)
    }

    /// Why nothing can be sent.
    pub fn problems(&self) -> std::sync::MutexGuard<'_, Problems> {
        let problems = self.0.problems.lock();
        problems.unwrap_or_else(PoisonError::into_inner)
    }
}
