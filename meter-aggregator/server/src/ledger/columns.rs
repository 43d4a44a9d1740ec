//! Columns as values, and back.

use std::fmt;

use rusqlite::{Connection, OptionalExtension as _, Row, params, types::Type};
use weir_meter_core::{hour::Hour, meter::Meter};
use weir_wire::ids::{RequestId, TenantId};

/// Something in the ledger is not what this program writes.
#[derive(Debug)]
struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the ledger holds {}", self.0)
    }
}

impl std::error::Error for Unreadable {}

/// The error for a column that holds what this program does not write.
pub(super) fn unreadable(column: usize, what: impl fmt::Debug) -> rusqlite::Error {
    let what = format!("{what:?}").chars().take(80).collect();
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(Unreadable(what)))
}

/// Reads a name.
pub(super) fn parsed<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let name = row.get_ref(column)?.as_str()?;
    parse(name).ok_or_else(|| unreadable(column, name))
}

pub(super) fn tenant(row: &Row<'_>, column: usize) -> rusqlite::Result<TenantId> {
    parsed(row, column, |name| TenantId::new(name).ok())
}

pub(super) fn meter(row: &Row<'_>, column: usize) -> rusqlite::Result<Meter> {
    parsed(row, column, |name| Meter::parse(name).ok())
}

pub(super) fn hour(row: &Row<'_>, column: usize) -> rusqlite::Result<Hour> {
    row.get(column).map(Hour)
}

/// A request's id, as its 16 bytes.
pub(super) fn id_bytes(id: RequestId) -> [u8; 16] {
    id.as_u128().to_be_bytes()
}

pub(super) fn request_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RequestId> {
    let bits = u128::from_be_bytes(row.get(column)?);
    RequestId::from_u128(bits).ok_or_else(|| unreadable(column, bits))
}

/// How far something was taken.
pub(super) fn progress(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    let number = connection
        .prepare_cached("SELECT number FROM progress WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(number.unwrap_or(0))
}

/// Says how far something was taken.
pub(super) fn set_progress(
    connection: &Connection,
    name: &str,
    number: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO progress (name, number) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET number = excluded.number",
        )?
        .execute(params![name, number])?;
    Ok(())
}

/// Every row of a query without parameters.
pub(super) fn all<T>(
    connection: &Connection,
    query: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection
        .prepare_cached(query)?
        .query_map([], read)?
        .collect()
}
