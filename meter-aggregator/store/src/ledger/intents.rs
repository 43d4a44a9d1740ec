//! Intents: how they are kept, and how an operator sees them.

use serde::Serialize;
use weir_meter_core::{
    hour::Hour,
    intent::State,
    lease::Scope,
    ledger::{BucketKey, Intent, Reading},
    meter::Meter,
};
use weir_wire::ids::TenantId;

use super::{
    Change, Ledger, LedgerError,
    buckets::bucket_key,
    columns,
    listing::{self, Filter},
    schema::open_states,
};
use crate::sql::{self, OptionalExtension as _, Params, Row, of_shard, params};

/// What [`intent`] reads.
macro_rules! columns {
    () => {
        concat!("id, ", fields!())
    };
}

/// The same without its id.
macro_rules! fields {
    () => {
        "hour, tenant, meter, revision, generation, delta, identifier, timestamp_s, state,
         first_attempt_ms, last_attempt_ms, answers, unknown, not_before_ms, reading_sum,
         reading_ms, reason, carried_from"
    };
}

/// What stands for [`fields`] in a statement.
macro_rules! values {
    () => {
        "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18"
    };
}

fn intent(row: &Row<'_>) -> sql::Result<Intent> {
    let (sum, at_ms): (Option<i64>, Option<i64>) = (row.get(15)?, row.get(16)?);
    Ok(Intent {
        id: row.get(0)?,
        bucket: bucket_key(row, 1)?,
        revision: row.get(4)?,
        generation: row.get(5)?,
        delta: row.get(6)?,
        identifier: row.get(7)?,
        timestamp_s: row.get(8)?,
        state: columns::parsed(row, 9, State::parse)?,
        first_attempt_ms: row.get(10)?,
        last_attempt_ms: row.get(11)?,
        answers: row.get(12)?,
        unknown: row.get(13)?,
        not_before_ms: row.get(14)?,
        reading: sum.zip(at_ms).map(|(sum, at_ms)| Reading { sum, at_ms }),
        reason: row.get(17)?,
        carried_from: row.get(18)?,
    })
}

/// What an intent in that state adds to its bucket's `accepted` and `waived`.
fn settled(state: State, delta: i64) -> (i64, i64) {
    match state {
        _ if state.is_at_stripe() => (delta, 0),
        State::Cancelled => (0, delta),
        _ => (0, 0),
    }
}

impl Change<'_> {
    fn intents(&self, query: &str, params: impl Params) -> sql::Result<Vec<Intent>> {
        self.transaction
            .prepare_cached(query)?
            .query_map(params, intent)?
            .collect()
    }

    /// Writes a new intent, with that id or the next, and gives the id.
    fn write(&self, id: Option<i64>, intent: &Intent) -> sql::Result<i64> {
        let key = &intent.bucket;
        let (meter, state) = (key.meter.to_string(), intent.state.as_str());
        let row = params![
            key.hour.0,
            key.tenant.as_str(),
            meter,
            intent.revision,
            intent.generation,
            intent.delta,
            intent.identifier,
            intent.timestamp_s,
            state,
            intent.first_attempt_ms,
            intent.last_attempt_ms,
            intent.answers,
            intent.unknown,
            intent.not_before_ms,
            intent.reading.map(|reading| reading.sum),
            intent.reading.map(|reading| reading.at_ms),
            intent.reason,
            intent.carried_from,
            id
        ];
        match id {
            Some(_) => self
                .transaction
                .prepare_cached(concat!(
                    "INSERT INTO intent (",
                    columns!(),
                    ") VALUES (?19, ",
                    values!(),
                    ") RETURNING id"
                ))?
                .query_row(row, |row| row.get(0)),
            None => self
                .transaction
                .prepare_cached(concat!(
                    "INSERT INTO intent (",
                    fields!(),
                    ") VALUES (",
                    values!(),
                    ") RETURNING id"
                ))?
                .query_row(row.get(..18).unwrap_or_default(), |row| row.get(0)),
        }
    }

    /// Writes an intent in the place of the one that has its id.
    fn write_over(&self, intent: &Intent) -> sql::Result<()> {
        self.transaction
            .prepare_cached(
                "UPDATE intent SET generation = ?2, delta = ?3, identifier = ?4, timestamp_s = ?5,
                   state = ?6, first_attempt_ms = ?7, last_attempt_ms = ?8, answers = ?9,
                   unknown = ?10, not_before_ms = ?11, reading_sum = ?12, reading_ms = ?13,
                   reason = ?14, carried_from = ?15 WHERE id = ?1",
            )?
            .execute(params![
                intent.id,
                intent.generation,
                intent.delta,
                intent.identifier,
                intent.timestamp_s,
                intent.state.as_str(),
                intent.first_attempt_ms,
                intent.last_attempt_ms,
                intent.answers,
                intent.unknown,
                intent.not_before_ms,
                intent.reading.map(|reading| reading.sum),
                intent.reading.map(|reading| reading.at_ms),
                intent.reason,
                intent.carried_from
            ])?;
        Ok(())
    }

    /// Moves the counts by state, and the bucket's sums, from one state to the next.
    fn account(
        &self,
        key: &BucketKey,
        before: Option<(State, i64)>,
        after: (State, i64),
    ) -> sql::Result<()> {
        if before == Some(after) {
            return Ok(());
        }
        let mut count = self
            .transaction
            .prepare_cached(match self.transaction.is_postgres() {
                true => {
                    "INSERT INTO intent_count (state, count) VALUES ($1, $2)
                 ON CONFLICT (shard, state) DO UPDATE SET
                   count = intent_count.count + excluded.count"
                }
                false => {
                    "INSERT INTO intent_count (state, count) VALUES (?1, ?2)
                 ON CONFLICT (state) DO UPDATE SET count = count + excluded.count"
                }
            })?;
        count.execute(params![after.0.as_str(), 1])?;
        let (mut accepted, mut waived) = settled(after.0, after.1);
        if let Some((state, delta)) = before {
            count.execute(params![state.as_str(), -1])?;
            let was = settled(state, delta);
            accepted = accepted.saturating_sub(was.0);
            waived = waived.saturating_sub(was.1);
        }
        self.settle(key, accepted, waived)
    }

    pub(super) fn write_intent(&self, intent: &Intent) -> sql::Result<i64> {
        let id = self.write(None, intent)?;
        self.account(&intent.bucket, None, (intent.state, intent.delta))?;
        Ok(id)
    }

    pub(super) fn replace_intent(&self, intent: &Intent) -> sql::Result<()> {
        let before = self
            .transaction
            .prepare_cached(concat!(
                "SELECT state, delta FROM intent WHERE id = ?1 ",
                of_shard!()
            ))?
            .query_row([intent.id], |row| {
                Ok((columns::parsed(row, 0, State::parse)?, row.get(1)?))
            })?;
        self.write_over(intent)?;
        let after = (intent.state, intent.delta);
        self.account(&intent.bucket, Some(before), after)
    }

    /// Writes an intent of the version before, with its id.
    pub(super) fn take_over_intent(&self, intent: &Intent) -> sql::Result<()> {
        self.write(Some(intent.id), intent)?;
        self.account(&intent.bucket, None, (intent.state, intent.delta))
    }

    pub(super) fn read_intent(&self, id: i64) -> sql::Result<Option<Intent>> {
        self.transaction
            .prepare_cached(concat!(
                "SELECT ",
                columns!(),
                " FROM intent WHERE id = ?1 ",
                of_shard!()
            ))?
            .query_row([id], intent)
            .optional()
    }

    pub(super) fn read_open(&self, key: &BucketKey) -> sql::Result<Option<Intent>> {
        self.transaction
            .prepare_cached(concat!(
                "SELECT ",
                columns!(),
                " FROM intent INDEXED BY intent_open
                 WHERE hour = ?1 AND tenant = ?2 AND meter = ?3 AND ",
                open_states!()
            ))?
            .query_row(
                params![key.hour.0, key.tenant.as_str(), key.meter.to_string()],
                intent,
            )
            .optional()
    }

    pub(super) fn read_sendable(&self, now_ms: i64, limit: usize) -> sql::Result<Vec<Intent>> {
        // In the index's order, or all that are due would be sorted for each call.
        self.intents(
            concat!(
                "SELECT ",
                columns!(),
                " FROM intent INDEXED BY intent_sendable
                 WHERE state IN ('planned', 'sending') AND not_before_ms <= ?1 ",
                of_shard!(),
                " ORDER BY id LIMIT ?2"
            ),
            params![now_ms, limit as i64],
        )
    }

    pub(super) fn read_unsettled(
        &self,
        tried_ms: i64,
        now_ms: i64,
        limit: usize,
    ) -> sql::Result<Vec<Intent>> {
        self.intents(
            concat!(
                "SELECT ",
                columns!(),
                " FROM intent INDEXED BY intent_unsettled
                 WHERE state IN ('accepted', 'reconcile') AND last_attempt_ms <= ?1
                   AND not_before_ms <= ?2 ",
                of_shard!(),
                " ORDER BY id LIMIT ?3"
            ),
            params![tried_ms, now_ms, limit as i64],
        )
    }

    pub(super) fn read_intents_at(
        &self,
        tenant: &TenantId,
        meter: &Meter,
        hour: Hour,
    ) -> sql::Result<Vec<Intent>> {
        self.intents(
            concat!(
                "SELECT ",
                columns!(),
                " FROM intent WHERE timestamp_s / 3600 = ?1 AND tenant = ?2 AND meter = ?3
                 ORDER BY id"
            ),
            params![hour.0, tenant.as_str(), meter.to_string()],
        )
    }

    pub(super) fn read_aged(&self, before_s: i64, limit: usize) -> sql::Result<Vec<Intent>> {
        self.intents(
            concat!(
                "SELECT ",
                columns!(),
                " FROM intent INDEXED BY intent_aging
                 WHERE state IN ('planned', 'sending', 'held') AND timestamp_s < ?1 ",
                of_shard!(),
                " ORDER BY id LIMIT ?2"
            ),
            params![before_s, limit as i64],
        )
    }

    pub(super) fn read_confirmed(
        &self,
        meter: &Meter,
        (from_s, to_s): (i64, i64),
    ) -> sql::Result<Vec<Intent>> {
        self.intents(
            concat!(
                "SELECT ",
                columns!(),
                " FROM intent INDEXED BY intent_stamp
                 WHERE timestamp_s / 3600 BETWEEN ?1 AND ?2 AND meter = ?3
                   AND timestamp_s >= ?4 AND timestamp_s < ?5 AND state = 'confirmed' ",
                of_shard!(),
                " ORDER BY id"
            ),
            params![
                Hour::of_s(from_s).0,
                Hour::of_s(to_s).0,
                meter.to_string(),
                from_s,
                to_s
            ],
        )
    }
}

/// Which intents are listed.
pub type IntentFilter = Filter<State>;

/// An intent as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownIntent {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub tenant: String,
    /// On which meter.
    pub meter: String,
    /// The hour's first second, seconds of the Unix epoch.
    pub hour_start_s: i64,
    /// 1 for the bucket's first.
    pub revision: i64,
    /// How often it was begun anew.
    pub generation: i64,
    /// How much.
    pub delta: i64,
    /// The meter event's identifier.
    pub identifier: String,
    /// What Stripe has, or is to have, as its time; seconds of the Unix epoch.
    pub timestamp_s: i64,
    /// Where it stands.
    pub state: &'static str,
    /// Milliseconds of the Unix epoch.
    pub first_attempt_ms: Option<i64>,
    /// Milliseconds of the Unix epoch.
    pub last_attempt_ms: Option<i64>,
    /// Attempts that Stripe may have taken without a word.
    pub unknown: i64,
    /// What Stripe or the operator said.
    pub reason: Option<String>,
    /// The intent that was too old, in whose place it came.
    pub carried_from: Option<i64>,
}

impl From<Intent> for ShownIntent {
    fn from(intent: Intent) -> Self {
        Self {
            id: intent.id,
            tenant: intent.bucket.tenant.to_string(),
            meter: intent.bucket.meter.to_string(),
            hour_start_s: intent.bucket.hour.start_s(),
            revision: intent.revision,
            generation: intent.generation,
            delta: intent.delta,
            identifier: intent.identifier,
            timestamp_s: intent.timestamp_s,
            state: intent.state.as_str(),
            first_attempt_ms: intent.first_attempt_ms,
            last_attempt_ms: intent.last_attempt_ms,
            unknown: intent.unknown,
            reason: intent.reason,
            carried_from: intent.carried_from,
        }
    }
}

impl Ledger {
    /// The newest intents that are wanted, the newest first.
    pub fn intents(&self, filter: &IntentFilter) -> Result<Vec<ShownIntent>, LedgerError> {
        let select = concat!("SELECT ", columns!(), " FROM intent");
        listing::newest(
            &self.connection,
            select,
            filter,
            |s| s.as_str(),
            |row| intent(row).map(ShownIntent::from),
        )
    }

    /// Whose an intent is: which shard an operator's word is about.
    pub fn tenant_of_intent(&self, id: i64) -> Result<Option<TenantId>, LedgerError> {
        listing::tenant_of(&self.connection, "intent", id)
    }

    /// Intents that are neither accepted nor waiting for the operator or the summaries.
    pub fn open_intents(&self) -> Result<i64, LedgerError> {
        Ok(self.connection.query_row(
            "SELECT COUNT(*) FROM intent WHERE state IN ('planned', 'sending')",
            [],
            |row| row.get(0),
        )?)
    }

    /// Makes every intent that is to be sent due now: an operator asked, or the process
    /// began anew.
    pub fn hurry(&mut self, scope: Scope) -> Result<(), LedgerError> {
        self.transaction(scope, |change| {
            change.transaction.execute(
                concat!(
                    "UPDATE intent SET not_before_ms = 0
                     WHERE state IN ('planned', 'sending') AND not_before_ms > 0 ",
                    of_shard!()
                ),
                [],
            )?;
            Ok(())
        })
    }
}
