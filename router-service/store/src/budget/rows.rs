//! The book's rows in SQLite.

use rusqlite::{Connection, Result, Transaction, params, types::Type};
use weir_router_core::budget::{
    Account, Book, Happened, Letter, Month, Open, Progress, REMEMBERED_MS, Record, Row, Swept,
    Taken,
};
use weir_wire::ids::{RequestId, TenantId};

/// So many settled requests are forgotten at once.
const FORGOTTEN_AT_ONCE: i64 = 500;

/// The tables. Requests are in the order of their ids' times, so that new ones are
/// written side by side and old ones are found without an index.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS accounts (
  tenant TEXT NOT NULL, month INTEGER NOT NULL, spend INTEGER NOT NULL,
  held INTEGER NOT NULL, told INTEGER NOT NULL, ceiling INTEGER,
  PRIMARY KEY (tenant, month)
) WITHOUT ROWID;
-- state: 0 held until time_ms, 1 swept at, 2 settled at.
CREATE TABLE IF NOT EXISTS requests (
  id BLOB NOT NULL, tenant TEXT NOT NULL, state INTEGER NOT NULL, time_ms INTEGER NOT NULL,
  amount INTEGER, step INTEGER, tokens INTEGER, slot INTEGER,
  micros INTEGER, progress_tokens INTEGER, note BLOB,
  PRIMARY KEY (id, tenant)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slots (
  tenant TEXT NOT NULL, slot INTEGER NOT NULL, tokens INTEGER NOT NULL,
  PRIMARY KEY (tenant, slot)
) WITHOUT ROWID;
-- percent is of an alert, request of a sweep.
CREATE TABLE IF NOT EXISTS letters (
  tenant TEXT NOT NULL, name TEXT NOT NULL, at_ms INTEGER NOT NULL,
  percent INTEGER, month INTEGER, spend INTEGER, ceiling INTEGER,
  request BLOB, micros INTEGER, tokens INTEGER, note BLOB,
  PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), seen_ms INTEGER NOT NULL);
";

/// Writes a row, or takes it away.
pub(super) fn write(to: &Transaction<'_>, row: &Row) -> Result<()> {
    match row {
        Row::Account(tenant, month, account) => write_account(to, tenant, *month, account.as_ref()),
        Row::Request(tenant, id, record) => write_request(to, tenant, *id, record.as_ref()),
        Row::Slot(tenant, slot, Some(tokens)) => run(
            to,
            "INSERT OR REPLACE INTO slots VALUES (?1, ?2, ?3)",
            params![tenant.as_str(), int(*slot), int(*tokens)],
        ),
        Row::Slot(tenant, slot, None) => run(
            to,
            "DELETE FROM slots WHERE tenant = ?1 AND slot = ?2",
            params![tenant.as_str(), int(*slot)],
        ),
        Row::Letter(tenant, name, letter) => write_letter(to, tenant, name, letter.as_ref()),
    }
}

fn write_account(
    to: &Transaction<'_>,
    tenant: &TenantId,
    month: Month,
    account: Option<&Account>,
) -> Result<()> {
    let Some(account) = account else {
        let sql = "DELETE FROM accounts WHERE tenant = ?1 AND month = ?2";
        return run(to, sql, params![tenant.as_str(), month.0]);
    };
    run(
        to,
        "INSERT OR REPLACE INTO accounts VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            tenant.as_str(),
            month.0,
            int(account.spend),
            int(account.held),
            account.told,
            account.ceiling.map(int),
        ],
    )
}

fn write_request(
    to: &Transaction<'_>,
    tenant: &TenantId,
    id: RequestId,
    record: Option<&Record>,
) -> Result<()> {
    let id = id.as_u128().to_be_bytes();
    let tenant = tenant.as_str();
    match record {
        None => run(
            to,
            "DELETE FROM requests WHERE id = ?1 AND tenant = ?2",
            params![id, tenant],
        ),
        Some(Record::Held(open)) => run(
            to,
            "INSERT OR REPLACE INTO requests VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                id,
                tenant,
                int(open.expires_ms),
                int(open.amount),
                open.step,
                int(open.taken.tokens),
                int(open.taken.slot),
                int(open.progress.micros),
                int(open.progress.tokens),
                open.progress.note,
            ],
        ),
        Some(Record::Swept(swept)) => run(
            to,
            "INSERT OR REPLACE INTO requests (id, tenant, state, time_ms, tokens, slot, micros)
             VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6)",
            params![
                id,
                tenant,
                int(swept.at_ms),
                int(swept.taken.tokens),
                int(swept.taken.slot),
                int(swept.micros),
            ],
        ),
        Some(Record::Settled { at_ms }) => run(
            to,
            "INSERT OR REPLACE INTO requests (id, tenant, state, time_ms) VALUES (?1, ?2, 2, ?3)",
            params![id, tenant, int(*at_ms)],
        ),
    }
}

fn write_letter(
    to: &Transaction<'_>,
    tenant: &TenantId,
    name: &str,
    letter: Option<&Letter>,
) -> Result<()> {
    let tenant = tenant.as_str();
    let Some(letter) = letter else {
        let sql = "DELETE FROM letters WHERE tenant = ?1 AND name = ?2";
        return run(to, sql, params![tenant, name]);
    };
    match &letter.what {
        Happened::Reached {
            month,
            percent,
            spend,
            ceiling,
        } => run(
            to,
            "INSERT OR REPLACE INTO letters (tenant, name, at_ms, percent, month, spend, ceiling)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                tenant,
                name,
                int(letter.at_ms),
                percent,
                month.0,
                int(*spend),
                int(*ceiling),
            ],
        ),
        Happened::Swept { id, progress } => run(
            to,
            "INSERT OR REPLACE INTO letters (tenant, name, at_ms, request, micros, tokens, note)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                tenant,
                name,
                int(letter.at_ms),
                id.as_u128().to_be_bytes(),
                int(progress.micros),
                int(progress.tokens),
                progress.note,
            ],
        ),
    }
}

/// Notes the store's clock, and takes away some of what is settled since longer than
/// it is remembered.
pub(super) fn write_clock(to: &Transaction<'_>, now_ms: u64) -> Result<()> {
    run(
        to,
        "INSERT OR REPLACE INTO clock VALUES (1, ?1)",
        params![int(now_ms)],
    )
}

/// Takes away some of what was settled longer ago than it is remembered.
pub(super) fn forget(to: &Transaction<'_>, now_ms: u64) -> Result<()> {
    // An id is older than its settling, so none of those comes after this one.
    let over_ms = now_ms.saturating_sub(REMEMBERED_MS.saturating_add(24 * 3_600 * 1_000));
    let last = (u128::from(over_ms) << 80).to_be_bytes();
    run(
        to,
        "DELETE FROM requests WHERE (id, tenant) IN (
           SELECT id, tenant FROM requests
           WHERE id < ?1 AND state = 2 AND time_ms < ?2 LIMIT ?3)",
        params![last, int(over_ms), FORGOTTEN_AT_ONCE],
    )
}

fn run(to: &Transaction<'_>, sql: &str, parameters: impl rusqlite::Params) -> Result<()> {
    to.prepare_cached(sql)?.execute(parameters).map(drop)
}

/// When the store was last written, on its clock.
pub(super) fn seen_ms(from: &Connection) -> Result<u64> {
    let mut statement = from.prepare("SELECT seen_ms FROM clock")?;
    let mut rows = statement.query([])?;
    rows.next()?.map_or(Ok(0), |row| number(row, 0))
}

/// Gives the book all that was written.
pub(super) fn load(from: &Connection, book: &mut Book) -> Result<()> {
    load_each(from, "SELECT * FROM accounts", book, |row| {
        let account = Account {
            spend: number(row, 2)?,
            held: number(row, 3)?,
            told: row.get(4)?,
            ceiling: optional(row, 5)?,
        };
        Ok(Row::Account(
            tenant(row, 0)?,
            Month(row.get(1)?),
            Some(account),
        ))
    })?;
    load_each(from, "SELECT * FROM requests", book, |row| {
        let record = record(row)?;
        Ok(Row::Request(tenant(row, 1)?, id(row, 0)?, Some(record)))
    })?;
    load_each(from, "SELECT * FROM slots", book, |row| {
        Ok(Row::Slot(
            tenant(row, 0)?,
            number(row, 1)?,
            Some(number(row, 2)?),
        ))
    })?;
    load_each(from, "SELECT * FROM letters", book, |row| {
        let letter = Letter {
            at_ms: number(row, 2)?,
            what: happened(row)?,
        };
        Ok(Row::Letter(tenant(row, 0)?, row.get(1)?, Some(letter)))
    })
}

fn load_each(
    from: &Connection,
    sql: &str,
    book: &mut Book,
    read: impl Fn(&rusqlite::Row<'_>) -> Result<Row>,
) -> Result<()> {
    let mut statement = from.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        book.load(read(row)?);
    }
    Ok(())
}

fn record(row: &rusqlite::Row<'_>) -> Result<Record> {
    let time_ms = number(row, 3)?;
    let taken = || {
        Ok::<_, rusqlite::Error>(Taken {
            tokens: number(row, 6)?,
            slot: number(row, 7)?,
        })
    };
    match row.get::<_, i64>(2)? {
        0 => Ok(Record::Held(Open {
            amount: number(row, 4)?,
            expires_ms: time_ms,
            taken: taken()?,
            step: row.get(5)?,
            progress: Progress {
                micros: number(row, 8)?,
                tokens: number(row, 9)?,
                note: row.get(10)?,
            },
        })),
        1 => Ok(Record::Swept(Swept {
            micros: number(row, 8)?,
            taken: taken()?,
            at_ms: time_ms,
        })),
        2 => Ok(Record::Settled { at_ms: time_ms }),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(2, other)),
    }
}

fn happened(row: &rusqlite::Row<'_>) -> Result<Happened> {
    let Some(percent) = row.get(3)? else {
        return Ok(Happened::Swept {
            id: id(row, 7)?,
            progress: Progress {
                micros: number(row, 8)?,
                tokens: number(row, 9)?,
                note: row.get(10)?,
            },
        });
    };
    Ok(Happened::Reached {
        month: Month(row.get(4)?),
        percent,
        spend: number(row, 5)?,
        ceiling: number(row, 6)?,
    })
}

fn tenant(row: &rusqlite::Row<'_>, at: usize) -> Result<TenantId> {
    TenantId::new(row.get::<_, String>(at)?)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(e)))
}

fn id(row: &rusqlite::Row<'_>, at: usize) -> Result<RequestId> {
    let bits = u128::from_be_bytes(row.get(at)?);
    let wrong = || {
        let why = format!("{bits:032x} is no UUIDv7");
        rusqlite::Error::FromSqlConversionFailure(at, Type::Blob, why.into())
    };
    RequestId::from_u128(bits).ok_or_else(wrong)
}

fn number(row: &rusqlite::Row<'_>, at: usize) -> Result<u64> {
    let n: i64 = row.get(at)?;
    u64::try_from(n).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, n))
}

fn optional(row: &rusqlite::Row<'_>, at: usize) -> Result<Option<u64>> {
    let n: Option<i64> = row.get(at)?;
    n.map(|_| number(row, at)).transpose()
}

/// SQLite's numbers end at 2^63 − 1, which no sum here comes near.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
