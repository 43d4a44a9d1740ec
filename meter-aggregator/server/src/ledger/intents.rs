//! Intents: planned in one transaction with their bucket, and kept through
//! every attempt until Stripe has them.

use std::collections::BTreeSet;

use rusqlite::{Row, params};
use weir_meter_core::intent::{Next, State};

use super::{Hour, Ledger, LedgerError, Meter, hour, intent, parsed};

/// How long an hour must be over before it is planned: five minutes.
const GRACE_S: i64 = 300;

/// The longest pause between two attempts, in milliseconds.
const PAUSE_MAX_MS: i64 = 300_000;

/// One meter event that Stripe is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub id: i64,
    pub tenant: String,
    pub meter: Meter,
    pub hour: Hour,
    pub delta: i64,
    pub identifier: String,
    /// Inside the hour, seconds of the Unix epoch.
    pub timestamp_s: i64,
    pub state: State,
    pub first_attempt_ms: Option<i64>,
    /// Answers that were received, whatever they said.
    pub answers: i64,
}

impl Ledger {
    /// Plans every hour that is over, or every hour there is, where what was
    /// used is not what was planned and nothing of it is open; of `billable`
    /// tenants, the others wait until they are. Says how many.
    pub fn plan(
        &mut self,
        account: &str,
        billable: &BTreeSet<String>,
        now_s: i64,
        all: bool,
    ) -> Result<usize, LedgerError> {
        let transaction = self.connection.transaction()?;
        let ledger: String =
            transaction.query_row("SELECT id FROM identity", [], |row| row.get(0))?;
        let due: Vec<(String, Meter, Hour, i64, i64)> = transaction
            .prepare_cached(
                "SELECT tenant, meter, hour, total - planned, revision FROM bucket
                 WHERE total <> planned AND NOT EXISTS (
                   SELECT 1 FROM intent WHERE intent.tenant = bucket.tenant
                     AND intent.meter = bucket.meter AND intent.hour = bucket.hour
                     AND intent.state <> 'accepted')
                 ORDER BY hour, tenant, meter",
            )?
            .query_map([], |row| {
                Ok((
                    row.get(0)?,
                    parsed(row, "meter", Meter::parse)?,
                    hour(row, "hour")?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut planned = 0_usize;
        for (tenant, meter, hour, delta, revision) in due {
            if !billable.contains(&tenant) || (!all && !hour.is_over(now_s, GRACE_S)) {
                continue;
            }
            let revision = revision.saturating_add(1);
            let identifier = intent::identifier(&intent::Key {
                account,
                ledger: &ledger,
                tenant: &tenant,
                meter,
                hour,
                revision,
                generation: 0,
            });
            transaction.prepare_cached(
                "INSERT INTO intent
                   (tenant, meter, hour, revision, generation, delta, identifier, timestamp_s, state)
                 VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, 'planned')",
            )?
            .execute(params![
                tenant, meter.as_str(), hour.0, revision, delta, identifier, hour.clamp_s(now_s)
            ])?;
            transaction
                .prepare_cached(
                    "UPDATE bucket SET planned = total, revision = ?4
                     WHERE tenant = ?1 AND meter = ?2 AND hour = ?3",
                )?
                .execute(params![tenant, meter.as_str(), hour.0, revision])?;
            planned = planned.saturating_add(1);
        }
        transaction.commit()?;
        Ok(planned)
    }

    /// The next intent to send at `now_ms`, marked as being sent before anyone
    /// can send it.
    pub fn start_attempt(&mut self, now_ms: i64) -> Result<Option<Intent>, LedgerError> {
        let transaction = self.connection.transaction()?;
        let found = transaction
            .prepare_cached(
                "SELECT * FROM intent WHERE state IN ('planned', 'sending')
                 AND not_before_ms <= ?1 ORDER BY id LIMIT 1",
            )?
            .query_row([now_ms], read_intent);
        let mut intent = match found {
            Ok(intent) => intent,
            Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let first = intent.first_attempt_ms.unwrap_or(now_ms);
        transaction
            .prepare_cached(
                "UPDATE intent SET state = 'sending', first_attempt_ms = ?2 WHERE id = ?1",
            )?
            .execute(params![intent.id, first])?;
        transaction.commit()?;
        intent.state = State::Sending;
        intent.first_attempt_ms = Some(first);
        Ok(Some(intent))
    }

    /// Writes down what came of an attempt.
    pub fn finish_attempt(
        &mut self,
        intent: &Intent,
        answered: bool,
        next: &Next,
        now_ms: i64,
    ) -> Result<(), LedgerError> {
        let answers = intent.answers.saturating_add(i64::from(answered));
        let (state, reason, not_before_ms) = match next {
            Next::Accepted => (State::Accepted, None, 0),
            Next::Again => (
                State::Sending,
                None,
                now_ms.saturating_add(pause_ms(intent, now_ms)),
            ),
            Next::Held(reason) => (State::Held, Some(reason.as_str()), 0),
            Next::Reconcile => (State::Reconcile, None, 0),
        };
        self.connection
            .prepare_cached(
                "UPDATE intent SET state = ?2, answers = ?3, reason = ?4, not_before_ms = ?5
                 WHERE id = ?1",
            )?
            .execute(params![
                intent.id,
                state.as_str(),
                answers,
                reason,
                not_before_ms
            ])?;
        Ok(())
    }

    /// Intents that are neither accepted nor waiting for the operator.
    pub fn open_intents(&self) -> Result<i64, LedgerError> {
        Ok(self.connection.query_row(
            "SELECT COUNT(*) FROM intent WHERE state IN ('planned', 'sending')",
            [],
            |row| row.get(0),
        )?)
    }

    /// Makes every open intent due now: an operator asked.
    pub fn hurry(&mut self) -> Result<(), LedgerError> {
        self.connection.execute(
            "UPDATE intent SET not_before_ms = 0 WHERE state IN ('planned', 'sending')",
            [],
        )?;
        Ok(())
    }
}

/// As long as it was tried already, from a second to five minutes.
fn pause_ms(intent: &Intent, now_ms: i64) -> i64 {
    let since = now_ms.saturating_sub(intent.first_attempt_ms.unwrap_or(now_ms));
    since.clamp(1_000, PAUSE_MAX_MS)
}

fn read_intent(row: &Row<'_>) -> rusqlite::Result<Intent> {
    Ok(Intent {
        id: row.get("id")?,
        tenant: row.get("tenant")?,
        meter: parsed(row, "meter", Meter::parse)?,
        hour: hour(row, "hour")?,
        delta: row.get("delta")?,
        identifier: row.get("identifier")?,
        timestamp_s: row.get("timestamp_s")?,
        state: parsed(row, "state", State::parse)?,
        first_attempt_ms: row.get("first_attempt_ms")?,
        answers: row.get("answers")?,
    })
}
