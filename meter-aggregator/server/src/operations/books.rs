//! The books: how they stand, single requests, and closing an hour before its end.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weir_meter_core::{
    hour::Hour,
    lease::{Scope, Shard},
    ledger::closing,
    shown::Request,
};
use weir_meter_store::ledger::{Billing, Count, Gap, LedgerError, Line, Stuck, Wanted};
use weir_process::now_ms;
use weir_wire::ids::RequestId;

use super::{Refused, limit, quarantine::failed, tenant};
use crate::{api::Parts, rounds::close_scope, tail::LogStatus};

/// How long `close-hour` waits for the stream to be quiet, and then for Stripe.
const CLOSE_MAX: Duration = Duration::from_secs(60);

/// How the state of the books is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// With the lines, which take the longest; so it is where nothing is said.
    pub lines: Option<bool>,
}

/// The state of the books.
#[derive(Debug, Serialize)]
pub struct State {
    /// The lines of this hour and of the one before, and every line that Stripe does not
    /// wholly have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<Line>>,
    /// Intents by state.
    pub intents: Vec<Count>,
    /// Intents that wait for the operator.
    pub stuck: Vec<Stuck>,
    /// Tenants that used something and have no customer at Stripe.
    pub without_customer: BTreeSet<String>,
    /// Intents that still have to be sent.
    pub open: i64,
    /// Adjustments that wait for the operator.
    pub adjustments: i64,
    /// Witnesses that contradicted themselves.
    pub conflicts: i64,
    /// Open discrepancies by kind, the conflicts among them.
    pub discrepancies: Vec<Count>,
    /// Requests that wait for their second witness.
    pub waiting: i64,
    /// Events that are durable and not booked yet.
    pub unbooked: u64,
    /// Bytes of the stream's file that are in use.
    pub spool_bytes: u64,
    /// Events that were set aside.
    pub quarantined: i64,
    /// Events that a producer numbered and nobody brought.
    pub missing: u64,
    /// Where they are missing, the oldest first, a hundred at the most.
    pub gaps: Vec<Gap>,
    /// The access logs that are followed.
    pub logs: Vec<LogStatus>,
    /// What came of Stripe's webhooks.
    pub billing: Billing,
    /// Why nothing could be sent, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Status {
    pub(super) async fn perform(self, parts: &Parts) -> Result<State, Refused> {
        state(parts, self.lines.unwrap_or(true), None).await
    }
}

/// How `close-hour` is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseHour {
    /// How long nothing must have come before the books are closed.
    pub quiet_ms: u64,
}

impl CloseHour {
    pub(super) async fn perform(self, parts: &Parts) -> Result<State, Refused> {
        let now = Instant::now();
        let deadline = now.checked_add(CLOSE_MAX).unwrap_or(now);
        wait_for_quiet(parts, Duration::from_millis(self.quiet_ms), deadline).await;
        let begun_ms = now_ms();
        let mut problem = close_books(parts, deadline).await.err();
        let intake = parts.books.intake();
        if problem.is_none() && (intake.look().await.is_err() || !intake.is_booked_upto(begun_ms)) {
            problem = Some("events that came before are not booked".to_owned());
        }
        state(parts, true, problem).await
    }
}

/// How events are asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Of this tenant alone.
    pub tenant: Option<String>,
    /// This request alone.
    pub request: Option<String>,
    /// Not older, milliseconds of the Unix epoch.
    pub since_ms: Option<i64>,
    /// Older than this request.
    pub before: Option<String>,
    /// How many at the most.
    pub limit: Option<u32>,
}

/// Requests as the ledger has them.
#[derive(Debug, Serialize)]
pub struct Requests {
    /// The newest first.
    pub requests: Vec<Request>,
}

impl Events {
    pub(super) async fn perform(self, parts: &Parts) -> Result<Requests, Refused> {
        let single = self.request.clone();
        let wanted = self.wanted()?;
        parts.books.book_all().await?;
        let tariff = parts.books.billing().tariff.clone();
        let requests = parts
            .books
            .look(move |ledger| ledger.requests(&wanted, &tariff))
            .await?;
        match single {
            Some(id) if requests.is_empty() => Err(Refused::Missing(format!(
                "request: the ledger has nothing of {id}"
            ))),
            _ => Ok(Requests { requests }),
        }
    }

    /// What is asked for, or what is wrong with it.
    fn wanted(self) -> Result<Wanted, Refused> {
        for (name, id) in [("request", &self.request), ("before", &self.before)] {
            if let Some(Err(error)) = id.as_deref().map(RequestId::parse) {
                return Err(Refused::Wrong(format!("{name}: {error}")));
            }
        }
        tenant(self.tenant.as_deref())?;
        Ok(Wanted {
            limit: limit(self.limit)?,
            tenant: self.tenant,
            request_id: self.request,
            since_ms: self.since_ms,
            before: self.before,
        })
    }
}

/// Events may still be on their way from gateways and routers.
async fn wait_for_quiet(parts: &Parts, quiet: Duration, deadline: Instant) {
    let mut tail = parts.books.intake().tail();
    tail.mark_unchanged();
    while Instant::now() < deadline {
        if tokio::time::timeout(quiet, tail.changed()).await.is_err() {
            return;
        }
    }
}

/// Between two rounds of closing.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

/// Books, plans and sends all there is, until Stripe has it or it is too late.
async fn close_books(parts: &Parts, deadline: Instant) -> Result<(), String> {
    let text = |e: LedgerError| format!("{:#}", anyhow::Error::new(e));
    let mut was_open = true;
    loop {
        // What changed while an earlier revision was open is planned in the round after.
        let round = match parts.books.is_shared() {
            true => close_round_of_all(parts, deadline).await,
            false => close_scope(&parts.sender, &parts.books, Scope::Whole)
                .await
                .map_err(|error| format!("{error:#}")),
        };
        let open = parts.books.look(|l| l.open_intents()).await.map_err(text)?;
        if open == 0 && !was_open && round.is_ok() {
            return Ok(());
        }
        was_open = open > 0 || round.is_err();
        if Instant::now() >= deadline {
            return Err(match round {
                Ok(()) => "Stripe has not taken everything yet; it is tried on".to_owned(),
                Err(error) => error,
            });
        }
        if was_open {
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }
}

/// Has every shard's holder close its books, this process or another.
async fn close_round_of_all(parts: &Parts, deadline: Instant) -> Result<(), String> {
    let text = |e: LedgerError| format!("{:#}", anyhow::Error::new(e));
    let Some(first) = Shard::all().next().map(Scope::Asked) else {
        return Ok(());
    };
    let asking = parts
        .books
        .with(move |ledger| ledger.transaction(first, |change| closing::ask(change)))
        .await;
    let asked = asking.map_err(text)?;
    loop {
        let left = parts
            .books
            .with(move |ledger| ledger.transaction(first, |c| closing::left(c, asked)))
            .await;
        let open = left.map_err(text)?;
        if open.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let shards: Vec<String> = open.iter().map(|s| s.number().to_string()).collect();
            let why = parts.books.metrics().problems().first().map(str::to_owned);
            return Err(format!(
                "the books of these shards are not closed yet: {}{}",
                shards.join(", "),
                why.map_or_else(String::new, |why| format!("; {why}"))
            ));
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

async fn state(parts: &Parts, has_lines: bool, problem: Option<String>) -> Result<State, Refused> {
    let now_ms = now_ms();
    let hour = Hour::of_ms(now_ms).0.saturating_sub(1);
    let logs = parts.logs.iter().map(|log| log.status()).collect();
    let billable = parts.sender.billable();
    let intake = parts.books.intake();
    // What a command was never told waits, is not nothing.
    let looked = intake.look().await.err();
    let problem = problem.or_else(|| Some(format!("how much waits is not known: {}", looked?)));
    let problem = problem.or_else(|| {
        let full = intake.has_room().err()?;
        Some(format!("producers have to wait: {full}"))
    });
    let settled_ms = intake.settled_ms(now_ms);
    let (unbooked, spool_bytes) = (intake.unbooked(), intake.bytes());
    let quarantined = intake.quarantined().await.map_err(failed)?;
    let state = parts
        .books
        .look(move |ledger| {
            let lines = match has_lines {
                true => Some(ledger.summary(hour)?),
                false => None,
            };
            let unsent = lines
                .iter()
                .flatten()
                .filter(|l| l.total != l.accepted.saturating_add(l.waived));
            Ok(State {
                without_customer: unsent
                    .map(|l| l.tenant.clone())
                    .filter(|t| !billable.contains(t))
                    .collect(),
                lines,
                stuck: ledger.stuck()?,
                intents: ledger.intent_counts()?,
                open: ledger.open_intents()?,
                adjustments: ledger.proposed()?,
                conflicts: ledger.conflicts()?,
                discrepancies: ledger.discrepancy_counts()?,
                waiting: ledger.waiting()?,
                unbooked,
                spool_bytes,
                quarantined,
                missing: ledger.missing(settled_ms)?,
                gaps: ledger.gaps(settled_ms)?,
                logs,
                billing: ledger.billing()?,
                problem,
            })
        })
        .await?;
    Ok(state)
}
