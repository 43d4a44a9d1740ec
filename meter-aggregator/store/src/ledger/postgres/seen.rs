//! What the shards saw of producers' numbers, until it is folded into the runs: no two
//! transactions change the same row.

use std::{borrow::Cow, collections::BTreeMap};

use prost::encoding::{decode_varint, encode_varint};

use super::Values;
use crate::sql::{self, Connection, Row, Session, storable};

/// The longest name of a run that is taken note of, in bytes. Ingest takes none that is
/// longer, and an index of Postgres' has no room for a very long one.
const RUN_MAX_BYTES: usize = 64;

/// The most rows that are folded at a time.
const FOLDED_MAX: i64 = 2_000;

/// The most rows that are looked at beside them, which are too new.
const NEWER_MAX: i64 = 10_000;

/// What was seen.
pub(in crate::ledger) struct Seen {
    /// Of each witness' run the numbers, in their order, and when each came.
    pub(in crate::ledger) numbers: BTreeMap<(i32, String), Vec<(u64, i64)>>,
    /// The rows that are done with.
    pub(in crate::ledger) ids: Vec<i64>,
}

/// Adds what a transaction saw; an event without a run or a number says nothing.
pub(in crate::ledger) fn write_seen<'e>(
    session: &mut Session,
    came: impl Iterator<Item = (i32, &'e str, u64)>,
    now_ms: i64,
) -> sql::Result<()> {
    let mut runs: BTreeMap<(i32, &str), Vec<u64>> = BTreeMap::new();
    for (witness, run, number) in came {
        if (1..=RUN_MAX_BYTES).contains(&run.len()) && number != 0 {
            runs.entry((witness, run)).or_default().push(number);
        }
    }
    if runs.is_empty() {
        return Ok(());
    }
    let witnesses: Vec<i64> = runs.keys().map(|run| run.0.into()).collect();
    let names: Vec<Cow<str>> = runs.keys().map(|run| storable(run.1)).collect();
    let numbers: Vec<Vec<u8>> = runs.values().map(|numbers| pack(numbers)).collect();
    let values = Values::default()
        .with(witnesses)?
        .with(names)?
        .with(numbers)?
        .with(now_ms)?;
    session.execute(
        "INSERT INTO seen (witness, run, numbers, at_ms)
         SELECT l.*, $4 FROM UNNEST($1, $2, $3) AS l",
        values.0,
    )?;
    Ok(())
}

/// What was seen up to that time and is not folded; `None` where there is nothing. Of what
/// was seen later there is what lies below the highest number of it: other shards' parts of
/// the same.
pub(in crate::ledger) fn read_seen(
    connection: &Connection,
    upto_ms: i64,
) -> sql::Result<Option<Seen>> {
    let read = |of: &str, limit: i64| {
        connection
            .prepare_cached(&format!(
                "SELECT id, witness, run, numbers, at_ms FROM seen WHERE at_ms {of} ?1
                 ORDER BY id LIMIT ?2"
            ))?
            .query_map([upto_ms, limit], row)?
            .collect::<sql::Result<Vec<_>>>()
    };
    let mut numbers: BTreeMap<(i32, String), Vec<(u64, i64)>> = BTreeMap::new();
    let mut ids = Vec::new();
    for (id, run, of_row) in read("<=", FOLDED_MAX)? {
        ids.push(id);
        numbers.entry(run).or_default().extend(of_row);
    }
    if ids.is_empty() {
        return Ok(None);
    }
    let highest: BTreeMap<(i32, String), u64> = numbers
        .iter()
        .map(|(run, of_run)| {
            let numbers = of_run.iter().map(|(number, _)| *number);
            (run.clone(), numbers.max().unwrap_or(0))
        })
        .collect();
    for (_, run, of_row) in read(">", NEWER_MAX)? {
        let (Some(of_run), Some(highest)) = (numbers.get_mut(&run), highest.get(&run)) else {
            continue;
        };
        of_run.extend(of_row.into_iter().filter(|(number, _)| number <= highest));
    }
    for of_run in numbers.values_mut() {
        of_run.sort_unstable();
    }
    Ok(Some(Seen { numbers, ids }))
}

type SeenRow = (i64, (i32, String), Vec<(u64, i64)>);

fn row(row: &Row<'_>) -> sql::Result<SeenRow> {
    let at_ms: i64 = row.get(4)?;
    let numbers = unpack(row.blob(3)?).into_iter();
    Ok((
        row.get(0)?,
        (row.get(1)?, row.get(2)?),
        numbers.map(|number| (number, at_ms)).collect(),
    ))
}

/// Forgets what was folded.
pub(in crate::ledger) fn forget_seen(connection: &Connection, ids: &[i64]) -> sql::Result<()> {
    if let Some(mut session) = connection.postgres() {
        let values = Values::default().with(ids.to_vec())?;
        session.execute("DELETE FROM seen WHERE id = ANY($1)", values.0)?;
    }
    Ok(())
}

/// Numbers as the varints of protobuf, each less the one before, which is smaller.
fn pack(numbers: &[u64]) -> Vec<u8> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let (mut out, mut before) = (Vec::with_capacity(sorted.len()), 0);
    for number in sorted {
        encode_varint(number.wrapping_sub(before), &mut out);
        before = number;
    }
    out
}

/// Reads what [`pack`] wrote, as far as that is it.
fn unpack(mut bytes: &[u8]) -> Vec<u64> {
    let (mut numbers, mut before) = (Vec::new(), 0_u64);
    while !bytes.is_empty() {
        let Ok(step) = decode_varint(&mut bytes) else {
            break;
        };
        before = before.wrapping_add(step);
        numbers.push(before);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn numbers_are_read_as_they_were_written(numbers in prop::collection::btree_set(any::<u64>(), 0..50)) {
            let numbers: Vec<u64> = numbers.into_iter().collect();
            let shuffled: Vec<u64> = numbers.iter().rev().chain(&numbers).copied().collect();
            prop_assert_eq!(unpack(&pack(&shuffled)), numbers);
        }

        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = unpack(&bytes);
        }
    }
}
