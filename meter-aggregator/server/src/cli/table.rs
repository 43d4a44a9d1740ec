//! Tables for a terminal, JSON for everyone else.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Rows of cells under a head.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Self { rows: vec![head] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Each column as wide as its widest cell.
    pub(super) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0_usize; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<String>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// A cell of a value: `-` where there is none.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        // What a client sent may hold anything.
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        other => other.to_string(),
    }
}

/// A cell of milliseconds of the Unix epoch, such as `2026-11-23T14:00:00Z`.
pub(super) fn time_cell(value: &Value) -> String {
    value
        .as_i64()
        .and_then(|ms| OffsetDateTime::from_unix_timestamp(ms.div_euclid(1_000)).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "-".to_owned())
}

/// A cell of an hour's first second, such as `2026-11-23 14:00`.
pub(super) fn hour_cell(value: &Value) -> String {
    let time = value
        .as_i64()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    match time {
        Some(time) => format!("{} {:02}:00", time.date(), time.hour()),
        None => "-".to_owned(),
    }
}

/// Prints a table at a terminal, JSON elsewhere or where it is asked for.
pub(super) fn show(
    answer: &Value,
    json: bool,
    table: impl FnOnce(&Value) -> String,
) -> anyhow::Result<()> {
    match json || !std::io::stdout().is_terminal() {
        true => print(&format!("{answer:#}\n")),
        false => print(&table(answer)),
    }
}

/// Prints; that nobody reads on is no fault, such as with `| head`.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot print")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(["value".to_owned(), cell(&json!("x\u{1b}[2J"))]);
        table.row([cell(&json!("")), cell(&json!(7))]);
        assert_eq!(table.text(), "A      LONG\nvalue  x[2J\n-      7\n");
    }

    #[test]
    fn a_time_is_read_in_utc() {
        assert_eq!(time_cell(&json!(60_000)), "1970-01-01T00:01:00Z");
        assert_eq!(time_cell(&json!(null)), "-");
        assert_eq!(hour_cell(&json!(1_795_442_400)), "2026-11-23 14:00");
        assert_eq!(hour_cell(&json!(-3_600)), "1969-12-31 23:00");
    }
}
