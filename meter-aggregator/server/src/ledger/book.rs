//! Booking: from events of the stream to postings, buckets and journal.

use prost::Message as _;
use rusqlite::{OptionalExtension as _, Transaction, params};
use sha2::{Digest as _, Sha256};
use weir_meter_core::fold::{Arrival, arrival, fold};
use weir_wire::{
    ids::RequestId,
    proto::usage::UsageEvent,
    usage::{cloudevents, rank},
};

use super::{Hour, Ledger, LedgerError, Meter, gaps::Runs, journal};

impl Ledger {
    /// The number of the last event of the stream that is booked.
    pub fn booked_upto(&self) -> Result<i64, LedgerError> {
        self.progress("stream")
    }

    /// How far something was taken.
    pub(super) fn progress(&self, name: &str) -> Result<i64, LedgerError> {
        Ok(self
            .connection
            .prepare_cached("SELECT number FROM progress WHERE name = ?1")?
            .query_row([name], |r| r.get(0))
            .optional()?
            .unwrap_or(0))
    }

    /// Books events, and the number of the last of them in the same
    /// transaction: after a crash the stream is read on from there.
    /// Numbers that the events passed over are missing from `now_ms` on.
    pub fn book(&mut self, events: &[(i64, String)], now_ms: i64) -> Result<(), LedgerError> {
        let Some((last, _)) = events.last() else {
            return Ok(());
        };
        let transaction = self.connection.transaction()?;
        let mut runs = Runs::new(now_ms);
        for (seq, text) in events {
            let event = cloudevents::decode(text.as_bytes())
                .map_err(|source| LedgerError::Event { seq: *seq, source })?;
            book_event(&transaction, &event)?;
            runs.see(
                &transaction,
                event.witness,
                &event.producer_run,
                event.sequence,
            )?;
        }
        runs.save(&transaction)?;
        set_progress(&transaction, "stream", *last)?;
        transaction.commit()?;
        Ok(())
    }

    /// Walks the journal and says whether every hash follows from the one
    /// before.
    #[cfg(test)]
    pub fn journal_holds(&self) -> Result<bool, LedgerError> {
        let mut before = journal::GENESIS;
        let mut statement = self.connection.prepare(
            "SELECT tenant, request_id, meter, hour, delta, hash FROM journal ORDER BY seq",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (tenant, request_id): (String, String) = (row.get(0)?, row.get(1)?);
            let hash = journal::chain(
                &before,
                &journal::Line {
                    tenant: &tenant,
                    request_id: &request_id,
                    meter: super::parsed(row, "meter", Meter::parse)?,
                    hour: super::hour(row, "hour")?,
                    delta: row.get(4)?,
                },
            );
            if row.get::<_, [u8; 32]>(5)? != hash {
                return Ok(false);
            }
            before = hash;
        }
        Ok(true)
    }
}

/// Says how far something was taken.
pub(super) fn set_progress(
    transaction: &Transaction<'_>,
    name: &str,
    number: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO progress (name, number) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET number = excluded.number",
        )?
        .execute(params![name, number])?;
    Ok(())
}

fn book_event(transaction: &Transaction<'_>, event: &UsageEvent) -> Result<(), LedgerError> {
    if !take_witness(transaction, event)? {
        return Ok(());
    }
    // The events of a stream were checked when they were taken in.
    let Ok(request_id) = RequestId::parse(&event.request_id) else {
        tracing::error!(request_id = %event.request_id, "an event without a request id was skipped");
        return Ok(());
    };
    let hour = Hour::of_ms(request_id.time_ms());
    let witnesses: Vec<UsageEvent> = transaction
        .prepare_cached("SELECT event FROM witness WHERE tenant = ?1 AND request_id = ?2")?
        .query_map(params![event.tenant, event.request_id], |row| {
            row.get::<_, Vec<u8>>(0)
        })?
        .filter_map(|bytes| {
            bytes
                .map(|b| UsageEvent::decode(b.as_slice()).ok())
                .transpose()
        })
        .collect::<rusqlite::Result<_>>()?;
    let billed = fold(&witnesses);
    for meter in Meter::ALL {
        post(transaction, event, meter, hour, billed.on(meter))?;
    }
    Ok(())
}

/// Whether the witness is new or better, so that its request folds anew.
fn take_witness(transaction: &Transaction<'_>, event: &UsageEvent) -> rusqlite::Result<bool> {
    let bytes = event.encode_to_vec();
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let rank = rank(event);
    let first: Option<(u8, Vec<u8>)> = transaction
        .prepare_cached(
            "SELECT rank, hash FROM witness WHERE tenant = ?1 AND request_id = ?2 AND witness = ?3",
        )?
        .query_row(
            params![event.tenant, event.request_id, event.witness],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let decision = first
        .as_ref()
        .map(|(first_rank, first_hash)| arrival((*first_rank, first_hash), (rank, &hash)));
    let table = match decision {
        None | Some(Arrival::Replace) => {
            "INSERT OR REPLACE INTO witness
            (tenant, request_id, witness, rank, hash, event) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
        }
        Some(Arrival::Ignore) => return Ok(false),
        Some(Arrival::Conflict) => {
            tracing::warn!(request_id = %event.request_id, "a witness contradicts itself");
            transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO conflict (tenant, request_id, witness, hash, event)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    event.tenant,
                    event.request_id,
                    event.witness,
                    hash,
                    bytes
                ])?;
            return Ok(false);
        }
    };
    transaction.prepare_cached(table)?.execute(params![
        event.tenant,
        event.request_id,
        event.witness,
        rank,
        hash,
        bytes
    ])?;
    Ok(true)
}

/// Sets a posting and moves its bucket and the journal by the difference.
fn post(
    transaction: &Transaction<'_>,
    event: &UsageEvent,
    meter: Meter,
    hour: Hour,
    quantity: i64,
) -> rusqlite::Result<()> {
    let before: i64 = transaction
        .prepare_cached(
            "SELECT quantity FROM posting WHERE tenant = ?1 AND request_id = ?2 AND meter = ?3",
        )?
        .query_row(
            params![event.tenant, event.request_id, meter.as_str()],
            |r| r.get(0),
        )
        .optional()?
        .unwrap_or(0);
    let delta = quantity.saturating_sub(before);
    if delta == 0 {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO posting (tenant, request_id, meter, hour, quantity)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            event.tenant,
            event.request_id,
            meter.as_str(),
            hour.0,
            quantity
        ])?;
    transaction
        .prepare_cached(
            "INSERT INTO bucket (tenant, meter, hour, total, planned, revision)
             VALUES (?1, ?2, ?3, ?4, 0, 0)
             ON CONFLICT (tenant, meter, hour) DO UPDATE SET total = total + excluded.total",
        )?
        .execute(params![event.tenant, meter.as_str(), hour.0, delta])?;
    append_journal(
        transaction,
        &journal::Line {
            tenant: &event.tenant,
            request_id: &event.request_id,
            meter,
            hour,
            delta,
        },
    )
}

fn append_journal(transaction: &Transaction<'_>, line: &journal::Line<'_>) -> rusqlite::Result<()> {
    let before: [u8; 32] = transaction
        .prepare_cached("SELECT hash FROM journal ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?
        .unwrap_or(journal::GENESIS);
    transaction
        .prepare_cached(
            "INSERT INTO journal (tenant, request_id, meter, hour, delta, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            line.tenant,
            line.request_id,
            line.meter.as_str(),
            line.hour.0,
            line.delta,
            journal::chain(&before, line)
        ])?;
    Ok(())
}
