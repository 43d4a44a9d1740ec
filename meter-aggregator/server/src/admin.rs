//! What an operator asks of the running aggregator.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use weir_meter_core::hour::Hour;
use weir_process::{bears, now_ms};
use weir_wire::ids::{RequestId, TenantId};

use crate::{
    api::{Ingest, plain},
    ledger::{Gap, IntentCount, Line, Stuck, Wanted},
    tail::LogStatus,
};

/// How long `close-hour` waits for the stream to be quiet, and then for Stripe.
const CLOSE_MAX: Duration = Duration::from_secs(60);

/// How many requests are shown where nothing is said.
const LIMIT_DEFAULT: u32 = 100;

/// The most requests that are shown at a time.
const LIMIT_MAX: u32 = 10_000;

/// The state of the books.
#[derive(Debug, Serialize)]
pub struct Status {
    /// This hour's lines, and every line that Stripe does not wholly have.
    pub lines: Vec<Line>,
    /// Intents by state.
    pub intents: Vec<IntentCount>,
    /// Intents that wait for the operator.
    pub stuck: Vec<Stuck>,
    /// Tenants that used something and have no customer at Stripe.
    pub without_customer: BTreeSet<String>,
    /// Intents that still have to be sent.
    pub open: i64,
    /// Witnesses that contradicted themselves.
    pub conflicts: i64,
    /// Events that were set aside.
    pub quarantined: i64,
    /// Events that a producer numbered and nobody brought.
    pub missing: u64,
    /// Where they are missing, the oldest first, a hundred at the most.
    pub gaps: Vec<Gap>,
    /// The access logs that are followed.
    pub logs: Vec<LogStatus>,
    /// Why nothing could be sent, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How `close-hour` is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Close {
    /// How long nothing must have come before the books are closed.
    quiet_ms: u64,
}

/// How events are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Events {
    tenant: Option<String>,
    request: Option<String>,
    /// Milliseconds of the Unix epoch.
    since_ms: Option<i64>,
    before: Option<String>,
    limit: Option<u32>,
}

impl Events {
    /// What is asked for, or what is wrong with it.
    fn wanted(self) -> Result<Wanted, String> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(format!("limit: must be 1 to {LIMIT_MAX}, found {limit}"));
        }
        for (name, id) in [("request", &self.request), ("before", &self.before)] {
            if let Some(Err(error)) = id.as_deref().map(RequestId::parse) {
                return Err(format!("{name}: {error}"));
            }
        }
        if let Some(Err(error)) = self.tenant.as_deref().map(TenantId::new) {
            return Err(format!("tenant: {error}"));
        }
        Ok(Wanted {
            tenant: self.tenant,
            request_id: self.request,
            since_ms: self.since_ms,
            before: self.before,
            limit,
        })
    }
}

/// The admin's paths.
pub fn routes() -> Router<Arc<Ingest>> {
    Router::new()
        .route("/admin/status", get(status))
        .route("/admin/close-hour", post(close_hour))
        .route("/admin/events", get(events))
}

async fn status(State(ingest): State<Arc<Ingest>>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refuse_others(&ingest, &headers) {
        return refusal;
    }
    answer(&ingest, None).await
}

async fn close_hour(
    State(ingest): State<Arc<Ingest>>,
    headers: HeaderMap,
    Query(close): Query<Close>,
) -> Response {
    if let Some(refusal) = refuse_others(&ingest, &headers) {
        return refusal;
    }
    let now = Instant::now();
    let deadline = now.checked_add(CLOSE_MAX).unwrap_or(now);
    wait_for_quiet(&ingest, Duration::from_millis(close.quiet_ms), deadline).await;
    let problem = close_books(&ingest, deadline).await.err();
    answer(&ingest, problem).await
}

async fn events(
    State(ingest): State<Arc<Ingest>>,
    headers: HeaderMap,
    query: Result<Query<Events>, QueryRejection>,
) -> Response {
    if let Some(refusal) = refuse_others(&ingest, &headers) {
        return refusal;
    }
    let wanted = match query {
        Ok(Query(query)) => query.wanted(),
        Err(rejection) => Err(rejection.body_text()),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(message) => return plain(StatusCode::BAD_REQUEST, &message),
    };
    let single = wanted.request_id.clone();
    let found = match ingest.books.book_all().await {
        Ok(()) => ingest.books.with(move |l| l.requests(&wanted)).await,
        Err(error) => Err(error),
    };
    match (found, single) {
        (Ok(requests), Some(id)) if requests.is_empty() => plain(
            StatusCode::NOT_FOUND,
            &format!("request: the ledger has nothing of {id}"),
        ),
        (Ok(requests), _) => Json(json!({"requests": requests})).into_response(),
        (Err(error), _) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// An answer for whoever is not the operator.
fn refuse_others(ingest: &Ingest, headers: &HeaderMap) -> Option<Response> {
    let operator = bears(headers, &ingest.admin_token);
    (!operator).then(|| {
        plain(
            StatusCode::UNAUTHORIZED,
            "authorization: not the admin token",
        )
    })
}

/// Events may still be on their way from gateways and routers.
async fn wait_for_quiet(ingest: &Ingest, quiet: Duration, deadline: Instant) {
    let mut tail = ingest.stream.tail.clone();
    tail.mark_unchanged();
    while Instant::now() < deadline {
        if tokio::time::timeout(quiet, tail.changed()).await.is_err() {
            return;
        }
    }
}

/// Books, plans and sends all there is, until Stripe has it or it is too late.
async fn close_books(ingest: &Ingest, deadline: Instant) -> Result<(), String> {
    let text = |e: crate::ledger::LedgerError| e.to_string();
    ingest.books.book_all().await.map_err(text)?;
    loop {
        // What changed while an earlier revision was open is planned now.
        ingest.sender.plan(true).await.map_err(text)?;
        ingest.books.with(|l| l.hurry()).await.map_err(text)?;
        let sent = ingest.sender.send_due().await;
        let open = ingest
            .books
            .with(|l| l.open_intents())
            .await
            .map_err(text)?;
        if open == 0 && sent.is_ok() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(match sent {
                Ok(()) => "Stripe has not taken everything yet; it is tried on".to_owned(),
                Err(error) => error.to_string(),
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn answer(ingest: &Ingest, problem: Option<String>) -> Response {
    let now_ms = now_ms();
    let hour = Hour::of_ms(now_ms).0;
    let logs = ingest.logs.iter().map(|log| log.status()).collect();
    let billable = ingest.sender.billable();
    let found = ingest
        .books
        .with_both(move |ledger, stream| {
            let lines = ledger.summary(hour)?;
            let unsent = lines.iter().filter(|l| l.total != l.accepted);
            Ok(Status {
                without_customer: unsent
                    .map(|l| l.tenant.clone())
                    .filter(|t| !billable.contains(t))
                    .collect(),
                lines,
                stuck: ledger.stuck()?,
                intents: ledger.intent_counts()?,
                open: ledger.open_intents()?,
                conflicts: ledger.conflicts()?,
                quarantined: stream.quarantined()?,
                missing: ledger.missing(now_ms)?,
                gaps: ledger.gaps(now_ms)?,
                logs,
                problem,
            })
        })
        .await;
    match found {
        Ok(status) => Json(status).into_response(),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
