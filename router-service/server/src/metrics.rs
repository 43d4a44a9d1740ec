//! What the router counts of itself, for Prometheus, and the listener that shows it.
//!
//! Labels are names of the configuration and of the catalogue, or words of ours:
//! they are bounded. Tenants, and what clients write, are none.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{StatusCode, header};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TEXT_FORMAT, TextEncoder,
    core::{Collector, GenericCounterVec},
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weir_dialects::routes::RequestClass;
use weir_router_core::{
    attempts::GaveUp,
    health::{Fault, State as BreakerState},
};
use weir_router_store::spool::Spool;
use weir_wire::proto::usage::Outcome;

/// What each name begins with.
const NAMESPACE: &str = "weir_router";

/// Seconds to the first token: from what a cache answers to what nobody waits for.
const FIRST_TOKEN_S: [f64; 12] = [
    0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0,
];

/// Seconds in a queue.
const QUEUE_S: [f64; 11] = [
    0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0,
];

/// How long whoever reads them may take to, after a signal to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What became of a wish to hold a part of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldResult {
    /// It is held.
    Held,
    /// The budget is so far used that another model serves.
    Near,
    /// There is no room for it.
    Refused,
    /// The store does not answer.
    Unavailable,
}

impl HoldResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Near => "near",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Counts; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Counted>);

struct Counted {
    registry: Registry,
    requests: IntCounterVec,
    attempts: IntCounterVec,
    failovers: IntCounter,
    hedges: IntCounterVec,
    gave_up: IntCounterVec,
    breaker: IntGaugeVec,
    first_token: HistogramVec,
    queue_time: HistogramVec,
    queue_length: IntGaugeVec,
    queue_refused: IntCounterVec,
    holds: IntCounterVec,
    swept: IntCounter,
    alerts: IntCounter,
    spool_events: IntGauge,
    spool_refused: IntGauge,
    spool: OnceLock<Spool>,
}

/// Makes metrics and registers them.
struct Maker(Registry);

impl Maker {
    fn registered<C: Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<C>,
    ) -> prometheus::Result<C> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace(NAMESPACE)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.registered(IntCounter::with_opts(Self::opts(name, help)))
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.registered(GenericCounterVec::new(Self::opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.registered(IntGauge::with_opts(Self::opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.registered(IntGaugeVec::new(Self::opts(name, help), labels))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets_s: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(buckets_s.to_vec());
        self.registered(HistogramVec::new(opts, labels))
    }
}

impl Counted {
    #[rustfmt::skip] // one metric to a line
    fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = Maker(registry.clone());
        let way = ["provider", "model"];
        Ok(Self {
            requests: make.counters("requests_total", "Requests, by class and how they ended.", &["class", "outcome"])?,
            attempts: make.counters("attempts_total", "Calls of providers, by what became of them.", &["provider", "model", "result"])?,
            failovers: make.counter("failovers_total", "Attempts at another model after one failed.")?,
            hedges: make.counters("hedges_total", "Second calls beside a slow one: started, and those that were faster.", &["event"])?,
            gave_up: make.counters("given_up_total", "Requests for which nothing more was tried, by why; budget is that of retries.", &["reason"])?,
            breaker: make.gauges("breaker_state", "1 for the state that a model of a provider is in.", &["provider", "model", "state"])?,
            first_token: make.histograms("first_token_seconds", "From the request to the first content of its answer.", &way, &FIRST_TOKEN_S)?,
            queue_time: make.histograms("queue_seconds", "How long requests waited for a place at a provider that tenants share.", &["provider"], &QUEUE_S)?,
            queue_length: make.gauges("queue_length", "Requests that wait for a place.", &["provider"])?,
            queue_refused: make.counters("queue_refused_total", "Requests for which a queue had no room, or that waited too long.", &["provider"])?,
            holds: make.counters("budget_holds_total", "Wishes to hold a part of a budget, by what became of them.", &["result"])?,
            swept: make.counter("budget_swept_total", "Holds whose life was over before they were settled.")?,
            alerts: make.counter("budget_alerts_total", "Shares of budgets that were reached, and told.")?,
            spool_events: make.gauge("spool_events", "Witness events that wait for the aggregator.")?,
            spool_refused: make.gauge("spool_refused", "Witness events that the spool had no room for, since the start.")?,
            spool: OnceLock::new(),
            registry,
        })
    }
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Never, as long as no two have one name.
    pub fn new() -> anyhow::Result<Self> {
        let counted = Counted::new().context("metrics")?;
        Ok(Self(Arc::new(counted)))
    }

    /// A request ended.
    pub fn request(&self, class: RequestClass, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Completed => "completed",
            Outcome::ClientDisconnected => "client-disconnected",
            Outcome::UpstreamError => "upstream-error",
            Outcome::Rejected => "rejected",
            Outcome::Unspecified => "unknown",
        };
        let labels = [class.as_str(), outcome];
        self.0.requests.with_label_values(&labels).inc();
    }

    /// A call of a provider ended. `model` is the catalogue's name.
    pub fn attempt(&self, provider: &str, model: &str, fault: Option<Fault>) {
        let result = fault.map_or("ok", Fault::as_str);
        let labels = [provider, model, result];
        self.0.attempts.with_label_values(&labels).inc();
    }

    /// Another model takes over after one failed.
    pub fn failed_over(&self) {
        self.0.failovers.inc();
    }

    /// A second call was started beside one that was slow.
    pub fn hedged(&self) {
        self.0.hedges.with_label_values(&["started"]).inc();
    }

    /// It was the faster one.
    pub fn hedge_won(&self) {
        self.0.hedges.with_label_values(&["won"]).inc();
    }

    /// Nothing more is tried for a request.
    pub fn gave_up(&self, why: GaveUp) {
        let reason = match why {
            GaveUp::Closed => "closed",
            GaveUp::Attempts => "attempts",
            GaveUp::Deadline => "deadline",
            GaveUp::Budget => "budget",
            GaveUp::Hopeless => "hopeless",
        };
        self.0.gave_up.with_label_values(&[reason]).inc();
    }

    /// The state that a model of a provider is in from now on.
    pub fn breaker(&self, provider: &str, model: &str, state: BreakerState) {
        for (other, name) in [
            (BreakerState::Closed, "closed"),
            (BreakerState::Paused, "paused"),
            (BreakerState::Open, "open"),
            (BreakerState::HalfOpen, "half-open"),
        ] {
            let labels = [provider, model, name];
            let gauge = self.0.breaker.with_label_values(&labels);
            gauge.set(i64::from(other == state));
        }
    }

    /// The first content of an answer came, so long after the request.
    pub fn first_token(&self, provider: &str, model: &str, after: Duration) {
        let labels = [provider, model];
        let histogram = self.0.first_token.with_label_values(&labels);
        histogram.observe(after.as_secs_f64());
    }

    /// So many requests wait for a place at that provider.
    pub fn queue_length(&self, provider: &str, length: usize) {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let gauge = self.0.queue_length.with_label_values(&[provider]);
        gauge.set(length);
    }

    /// A queue had no room for a request, or it waited too long.
    pub fn queue_refused(&self, provider: &str) {
        self.0.queue_refused.with_label_values(&[provider]).inc();
    }

    /// A request waited so long, and has its place.
    pub fn queued(&self, provider: &str, time: Duration) {
        let histogram = self.0.queue_time.with_label_values(&[provider]);
        histogram.observe(time.as_secs_f64());
    }

    /// A part of a budget was to be held.
    pub fn hold(&self, result: HoldResult) {
        self.0.holds.with_label_values(&[result.as_str()]).inc();
    }

    /// So many holds were swept.
    pub fn swept(&self, holds: usize) {
        let holds = u64::try_from(holds).unwrap_or(u64::MAX);
        self.0.swept.inc_by(holds);
    }

    /// Somebody was told that a share of a budget is reached.
    pub fn alerted(&self) {
        self.0.alerts.inc();
    }

    /// From now on that spool is looked at whenever somebody asks.
    pub fn watch_spool(&self, spool: Spool) {
        let _ = self.0.spool.set(spool);
    }

    /// All of it in Prometheus' text format.
    ///
    /// # Errors
    /// Where a metric can't be written down, which none of ours is.
    pub fn text(&self) -> prometheus::Result<String> {
        let counted = &self.0;
        if let Some(spool) = counted.spool.get() {
            let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            counted.spool_events.set(signed(spool.len()));
            counted.spool_refused.set(signed(spool.refused()));
        }
        TextEncoder::new().encode_to_string(&counted.registry.gather())
    }
}

/// The section `metrics` of the router's configuration.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    listen: SocketAddr,
}

/// A listener of its own for `GET /metrics`.
pub struct Server {
    pub address: SocketAddr,
    listener: TcpListener,
    metrics: Metrics,
}

impl Server {
    /// Listens.
    pub async fn open(section: Section, metrics: Metrics) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(section.listen)
            .await
            .with_context(|| format!("metrics.listen: cannot bind {}", section.listen))?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            metrics,
        })
    }

    /// Serves until `stopping`.
    pub async fn serve(self, stopping: CancellationToken) {
        let routes = Router::new()
            .route("/metrics", get(show))
            .route("/healthz", get(|| async { "ok" }))
            .with_state(self.metrics);
        let stop = stopping.cancelled_owned();
        drop(weir_process::serve(self.listener, routes, stop, STOP_GRACE).await);
    }
}

async fn show(State(metrics): State<Metrics>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written down");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(metrics: &Metrics, line: &str) {
        let text = metrics.text().unwrap();
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }

    #[test]
    fn what_happens_is_counted() {
        let metrics = Metrics::new().unwrap();
        metrics.request(RequestClass::Chat, Outcome::Completed);
        metrics.request(RequestClass::Chat, Outcome::Completed);
        metrics.attempt("openai", "gpt-4o", None);
        let limited = Fault::RateLimited {
            retry_after_ms: None,
        };
        metrics.attempt("openai", "gpt-4o", Some(limited));
        metrics.failed_over();
        metrics.hedged();
        metrics.hedge_won();
        metrics.gave_up(GaveUp::Budget);
        metrics.breaker("openai", "gpt-4o", BreakerState::Open);
        metrics.breaker("openai", "gpt-4o", BreakerState::HalfOpen);
        metrics.first_token("openai", "gpt-4o", Duration::from_millis(300));
        metrics.queue_length("self-hosted", 7);
        metrics.queue_refused("self-hosted");
        metrics.queued("self-hosted", Duration::from_millis(30));
        metrics.hold(HoldResult::Near);
        metrics.swept(3);
        metrics.alerted();
        for line in [
            r#"weir_router_requests_total{class="chat",outcome="completed"} 2"#,
            r#"weir_router_attempts_total{model="gpt-4o",provider="openai",result="ok"} 1"#,
            r#"weir_router_attempts_total{model="gpt-4o",provider="openai",result="rate-limited"} 1"#,
            "weir_router_failovers_total 1",
            r#"weir_router_hedges_total{event="started"} 1"#,
            r#"weir_router_hedges_total{event="won"} 1"#,
            r#"weir_router_given_up_total{reason="budget"} 1"#,
            r#"weir_router_breaker_state{model="gpt-4o",provider="openai",state="open"} 0"#,
            r#"weir_router_breaker_state{model="gpt-4o",provider="openai",state="half-open"} 1"#,
            r#"weir_router_first_token_seconds_bucket{model="gpt-4o",provider="openai",le="0.2"} 0"#,
            r#"weir_router_first_token_seconds_bucket{model="gpt-4o",provider="openai",le="0.35"} 1"#,
            r#"weir_router_queue_length{provider="self-hosted"} 7"#,
            r#"weir_router_queue_refused_total{provider="self-hosted"} 1"#,
            r#"weir_router_queue_seconds_count{provider="self-hosted"} 1"#,
            r#"weir_router_budget_holds_total{result="near"} 1"#,
            "weir_router_budget_swept_total 3",
            "weir_router_budget_alerts_total 1",
            "weir_router_spool_events 0",
        ] {
            check(&metrics, line);
        }
    }

    #[tokio::test]
    async fn a_listener_shows_them_with_the_spool() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&folder.path().join("spool.db"), 8).unwrap();
        assert!(spool.append(vec![1; 8]).unwrap().durable().await);
        assert!(spool.append(vec![1]).is_err());
        let metrics = Metrics::new().unwrap();
        metrics.watch_spool(spool);
        let section = serde_saphyr::from_str("listen: 127.0.0.1:0").unwrap();
        let server = Server::open(section, metrics).await.unwrap();
        let url = format!("http://{}", server.address);
        let stopping = CancellationToken::new();
        let serving = tokio::spawn(server.serve(stopping.clone()));
        let answer = reqwest::get(format!("{url}/metrics")).await.unwrap();
        assert_eq!(answer.headers()["content-type"], TEXT_FORMAT);
        let text = answer.text().await.unwrap();
        assert!(text.contains("\nweir_router_spool_events 1\n"), "{text}");
        assert!(text.contains("\nweir_router_spool_refused 1\n"), "{text}");
        let other = reqwest::get(format!("{url}/")).await.unwrap();
        assert_eq!(other.status(), StatusCode::NOT_FOUND);
        stopping.cancel();
        serving.await.unwrap();
    }
}
