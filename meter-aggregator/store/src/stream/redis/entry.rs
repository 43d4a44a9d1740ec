//! Entries of a Redis stream: their ids, their place, and what an answer has of them.

use std::fmt;

use redis::Value;

/// How many bits of a place tell entries of one millisecond apart.
const SEQUENCE_BITS: u32 = 22;

/// The field of an entry that holds an event; an entry has it many times.
pub(super) const FIELD: &str = "e";

/// An entry's id: the server's time in milliseconds, and a number within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    pub(super) ms: u64,
    pub(super) sequence: u64,
}

impl Id {
    /// Reads `ms-sequence`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ms, sequence) = text.split_once('-')?;
        Some(Self {
            ms: ms.parse().ok()?,
            sequence: sequence.parse().ok()?,
        })
    }

    /// Where the entry stands, as a number: `ms << 22 | sequence`. Of entries until
    /// September 2039 (2^41 ms), the first four million (2^22) of a millisecond; `None`
    /// beyond.
    pub(super) fn place(self) -> Option<i64> {
        if self.sequence >> SEQUENCE_BITS != 0 {
            return None;
        }
        let ms = i64::try_from(self.ms).ok()?;
        let place = ms.checked_mul(1 << SEQUENCE_BITS)?;
        place.checked_add(i64::try_from(self.sequence).ok()?)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

/// An entry that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: Id,
    pub(super) events: Vec<String>,
}

impl Entry {
    /// Bytes of its events.
    pub(super) fn bytes(&self) -> usize {
        let sizes = self.events.iter().map(String::len);
        sizes.fold(0, usize::saturating_add)
    }
}

/// An answer that is nothing that Redis gives, or an entry that is none of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) String);

fn unknown(what: &str) -> Unknown {
    Unknown(what.to_owned())
}

/// The entries in the answer to XREADGROUP on one stream; none where it is nil.
pub(super) fn of_read(answer: Value) -> Result<Vec<Entry>, Unknown> {
    if answer == Value::Nil {
        return Ok(Vec::new());
    }
    let wrong = || unknown("an answer to XREADGROUP");
    // The same in RESP3, as a map.
    let entries = match answer {
        Value::Array(streams) => match streams.into_iter().next() {
            Some(Value::Array(stream)) => stream.into_iter().nth(1),
            _ => None,
        },
        Value::Map(streams) => streams.into_iter().next().map(|(_, entries)| entries),
        _ => None,
    };
    entries_of(entries.ok_or_else(wrong)?)
}

/// What XAUTOCLAIM answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    /// From where to go on; `None` where that was all.
    pub(super) next: Option<Id>,
    pub(super) entries: Vec<Entry>,
    /// Entries that were read, not acknowledged, and are gone.
    pub(super) deleted: Vec<Id>,
}

pub(super) fn of_claim(answer: Value) -> Result<Claimed, Unknown> {
    let wrong = || unknown("an answer to XAUTOCLAIM");
    let Value::Array(parts) = answer else {
        return Err(wrong());
    };
    let mut parts = parts.into_iter();
    let next = id_of(&parts.next().ok_or_else(wrong)?)?;
    let entries = entries_of(parts.next().ok_or_else(wrong)?)?;
    let Some(Value::Array(deleted)) = parts.next() else {
        return Err(wrong());
    };
    Ok(Claimed {
        next: (next.ms > 0 || next.sequence > 0).then_some(next),
        entries,
        deleted: deleted.iter().map(id_of).collect::<Result<_, _>>()?,
    })
}

fn entries_of(value: Value) -> Result<Vec<Entry>, Unknown> {
    let Value::Array(entries) = value else {
        return Err(unknown("an answer without entries"));
    };
    entries.into_iter().map(entry_of).collect()
}

fn entry_of(value: Value) -> Result<Entry, Unknown> {
    let Value::Array(parts) = value else {
        return Err(unknown("an entry without id and fields"));
    };
    let mut parts = parts.into_iter();
    let id = id_of(&parts.next().unwrap_or(Value::Nil))?;
    let Some(Value::Array(fields)) = parts.next() else {
        return Err(Unknown(format!("entry {id} without fields")));
    };
    let mut events = Vec::with_capacity(fields.len() / 2);
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let (name, text) = (text_of(name)?, text_of(value)?);
        // What somebody else wrote is handed on, and set aside by who reads: it must not
        // keep what is behind it from being booked.
        events.push(match name == FIELD {
            true => text,
            false => format!("{name}={text}"),
        });
    }
    Ok(Entry { id, events })
}

fn id_of(value: &Value) -> Result<Id, Unknown> {
    let text = match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text.as_str()),
        _ => None,
    };
    text.and_then(Id::parse)
        .ok_or_else(|| unknown("an id that is none"))
}

/// A text; what is none in UTF-8 with marks in the place of what is wrong.
fn text_of(value: Value) -> Result<String, Unknown> {
    match value {
        Value::BulkString(bytes) => Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())),
        Value::SimpleString(text) => Ok(text),
        _ => Err(unknown("an entry with what is no text")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn places_are_in_the_order_of_ids(
            a in (0..1_u64 << 41, 0..1_u64 << 22),
            b in (0..1_u64 << 41, 0..1_u64 << 22),
        ) {
            let id = |(ms, sequence)| Id { ms, sequence };
            let (a, b) = (id(a), id(b));
            prop_assert!(a.place().unwrap() >= 0);
            prop_assert_eq!(a.place().cmp(&b.place()), a.cmp(&b));
            prop_assert_eq!(Id::parse(&a.to_string()), Some(a));
        }

        #[test]
        fn no_text_is_taken_for_an_id_that_it_is_not(text in "[0-9-]{0,30}") {
            if let Some(id) = Id::parse(&text) {
                prop_assert_eq!(Id::parse(&id.to_string()), Some(id));
            }
        }
    }

    #[test]
    fn a_place_beyond_the_bounds_is_none() {
        let check = |ms, sequence, expected| {
            assert_eq!(Id { ms, sequence }.place(), expected, "{ms}-{sequence}");
        };
        check(0, 0, Some(0));
        check(1, 0, Some(1 << 22));
        check(1, 5, Some((1 << 22) + 5));
        check((1 << 41) - 1, (1 << 22) - 1, Some(i64::MAX));
        check(1 << 41, 0, None);
        check(u64::MAX, 0, None);
        check(1, 1 << 22, None);
        check(1, u64::MAX, None);
    }
}
