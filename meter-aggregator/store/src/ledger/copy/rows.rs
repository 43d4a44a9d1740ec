//! Tables as they are copied: which columns they have, and a page of rows.

use std::collections::BTreeSet;

use weir_meter_core::lease::Shard;
use weir_wire::ids::TenantId;

use super::super::{journal, partitions, postgres::Values};
use crate::sql::{self, Connection, OptionalExtension as _, Param, Row, Session, storable};

/// How many rows go over at a time.
const PAGE: i64 = 1_000;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Flag,
    Text,
    Bytes,
}

/// A table to be copied.
pub(super) struct Table {
    pub(super) name: String,
    /// The day whose requests it has.
    pub(super) day: Option<i64>,
    /// The first ones are its key.
    columns: &'static [(&'static str, Kind)],
    key: usize,
}

/// A column's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Number(Option<i64>),
    Flag(bool),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// A row's values, in the order of the columns.
pub(super) type Cells = Vec<Cell>;

use Kind::{Bytes, Flag, Number, Text};

/// Each table's name, its columns, and how many of them are its key.
type Form = (&'static str, &'static [(&'static str, Kind)], usize);

const REQUEST: Form = (
    "request",
    &[
        ("request_id", Bytes),
        ("tenant", Text),
        ("events", Bytes),
        ("posted", Bytes),
        ("due_ms", Number),
    ],
    2,
);

const FORMS: [Form; 15] = [
    ("progress", &[("name", Text), ("number", Number)], 1),
    (
        "bucket",
        &[
            ("hour", Number),
            ("tenant", Text),
            ("meter", Text),
            ("total", Number),
            ("planned", Number),
            ("revision", Number),
            ("accepted", Number),
            ("waived", Number),
            ("is_open", Flag),
        ],
        3,
    ),
    (
        "journal",
        &[
            ("seq", Number),
            ("request_id", Bytes),
            ("tenant", Text),
            ("event", Bytes),
            ("deltas", Bytes),
            ("hash", Bytes),
        ],
        1,
    ),
    (
        "intent",
        &[
            ("id", Number),
            ("hour", Number),
            ("tenant", Text),
            ("meter", Text),
            ("revision", Number),
            ("generation", Number),
            ("delta", Number),
            ("identifier", Text),
            ("timestamp_s", Number),
            ("state", Text),
            ("first_attempt_ms", Number),
            ("last_attempt_ms", Number),
            ("answers", Number),
            ("unknown", Number),
            ("not_before_ms", Number),
            ("reading_sum", Number),
            ("reading_ms", Number),
            ("reason", Text),
            ("carried_from", Number),
        ],
        1,
    ),
    (
        "adjustment",
        &[
            ("id", Number),
            ("hour", Number),
            ("tenant", Text),
            ("meter", Text),
            ("delta", Number),
            ("kind", Text),
            ("source", Number),
            ("state", Text),
            ("intent", Number),
            ("proposed_ms", Number),
            ("decided_ms", Number),
        ],
        1,
    ),
    (
        "discrepancy",
        &[
            ("id", Number),
            ("hour", Number),
            ("kind", Text),
            ("tenant", Text),
            ("meter", Text),
            ("request_id", Bytes),
            ("detail", Text),
            ("event", Bytes),
            ("noted_ms", Number),
            ("resolved_ms", Number),
        ],
        1,
    ),
    (
        "run",
        &[
            ("id", Number),
            ("witness", Number),
            ("run", Text),
            ("highest", Number),
            ("unfollowed", Number),
            ("last_ms", Number),
        ],
        1,
    ),
    (
        "gap",
        &[
            ("run_id", Number),
            ("first", Number),
            ("last", Number),
            ("since_ms", Number),
            ("told", Flag),
        ],
        2,
    ),
    ("log", &[("path", Text), ("since_ns", Number)], 1),
    (
        "log_file",
        &[
            ("path", Text),
            ("host", Text),
            ("device", Number),
            ("inode", Number),
            ("fingerprint", Bytes),
            ("head_bytes", Number),
            ("offset", Number),
            ("modified_ns", Number),
            ("read_ms", Number),
        ],
        5,
    ),
    (
        "webhook",
        &[
            ("id", Text),
            ("type", Text),
            ("about", Text),
            ("at_ms", Number),
            ("done", Number),
            ("tries", Number),
            ("not_before_ms", Number),
            ("problem", Text),
        ],
        1,
    ),
    (
        "suspension",
        &[
            ("tenant", Text),
            ("hold", Text),
            ("at_ms", Number),
            ("problem", Text),
        ],
        1,
    ),
    ("due_invoice", &[("tenant", Text), ("invoice", Text)], 2),
    (
        "meter_error",
        &[
            ("event", Text),
            ("code", Text),
            ("meter_id", Text),
            ("at_ms", Number),
            ("count", Number),
            ("message", Text),
            ("identifiers", Text),
        ],
        2,
    ),
    (
        "quarantine",
        &[
            ("id", Number),
            ("at_ms", Number),
            ("reason", Text),
            ("event", Bytes),
            ("place", Text),
            ("producer", Text),
            ("way", Text),
        ],
        1,
    ),
];

/// Tables whose rows have a tenant's shard.
const OF_SHARDS: [&str; 4] = ["bucket", "intent", "adjustment", "discrepancy"];

/// All of them, with those of the days.
pub(super) fn tables(days: &BTreeSet<i64>) -> Vec<Table> {
    let table = |(name, columns, key): Form, day| Table {
        name: match day {
            Some(day) => partitions::table(day),
            None => name.to_owned(),
        },
        day,
        columns,
        key,
    };
    let requests = days.iter().map(|day| table(REQUEST, Some(*day)));
    let others = FORMS.into_iter().map(|form| table(form, None));
    others.chain(requests).collect()
}

impl Table {
    /// The values of a row's key.
    pub(super) fn key_of(&self, row: &Cells) -> Cells {
        row.iter().take(self.key).cloned().collect()
    }

    fn columns(&self) -> String {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        names.join(", ")
    }

    /// The columns of the key, with their order: byte by byte, as SQLite's.
    fn keys(&self, connection: &Connection, order: &str) -> Vec<String> {
        let keys = self.columns.iter().take(self.key);
        keys.map(|(name, kind)| match kind {
            Text if connection.is_postgres() => format!("\"{name}\" COLLATE \"C\"{order}"),
            _ => format!("\"{name}\"{order}"),
        })
        .collect()
    }

    /// The rows of a table that came from SQLite.
    fn only(&self, connection: &Connection) -> String {
        match self.name.as_str() {
            "journal" if connection.is_postgres() => format!("shard = {}", journal::COPIED),
            _ => "1 = 1".to_owned(),
        }
    }

    fn read(&self, row: &Row<'_>, columns: usize) -> sql::Result<Cells> {
        let cells = self.columns.iter().take(columns).enumerate();
        cells
            .map(|(place, (_, kind))| {
                Ok(match kind {
                    Number => Cell::Number(row.get(place)?),
                    Flag => Cell::Flag(row.get(place)?),
                    // As Postgres has it.
                    Text => Cell::Text(row.get(place).map(|text: Option<String>| {
                        text.map(|text| storable(&text).into_owned())
                    })?),
                    Bytes => Cell::Bytes(row.get(place)?),
                })
            })
            .collect()
    }

    /// The shard of a row, where it has one.
    fn shard(&self, row: &Cells) -> Option<i64> {
        if self.name == "journal" {
            return Some(journal::COPIED);
        }
        if self.day.is_none() && !OF_SHARDS.contains(&&*self.name) {
            return None;
        }
        let tenant = self
            .columns
            .iter()
            .position(|(name, _)| *name == "tenant")?;
        match row.get(tenant)? {
            Cell::Text(Some(tenant)) => {
                let tenant = TenantId::new(tenant.as_str()).ok()?;
                Some(Shard::of(&tenant).number().into())
            }
            _ => None,
        }
    }
}

/// Where the target goes on: its last key.
pub(super) fn after(connection: &Connection, table: &Table) -> sql::Result<Option<Cells>> {
    let names = table.keys(connection, "");
    let query = format!(
        "SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT 1",
        names.join(", "),
        table.name,
        table.only(connection),
        table.keys(connection, " DESC").join(", ")
    );
    connection
        .query_row(&query, [], |row| table.read(row, table.key))
        .optional()
}

/// The next rows after a key.
pub(super) fn page(
    connection: &Connection,
    table: &Table,
    after: Option<&[Cell]>,
) -> sql::Result<Vec<Cells>> {
    let keys = table.keys(connection, "");
    let places: Vec<String> = (1..=keys.len()).map(|n| format!("?{n}")).collect();
    let beyond = match after {
        Some(_) => format!("({}) > ({})", keys.join(", "), places.join(", ")),
        None => "1 = 1".to_owned(),
    };
    let query = format!(
        "SELECT {} FROM {} WHERE {} AND {beyond} ORDER BY {} LIMIT {PAGE}",
        table.columns(),
        table.name,
        table.only(connection),
        keys.join(", ")
    );
    let params: Vec<&dyn Param> = after
        .into_iter()
        .flatten()
        .map(|cell| -> &dyn Param {
            match cell {
                Cell::Number(value) => value,
                Cell::Flag(value) => value,
                Cell::Text(value) => value,
                Cell::Bytes(value) => value,
            }
        })
        .collect();
    connection
        .prepare_cached(&query)?
        .query_map(&*params, |row| table.read(row, table.columns.len()))?
        .collect()
}

/// Writes rows to Postgres.
pub(super) fn write(session: &mut Session, table: &Table, rows: &[Cells]) -> sql::Result<()> {
    let mut values = Values::default();
    for (place, (_, kind)) in table.columns.iter().enumerate() {
        let cells = rows.iter().map(|row| row.get(place));
        values = match kind {
            Number => values.with(
                cells
                    .map(|cell| match cell {
                        Some(Cell::Number(value)) => *value,
                        _ => None,
                    })
                    .collect::<Vec<Option<i64>>>(),
            )?,
            Flag => values.with(
                cells
                    .map(|cell| cell == Some(&Cell::Flag(true)))
                    .collect::<Vec<bool>>(),
            )?,
            Text => values.with(
                cells
                    .map(|cell| match cell {
                        Some(Cell::Text(value)) => value.as_deref(),
                        _ => None,
                    })
                    .collect::<Vec<Option<&str>>>(),
            )?,
            Bytes => values.with(
                cells
                    .map(|cell| match cell {
                        Some(Cell::Bytes(value)) => value.as_deref(),
                        _ => None,
                    })
                    .collect::<Vec<Option<&[u8]>>>(),
            )?,
        };
    }
    let (mut columns, mut count) = (table.columns(), table.columns.len());
    let shards: Vec<Option<i64>> = rows.iter().map(|row| table.shard(row)).collect();
    if shards.iter().any(Option::is_some) {
        columns.push_str(", shard");
        count = count.saturating_add(1);
        values = values.with(shards)?;
    }
    let places: Vec<String> = (1..=count).map(|n| format!("${n}")).collect();
    session.execute(
        &format!(
            "INSERT INTO {} ({columns}) SELECT * FROM UNNEST({})",
            table.name,
            places.join(", ")
        ),
        values.into_arguments(),
    )?;
    Ok(())
}
