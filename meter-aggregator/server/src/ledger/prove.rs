//! The proof of a line of an invoice: from what Stripe was told back to the requests, with
//! the journal's chain checked from its beginning.

use rusqlite::{Connection, params};
use serde::Serialize;
use weir_meter_core::{
    fold::{Quantities, decisive},
    hour::Hour,
    journal::{Line, Walk},
    ledger::{RequestKey, book::event_hash},
    meter::Meter,
};
use weir_wire::ids::TenantId;

use super::{Ledger, LedgerError, columns, journal};

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
    /// Lines of the journal that were walked: all of it.
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
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute_batch(
            "CREATE TEMP TABLE IF NOT EXISTS proof (
               request_id BLOB PRIMARY KEY,
               quantity INTEGER NOT NULL,
               event BLOB NOT NULL
             ) WITHOUT ROWID;
             DELETE FROM temp.proof;",
        )?;
        let mut proved = Proved::default();
        walk(&transaction, proof, &mut proved, &mut progress)?;
        list(&transaction, proof, &mut proved, &mut behind)?;
        buckets(&transaction, proof, &mut proved)?;
        transaction.execute_batch("DROP TABLE temp.proof")?;
        Ok(proved)
    }
}

/// Walks the journal, and gathers what it has of the line by request.
fn walk(
    connection: &Connection,
    proof: &Proof,
    proved: &mut Proved,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(), LedgerError> {
    let all: i64 =
        connection.query_row("SELECT COALESCE(MAX(seq), 0) FROM journal", [], |row| {
            row.get(0)
        })?;
    let all = all.cast_unsigned();
    let mut gather = connection.prepare(
        "INSERT INTO temp.proof (request_id, quantity, event) VALUES (?1, ?2, ?3)
         ON CONFLICT (request_id) DO UPDATE SET quantity = quantity + excluded.quantity,
           event = excluded.event",
    )?;
    let query = format!("SELECT {} FROM journal ORDER BY seq", journal::COLUMNS);
    let mut statement = connection.prepare(&query)?;
    let lines = statement.query_map([], journal::line)?;
    let mut walk = Walk::default();
    let mut is_whole = true;
    for line in lines {
        let (line, hash) = line?;
        if let (true, Err(broken)) = (is_whole, walk.next(&line, &hash)) {
            is_whole = false;
            proved.problem(|| broken.to_string());
        }
        proved.journal_lines = proved.journal_lines.saturating_add(1);
        if proved.journal_lines.is_multiple_of(TELL_EVERY) {
            progress(proved.journal_lines, all);
        }
        if let Some(delta) = delta(&line, proof) {
            proved.lines = proved.lines.saturating_add(1);
            proved.used = proved.used.saturating_add(delta);
            let id = columns::id_bytes(line.request_id);
            gather.execute(params![id, delta, line.event])?;
        } else if line.tenant == proof.tenant {
            // It may be billed by another event now, and the same on this meter.
            connection
                .prepare_cached("UPDATE temp.proof SET event = ?2 WHERE request_id = ?1")?
                .execute(params![columns::id_bytes(line.request_id), line.event])?;
        }
    }
    progress(proved.journal_lines, all.max(proved.journal_lines));
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
    let mut statement = connection
        .prepare("SELECT request_id, quantity, event FROM temp.proof ORDER BY request_id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = RequestKey {
            id: columns::request_id(row, 0)?,
            tenant: proof.tenant.clone(),
        };
        let (quantity, event): (i64, [u8; 32]) = (row.get(1)?, row.get(2)?);
        let day = super::partitions::day_of_ms(key.id.time_ms());
        let row = match days.contains(&day) {
            true => kept(connection, &key),
            false => Ok(None),
        };
        let is_this = |row: &Kept| {
            let booked = row.posted.get(&proof.meter).copied().unwrap_or(0);
            row.event == Some(event) && booked == quantity
        };
        let witness = match &row {
            Ok(None) if day < kept_from => "dropped",
            Ok(None) => "missing",
            Ok(Some(row)) if is_this(row) => "kept",
            // What can't be read is another one, too.
            Ok(Some(_)) | Err(_) => "differs",
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
            "missing" => proved
                .problem(|| format!("request {}: its events are gone before their time", key.id)),
            _ => {}
        }
        behind(Behind {
            request_id: key.id.to_string(),
            quantity,
            event: hex(&event),
            witness,
        });
    }
    Ok(())
}

/// What the ledger keeps of a request.
struct Kept {
    /// The hash of the event by which it is billed.
    event: Option<[u8; 32]>,
    posted: Quantities,
}

fn kept(connection: &Connection, key: &RequestKey) -> Result<Option<Kept>, LedgerError> {
    let row = super::requests::read(connection, key)?;
    Ok(row.map(|row| Kept {
        event: decisive(&row.events).map(event_hash),
        posted: row.posted,
    }))
}

/// Compares the journal's sum with the buckets, and these with their intents.
fn buckets(connection: &Connection, proof: &Proof, proved: &mut Proved) -> Result<(), LedgerError> {
    let meter = proof.meter.to_string();
    let of = params![proof.from.0, proof.to.0, proof.tenant.as_str(), meter];
    let (accepted, waived): (i64, i64);
    (proved.total, proved.planned, accepted, waived) = connection.query_row(
        "SELECT COALESCE(SUM(total), 0), COALESCE(SUM(planned), 0), COALESCE(SUM(accepted), 0),
           COALESCE(SUM(waived), 0)
         FROM bucket WHERE hour >= ?1 AND hour < ?2 AND tenant = ?3 AND meter = ?4",
        of,
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    // What is told under these hours, and what of them is told under others.
    let mut statement = connection.prepare(
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
    let mut rows = statement.query(of)?;
    while let Some(row) = rows.next()? {
        let is_of_it = hours.contains(&columns::hour(row, 0)?);
        let (hour, stamp) = (columns::hour(row, 0)?, columns::hour(row, 1)?);
        let is_told = hours.contains(&stamp);
        // Only what was too old for its own hour is told under another.
        if stamp != hour && stamp.0 < hour.0.saturating_add(CARRIED_HOURS) {
            proved.problem(|| format!("an intent of hour {hour} is told under hour {stamp}"));
        }
        let state: String = row.get(2)?;
        let delta: i64 = row.get(3)?;
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

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
