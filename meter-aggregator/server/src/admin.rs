//! What an operator asks of the running aggregator.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weir_meter_core::hour::Hour;
use weir_process::{bears, now_ms};

use crate::{
    api::{Ingest, plain},
    ledger::{IntentCount, Line, Stuck},
};

/// How long `close-hour` waits for the stream to be quiet, and then for Stripe.
const CLOSE_MAX: Duration = Duration::from_secs(60);

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

/// The admin's paths.
pub fn routes() -> Router<Arc<Ingest>> {
    Router::new()
        .route("/admin/status", get(status))
        .route("/admin/close-hour", post(close_hour))
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
    let hour = Hour::of_ms(now_ms()).0;
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
                problem,
            })
        })
        .await;
    match found {
        Ok(status) => Json(status).into_response(),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
