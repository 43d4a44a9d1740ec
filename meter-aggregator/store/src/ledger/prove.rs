//! The proof of a line of an invoice: from what Stripe was told back to the requests, with
//! the journal's chain checked from its beginning.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_meter_core::{
    fold::decisive,
    hour::Hour,
    journal::{Line, Walk},
    ledger::{RequestKey, RequestRow, book::event_hash},
    meter::Meter,
};
use weir_wire::ids::TenantId;

use super::{Ledger, LedgerError, columns, journal, postgres};
use crate::sql::{self, Connection, params};

/// What is to be proved: a tenant's use on a meter in some hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Whose.
    pub tenant: TenantId,
    /// On which meter.
    pub meter: Meter,
    /// From this hour on.
    pub from: Hour,
    /// Up to this hour, and without it.
    pub to: Hour,
}

/// One request behind a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Behind {
    /// Its id.
    pub request_id: String,
    /// What it adds to the line.
    pub quantity: i64,
    /// SHA-256 of the event by which it is billed, in hexadecimal.
    pub event: String,
    /// `kept`: the ledger has that event. `dropped`: it is older than 40 days. `missing`: it
    /// is not, and is gone. `differs`: the ledger has another one, or books something else
    /// by it.
    pub witness: &'static str,
}

/// What a proof found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Proved {
    /// Lines of the journal that were walked: all of it, in Postgres all of the tenant's
    /// shard.
    pub journal_lines: u64,
    /// Lines of the journal that changed these hours.
    pub lines: u64,
    /// Requests behind them.
    pub requests: u64,
    /// Of these, those whose event is still kept, and is the one that the journal names.
    pub kept: u64,
    /// The journal's sum.
    pub used: i64,
    /// The buckets' sum.
    pub total: i64,
    /// What was planned to be told Stripe.
    pub planned: i64,
    /// What Stripe has of it.
    pub accepted: i64,
    /// What of that its sums confirm.
    pub confirmed: i64,
    /// What the operator decided not to bill.
    pub waived: i64,
    /// What Stripe has of it under a later hour, because it was too old.
    pub carried_out: i64,
    /// What Stripe has of older use under these hours.
    pub carried_in: i64,
    /// What Stripe has under these hours: what a line of an invoice has of them.
    pub at_stripe: i64,
    /// What does not hold; empty where all does.
    pub problems: Vec<String>,
}

/// Events are kept for so many days, and some more.
const KEPT_DAYS: i64 = 39;

/// So many hours must be over before something is told Stripe under another hour: 34 days,
/// less one for the hour itself.
const CARRIED_HOURS: i64 = 34 * 24 - 1;

/// How often it is told how far the walk has come, in lines.
const TELL_EVERY: u64 = 10_000;

/// The most problems that are named.
const PROBLEMS_MAX: usize = 100;

impl Proved {
    fn problem(&mut self, text: impl FnOnce() -> String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text());
        }
    }
}

impl Ledger {
    /// Proves a line. Tells each request behind it, in the order of their ids, and how
    /// many lines of the journal are done, of how many. Of what it reads it sees one
    /// state, whatever is booked meanwhile; a long one is best run on a connection of its
    /// own ([`Ledger::another`]). Memory is bounded: what grows stands in a file of
    /// SQLite's.
    pub fn prove(
        &self,
        proof: &Proof,
        mut behind: impl FnMut(Behind),
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Proved, LedgerError> {
        if let Some(mut session) = self.connection.postgres() {
            session.take_time(true);
        }
        let proved = self.prove_now(proof, &mut behind, &mut progress);
        if let Some(mut session) = self.connection.postgres() {
            session.take_time(false);
        }
        proved
    }

    fn prove_now(
        &self,
        proof: &Proof,
        behind: &mut impl FnMut(Behind),
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<Proved, LedgerError> {
        let transaction = self.connection.snapshot()?;
        let bytes = match transaction.is_postgres() {
            true => "BYTEA",
            false => "BLOB",
        };
        transaction.execute_batch(&format!(
            "CREATE TEMP TABLE proof (
               request_id {bytes} PRIMARY KEY,
               quantity BIGINT NOT NULL,
               event {bytes} NOT NULL
             )"
        ))?;
        let mut proved = Proved::default();
        for chain in journal::chains(&transaction, &proof.tenant)? {
            walk(&transaction, chain, proof, &mut proved, progress)?;
        }
        list(&transaction, proof, &mut proved, behind)?;
        buckets(&transaction, proof, &mut proved)?;
        Ok(proved)
    }
}

/// Walks a chain of the journal, and gathers what it has of the line by request.
fn walk(
    connection: &Connection,
    chain: journal::Chain,
    proof: &Proof,
    proved: &mut Proved,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(), LedgerError> {
    let before = proved.journal_lines;
    let all = chain.end.cast_unsigned().saturating_add(before);
    let mut walk = Walk::default();
    let (mut is_whole, mut after) = (true, 0_i64);
    loop {
        let page = journal::page(connection, &chain, after)?;
        let Some(last) = page.last() else {
            break;
        };
        after = last.0;
        let mut gathered = Gathered::new();
        for (_, line, hash) in &page {
            if let (true, Err(broken)) = (is_whole, walk.next(line, hash)) {
                is_whole = false;
                proved.problem(|| broken.to_string());
            }
            proved.journal_lines = proved.journal_lines.saturating_add(1);
            if proved.journal_lines.is_multiple_of(TELL_EVERY) {
                progress(proved.journal_lines, all);
            }
            if line.tenant != proof.tenant {
                continue;
            }
            let delta = delta(line, proof);
            if let Some(delta) = delta {
                proved.lines = proved.lines.saturating_add(1);
                proved.used = proved.used.saturating_add(delta);
            }
            let one = gathered
                .entry(columns::id_bytes(line.request_id))
                .or_insert((None, line.event));
            // Without a change it may be billed by another event now, and the same on this
            // meter.
            one.0 = match (one.0, delta) {
                (Some(sum), Some(delta)) => Some(sum.saturating_add(delta)),
                (sum, delta) => sum.or(delta),
            };
            one.1 = line.event;
        }
        gather(connection, &gathered)?;
    }
    progress(proved.journal_lines, all.max(proved.journal_lines));
    Ok(())
}

/// What a page has of requests: by how much it changed each, if so, and the event by which
/// it is billed after it.
pub(super) type Gathered = BTreeMap<[u8; 16], (Option<i64>, [u8; 32])>;

fn gather(connection: &Connection, gathered: &Gathered) -> sql::Result<()> {
    if let Some(mut session) = connection.postgres() {
        return postgres::gather(&mut session, gathered);
    }
    let mut add = connection.prepare_cached(
        "INSERT INTO temp.proof (request_id, quantity, event) VALUES (?1, ?2, ?3)
         ON CONFLICT (request_id) DO UPDATE SET quantity = quantity + excluded.quantity,
           event = excluded.event",
    )?;
    let mut change =
        connection.prepare_cached("UPDATE temp.proof SET event = ?2 WHERE request_id = ?1")?;
    for (id, (delta, event)) in gathered {
        match delta {
            Some(delta) => add.execute(params![id, delta, event])?,
            None => change.execute(params![id, event])?,
        };
    }
    Ok(())
}

/// What a line changes of what is to be proved.
fn delta(line: &Line, proof: &Proof) -> Option<i64> {
    let hour = Hour::of_ms(line.request_id.time_ms());
    let is_of_it = line.tenant == proof.tenant && (proof.from..proof.to).contains(&hour);
    is_of_it.then(|| line.deltas.get(&proof.meter).copied())?
}

/// Tells each request that was gathered, and whether its event is kept.
fn list(
    connection: &Connection,
    proof: &Proof,
    proved: &mut Proved,
    behind: &mut impl FnMut(Behind),
) -> Result<(), LedgerError> {
    let days = super::partitions::days(connection)?;
    let kept_from = days
        .last()
        .map_or(i64::MIN, |day| day.saturating_sub(KEPT_DAYS));
    let mut after = Vec::new();
    loop {
        let page: Vec<(RequestKey, i64, [u8; 32])> = connection
            .prepare_cached(
                "SELECT request_id, quantity, event FROM proof WHERE request_id > ?1
                 ORDER BY request_id LIMIT ?2",
            )?
            .query_map(params![after, journal::PAGE], |row| {
                let key = RequestKey {
                    id: columns::request_id(row, 0)?,
                    tenant: proof.tenant.clone(),
                };
                Ok((key, row.get(1)?, row.get(2)?))
            })?
            .collect::<sql::Result<_>>()?;
        let Some((last, ..)) = page.last() else {
            return Ok(());
        };
        after = columns::id_bytes(last.id).to_vec();
        let keys: Vec<RequestKey> = page.iter().map(|(key, ..)| key.clone()).collect();
        let rows = super::requests::read(connection, &days, &keys)?;
        for ((key, quantity, event), row) in page.into_iter().zip(rows) {
            let day = super::partitions::day_of_ms(key.id.time_ms());
            let booked = |row: &RequestRow| row.posted.get(&proof.meter).copied().unwrap_or(0);
            let is_this = |row: &RequestRow| {
                decisive(&row.events).map(event_hash) == Some(event) && booked(row) == quantity
            };
            let witness = match &row {
                None if day < kept_from => "dropped",
                None => "missing",
                Some(Ok(row)) if is_this(row) => "kept",
                // What can't be read is another one, too.
                Some(_) => "differs",
            };
            proved.requests = proved.requests.saturating_add(1);
            match witness {
                "kept" => proved.kept = proved.kept.saturating_add(1),
                "differs" => proved.problem(|| {
                    format!(
                        "request {}: the ledger has another event or quantity",
                        key.id
                    )
                }),
                "missing" => proved.problem(|| {
                    format!("request {}: its events are gone before their time", key.id)
                }),
                _ => {}
            }
            behind(Behind {
                request_id: key.id.to_string(),
                quantity,
                event: hex(&event),
                witness,
            });
        }
    }
}

/// Compares the journal's sum with the buckets, and these with their intents.
fn buckets(connection: &Connection, proof: &Proof, proved: &mut Proved) -> Result<(), LedgerError> {
    let meter = proof.meter.to_string();
    let of = params![proof.from.0, proof.to.0, proof.tenant.as_str(), meter];
    let (accepted, waived): (i64, i64);
    (proved.total, proved.planned, accepted, waived) = connection.query_row(
        "SELECT CAST(COALESCE(SUM(total), 0) AS BIGINT),
           CAST(COALESCE(SUM(planned), 0) AS BIGINT),
           CAST(COALESCE(SUM(accepted), 0) AS BIGINT),
           CAST(COALESCE(SUM(waived), 0) AS BIGINT)
         FROM bucket WHERE hour >= ?1 AND hour < ?2 AND tenant = ?3 AND meter = ?4",
        of,
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    // What is told under these hours, and what of them is told under others.
    let mut statement = connection.prepare_cached(
        "SELECT hour, timestamp_s / 3600, state, delta FROM intent INDEXED BY intent_stamp
         WHERE timestamp_s / 3600 >= ?1 AND timestamp_s / 3600 < ?2 AND tenant = ?3
           AND meter = ?4
         UNION ALL
         SELECT hour, timestamp_s / 3600, state, delta FROM intent INDEXED BY intent_carried
         WHERE timestamp_s / 3600 <> hour AND hour >= ?1 AND hour < ?2 AND tenant = ?3
           AND meter = ?4 AND NOT (timestamp_s / 3600 >= ?1 AND timestamp_s / 3600 < ?2)",
    )?;
    let hours = proof.from..proof.to;
    let mut planned = 0_i64;
    let rows = statement.query_map(of, |row| {
        let (hour, stamp) = (columns::hour(row, 0)?, columns::hour(row, 1)?);
        let (state, delta): (String, i64) = (row.get(2)?, row.get(3)?);
        Ok((hour, stamp, state, delta))
    })?;
    for row in rows {
        let (hour, stamp, state, delta) = row?;
        let is_of_it = hours.contains(&hour);
        let is_told = hours.contains(&stamp);
        // Only what was too old for its own hour is told under another.
        if stamp != hour && stamp.0 < hour.0.saturating_add(CARRIED_HOURS) {
            proved.problem(|| format!("an intent of hour {hour} is told under hour {stamp}"));
        }
        let add = |is: bool, to: &mut i64| {
            if is {
                *to = to.saturating_add(delta);
            }
        };
        let is_at_stripe = matches!(state.as_str(), "accepted" | "confirmed");
        add(is_of_it && state != "expired", &mut planned);
        add(is_of_it && is_at_stripe, &mut proved.accepted);
        add(is_of_it && state == "confirmed", &mut proved.confirmed);
        add(is_of_it && state == "cancelled", &mut proved.waived);
        add(is_at_stripe && is_told, &mut proved.at_stripe);
        add(is_at_stripe && is_told && !is_of_it, &mut proved.carried_in);
        add(
            is_at_stripe && !is_told && is_of_it,
            &mut proved.carried_out,
        );
    }
    for (what, found, expected) in [
        ("the buckets' total is", proved.total, proved.used),
        ("the buckets' planned is", proved.planned, planned),
        ("the buckets' accepted is", accepted, proved.accepted),
        ("the buckets' waived is", waived, proved.waived),
    ] {
        if found != expected {
            proved.problem(|| format!("{what} {found}, what is behind it comes to {expected}"));
        }
    }
    Ok(())
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
