//! The results as tables and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};
use weir_harness::envoy::FILTERS;

use crate::{
    series::{Round, Variant},
    stats::{Spread, pairs, spread},
};

/// What was measured on one gateway.
#[derive(Debug)]
pub struct Measured {
    /// The gateway.
    pub variant: Variant,
    /// Its rounds; round `n` of one gateway pairs with round `n` of another.
    pub rounds: Vec<Round>,
}

/// A measure and the digits it is printed with.
type Column = (&'static str, fn(&Round) -> f64, usize);

const COLUMNS: [Column; 4] = [
    ("requests/s", |r| r.per_second, 0),
    ("p50 µs", |r| r.p50_us, 0),
    ("p99 µs", |r| r.p99_us, 0),
    ("CPU µs/request", |r| r.cpu_us, 1),
];

impl Measured {
    fn label(&self) -> String {
        match self.variant.filters {
            count if self.variant.folder.is_some() => format!("the other {count} filters"),
            0 => "bare Envoy".to_owned(),
            count if count == FILTERS.len() => format!("all {count} filters"),
            1 => format!("1 filter: {}", self.last_filter()),
            count => format!("{count} filters: + {}", self.last_filter()),
        }
    }

    fn last_filter(&self) -> &'static str {
        FILTERS
            .get(self.variant.filters.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }

    fn values(&self, of: fn(&Round) -> f64) -> Vec<f64> {
        self.rounds.iter().map(of).collect()
    }

    /// Pair by pair: how much more CPU than `base`, in µs, and how many times
    /// as much.
    fn cpu_over(&self, base: &Self) -> (Spread, Spread) {
        let (base, own) = (base.values(|r| r.cpu_us), self.values(|r| r.cpu_us));
        (
            spread(&pairs(&base, &own, |a, b| b - a)),
            spread(&pairs(&base, &own, |a, b| b / a)),
        )
    }
}

/// Everything as text; the first of `all` is what the others are compared with.
#[must_use]
pub fn text(all: &[Measured]) -> String {
    let mut rows = vec![header("median (min–max)", COLUMNS.map(|c| c.0.to_owned()))];
    for one in all {
        let cells = COLUMNS.map(|(_, of, digits)| show(spread(&one.values(of)), digits));
        rows.push(header(&one.label(), cells));
    }
    let mut out = table(&rows);
    let Some((base, others)) = all.split_first() else {
        return out;
    };
    let mut rows = vec![header(
        "pair by pair against bare Envoy",
        [
            "CPU µs/request more",
            "CPU ratio",
            "p50 µs more",
            "requests/s ratio",
        ]
        .map(str::to_owned),
    )];
    for one in others {
        let (more, ratio) = one.cpu_over(base);
        let p50 = pairs(
            &base.values(|r| r.p50_us),
            &one.values(|r| r.p50_us),
            |a, b| b - a,
        );
        let speed = |m: &Measured| m.values(|r| r.per_second);
        let slower = pairs(&speed(base), &speed(one), |a, b| b / a);
        let cells = [
            show(more, 1),
            show(ratio, 2),
            show(spread(&p50), 0),
            show(spread(&slower), 2),
        ];
        rows.push(header(&one.label(), cells));
    }
    let _ = write!(out, "\n{}", table(&rows));
    if all.len() > 2 {
        let _ = write!(out, "\n{}", table(&steps(all)));
    }
    out
}

/// What each gateway costs over the one before it.
fn steps(all: &[Measured]) -> Vec<Vec<String>> {
    let mut rows = vec![vec![
        "pair by pair against the row before".to_owned(),
        "CPU µs/request more".to_owned(),
    ]];
    for (before, one) in all.iter().zip(all.iter().skip(1)) {
        let step = one.variant.filters.saturating_sub(before.variant.filters);
        let name = match (&one.variant.folder, step) {
            (Some(_), _) => "the other filters over these".to_owned(),
            (None, 1) => one.last_filter().to_owned(),
            (None, _) => one.label(),
        };
        rows.push(vec![name, show(one.cpu_over(before).0, 1)]);
    }
    rows
}

fn header(first: &str, cells: [String; 4]) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(cells).collect()
}

/// `median (min–max)` with so many digits.
#[must_use]
pub fn show(spread: Spread, digits: usize) -> String {
    format!(
        "{:.digits$} ({:.digits$}–{:.digits$})",
        spread.median, spread.min, spread.max
    )
}

/// Rows in columns: the first to the left, the others to the right.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String can't fail.
            let _ = match column {
                0 => write!(out, "{cell:<width$}"),
                _ => write!(out, "  {cell:>width$}"),
            };
        }
        out.push('\n');
    }
    out
}

/// Every round of every gateway, and the comparisons.
#[must_use]
pub fn json(machine: &str, arguments: &Value, all: &[Measured]) -> Value {
    let spread_json = |s: Spread| json!({"median": s.median, "min": s.min, "max": s.max});
    let gateways: Vec<Value> = all
        .iter()
        .map(|one| {
            let names: Vec<&str> = FILTERS.iter().take(one.variant.filters).copied().collect();
            let (more, ratio) = one.cpu_over(all.first().unwrap_or(one));
            json!({
                "filters": names,
                "other": one.variant.folder.is_some(),
                "rounds": one.rounds,
                "cpu_us_more_than_bare": spread_json(more),
                "cpu_ratio_to_bare": spread_json(ratio),
            })
        })
        .collect();
    json!({"machine": machine, "arguments": arguments, "gateways": gateways})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(filters: usize, cpu_us: &[f64]) -> Measured {
        let round = |cpu_us: &f64| Round {
            per_second: 1_000.0,
            p50_us: 500.0,
            p99_us: 900.0,
            cpu_us: *cpu_us,
        };
        Measured {
            variant: Variant {
                filters,
                folder: None,
            },
            rounds: cpu_us.iter().map(round).collect(),
        }
    }

    #[test]
    fn the_tables_compare_round_by_round() {
        let all = [
            measured(0, &[100.0, 50.0, 80.0]),
            measured(1, &[110.0, 60.0, 90.0]),
            measured(4, &[160.0, 80.0, 128.0]),
        ];
        let text = text(&all);
        assert!(text.contains("80.0 (50.0–100.0)"), "{text}");
        assert!(text.contains("1.60 (1.60–1.60)"), "{text}");
        assert!(text.contains("48.0 (30.0–60.0)"), "{text}");
        assert!(text.contains("38.0 (20.0–50.0)"), "{text}");
        let json = json("m", &json!({}), &all);
        assert_eq!(json["gateways"][2]["cpu_us_more_than_bare"]["median"], 48.0);
    }

    #[test]
    fn a_table_is_aligned() {
        let rows = [
            vec!["a".to_owned(), "µ1".to_owned()],
            vec!["bb".to_owned(), "2".to_owned()],
        ];
        assert_eq!(table(&rows), "a   µ1\nbb   2\n");
    }
}
