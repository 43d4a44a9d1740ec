//! Columns as values, and back.

use crate::sql::{self, Connection, OptionalExtension as _, Row, params};
use std::fmt;

use weir_meter_core::{hour::Hour, meter::Meter};
use weir_wire::ids::{RequestId, TenantId};

/// The error for a column that holds what this program does not write.
pub(super) fn unreadable(column: usize, what: impl fmt::Debug) -> sql::Error {
    let what = format!("{what:?}").chars().take(80).collect();
    sql::Error::Unreadable { column, what }
}

/// Reads a name.
pub(super) fn parsed<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> sql::Result<T> {
    let name = row.text(column)?;
    parse(name).ok_or_else(|| unreadable(column, name))
}

pub(super) fn tenant(row: &Row<'_>, column: usize) -> sql::Result<TenantId> {
    parsed(row, column, |name| TenantId::new(name).ok())
}

pub(super) fn meter(row: &Row<'_>, column: usize) -> sql::Result<Meter> {
    parsed(row, column, |name| Meter::parse(name).ok())
}

pub(super) fn hour(row: &Row<'_>, column: usize) -> sql::Result<Hour> {
    row.get(column).map(Hour)
}

/// A request's id, as its 16 bytes.
pub(super) fn id_bytes(id: RequestId) -> [u8; 16] {
    id.as_u128().to_be_bytes()
}

pub(super) fn request_id(row: &Row<'_>, column: usize) -> sql::Result<RequestId> {
    let bits = u128::from_be_bytes(row.get(column)?);
    RequestId::from_u128(bits).ok_or_else(|| unreadable(column, bits))
}

/// How far something was taken.
pub(super) fn progress(connection: &Connection, name: &str) -> sql::Result<i64> {
    let number = connection
        .prepare_cached("SELECT number FROM progress WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(number.unwrap_or(0))
}

/// Says how far something was taken.
pub(super) fn set_progress(connection: &Connection, name: &str, number: i64) -> sql::Result<()> {
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
    read: impl FnMut(&Row<'_>) -> sql::Result<T>,
) -> sql::Result<Vec<T>> {
    connection
        .prepare_cached(query)?
        .query_map([], read)?
        .collect()
}
