//! What Postgres does in its own way: whole batches in one statement, and what several
//! replicas would else be in each other's way for.

pub(super) mod schema;
mod seen;

use std::{borrow::Cow, collections::BTreeMap};

use sqlx::{Arguments as _, Encode, Type, postgres::PgArguments};
use weir_meter_core::{
    journal::Line,
    ledger::{BucketKey, Discrepancy, RequestKey, RequestRow},
};

use super::{
    change::Resolved,
    columns,
    discrepancies::Place,
    packed,
    prove::Gathered,
    requests::{encode, request_row},
};
use crate::{
    sql::{self, Connection, Row, SHARD, Session, storable},
    stream::{Aside, Way},
};
use prost::Message as _;
pub(super) use seen::{forget_seen, read_seen, write_seen};

/// What one transaction at a time does, of all replicas'.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lock {
    /// Changes of the tables' form.
    Schema,
    /// Making the table of a day.
    Days,
    /// What producers numbered.
    Gaps,
}

impl Lock {
    /// Its number among Postgres' advisory locks: `weir` and one of ours.
    const fn number(self) -> i64 {
        const OURS: i64 = 0x7765_6972_0000_0000;
        OURS | match self {
            Self::Schema => 1,
            Self::Days => 2,
            Self::Gaps => 3,
        }
    }
}

/// Waits for a lock, and holds it until the transaction ends.
pub(super) fn lock(connection: &Connection, lock: Lock) -> sql::Result<()> {
    match connection.postgres() {
        Some(mut session) => lock_by(&mut session, lock),
        None => Ok(()),
    }
}

fn lock_by(session: &mut Session, lock: Lock) -> sql::Result<()> {
    session.batch(&format!("SELECT pg_advisory_xact_lock({})", lock.number()))
}

/// Values of a statement.
#[derive(Default)]
pub(super) struct Values(PgArguments);

impl Values {
    pub(super) fn with<'v, T: Encode<'v, sqlx::Postgres> + Type<sqlx::Postgres> + 'v>(
        mut self,
        value: T,
    ) -> sql::Result<Self> {
        let added = self.0.add(value);
        added.map_err(|_| sql::Error::Misused("a batch is too large"))?;
        Ok(self)
    }

    pub(super) fn into_arguments(self) -> PgArguments {
        self.0
    }
}

fn ids<'k>(keys: impl Iterator<Item = &'k RequestKey>) -> Vec<[u8; 16]> {
    keys.map(|key| columns::id_bytes(key.id)).collect()
}

/// Makes a day's table.
pub(super) fn create_day(connection: &Connection, table: &str) -> sql::Result<()> {
    // Two that make the same at once would else fail.
    lock(connection, Lock::Days)?;
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (
           request_id BYTEA NOT NULL,
           tenant TEXT COLLATE \"C\" NOT NULL,
           shard SMALLINT NOT NULL DEFAULT {SHARD},
           events BYTEA NOT NULL,
           posted BYTEA NOT NULL,
           due_ms BIGINT,
           PRIMARY KEY (request_id, tenant)
         );
         CREATE INDEX IF NOT EXISTS {table}_due ON {table} (shard, due_ms)
           WHERE due_ms IS NOT NULL;"
    ))
}

/// The requests of these keys, each where there is one; one may be unreadable.
pub(super) fn read_requests(
    session: &mut Session,
    table: &str,
    keys: &[RequestKey],
) -> sql::Result<Vec<Option<sql::Result<RequestRow>>>> {
    let tenants: Vec<&str> = keys.iter().map(|key| key.tenant.as_str()).collect();
    let values = Values::default().with(ids(keys.iter()))?.with(tenants)?;
    let rows = session.query(
        &format!(
            "SELECT r.events, r.posted, r.due_ms, k.n
             FROM UNNEST($1, $2) WITH ORDINALITY AS k (id, tenant, n)
             JOIN {table} AS r ON r.request_id = k.id AND r.tenant = k.tenant"
        ),
        values.0,
    )?;
    let mut found: Vec<Option<sql::Result<RequestRow>>> = keys.iter().map(|_| None).collect();
    for row in &rows {
        let row = Row::Postgres(row);
        let number: i64 = row.get(3)?;
        let place = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        if let Some(place) = found.get_mut(place) {
            *place = Some(request_row(&row));
        }
    }
    Ok(found)
}

/// Writes requests in the place of what was there.
pub(super) fn write_requests(
    session: &mut Session,
    table: &str,
    rows: &[(RequestKey, RequestRow)],
) -> sql::Result<()> {
    let tenants: Vec<&str> = rows.iter().map(|(key, _)| key.tenant.as_str()).collect();
    let events: Vec<Vec<u8>> = rows.iter().map(|(_, row)| encode(&row.events)).collect();
    let posted: Vec<Vec<u8>> = rows
        .iter()
        .map(|(_, row)| packed::pack(&row.posted))
        .collect();
    let due: Vec<Option<i64>> = rows.iter().map(|(_, row)| row.due_ms).collect();
    let values = Values::default()
        .with(ids(rows.iter().map(|(key, _)| key)))?
        .with(tenants)?
        .with(events)?
        .with(posted)?
        .with(due)?;
    session.execute(
        &format!(
            "INSERT INTO {table} (request_id, tenant, events, posted, due_ms)
             SELECT * FROM UNNEST($1, $2, $3, $4, $5)
             ON CONFLICT (request_id, tenant) DO UPDATE SET events = excluded.events,
               posted = excluded.posted, due_ms = excluded.due_ms"
        ),
        values.0,
    )?;
    Ok(())
}

/// Appends lines to the shard's chain.
pub(super) fn append(session: &mut Session, lines: &[(Line, [u8; 32])]) -> sql::Result<()> {
    let tenants: Vec<&str> = lines.iter().map(|(line, _)| line.tenant.as_str()).collect();
    let ids: Vec<[u8; 16]> = lines
        .iter()
        .map(|(line, _)| columns::id_bytes(line.request_id))
        .collect();
    let events: Vec<&[u8]> = lines.iter().map(|(line, _)| &line.event[..]).collect();
    let deltas: Vec<Vec<u8>> = lines
        .iter()
        .map(|(line, _)| packed::pack(&line.deltas))
        .collect();
    let hashes: Vec<&[u8]> = lines.iter().map(|(_, hash)| &hash[..]).collect();
    let values = Values::default()
        .with(ids)?
        .with(tenants)?
        .with(events)?
        .with(deltas)?
        .with(hashes)?;
    session.execute(
        &format!(
            "INSERT INTO journal (seq, request_id, tenant, event, deltas, hash)
             SELECT (SELECT COALESCE(MAX(seq), 0) FROM journal WHERE shard = {SHARD}) + n,
               id, tenant, event, deltas, hash
             FROM UNNEST($1, $2, $3, $4, $5) WITH ORDINALITY
               AS l (id, tenant, event, deltas, hash, n)"
        ),
        values.0,
    )?;
    Ok(())
}

/// Adds to buckets, of which no two are the same.
pub(super) fn add(session: &mut Session, changes: &[(BucketKey, i64)]) -> sql::Result<()> {
    let hours: Vec<i64> = changes.iter().map(|(key, _)| key.hour.0).collect();
    let tenants: Vec<&str> = changes.iter().map(|(key, _)| key.tenant.as_str()).collect();
    let meters: Vec<String> = changes
        .iter()
        .map(|(key, _)| key.meter.to_string())
        .collect();
    let deltas: Vec<i64> = changes.iter().map(|(_, delta)| *delta).collect();
    let values = Values::default()
        .with(hours)?
        .with(tenants)?
        .with(meters)?
        .with(deltas)?;
    session.execute(
        "INSERT INTO bucket (hour, tenant, meter, total)
         SELECT * FROM UNNEST($1, $2, $3, $4)
         ON CONFLICT (hour, tenant, meter) DO UPDATE SET
           total = bucket.total + excluded.total, is_open = TRUE",
        values.0,
    )?;
    Ok(())
}

/// Lists what does not fit.
pub(super) fn note(session: &mut Session, found: &[Discrepancy], now_ms: i64) -> sql::Result<()> {
    // The same twice in one statement is refused; the last one counts, as one by one.
    let mut by_place = BTreeMap::new();
    for one in found {
        let Place(hour, meter, id) = Place::of(one.request.as_ref(), one.bucket.as_ref());
        let key = (hour, one.kind.as_str(), one.tenant.as_str(), meter, id);
        // What was listed first keeps its event.
        let event = one.event.as_ref().map(|event| event.encode_to_vec());
        let entry = by_place.entry(key).or_insert((event, ""));
        entry.1 = &*one.detail;
    }
    let keys = || by_place.keys();
    let events: Vec<Option<&[u8]>> = by_place.values().map(|one| one.0.as_deref()).collect();
    let details: Vec<Cow<str>> = by_place.values().map(|one| storable(one.1)).collect();
    let values = Values::default()
        .with(keys().map(|key| key.0).collect::<Vec<i64>>())?
        .with(keys().map(|key| key.1).collect::<Vec<&str>>())?
        .with(keys().map(|key| key.2).collect::<Vec<&str>>())?
        .with(keys().map(|key| &*key.3).collect::<Vec<&str>>())?
        .with(keys().map(|key| &*key.4).collect::<Vec<&[u8]>>())?
        .with(details)?
        .with(events)?
        .with(now_ms)?;
    session.execute(
        "INSERT INTO discrepancy
           (hour, kind, tenant, meter, request_id, detail, event, noted_ms)
         SELECT l.*, $8 FROM UNNEST($1, $2, $3, $4, $5, $6, $7) AS l
         ON CONFLICT (hour, kind, tenant, meter, request_id) DO UPDATE SET
           detail = excluded.detail, resolved_ms = NULL
         WHERE discrepancy.resolved_ms IS NOT NULL OR discrepancy.detail <> excluded.detail",
        values.0,
    )?;
    Ok(())
}

/// Marks what was listed as resolved.
pub(super) fn resolve(session: &mut Session, resolved: &[Resolved]) -> sql::Result<()> {
    let places = || resolved.iter().map(|one| &one.2);
    let values = Values::default()
        .with(places().map(|place| place.0).collect::<Vec<i64>>())?
        .with(
            resolved
                .iter()
                .map(|one| one.0.as_str())
                .collect::<Vec<&str>>(),
        )?
        .with(resolved.iter().map(|one| &*one.1).collect::<Vec<&str>>())?
        .with(places().map(|place| &*place.1).collect::<Vec<&str>>())?
        .with(places().map(|place| &*place.2).collect::<Vec<&[u8]>>())?
        .with(resolved.iter().map(|one| one.3).collect::<Vec<i64>>())?;
    session.execute(
        "UPDATE discrepancy AS d SET resolved_ms = l.now_ms
         FROM UNNEST($1, $2, $3, $4, $5, $6) AS l (hour, kind, tenant, meter, id, now_ms)
         WHERE d.hour = l.hour AND d.kind = l.kind AND d.tenant = l.tenant
           AND d.meter = l.meter AND d.request_id = l.id AND d.resolved_ms IS NULL",
        values.0,
    )?;
    Ok(())
}

/// Sets aside what can't be booked, of a producer, as it came.
pub(super) fn set_aside(
    session: &mut Session,
    aside: &[Aside],
    (producer, way): (Option<&str>, Way),
    now_ms: i64,
) -> sql::Result<()> {
    let texts = |of: fn(&Aside) -> Option<&str>| -> Vec<Option<Cow<'_, str>>> {
        aside.iter().map(|one| of(one).map(storable)).collect()
    };
    let bytes: Vec<&[u8]> = aside.iter().map(|one| &*one.bytes).collect();
    let values = Values::default()
        .with(texts(|one| Some(&one.reason)))?
        .with(bytes)?
        .with(texts(|one| one.place.as_deref()))?
        .with(producer.map(storable))?
        .with(way.as_str())?
        .with(now_ms)?;
    session.execute(
        "INSERT INTO quarantine (reason, event, place, producer, way, at_ms)
         SELECT l.*, $4, $5, $6 FROM UNNEST($1, $2, $3) AS l ON CONFLICT DO NOTHING",
        values.0,
    )?;
    Ok(())
}

/// Takes what a page of the journal has of requests to what is proved.
pub(super) fn gather(session: &mut Session, gathered: &Gathered) -> sql::Result<()> {
    let values = |with_delta: bool| {
        let of = || {
            gathered
                .iter()
                .filter(move |one| one.1.0.is_some() == with_delta)
        };
        Values::default()
            .with(of().map(|one| &one.0[..]).collect::<Vec<&[u8]>>())?
            .with(of().map(|one| one.1.0.unwrap_or(0)).collect::<Vec<i64>>())?
            .with(of().map(|one| &one.1.1[..]).collect::<Vec<&[u8]>>())
    };
    session.execute(
        "INSERT INTO proof (request_id, quantity, event) SELECT * FROM UNNEST($1, $2, $3)
         ON CONFLICT (request_id) DO UPDATE SET
           quantity = proof.quantity + excluded.quantity, event = excluded.event",
        values(true)?.0,
    )?;
    session.execute(
        "UPDATE proof SET event = l.event FROM UNNEST($1, $2, $3) AS l (id, quantity, event)
         WHERE proof.request_id = l.id",
        values(false)?.0,
    )?;
    Ok(())
}
