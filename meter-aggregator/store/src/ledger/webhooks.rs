//! What Stripe's webhooks told, until it is dealt with; what was done about it.

use serde::Serialize;
use weir_meter_core::{
    dunning::Action,
    stripe::{ErrorReport, Notice, What},
};

use super::{
    Change, IDLE_MAX_MS, Ledger, LedgerError,
    accounts::{action_of, due},
    columns::all,
};
use crate::sql::{OptionalExtension as _, params};

// Of an event only what it is about is kept: the rest is asked for when it is dealt
// with, and has the customers' names and addresses.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS webhook (
  id TEXT PRIMARY KEY,
  type TEXT NOT NULL,
  about TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  done INTEGER NOT NULL DEFAULT 0,
  tries INTEGER NOT NULL DEFAULT 0,
  not_before_ms INTEGER NOT NULL DEFAULT 0,
  problem TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS webhook_open ON webhook (at_ms, id) WHERE done = 0;
CREATE TABLE IF NOT EXISTS suspension (
  tenant TEXT PRIMARY KEY,
  hold TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  problem TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS due_invoice (
  tenant TEXT NOT NULL,
  invoice TEXT NOT NULL,
  PRIMARY KEY (tenant, invoice)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meter_error (
  event TEXT NOT NULL,
  code TEXT NOT NULL,
  meter_id TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  count INTEGER NOT NULL,
  message TEXT NOT NULL,
  identifiers TEXT NOT NULL,
  PRIMARY KEY (event, code)
) WITHOUT ROWID;
";

/// The longest pause between two tries, in milliseconds: ten minutes.
const PAUSE_MAX_MS: i64 = 600_000;

/// The most of anything that is listed, or kept of one report.
const LIST_MAX: usize = 100;

/// The longest text of Stripe's that is kept, in characters.
const TEXT_MAX: usize = 500;

/// An event that is not dealt with, or a call to the router that may have come unseen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Stripe's id of it.
    pub id: String,
    /// Its type, such as `invoice.paid`.
    pub kind: String,
    /// The id of what it is about.
    pub about: String,
    /// When it came.
    pub at_ms: i64,
    /// How often it was tried.
    pub tries: u32,
}

impl Webhook {
    /// What the router was told, where it is about that; then `about` is the tenant.
    #[must_use]
    pub fn call(&self) -> Option<Action> {
        action_of(&self.kind)
    }
}

/// A tenant that owes, or is held for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suspension {
    pub tenant: String,
    /// `ours` where the aggregator suspended it; see `core/src/dunning.rs`.
    pub hold: String,
    /// Since when, milliseconds of the Unix epoch.
    pub at_ms: i64,
    /// The invoices that are due.
    pub invoices: Vec<String>,
    pub problem: Option<String>,
}

/// Events that Stripe took and a meter did not count, of one kind in one report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MeterError {
    /// The report's event.
    pub event: String,
    /// `mtr_...`
    pub meter_id: String,
    /// When the report came, milliseconds of the Unix epoch.
    pub at_ms: i64,
    /// Such as `meter_event_customer_not_found`.
    pub code: String,
    pub count: i64,
    /// Why, for one of them.
    pub message: String,
    /// Of some of them.
    pub identifiers: Vec<String>,
}

/// What came of Stripe's webhooks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Billing {
    /// Events that are not dealt with.
    pub waiting: i64,
    /// Why not, of the one that waits longest with a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Tenants that owe or are held, a hundred at the most.
    pub suspensions: Vec<Suspension>,
    /// What meters did not count, the newest first, a hundred at the most.
    pub meter_errors: Vec<MeterError>,
}

impl Ledger {
    /// Writes an event down, durably; nothing for one that is known. Events about
    /// nothing that is dealt with here are passed over. Any replica may.
    pub fn take_webhook(&mut self, notice: &Notice, now_ms: i64) -> Result<bool, LedgerError> {
        let (What::Invoice(about) | What::MeterErrors(about)) = &notice.what else {
            return Ok(false);
        };
        let taken = self
            .connection
            .prepare_cached(
                "INSERT INTO webhook (id, type, about, at_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![notice.id, notice.kind, about, now_ms])?;
        Ok(taken > 0)
    }

    /// The event that is to be dealt with next at `now_ms`, the oldest first.
    pub fn next_webhook(&self, now_ms: i64) -> Result<Option<Webhook>, LedgerError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT id, type, about, at_ms, tries FROM webhook
                 WHERE done = 0 AND not_before_ms <= ?1 ORDER BY at_ms, id LIMIT 1",
            )?
            .query_row([now_ms], |row| {
                Ok(Webhook {
                    id: row.get(0)?,
                    kind: row.get(1)?,
                    about: row.get(2)?,
                    at_ms: row.get(3)?,
                    tries: row.get(4)?,
                })
            })
            .optional()?)
    }

    /// What came of Stripe's webhooks, for an operator.
    pub fn billing(&self) -> Result<Billing, LedgerError> {
        let waiting = self.connection.query_row(
            "SELECT COUNT(*) FROM webhook WHERE done = 0",
            [],
            |row| row.get(0),
        )?;
        let problem = self
            .connection
            .query_row(
                "SELECT problem FROM webhook WHERE done = 0 AND problem IS NOT NULL
                 ORDER BY at_ms, id LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()?;
        let mut suspensions = all(
            &self.connection,
            &format!(
                "SELECT tenant, hold, at_ms, problem FROM suspension ORDER BY tenant LIMIT {LIST_MAX}"
            ),
            |row| {
                Ok(Suspension {
                    tenant: row.get(0)?,
                    hold: row.get(1)?,
                    at_ms: row.get(2)?,
                    invoices: Vec::new(),
                    problem: row.get(3)?,
                })
            },
        )?;
        for suspension in &mut suspensions {
            suspension.invoices = due(&self.connection, &suspension.tenant)?
                .into_iter()
                .collect();
        }
        let meter_errors = all(
            &self.connection,
            &format!(
                "SELECT event, meter_id, at_ms, code, count, message, identifiers FROM meter_error
                 ORDER BY at_ms DESC, event, code LIMIT {LIST_MAX}"
            ),
            |row| {
                let identifiers: String = row.get(6)?;
                Ok(MeterError {
                    event: row.get(0)?,
                    meter_id: row.get(1)?,
                    at_ms: row.get(2)?,
                    code: row.get(3)?,
                    count: row.get(4)?,
                    message: row.get(5)?,
                    identifiers: serde_json::from_str(&identifiers).unwrap_or_default(),
                })
            },
        )?;
        Ok(Billing {
            waiting,
            problem,
            suspensions,
            meter_errors,
        })
    }
}

/// What is done about events; by one replica, as the holder of the first shard.
impl Change<'_> {
    /// It is dealt with.
    pub fn webhook_done(&mut self, id: &str) -> Result<(), LedgerError> {
        self.transaction
            .prepare_cached("UPDATE webhook SET done = 1, problem = NULL WHERE id = ?1")?
            .execute([id])?;
        Ok(())
    }

    /// It could not be dealt with; a while later again.
    pub fn webhook_again(
        &mut self,
        webhook: &Webhook,
        problem: &str,
        now_ms: i64,
    ) -> Result<(), LedgerError> {
        let pause_ms = 1_000_i64
            .saturating_mul(1 << webhook.tries.min(10))
            .min(PAUSE_MAX_MS);
        self.transaction
            .prepare_cached(
                "UPDATE webhook SET tries = tries + 1, not_before_ms = ?2, problem = ?3
                 WHERE id = ?1",
            )?
            .execute(params![
                webhook.id,
                now_ms.saturating_add(pause_ms),
                short(problem)
            ])?;
        Ok(())
    }

    /// Drops what is so old that Stripe sends it no more, and says how many of them
    /// were never dealt with.
    pub fn forget_webhooks(&mut self, now_ms: i64) -> Result<i64, LedgerError> {
        let before = now_ms.saturating_sub(IDLE_MAX_MS);
        let transaction = &self.transaction;
        let open = transaction.query_row(
            "SELECT COUNT(*) FROM webhook WHERE at_ms < ?1 AND done = 0",
            [before],
            |row| row.get(0),
        )?;
        transaction.execute("DELETE FROM webhook WHERE at_ms < ?1", [before])?;
        transaction.execute("DELETE FROM meter_error WHERE at_ms < ?1", [before])?;
        Ok(open)
    }

    /// Keeps what a meter did not count; a report that is known changes nothing.
    pub fn note_meter_errors(
        &mut self,
        event: &str,
        meter_id: &str,
        report: &ErrorReport,
        now_ms: i64,
    ) -> Result<(), LedgerError> {
        for kind in report.reason.error_types.iter().take(LIST_MAX) {
            let samples = kind.sample_errors.iter().take(LIST_MAX);
            let identifiers: Vec<String> = samples.map(|s| short(&s.request.identifier)).collect();
            let message = kind.sample_errors.first().map(|s| s.error_message.as_str());
            self.transaction
                .prepare_cached(
                    "INSERT INTO meter_error
                       (event, code, meter_id, at_ms, count, message, identifiers)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    event,
                    short(&kind.code),
                    meter_id,
                    now_ms,
                    kind.error_count,
                    short(message.unwrap_or_default()),
                    serde_json::Value::from(identifiers).to_string(),
                ])?;
        }
        Ok(())
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests;
