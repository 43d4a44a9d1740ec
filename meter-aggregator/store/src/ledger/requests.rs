//! Requests: how they are kept, and how an operator looks them up.

use std::collections::BTreeSet;

use prost::Message as _;
use weir_meter_core::{
    ledger::{RequestKey, RequestRow},
    shown::{self, Request},
    tariff::Tariff,
};
use weir_wire::{
    ids::{RequestId, TenantId},
    proto::usage::{PublishRequest, UsageEvent},
};

use super::{
    Change, Ledger, LedgerError, columns,
    packed::{pack, unpack},
    partitions::{create, day_of_ms, table},
    postgres,
};
use crate::sql::{self, Connection, OptionalExtension as _, Row, of_shard, params};

/// The day in whose table a request stands.
fn day(key: &RequestKey) -> i64 {
    day_of_ms(key.id.time_ms())
}

/// The parts of `keys` that stand in one table after the other.
fn by_day<T>(rows: &[T], day: impl Fn(&T) -> i64 + Copy) -> impl Iterator<Item = (i64, &[T])> {
    rows.chunk_by(move |a, b| day(a) == day(b))
        .filter_map(move |rows| Some((day(rows.first()?), rows)))
}

impl Change<'_> {
    pub(super) fn read_requests(
        &mut self,
        keys: &[RequestKey],
    ) -> sql::Result<Vec<Option<RequestRow>>> {
        let mut found = Vec::with_capacity(keys.len());
        for (day, keys) in by_day(keys, day) {
            if !self.has_day(day)? {
                found.extend(keys.iter().map(|_| None));
                continue;
            }
            if let Some(mut session) = self.transaction.postgres() {
                for row in postgres::read_requests(&mut session, &table(day), keys)? {
                    found.push(row.transpose()?);
                }
                continue;
            }
            let mut statement = self.transaction.prepare_cached(&format!(
                "SELECT events, posted, due_ms FROM {} WHERE request_id = ?1 AND tenant = ?2",
                table(day)
            ))?;
            for key in keys {
                let key = params![columns::id_bytes(key.id), key.tenant.as_str()];
                found.push(statement.query_row(key, request_row).optional()?);
            }
        }
        Ok(found)
    }

    pub(super) fn write_requests(&mut self, rows: &[(RequestKey, RequestRow)]) -> sql::Result<()> {
        for (day, rows) in by_day(rows, |(key, _)| day(key)) {
            if !self.has_day(day)? {
                create(&self.transaction, day)?;
                self.partitions.insert(day);
            }
            if let Some(mut session) = self.transaction.postgres() {
                postgres::write_requests(&mut session, &table(day), rows)?;
                continue;
            }
            let mut statement = self.transaction.prepare_cached(&format!(
                "INSERT INTO {} (request_id, tenant, events, posted, due_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (request_id, tenant) DO UPDATE SET events = excluded.events,
                   posted = excluded.posted, due_ms = excluded.due_ms",
                table(day)
            ))?;
            for (key, row) in rows {
                statement.execute(params![
                    columns::id_bytes(key.id),
                    key.tenant.as_str(),
                    encode(&row.events),
                    pack(&row.posted),
                    row.due_ms
                ])?;
            }
        }
        Ok(())
    }

    pub(super) fn read_due(&mut self, now_ms: i64, limit: usize) -> sql::Result<Vec<RequestKey>> {
        let mut found: Vec<(i64, RequestKey)> = Vec::new();
        if self.transaction.is_postgres() {
            // Whoever held the shard before may have made some.
            self.look_for_days()?;
        }
        let of_day = |day: &i64| {
            format!(
                "SELECT due_ms, request_id, tenant FROM {} WHERE due_ms IS NOT NULL
                   AND due_ms <= ?1 {} ORDER BY due_ms LIMIT ?2",
                table(*day),
                of_shard!()
            )
        };
        let mut queries: Vec<String> = self.partitions.iter().map(of_day).collect();
        if self.transaction.is_postgres() && !queries.is_empty() {
            // One question in the place of forty.
            queries = vec![format!("({})", queries.join(") UNION ALL ("))];
        }
        for query in queries {
            let rows = self
                .transaction
                .prepare_cached(&query)?
                .query_map(params![now_ms, limit as i64], |row| {
                    Ok((row.get(0)?, request_key(row, 1)?))
                })?
                .collect::<sql::Result<Vec<_>>>()?;
            found.extend(rows);
        }
        found.sort_unstable();
        found.truncate(limit);
        Ok(found.into_iter().map(|(_, key)| key).collect())
    }
}

/// Events as protobuf's repeated field.
pub(super) fn encode(events: &[UsageEvent]) -> Vec<u8> {
    let length = events.iter().map(UsageEvent::encoded_len).sum::<usize>();
    let mut out = Vec::with_capacity(length.saturating_add(16));
    for event in events {
        prost::encoding::message::encode(1, event, &mut out);
    }
    out
}

fn request_key(row: &Row<'_>, column: usize) -> sql::Result<RequestKey> {
    Ok(RequestKey {
        id: columns::request_id(row, column)?,
        tenant: columns::tenant(row, column.saturating_add(1))?,
    })
}

pub(super) fn request_row(row: &Row<'_>) -> sql::Result<RequestRow> {
    let posted = row.blob(1)?;
    Ok(RequestRow {
        events: events(row, 0)?,
        posted: unpack(posted).ok_or_else(|| columns::unreadable(1, posted))?,
        due_ms: row.get(2)?,
    })
}

fn events(row: &Row<'_>, column: usize) -> sql::Result<Vec<UsageEvent>> {
    let bytes = row.blob(column)?;
    let decoded =
        PublishRequest::decode(bytes).map_err(|error| columns::unreadable(column, error))?;
    Ok(decoded.events)
}

/// What the ledger has of requests, of which it may be that one can't be read.
pub(super) fn read(
    connection: &Connection,
    days: &BTreeSet<i64>,
    keys: &[RequestKey],
) -> sql::Result<Vec<Option<sql::Result<RequestRow>>>> {
    let mut found = Vec::with_capacity(keys.len());
    for (day, keys) in by_day(keys, day) {
        if !days.contains(&day) {
            found.extend(keys.iter().map(|_| None));
            continue;
        }
        if let Some(mut session) = connection.postgres() {
            found.extend(postgres::read_requests(&mut session, &table(day), keys)?);
            continue;
        }
        let mut statement = connection.prepare_cached(&format!(
            "SELECT events, posted, due_ms FROM {} WHERE request_id = ?1 AND tenant = ?2",
            table(day)
        ))?;
        for key in keys {
            let key = params![columns::id_bytes(key.id), key.tenant.as_str()];
            found.push(statement.query_row(key, request_row).optional().transpose());
        }
    }
    Ok(found)
}

/// Which requests are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of that tenant alone.
    pub tenant: Option<String>,
    /// That one alone.
    pub request_id: Option<String>,
    /// Not older; milliseconds of the Unix epoch.
    pub since_ms: Option<i64>,
    /// Older than this one.
    pub before: Option<String>,
    /// How many at the most.
    pub limit: u32,
}

impl Wanted {
    /// The ids that are looked for: from the first to the second, neither below nor above.
    fn bounds(&self) -> Option<(u128, u128)> {
        let id = |text: &String| RequestId::parse(text).ok().map(|id| id.as_u128());
        if let Some(only) = &self.request_id {
            return id(only).map(|id| (id, id));
        }
        let from = self.since_ms.map_or(0, first_id);
        let upto = match &self.before {
            Some(before) => id(before)?.checked_sub(1)?,
            None => u128::MAX,
        };
        Some((from, upto))
    }
}

/// The least that the ids of that millisecond can be (RFC 9562, section 5.7).
fn first_id(ms: i64) -> u128 {
    u128::from(ms.clamp(0, (1 << 48) - 1).cast_unsigned()) << 80
}

/// The day of the ids of those bits.
fn day_of_id(id: u128) -> i64 {
    day_of_ms(i64::try_from(id >> 80).unwrap_or(i64::MAX))
}

impl Ledger {
    /// The newest requests that are wanted, the newest first. Those that still wait for
    /// their second witness are among them.
    pub fn requests(&self, wanted: &Wanted, tariff: &Tariff) -> Result<Vec<Request>, LedgerError> {
        let mut found = Vec::new();
        let (Some((from, upto)), Ok(tenant)) = (
            wanted.bounds(),
            wanted.tenant.as_deref().map(TenantId::new).transpose(),
        ) else {
            return Ok(found);
        };
        let limit = wanted.limit as usize;
        let days = super::partitions::days(&self.connection)?;
        let days = days.into_iter().rev();
        for day in days.filter(|day| (day_of_id(from)..=day_of_id(upto)).contains(day)) {
            if found.len() >= limit {
                break;
            }
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT events FROM {} WHERE request_id BETWEEN ?1 AND ?2
                   AND (?3 IS NULL OR tenant = ?3)
                 ORDER BY request_id DESC, tenant DESC LIMIT ?4",
                table(day)
            ))?;
            let left = limit.saturating_sub(found.len()) as i64;
            let rows = statement.query_map(
                params![
                    from.to_be_bytes(),
                    upto.to_be_bytes(),
                    tenant.as_ref().map(TenantId::as_str),
                    left
                ],
                |row| events(row, 0),
            )?;
            for events in rows {
                found.extend(shown::request(&events?, tariff));
            }
        }
        Ok(found)
    }

    /// How many requests wait for their second witness.
    pub fn waiting(&self) -> Result<i64, LedgerError> {
        let mut waiting = 0_i64;
        for day in super::partitions::days(&self.connection)? {
            let count: i64 = self
                .connection
                .prepare_cached(&format!(
                    "SELECT COUNT(*) FROM {} WHERE due_ms IS NOT NULL",
                    table(day)
                ))?
                .query_row([], |row| row.get(0))?;
            waiting = waiting.saturating_add(count);
        }
        Ok(waiting)
    }
}
